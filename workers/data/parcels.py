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


def pack(split: Split, largest: int = LARGEST) -> bytes:
    """The parcel of a split; the same files give the same bytes.

    Args:
        largest: bytes of all its files together.

    Raises:
        DataError: a file cannot be read, an image lies outside of its folder, or it is too large.
    """
    content = io.BytesIO()
    annotations = Path(split.annotations)
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        left = largest - _add(archive, annotations, _ANNOTATIONS)
        for name in _image_names(annotations):
            left -= _add(archive, Path(split.images) / name, f"{_IMAGES}/{name}")
            if left < 0:
                raise DataError(
                    annotations,
                    f"is too large to be sent to other machines: more than {largest / 1e9:g} GB "
                    "with its images; put it on storage that all of them share",
                )
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


def _add(archive: zipfile.ZipFile, path: Path, name: str) -> int:
    """Adds a file, without its time, and gives its size in bytes."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror or error}") from error
    archive.writestr(zipfile.ZipInfo(name), content)
    return len(content)


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
