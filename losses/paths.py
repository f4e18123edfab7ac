"""Where the shipped configuration files are."""

from pathlib import Path


def configs_dir() -> Path:
    """Folder with ``losses/``, ``detectors/``, ... : packaged in a wheel, else the checkout's."""
    package = Path(__file__).resolve().parent
    packaged = package / "_configs"
    return packaged if packaged.is_dir() else package.parent / "configs"
