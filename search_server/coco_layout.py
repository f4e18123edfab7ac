"""Finds the two splits of a data set in COCO format in a folder, in the layouts people have."""

from __future__ import annotations

import re
from pathlib import Path

from search_server.errors import SearchError
from workers import Split
from workers.data import load_coco

_TRAIN = re.compile(r"(?<![a-z])train")
_VALIDATION = re.compile(r"(?<![a-z])(?:mini)?val")
_OTHER = re.compile(r"test|unlabel|caption|keypoint|panoptic|stuff|image_info|lvis")
_IMAGES_TRIED = 3
_MOST_FILES = 400


class LayoutError(SearchError):
    """The splits of a data set could not be found.

    Attributes:
        folder: where they were looked for.
    """

    def __init__(self, folder: Path, problem: str) -> None:
        self.folder = folder
        super().__init__(f"{str(folder)!a}: {problem}")


def find_splits(
    folder: Path,
    train: Path | None = None,
    val: Path | None = None,
    images: Path | None = None,
) -> tuple[Split, Split]:
    """The splits to train on and to evaluate on, with absolute paths.

    Args:
        folder: of the data set; annotation files lie in it or at most two folders below.
        train, val: annotation files, where they are known; else they are told by their names.
        images: image folder of both splits, or the folder of their folders, where it is known.

    Raises:
        LayoutError: nothing fits, or more than one file does.
        DataError: an annotation file is no usable COCO file.
    """
    files = [] if train and val else _annotation_files(folder)
    found = []
    for option, given, pattern in (("--train", train, _TRAIN), ("--val", val, _VALIDATION)):
        file = given if given is not None else _one(folder, files, option, pattern)
        if not file.is_file():
            raise LayoutError(folder, f"there is no annotation file {str(file)!a} ({option})")
        file = file.absolute()
        found.append(Split(str(file), str(_image_folder(file, folder.absolute(), images))))
    return found[0], found[1]


def named_split(folder: Path, name: str, images: Path | None = None) -> Split:
    """The split whose annotation file is `name.json` or `instances_name.json`, absolute paths.

    Args:
        folder: see `find_splits`.
        images: its image folder, or the folder of it, where it is known.

    Raises:
        LayoutError: no such file, or more than one, or its images are not found.
        DataError: the annotation file is no usable COCO file.
    """
    files = _annotation_files(folder)
    found = [file for file in files if file.stem in (name, f"instances_{name}")]
    if len(found) != 1:
        problem = f"{len(found)} files are" if found else "no annotation file is"
        shown = found or files
        listed = ", ".join(str(file.relative_to(folder)) for file in shown[:6]) or "no JSON file"
        raise LayoutError(folder, f"{problem} the split {name!a}; found {listed}")
    file = found[0].absolute()
    return Split(str(file), str(_image_folder(file, folder.absolute(), images)))


def _annotation_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise LayoutError(
            folder, "is not a folder; --data takes a folder in COCO layout, or digits"
        )
    files = sorted(f for pattern in ("*", "*/*", "*/*/*") for f in folder.glob(f"{pattern}.json"))
    return files[:_MOST_FILES]


def _one(folder: Path, files: list[Path], option: str, pattern: re.Pattern[str]) -> Path:
    """The one file whose name, or else whose folder's name, says that it is the split."""
    for name in (lambda f: f.stem.lower(), lambda f: f.parent.name.lower()):
        fitting = [
            f for f in files if pattern.search(name(f)) and not _OTHER.search(f.stem.lower())
        ]
        instances = [f for f in fitting if f.stem.lower().startswith("instances")]
        fitting = instances or fitting
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            listed = ", ".join(str(f.relative_to(folder)) for f in fitting[:6])
            raise LayoutError(folder, f"{len(fitting)} files may be meant: {listed}; use {option}")
    listed = ", ".join(str(f.relative_to(folder)) for f in files[:6]) or "no JSON file"
    raise LayoutError(
        folder, f"no annotation file could be told; found {listed}; use {option} FILE"
    )


def _image_folder(file: Path, folder: Path, given: Path | None) -> Path:
    """The first likely folder that holds the first images that the annotation file names."""
    names = [str(image["file_name"]) for image in load_coco(file)["images"][:_IMAGES_TRIED]]
    if not names:
        raise LayoutError(folder, f"{file.name} has no images")
    short = re.sub(r"^instances_|^annotations?_|_annotations?$|\.coco$", "", file.stem)
    roots = [given.absolute()] if given is not None else [folder, folder / "images"]
    tried = [root / short for root in roots] + roots
    if given is None:
        tried += [file.parent / short, file.parent / "images", file.parent]
    for place in tried:
        if all((place / name).is_file() for name in names):
            return place
    listed = ", ".join(dict.fromkeys(str(place) for place in tried))
    raise LayoutError(
        folder, f"the images of {file.name}, such as {names[0]!a}, are in none of {listed}; "
        "use --images FOLDER",
    )  # fmt: skip
