"""A folder of modules that goes along with a job: what is left out, and what is too much."""

import importlib
import sys
from pathlib import Path

import pytest

from search_server.errors import JobError
from search_server.packing import MIB, packed
from workers.modules import MODULES, add_user_modules


def fill(folder: Path) -> None:
    for name in (
        *("heads/one.py", "two.py", "heads/__pycache__/one.pyc", ".git/config", "data/x.json"),
        *("weights.pth", "notes/three.md", "work_dirs/log"),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def test_what_no_module_needs_stays(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    found = packed(tmp_path, ["notes"])
    assert [str(path) for path, _ in found.files] == ["heads/one.py", "two.py"]
    assert found.size == len("heads/one.py") + len("two.py")
    assert [str(path) for path, _ in packed(tmp_path, ["heads/*", "*.md"]).files] == ["two.py"]
    found.copy(tmp_path / "there")
    assert (tmp_path / "there/heads/one.py").read_text() == "heads/one.py"


def test_too_much_is_refused_with_the_largest_files(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "large.bin").write_bytes(bytes(2 * MIB))
    with pytest.raises(JobError) as caught:
        packed(tmp_path, limit_mib=1)
    said = str(caught.value)
    assert "is 2.0 MiB, more than the limit of 1 MiB" in said
    assert "the largest files: large.bin (2.0 MiB)" in said
    assert "--exclude" in said
    assert "512 MiB" in said
    packed(tmp_path, ["*.bin"], limit_mib=1)
    with pytest.raises(JobError, match="no such folder"):
        packed(tmp_path / "none")


def test_modules_come_behind_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv(MODULES, "mine")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine" / "losses").mkdir(parents=True)
    (tmp_path / "mine" / "losses" / "__init__.py").write_text("raise SystemExit")
    (tmp_path / "mine" / "my_own_head_module.py").write_text("WORD = 'mine'")
    add_user_modules()
    add_user_modules()
    assert sys.path.count(str(tmp_path / "mine")) == 1
    assert importlib.import_module("my_own_head_module").WORD == "mine"
    found = importlib.util.find_spec("losses")
    assert found is not None
    assert str(tmp_path) not in str(found.origin)
