"""A split that travels: the same files arrive, once a machine, and nothing else is written."""

import json
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from workers import Split, TrialSpec, collect_garbage
from workers.data import DataError
from workers.data.parcels import check_parcel, digest, pack, unpack, unpacked

MakeSpec = Callable[..., TrialSpec]


def files(split: Split) -> dict[str, bytes]:
    """The annotation file and all images that lie with it."""
    root = Path(split.images)
    found = {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*.*"))}
    return {"": Path(split.annotations).read_bytes(), **found}


def test_the_same_files_arrive(make_spec: MakeSpec) -> None:
    split = make_spec().train
    names = {each["file_name"] for each in json.loads(files(split)[""])["images"]}
    parcel = pack(split)
    assert pack(split) == parcel
    assert unpacked(digest(parcel)) is None
    there = unpack(digest(parcel), parcel)
    assert there == unpacked(digest(parcel))
    sent = files(split)
    assert files(there) == {name: sent[name] for name in ("", *names)}


def test_many_processes_unpack_one(make_spec: MakeSpec) -> None:
    parcel = pack(make_spec().train)
    context = multiprocessing.get_context("fork")
    many = [context.Process(target=unpack, args=(digest(parcel), parcel)) for _ in range(4)]
    for process in many:
        process.start()
    for process in many:
        process.join(60)
    assert [process.exitcode for process in many] == [0] * 4
    folder = Path(unpack(digest(parcel), parcel).annotations).parent
    assert {each.name for each in folder.parent.iterdir()} == {".lock", folder.name}


@pytest.mark.parametrize("take", [pack, check_parcel])
def test_what_is_too_large_is_refused(
    make_spec: MakeSpec, take: Callable[[Split, int], object]
) -> None:
    split = make_spec().train
    size = sum(map(len, files(split).values()))
    take(split, size)
    with pytest.raises(DataError, match=r"too large .* more than 1e-06 GB"):
        take(split, 1000)


@pytest.mark.parametrize("take", [pack, check_parcel])
@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "a/../../b.png"])
def test_no_file_from_outside_travels(
    tmp_path: Path, name: str, take: Callable[[Split], object]
) -> None:
    (tmp_path / "secret.png").write_bytes(b"x")
    annotations = tmp_path / "images" / "a.json"
    annotations.parent.mkdir()
    annotations.write_text(json.dumps({"images": [{"id": 1, "file_name": name}]}))
    with pytest.raises(DataError, match="outside of the image folder"):
        take(Split(str(annotations), str(tmp_path / "images")))


@pytest.mark.parametrize("take", [pack, check_parcel])
def test_what_is_missing_is_said(tmp_path: Path, take: Callable[[Split], object]) -> None:
    with pytest.raises(DataError, match=r"none\.json: cannot be read: No such file"):
        take(Split(str(tmp_path / "none.json"), str(tmp_path)))


def test_what_nobody_uses_is_garbage(make_spec: MakeSpec) -> None:
    parcel = pack(make_spec().evaluate)
    folder = Path(unpack(digest(parcel), parcel).annotations).parent
    assert folder not in collect_garbage(dry_run=True).folders
    long_ago = time.time() - 40 * 24 * 3600
    os.utime(folder, (long_ago, long_ago))
    assert folder in collect_garbage(dry_run=True).folders
    unpacked(digest(parcel))
    assert folder not in collect_garbage(dry_run=True).folders
