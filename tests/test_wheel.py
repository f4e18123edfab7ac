"""The wheel, installed apart from the checkout, in a folder whose own packages shadow its names."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from dataclasses import dataclass
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("primitives", "losses", "workers", "search_server")
TRAP = "this folder's own package was imported"
SPEC = """
name: tiny
detector: {detector}
branches: {{bbox: {{space: box}}}}
searcher: {{population: 2, named: [iou-expression]}}
funnel:
  verify: {{max_draws: 3000}}
  simulate: {{steps: 2, batch_size: 2, keep: 1}}
  proxy: {{steps: 2, batch_size: 2}}
candidates: 2
window: 2
resources: {{cpus: 1, device: cpu}}
"""


@dataclass(frozen=True)
class Installed:
    """A virtual environment that has the wheel, and the folder in which its user works.

    Attributes:
        folder: holds packages of the same names as ours, which raise when they are imported, and
            `configs/` with other detectors and losses under the names of ours.
    """

    bin: Path
    folder: Path
    environment: dict[str, str]

    def run(self, program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Runs a program of the virtual environment in the folder."""
        return subprocess.run(
            [self.bin / program, *map(str, arguments)],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=400,
            stdin=subprocess.DEVNULL,
        )

    def lossforge(self, *arguments: object) -> str:
        """What the installed command printed; it must succeed."""
        done = self.run("lossforge", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout with the build backend of this environment."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    done = subprocess.run([*command, str(ROOT)], cwd=out, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel in an environment of its own, which borrows this one's third-party packages."""
    place = tmp_path_factory.mktemp("installed")
    venv.create(place / "venv", with_pip=False)
    binaries = place / "venv" / "bin"
    pip = [sys.executable, "-m", "pip", "--python", str(binaries / "python"), "install"]
    pip += ["--no-deps", "--no-index", "--disable-pip-version-check", str(wheel)]
    done = subprocess.run(pip, cwd=place, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    _borrow_packages(next((place / "venv" / "lib").glob("python3*")) / "site-packages")

    folder = place / "work"
    _lay_traps(folder)
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "PYTEST", "LOSSFORGE", "RAY", "VIRTUAL_ENV"))
    }
    home = place / "home"
    home.mkdir()
    environment = {**kept, "HOME": str(home), "OMP_NUM_THREADS": "1"}
    return Installed(binaries, folder, environment)


def _borrow_packages(site: Path) -> None:
    """Adds this environment's site-packages to another one's path.

    The `.pth` files in a folder that is added by a `.pth` file are not read: an editable install
    of the checkout stays out of sight.
    """
    lenders = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "borrowed.pth").write_text("".join(f"{path}\n" for path in sorted(lenders)))
    for path in lenders:  # Python 3.12 has no distutils of its own
        shim = Path(path) / "distutils-precedence.pth"
        if shim.is_file():
            shutil.copy(shim, site)


def _lay_traps(folder: Path) -> None:
    for package in (*PACKAGES, "configs"):
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").write_text(f"raise RuntimeError({TRAP!r})\n")
    for name in ("losses/iou-expression.json", "detectors/digits/atss.py"):
        other = folder / "configs" / name
        other.parent.mkdir(parents=True)
        other.write_text("neither JSON nor Python\n")
    shipped = ROOT / "configs" / "detectors" / "digits"
    for name in ("atss.py", "_base.py"):  # a detector of the user's own
        shutil.copy(shipped / name, folder / "configs" / name)


def test_carries_every_file_of_the_packages_and_the_configs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    wanted = {
        str(file.relative_to(ROOT))
        for package in PACKAGES
        for file in (ROOT / package).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    wanted |= {
        f"losses/_configs/{file.relative_to(ROOT / 'configs')}"
        for file in (ROOT / "configs").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    wanted |= {
        f"search_server/table/_tables/{file.relative_to(ROOT / 'tables')}"
        for file in (ROOT / "tables").rglob("*")
        if file.is_file() and file.name != "trials.jsonl"  # what a table is trained into
    }
    assert held == wanted
    assert {
        "losses/_configs/detectors/digits/_base.py",
        "losses/_configs/losses/cse-autoloss-b.json",
        "losses/_configs/search/demo.yaml",
        "search_server/store/migrations/env.py",
        "search_server/store/migrations/script.py.mako",
        "search_server/store/migrations/versions/0001_jobs_candidates_trials.py",
        "workers/data/digits_readme.txt",
    } <= held


def test_says_what_it_needs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        read = {
            Path(name).name: archive.read(name).decode()
            for name in archive.namelist()
            if ".dist-info/" in name
        }
    metadata = Parser().parsestr(read["METADATA"])
    assert metadata["Name"] == "lossforge"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert set(metadata["Requires-Python"].split(",")) == {">=3.11", "<3.14"}
    # mmcv and mmcv-lite own the same files: whoever installs chooses one of them.
    assert {"lite", "mmcv"} <= set(metadata.get_all("Provides-Extra"))
    needs = [need for need in metadata.get_all("Requires-Dist") if "extra ==" not in need]
    assert any(need.startswith("mmdet") for need in needs)
    assert not any(need.startswith("mmcv") for need in needs)
    assert "lossforge = search_server.cli:main" in read["entry_points.txt"]
    assert "Apache License" in read["LICENSE"]


def test_python_finds_the_installed_copy_and_not_the_checkout(installed: Installed) -> None:
    code = (
        "import json, sys; "
        "found = {name: __import__(name).__file__ for name in sys.argv[1:]}; "
        "print(json.dumps([found, sys.path]))"
    )
    done = installed.run("python", "-P", "-c", code, *PACKAGES)
    assert done.returncode == 0, done.stderr
    found, path = json.loads(done.stdout.splitlines()[-1])
    for package, file in found.items():
        assert Path(file).is_relative_to(installed.bin.parent), package
    assert str(ROOT) not in path


@pytest.mark.parametrize("package", PACKAGES)
def test_the_traps_are_set(installed: Installed, package: str) -> None:
    done = installed.run("python", "-c", f"import {package}")
    assert TRAP in done.stderr


@pytest.mark.parametrize(
    ("expression", "status", "said"),
    [
        ("Sub(1,Div(I,U))", 0, "accepted"),
        ("Div(I,U)", 1, "rejected"),
        ("Sub(1,", 2, "position"),
    ],
)
def test_verify(installed: Installed, expression: str, status: int, said: str) -> None:
    done = installed.run("lossforge", "verify", expression, "--space", "box")
    assert (done.returncode, said in done.stdout + done.stderr) == (status, True), done.stderr


@pytest.mark.slow
def test_init_knows_the_packaged_detectors(installed: Installed) -> None:
    installed.lossforge("init", "digits/faster_rcnn", "--no-time", "-o", "drafted.yaml")
    assert "digits/faster_rcnn" in (installed.folder / "drafted.yaml").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "detector", "kind"),
    [
        pytest.param((), "configs/atss.py", (), marks=pytest.mark.ray, id="ray-own-detector"),
        pytest.param(
            ("--address", "none"),
            "digits/atss",
            ("--standalone",),
            id="processes-packaged-detector",
        ),
    ],
)
def test_search_leaderboard_and_export(
    installed: Installed,
    tmp_path: Path,
    where: tuple[str, ...],
    detector: str,
    kind: tuple[str, ...],
) -> None:
    spec = installed.folder / "search.yaml"
    spec.write_text(SPEC.format(detector=detector))
    store = ("--store", f"sqlite:///{tmp_path / 'new' / 'store.db'}")
    installed.lossforge("search", spec.name, *where, "--slots", 1, *store)

    (group,) = json.loads(installed.lossforge("leaderboard", "--json", *store))["groups"]
    # A trial that met a trap is a failed one, and its reason says so.
    assert {row["reason"] for row in group["rows"] if row["state"] == "failed"} == set()
    assert sorted(row["state"] for row in group["rows"]) == ["done", "done", "dropped"]
    named = json.loads(installed.lossforge("show", "1", "--json", *store))["candidate"]
    assert named["name"] == "iou-expression"

    exported = installed.folder / "best.py"
    installed.lossforge("export", "tiny-1", "-o", exported.name, *kind, "--force", *store)
    text = exported.read_text()
    assert "custom_imports" in text
    assert str(ROOT) not in text
