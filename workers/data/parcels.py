"""A split as one parcel of bytes, for machines that do not have it: each unpacks it once.

A parcel is a zip archive of the annotation file and the images that it names. Where it was unpacked
it lies under the home folder, in a cache: `lossforge gc` removes what no trial has used for long.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import shutil
import zipfile
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from workers.data.errors import DataError
from workers.data.split import Split
from workers.home import lossforge_home

LARGEST = 2 * 10**9  # bytes of a parcel; more belongs on shared storage
FOLDER = "fetched"  # in the home folder
_ANNOTATIONS, _IMAGES = "annotations.json", "images"


def check_parcel(split: Split, largest: int = LARGEST) -> None:
    """Finds out whether `pack` takes a split, from the names and sizes of its files alone.

    Arguments and errors: `pack`.
    """
    _files(split, largest)


def pack(split: Split, largest: int = LARGEST) -> bytes:
    """The parcel of a split; the same files give the same bytes.

    Args:
        largest: bytes of all its files together.

    Raises:
        DataError: a file cannot be read, an image lies outside of its folder, or it is too large.
    """
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        for path, name in _files(split, largest):
            _add(archive, path, name)
    return content.getvalue()


def digest(parcel: bytes) -> str:
    """The name under which a parcel is kept, hex."""
    return hashlib.sha256(parcel).hexdigest()


def unpacked(name: str) -> Split | None:
    """The split of a parcel that this machine has unpacked already; its use is noted."""
    folder = lossforge_home() / FOLDER / name
    try:
        os.utime(folder)
    except OSError:
        return None
    return Split(str(folder / _ANNOTATIONS), str(folder / _IMAGES))


def unpack(name: str, parcel: bytes) -> Split:
    """Unpacks a parcel; of several processes of a machine one does, the others wait for it.

    Args:
        name: its `digest`.

    Raises:
        DataError: the home folder cannot be written.
    """
    root = lossforge_home() / FOLDER
    try:
        root.mkdir(parents=True, exist_ok=True)
        with (root / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (root / name).exists():
                with TemporaryDirectory(dir=root) as made:
                    whole = Path(made) / "whole"
                    (whole / _IMAGES).mkdir(parents=True)
                    with zipfile.ZipFile(io.BytesIO(parcel)) as archive:
                        archive.extractall(whole)
                    shutil.move(whole, root / name)
    except OSError as error:
        raise DataError(root, f"data cannot be unpacked: {error.strerror or error}") from error
    found = unpacked(name)
    assert found is not None
    return found


def _files(split: Split, largest: int) -> list[tuple[Path, str]]:
    """What goes into the parcel of a split, and under which names. Raises: see `pack`."""
    annotations, images = Path(split.annotations), Path(split.images)
    found = [(annotations, _ANNOTATIONS)]
    left = largest - _size(annotations)
    for name in _image_names(annotations):
        found.append((images / name, f"{_IMAGES}/{name}"))
        left -= _size(images / name)
        if left < 0:
            raise DataError(
                annotations,
                f"is too large to be sent to other machines: more than {largest / 1e9:g} GB "
                "with its images; put it on storage that all of them share",
            )
    return found


def _size(path: Path) -> int:
    """Bytes of a file that this user may read."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise _unreadable(path, error) from error
    if not os.access(path, os.R_OK):
        raise DataError(path, "cannot be read: Permission denied")
    return size


def _add(archive: zipfile.ZipFile, path: Path, name: str) -> None:
    """Adds a file, without its time."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    archive.writestr(zipfile.ZipInfo(name), content)


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(path, f"cannot be read: {error.strerror or error}")


def _image_names(annotations: Path) -> list[str]:
    """The images' file names, each once.

    Raises:
        DataError: one of them leads out of the image folder.
    """
    images = json.loads(annotations.read_text(encoding="utf-8"))["images"]
    names = sorted({str(image["file_name"]) for image in images})
    for name in names:
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts:
            raise DataError(annotations, f"the image {name!a} lies outside of the image folder")
    return names
