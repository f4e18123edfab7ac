"""`examine`: is everything there that a search needs? Each finding comes with its cure."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from search_server.errors import SchemaError, StoreError
from search_server.ray_token import token_file
from search_server.store import schema
from search_server.store.url import parse_url, shown
from workers import WorkersError, collect_garbage, lossforge_home
from workers.data import DataError, digits
from workers.data.embedded import NAME as DIGITS

Verdict = Literal["ok", "warn", "fail"]
GIB = 2**30
NEEDED = ("torch", "torchvision", "numpy", "mmengine", "mmdet", "pycocotools", "SQLAlchemy")
_DASHBOARD_PORT = 8265


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: the thing.
        verdict: `fail`: no search without it; `warn`: worth knowing; `ok`.
        found: what is there.
        cure: what to do about it; empty where nothing is to be done.
    """

    what: str
    verdict: Verdict
    found: str
    cure: str = ""


def examine(store_url: str) -> list[Finding]:
    """Looks at everything; a check that itself breaks is a finding, never an exception."""
    checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("versions", _versions),
        ("mmcv", _mmcv),
        ("detectors", _detectors),
        ("GPU", _gpu),
        ("Ray", _ray),
        ("store", lambda: _store(store_url)),
        ("home", _home),
        ("digits", _digits),
    ]
    findings: list[Finding] = []
    for what, check in checks:
        try:
            findings += check()
        except Exception as error:
            found = f"could not be looked at: {type(error).__name__}: {error}"
            findings.append(Finding(what, "fail", found, "reinstall lossforge"))
    return findings


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _versions() -> Iterator[Finding]:
    python = platform.python_version()
    if not (3, 11) <= sys.version_info[:2] < (3, 14):
        yield Finding("Python", "fail", python, "use Python 3.11, 3.12 or 3.13")
    else:
        yield Finding("Python", "ok", f"{python}, {sys.executable}")
    yield Finding("lossforge", "ok", _version("lossforge") or "runs from its sources")
    versions = {name: _version(name) for name in NEEDED}
    missing = [name for name, version in versions.items() if version is None]
    listed = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    if missing:
        cure = f"pip install {' '.join(missing)}"
        yield Finding("packages", "fail", f"missing: {', '.join(missing)}", cure)
    yield Finding("packages", "ok", listed)


def _mmcv() -> Iterator[Finding]:
    full, lite = _version("mmcv"), _version("mmcv-lite")
    if full and lite:
        found = f"both mmcv {full} and mmcv-lite {lite} are installed and own the same files"
        cure = "pip uninstall -y mmcv mmcv-lite, then install one of them"
        yield Finding("mmcv", "fail", found, cure)
        return
    if not full and not lite:
        cure = "pip install 'lossforge[lite]' (or 'lossforge[mmcv]' for compiled ops)"
        yield Finding("mmcv", "fail", "not installed", cure)
        return
    if not importlib.util.find_spec("mmcv"):
        cure = f"pip install --force-reinstall {'mmcv' if full else 'mmcv-lite'}==2.1.0"
        yield Finding("mmcv", "fail", "installed, but its files are gone", cure)
        return
    if _compiled_mmcv():
        yield Finding("mmcv", "ok", f"mmcv {full or lite} with compiled ops")
        return
    found = f"{'mmcv' if full else 'mmcv-lite'} {full or lite} without compiled ops; nms and "
    found += "roi_align of torchvision stand in for them"
    cure = "for detectors with other ops (deformable convolution, ...): compile mmcv 2.1"
    yield Finding("mmcv", "ok", found, cure)


def _compiled_mmcv() -> bool:
    """Whether mmcv brings its own `_ext`, whatever stands in for it in this process."""
    spec = importlib.util.find_spec("mmcv")
    folders = (spec.submodule_search_locations if spec is not None else None) or []
    return any(path.suffix in (".so", ".pyd") for f in folders for path in Path(f).glob("_ext.*"))


def _detectors() -> Iterator[Finding]:
    try:
        importlib.import_module("losses")
        models = importlib.import_module("mmdet.models")
    except Exception as error:
        found = f"mmdet cannot be imported: {type(error).__name__}: {error}"
        cure = "pip install 'mmdet==3.3.0' 'mmengine==0.10.7' 'setuptools<81' 'lossforge[lite]'"
        yield Finding("detectors", "fail", found, cure)
        return
    from losses import CATALOG, FAMILIES

    families = ", ".join(getattr(family, "name", str(family)) for family in FAMILIES)
    found = f"{models.__name__} imports; {len(CATALOG)} named losses; heads of {families}"
    yield Finding("detectors", "ok", found)


def _gpu() -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        listed = ", ".join(f"{p.name} ({p.total_memory / GIB:.0f} GiB)" for p in names)
        yield Finding("GPU", "ok", listed)
        return
    built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "CPU torch"
    found = f"none ({built}); trials run on the CPU"
    yield Finding("GPU", "warn", found, "fine for the digits; for COCO use a machine with a GPU")


def _ray() -> Iterator[Finding]:
    version = _version("ray")
    if version is None:
        cure = "pip install 'ray[default]', or search without --address, which needs no Ray"
        yield Finding("Ray", "warn", "not installed", cure)
        return
    address = os.environ.get("RAY_ADDRESS", "")
    dashboard = _answers("127.0.0.1", _DASHBOARD_PORT)
    if address:
        running = f"RAY_ADDRESS is {address}"
    elif dashboard:
        running = f"a cluster answers on this machine, port {_DASHBOARD_PORT}"
    else:
        running = "no cluster runs here; `search` starts one of its own"
    yield Finding("Ray", "ok", f"ray {version}; {running}")
    token = _token()
    if token:
        yield Finding("Ray token", "ok", token)
    elif address or dashboard:
        found = "none: whoever reaches the cluster's ports can run programs on it"
        cure = "ray get-auth-token --generate, then ray stop and ray start --head"
        yield Finding("Ray token", "warn", found, cure)
    else:
        yield Finding("Ray token", "ok", "none yet; Ray makes one when a search starts it")


def _token() -> str:
    """Where Ray would take its token from; whether it is the right one only Ray can say."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return "in $RAY_AUTH_TOKEN"
    path = token_file()
    return f"in {path}" if path.is_file() else ""


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=0.5):
            return True
    except OSError:
        return False


def _store(given: str) -> Iterator[Finding]:
    try:
        url = parse_url(given)
        if url.get_backend_name() == "sqlite" and not Path(str(url.database)).exists():
            yield Finding("store", "ok", f"{shown(url)}: not there yet; the first search makes it")
            return
        found = schema.current(url)
        if found not in (None, schema.head()):
            schema.ensure(url)
    except SchemaError as error:
        yield Finding("store", "fail", str(error), str(error).partition("run: ")[2])
        return
    except StoreError as error:
        yield Finding("store", "fail", str(error), "see the message, or give another --store")
        return
    state = "empty; the first search makes its tables" if found is None else f"schema {found}"
    yield Finding("store", "ok", f"{shown(url)}: {state}")


def _home() -> Iterator[Finding]:
    home = lossforge_home()
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    if not os.access(existing, os.W_OK):
        cure = "make it writable, or set LOSSFORGE_HOME to another folder"
        yield Finding("home", "fail", f"{home}: this user may not write there", cure)
        return
    free = shutil.disk_usage(existing).free / GIB
    verdict: Verdict = "ok" if free >= 5 else "warn" if free >= 0.5 else "fail"
    cure = "" if verdict == "ok" else "free some space, or set LOSSFORGE_HOME to another disk"
    yield Finding("disk", verdict, f"{free:.1f} GiB free in {home}", cure)
    stale = collect_garbage(dry_run=True)
    if stale.folders:
        size = f"{stale.bytes / 1e6:.1f} MB"
        found = f"{len(stale.folders)} left by killed processes or not used for long, {size}"
        yield Finding("work folders", "warn", found, "lossforge gc")


def _digits() -> Iterator[Finding]:
    root = lossforge_home() / "data" / DIGITS
    if not root.exists():
        yield Finding("digits", "ok", "not written yet; the first search on them writes them")
        return
    try:
        data = digits()
    except (DataError, WorkersError) as error:
        cure = f"remove {root}, then: lossforge data digits"
        yield Finding("digits", "fail", str(error), cure)
        return
    yield Finding("digits", "ok", f"{len(data.splits)} splits in {data.root}")
