"""Where the shipped configuration files are."""

from functools import cache
from pathlib import Path


def configs_dir() -> Path:
    """Folder with ``losses/``, ``detectors/``, ... : packaged in a wheel, else the checkout's."""
    package = Path(__file__).resolve().parent
    packaged = package / "_configs"
    return packaged if packaged.is_dir() else package.parent / "configs"


@cache
def detector_names() -> tuple[str, ...]:
    """The packaged detectors, `digits/atss` and such, sorted."""
    folder = configs_dir() / "detectors"
    files = folder.glob("*/[!_]*.py")
    return tuple(sorted(file.relative_to(folder).with_suffix("").as_posix() for file in files))
