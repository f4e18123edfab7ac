"""A node that has not the data: it is told so, or is sent them."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from search_server.executors.ray import RayExecutor
from search_server.funnel.outcomes import TrialKey
from search_server.spec import Resources
from workers import TrialResult, TrialSpec, train
from workers.data import digits, one_image_per_class, read_classes
from workers.detector import load_detector

pytestmark = [pytest.mark.ray, pytest.mark.slow]
KEY = TrialKey(0, "proxy", 0)


@dataclass(frozen=True)
class Far:
    """A cluster whose only node for trials sees another file system in place of `hidden`.

    Attributes:
        home: of Lossforge, on that node.
    """

    address: str
    hidden: Path
    home: Path


def hides(path: Path, command: str) -> list[str]:
    """A shell command in a mount namespace of its own, where `path` is an empty folder."""
    script = f"mount -t tmpfs none {path} && {command}"
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    hidden, home = tmp_path_factory.mktemp("hidden"), tmp_path_factory.mktemp("far")
    if shutil.which("unshare") is None or subprocess.run(hides(hidden, "true")).returncode:
        pytest.skip("a node that does not see this one's files needs the right to mount")
    from ray.cluster_utils import Cluster
    from ray_nodes import one_at_a_time  # Ray's workers import this file, and have no such module

    with one_at_a_time(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")  # a token would be written to the user's home
        patch.delenv("RAY_ADDRESS", raising=False)
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        start = f"{sys.executable} -m ray.scripts.scripts start --address={cluster.address}"
        node = subprocess.Popen(
            hides(hidden, f"exec {start} --num-cpus=1 --block --disable-usage-stats"),
            env={**os.environ, "LOSSFORGE_HOME": str(home)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield Far(cluster.address, hidden, home)
        finally:
            node.terminate()
            node.wait(30)
            cluster.shutdown()


@pytest.fixture
def spec(far: Far, monkeypatch: pytest.MonkeyPatch) -> TrialSpec:
    """Two steps on ten images of digits, which lie in what the node does not see."""
    monkeypatch.setenv("LOSSFORGE_HOME", str(far.hidden / "home"))
    split = one_image_per_class(digits().splits["search_train"], far.hidden / "few", 1, 0)
    detector = load_detector(Path("configs/detectors/digits/atss.py").absolute())
    definition = {"name": "own", "cls": None, "bbox": None, "iou_centerness": False}
    classes = read_classes(split.annotations)
    return TrialSpec(detector, definition, split, split, 3, 2, 2, classes, device="cpu")


def trained(far: Far, spec: TrialSpec, resources: Resources) -> TrialResult:
    with RayExecutor(resources, far.address) as executor:
        executor.submit(KEY, spec)
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            for _, result in executor.wait(1.0):
                return result
    raise AssertionError("no result came")


def test_what_lossforge_made_is_sent(far: Far, spec: TrialSpec) -> None:
    """The digits; annotations and images are both in the home folder."""
    made = digits().splits["search_val"]
    inside = replace(spec, train=made, evaluate=made, steps=1)
    result = trained(far, inside, Resources(cpus=1))
    assert (result.status, result.reason) == ("done", "")


def test_own_data_are_missed_until_the_spec_sends_them(far: Far, spec: TrialSpec) -> None:
    missed = trained(far, spec, Resources(cpus=1))
    assert missed.status == "failed"
    assert "is not on this node of the cluster" in missed.reason
    assert "send_data: true" in missed.reason
    result = trained(far, spec, Resources(cpus=1, send_data=True))
    here = train(spec)
    assert (result.status, result.reason) == ("done", "")
    assert (result.fitness, result.curves) == (here.fitness, here.curves)
    assert len([each for each in (far.home / "fetched").iterdir() if each.is_dir()]) >= 1
