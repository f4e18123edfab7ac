"""Work folders and messages: locks, garbage, pieces."""

import math
import os
import time
from pathlib import Path

import pytest

from workers import collect_garbage
from workers.folders import WorkFolder
from workers.wire import Inbox, pack


def test_a_folder_in_use_is_no_garbage_and_a_left_one_is(own_home: Path) -> None:
    left = own_home / "work" / "worker-left"
    left.mkdir(parents=True, exist_ok=True)
    with WorkFolder() as used:  # making one collects the garbage
        assert not left.exists()
        left.mkdir()
        (left / "big").write_bytes(b"x" * 5000)
        found = collect_garbage(dry_run=True)
        assert (found.folders, found.bytes) == ((left,), 5000)
        assert left.exists()
        assert collect_garbage().folders == (left,)
        assert not left.exists()
        assert used.path.is_dir()
    assert not used.path.exists()
    assert collect_garbage().bytes == 0


def test_checkpoints_that_nobody_touched_for_a_week_are_garbage(own_home: Path) -> None:
    now = time.time()
    for name, days in (("live", 6.9), ("left", 7.1)):
        folder = own_home / "checkpoints" / name
        folder.mkdir(parents=True)
        (folder / "a.pth").write_bytes(b"x" * 1000)
        for path in (folder / "a.pth", folder):
            os.utime(path, (now - days * 86400,) * 2)
    left = own_home / "checkpoints" / "left"
    found = collect_garbage(dry_run=True)
    assert (found.folders, found.bytes) == ((left,), 1000)
    assert collect_garbage().folders == (left,)
    assert [path.name for path in left.parent.iterdir()] == ["live"]


def test_what_is_cached_and_was_not_used_for_a_month_is_garbage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, now = tmp_path / "home", time.time()
    monkeypatch.setenv("LOSSFORGE_HOME", str(home))  # other tests have cached something in theirs
    for name, days in (("used", 29.9), ("left", 30.1)):
        for cached in ("warm_starts/{}.pth", "calibration/{}.npz", "decoded/{}"):
            path = home / cached.format(name)
            if path.suffix:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"x" * 100)
            else:
                path.mkdir(parents=True)
                (path / "pixels.npy").write_bytes(b"x" * 100)
            os.utime(path, (now - days * 86400,) * 2)
    found = collect_garbage(dry_run=True)
    assert [path.stem for path in found.folders] == ["left"] * 3
    assert found.bytes == 300
    assert collect_garbage() == found
    assert collect_garbage().folders == ()
    left = [
        path
        for name in ("warm_starts", "calibration", "decoded")
        for path in (home / name).iterdir()
    ]
    assert [path.stem for path in left] == ["used"] * 3


def test_messages_arrive_whole_from_any_pieces() -> None:
    sent = [{"kind": "a", "x": 0.1 + 0.2}, {"kind": "b", "text": "ü" * 1000}]
    stream = b"".join(map(pack, sent))
    for size in (1, 3, 7, len(stream)):
        inbox, received = Inbox(), []
        for start in range(0, len(stream), size):
            inbox.feed(stream[start : start + size])
            while (message := inbox.pop()) is not None:
                received.append(message)
        assert received == sent


def test_no_nan_gets_into_a_message() -> None:
    with pytest.raises(ValueError, match="JSON"):
        pack({"x": math.nan})
