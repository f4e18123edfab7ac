"""`lossforge data split`: what it prints, and what it refuses."""

import json
from pathlib import Path

import pytest

from search_server.cli import run
from search_server.coco_layout import find_splits
from workers.data import digits, load_coco


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_json_names_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = digits().splits["search_val"].annotations
    assert run(["data", "split", source, "--ratios", "0.5,0.25", "--seed", "3", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["seed"], said["ratios"]) == (3, {"search_train": 0.5, "search_val": 0.25})
    for name, share in said["ratios"].items():
        written = said["splits"][name]
        assert Path(written["annotations"]) == tmp_path / "search_val-splits" / f"{name}.json"
        assert len(load_coco(written["annotations"])["images"]) == written["images"]
        assert written["images"] == pytest.approx(300 * share, abs=3)


def test_people_read_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "split", digits().splits["test"].annotations, "-o", "out"]) == 0
    words = [line.split() for line in capsys.readouterr().out.splitlines()]
    rows = {line[0]: line for line in words if line[0] in ("search_train", "search_val", "confirm")}
    assert len(rows) == 3
    assert sum(int(row[2]) for row in rows.values()) == 500


def test_a_class_that_a_split_lacks_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    content = load_coco(digits().splits["search_val"].annotations)
    kept = next(a for a in content["annotations"] if a["category_id"] == 4)
    content["annotations"] = [
        a for a in content["annotations"] if a["category_id"] != 4 or a is kept
    ]
    Path("few.json").write_text(json.dumps(content))
    assert run(["data", "split", "few.json"]) == 0
    out = capsys.readouterr().out
    assert "search_val has no box of 1 classes: four" in out
    assert "search_train has no box" not in out


BAD_RATIOS = ("1", "0.5,0.6", "a,b", "0.5,0", "0.2,0.2,0.2,0.2", "", "nan,1")


@pytest.mark.parametrize("ratios", BAD_RATIOS)
def test_bad_ratios(ratios: str, capsys: pytest.CaptureFixture[str]) -> None:
    source = digits().splits["search_val"].annotations
    assert run(["data", "split", source, "--ratios", ratios]) == 2
    assert "--ratios" in capsys.readouterr().err
    assert list(Path.cwd().iterdir()) == []


def test_a_second_time_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["data", "split", digits().splits["search_val"].annotations, "-o", "out"]
    assert run(command) == 0
    before = {file.name: file.read_bytes() for file in Path("out").iterdir()}
    capsys.readouterr()
    assert run([*command, "--seed", "1"]) != 0
    err = capsys.readouterr().err
    assert ("left as it is" in err, err.count("\n")) == (True, 1)
    assert {file.name: file.read_bytes() for file in Path("out").iterdir()} == before


def test_the_splits_are_found_by_their_names(capsys: pytest.CaptureFixture[str]) -> None:
    given = digits().splits["search_val"]
    assert run(["data", "split", given.annotations, "-o", "out"]) == 0
    train, val = find_splits(Path("out"), images=Path(given.images))
    assert [Path(split.annotations).name for split in (train, val)] == [
        "search_train.json",
        "search_val.json",
    ]
