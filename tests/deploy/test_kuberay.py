"""The Kubernetes manifests: valid by KubeRay's own schema, bounded, without root or secrets."""

import copy
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator, ValidationError
from typer.main import get_command

from search_server.cli.app import app
from search_server.service.settings import ServiceSettings

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "kuberay"
SCHEMA = json.loads(Path(__file__).with_name("kuberay_v1.json").read_text())
VALIDATOR = Draft202012Validator(SCHEMA)
FILES = sorted(path.name for path in FOLDER.glob("*.yaml"))
RAY = ("raycluster.yaml", "rayjob.yaml")


def documents(name: str) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all((FOLDER / name).read_text()) if each]


def cluster(name: str) -> dict[str, Any]:
    """The spec of the cluster of a RayCluster or a RayJob."""
    (found,) = documents(name)
    spec: dict[str, Any] = found["spec"]
    return spec.get("rayClusterSpec", spec)


def pods(name: str) -> Iterator[dict[str, Any]]:
    """The pod specs of a file."""
    for document in documents(name):
        spec = document.get("spec", {})
        spec = spec.get("rayClusterSpec", spec)
        if "headGroupSpec" in spec:
            for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
                yield group["template"]["spec"]
        elif "template" in spec:
            yield spec["template"]["spec"]


EVERY_POD = [(name, pod) for name in FILES for pod in pods(name)]
IDS = [f"{name}-{pod['containers'][0]['name']}" for name, pod in EVERY_POD]


@pytest.mark.parametrize("name", RAY)
def test_manifests_are_what_kuberay_takes(name: str) -> None:
    (found,) = documents(name)
    VALIDATOR.validate(found)


def test_the_schema_is_itself_valid_and_refuses() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    (good,) = documents("rayjob.yaml")

    def wrong(change: Any) -> None:
        bad = copy.deepcopy(good)
        change(bad["spec"])
        with pytest.raises(ValidationError):
            VALIDATOR.validate(bad)

    wrong(lambda spec: spec.update(entryPoint="x"))
    wrong(lambda spec: spec.update(entrypointNumCpus="1"))
    wrong(lambda spec: spec["rayClusterSpec"].pop("headGroupSpec"))
    wrong(lambda spec: spec["rayClusterSpec"]["authOptions"].update(mode="basic"))
    worker = ("rayClusterSpec", "workerGroupSpecs")
    wrong(lambda spec: spec[worker[0]][worker[1]][0].pop("maxReplicas"))
    wrong(lambda spec: spec[worker[0]][worker[1]][0]["rayStartParams"].update({"num-cpus": 8}))
    head = lambda spec: spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]  # noqa: E731
    wrong(lambda spec: head(spec)["containers"][0].update(imagePullpolicy="Always"))
    wrong(lambda spec: head(spec)["containers"][0]["resources"]["requests"].update(memory="8 GB"))
    wrong(lambda spec: head(spec)["containers"][0]["env"].append({"value": "nameless"}))


@pytest.mark.parametrize("name", RAY)
def test_ray_is_the_locks_and_wants_a_token(name: str) -> None:
    version = re.search(r"^ray==([\d.]+)$", (ROOT / "requirements.lock").read_text(), re.M)
    assert version is not None
    assert cluster(name)["rayVersion"] == version[1]
    assert cluster(name)["authOptions"] == {"mode": "token"}


@pytest.mark.parametrize("name", RAY)
def test_ray_hands_out_what_kubernetes_has_reserved(name: str) -> None:
    spec = cluster(name)
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group in spec["workerGroupSpecs"]:
        resources = group["template"]["spec"]["containers"][0]["resources"]
        assert group["rayStartParams"]["num-cpus"] == resources["requests"]["cpu"]
        gpus = resources["limits"].get("nvidia.com/gpu")
        assert group["rayStartParams"].get("num-gpus") == gpus
        assert resources["requests"].get("nvidia.com/gpu") == gpus
        assert ("cuda" in group["template"]["spec"]["containers"][0]["image"]) == bool(gpus)
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


@pytest.mark.parametrize(("name", "pod"), EVERY_POD, ids=IDS)
def test_pods_are_bounded_probed_and_not_root(name: str, pod: dict[str, Any]) -> None:
    """What Kubernetes' restricted pod security standard asks for, and that memory has a limit."""
    assert pod["automountServiceAccountToken"] is False
    own = pod["securityContext"]
    assert own["runAsNonRoot"] is True
    assert own["runAsUser"] > 0
    assert own["seccompProfile"] == {"type": "RuntimeDefault"}
    volumes = {each["name"] for each in pod.get("volumes", ())}
    for container in pod["containers"]:
        allowed = container["securityContext"]
        assert allowed["allowPrivilegeEscalation"] is False
        assert allowed["capabilities"] == {"drop": ["ALL"]}
        resources = container["resources"]
        assert resources["requests"]["memory"] == resources["limits"]["memory"]
        assert "cpu" in resources["requests"]
        assert {"readinessProbe", "livenessProbe"} <= container.keys()
        ports = {port["name"] for port in container["ports"]}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            how = container.get(probe, {})
            asked = how.get("httpGet", how.get("tcpSocket"))
            assert asked is None or asked["port"] in ports
        made = {"data"} if name == "postgres.yaml" else set()  # by volumeClaimTemplates
        assert {each["name"] for each in container.get("volumeMounts", ())} <= volumes | made


@pytest.mark.parametrize(("name", "pod"), EVERY_POD, ids=IDS)
def test_secrets_are_named_and_not_written(name: str, pod: dict[str, Any]) -> None:
    for container in pod["containers"]:
        for each in container["env"]:
            if re.search("PASSWORD|TOKEN|STORE", each["name"]):
                assert each.keys() == {"name", "valueFrom"}
                assert each["valueFrom"]["secretKeyRef"]["name"] == "lossforge-store"
    kinds = {document["kind"] for document in documents(name)}
    assert "Secret" not in kinds


def test_images_are_the_dockerfiles_and_pinned() -> None:
    for _, pod in EVERY_POD:
        for container in pod["containers"]:
            assert re.search(r":\d+\.\d+", container["image"]), container["image"]


def test_the_jobs_entrypoint_is_a_command_that_there_is() -> None:
    (job,) = documents("rayjob.yaml")
    spec = job["spec"]
    program, verb, file = shlex.split(spec["entrypoint"])
    assert program == "lossforge"
    command = get_command(app).commands[verb]  # type: ignore[attr-defined]
    parsed = command.make_context(verb, [file])
    assert parsed.params["spec"] == Path(file)
    assert parsed.params["address"] is None, "the cluster is the one that runs the entrypoint"
    mounts = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]
    (specs,) = [m for m in mounts["containers"][0]["volumeMounts"] if m["name"] == "specs"]
    assert Path(file).parent == Path(specs["mountPath"])
    assert spec["backoffLimit"] == 0, "a retry would search anew"
    assert spec["entrypointNumCpus"] >= 1


@pytest.mark.parametrize("name", RAY)
def test_the_store_is_given_wherever_the_controller_may_run(name: str) -> None:
    for pod in pods(name):
        names = {each["name"] for each in pod["containers"][0]["env"]}
        assert "LOSSFORGE_STORE" in names


def test_selectors_find_their_pods() -> None:
    for name in ("postgres.yaml", "metrics.yaml", "service.yaml"):
        by_kind = {document["kind"]: document for document in documents(name)}
        runs = by_kind.get("Deployment") or by_kind["StatefulSet"]
        labels = runs["spec"]["template"]["metadata"]["labels"].items()
        assert runs["spec"]["selector"]["matchLabels"].items() <= labels
        assert by_kind["Service"]["spec"]["selector"].items() <= labels
        ports = {
            port["name"] for port in runs["spec"]["template"]["spec"]["containers"][0]["ports"]
        }
        assert {port["targetPort"] for port in by_kind["Service"]["spec"]["ports"]} <= ports


def test_the_services_settings_are_such() -> None:
    by_kind = {document["kind"]: document for document in documents("service.yaml")}
    given = yaml.safe_load(by_kind["ConfigMap"]["data"]["service.yaml"])
    settings = ServiceSettings.model_validate(given)
    (head,) = documents("raycluster.yaml")
    assert settings.runs.where == f"http://{head['metadata']['name']}-head-svc:8265"
    assert settings.https
