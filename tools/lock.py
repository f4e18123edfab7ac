"""Writes requirements.lock from the packages of the virtual environment that runs it."""

import subprocess
import sys
from pathlib import Path

LOCK = Path(__file__).resolve().parent.parent / "requirements.lock"
LEFT_OUT = ("pip==", "-e ", "lossforge", "# ")
LINUX_ONLY = ("nvidia-", "cuda-", "triton==")


def locked(line: str) -> str:
    """One line of `pip freeze` as the lock file has it."""
    if line.startswith("opencv-python=="):
        line = line.replace("opencv-python==", "opencv-python-headless==")
    return f'{line} ; sys_platform == "linux"' if line.startswith(LINUX_ONLY) else line


def main() -> None:
    """Keeps the comment at the head of the file and replaces what follows it."""
    head = [line for line in LOCK.read_text().splitlines() if line.startswith("#")]
    command = [sys.executable, "-m", "pip", "freeze", "--all"]
    frozen = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    lines = {locked(line) for line in frozen.splitlines() if not line.startswith(LEFT_OUT)}
    LOCK.write_text("\n".join([*head, *sorted(lines, key=str.lower)]) + "\n")


if __name__ == "__main__":
    main()
