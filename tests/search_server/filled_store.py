"""A small store with jobs of every kind, written through the store's own methods; nothing runs.

Its names, reasons and expressions are what somebody would write who wishes readers ill.
"""

from collections.abc import Mapping
from typing import Any

from losses import CATALOG
from search_server.spec import JobSpec
from search_server.store import CandidateRecord, Store
from workers import TrialResult

HOSTILE = "<img src=x onerror=alert(1)>\"'&"
CLS = "Mul(Add(Q,Sig(X)),Sub(Softplus(X),Mul(Q,X)))"
BOX = "Sub(Add(1,Div(Sub(E,U),E)),Div(I,U))"
SPEC: dict[str, Any] = {
    "detector": "digits/atss",
    "branches": {"cls": {"space": "binary_cls"}, "bbox": {"space": "box"}},
    "funnel": {"confirm": {"top": 2, "seeds": 3}},
    "candidates": 40,
}
POLICY: dict[str, Any] = {
    "detector": "digits/retinanet",
    "branches": {"cls": {"space": "pap"}},
    "baseline": "pap-identity",
    "searcher": {"type": "policy", "rounds": 3, "samples": 2},
    "candidates": None,
}


def definition(
    cls: str | None = CLS, bbox: str | None = BOX, name: str = "found"
) -> dict[str, Any]:
    """A loss definition of expressions; None leaves a branch to the detector."""
    given: dict[str, Any] = {"name": name, "cls": None, "bbox": None}
    if cls is not None:
        given["cls"] = {"type": "expression", "space": "binary_cls", "expression": cls}
    if bbox is not None:
        given["bbox"] = {"type": "expression", "space": "box", "expression": bbox}
    return given


def new_job(store: Store, name: str, **fields: Any) -> str:
    """A job in state `created`; nobody asks whether it could run. None leaves a field out."""
    given = {key: value for key, value in {**SPEC, **fields}.items() if value is not None}
    spec = JobSpec.model_validate({**given, "name": name}).to_json()
    return store.create_job(name, spec, "model = dict()", ["0", "1"], f"group of {name}")


def add(
    store: Store,
    job: str,
    index: int,
    seeds: Mapping[str, Mapping[int, float]] | None = None,
    state: str = "done",
    **fields: Any,
) -> None:
    """A candidate with ended trials: stage -> seed -> AP; a negative AP stands for a diverged one.

    The fitness is the mean of its proxy trials.
    """
    given: dict[str, Any] = {
        "origin": "random" if index else "baseline",
        "parents": (),
        "definition": definition() if index else definition(None, None, "default"),
        "key": f"key {index}",
        "cls_text": CLS if index else None,
        "bbox_text": BOX if index else None,
        "size": 20 + index if index else 0,
        "stage": "proxy",
    }
    reason = fields.pop("reason", "")
    store.add_candidate(
        job, CandidateRecord(index=index, **{**given, **fields}), {("random", "accepted"): 1}
    )
    for stage, values in (seeds or {}).items():
        for seed, value in values.items():
            end(store, job, index, stage, seed, value)
    proxy = [max(value, 0.0) for value in (seeds or {}).get("proxy", {}).values()]
    fitness = sum(proxy) / len(proxy) if proxy else None
    store.update_candidate(job, index, state=state, fitness=fitness, reason=reason)


def end(store: Store, job: str, index: int, stage: Any, seed: int, value: float) -> None:
    """A trial from its start to its end."""
    store.start_trial(job, index, stage, seed, f"spec {index} {stage} {seed}")
    done = value >= 0
    result = TrialResult(
        "done" if done else "diverged",
        "" if done else "the loss was not finite",
        value if done else None,
        seed,
        200,
        metrics={"ap50": value} if done else {},
        curves={"step": [50.0, 100.0, 200.0], "loss": [2.0, 1.5, 1.0 + seed % 3]},
        seconds={"total": 12.5},
        rungs={100: value / 2} if done else {},
    )
    store.finish_trial(job, index, stage, seed, result)


def fill(store: Store) -> dict[str, str]:
    """Kind of a job -> its id."""
    jobs = {"empty": new_job(store, "empty")}
    jobs["done"] = job = new_job(store, "done")
    store.set_job_state(job, "running")
    base = {"proxy": {0: 0.40, 1: 0.42}, "confirm": {7: 0.50, 8: 0.52, 9: 0.48}}
    add(store, job, 0, base, cls_text=None, bbox_text=None, name="default")
    best = {
        "proxy": {0: 0.46, 1: 0.47},
        "confirm": {7: 0.53, 8: 0.54, 9: 0.51},
        "test": {21: 0.55, 22: 0.56},
    }
    add(store, job, 1, best)
    add(store, job, 2, {"proxy": {0: 0.44, 1: 0.45}}, origin="mutation", parents=(1,))
    add(store, job, 3, {"proxy": {0: -1.0}}, origin="crossover", parents=(1, 2), state="failed",
        reason=f"cannot read /home/somebody/secret/data.json {HOSTILE}")  # fmt: skip
    hostile = definition(bbox=None, name=HOSTILE)
    add(store, job, 4, origin="rival", name=HOSTILE, definition=hostile, cls_text=HOSTILE,
        bbox_text=HOSTILE)  # fmt: skip
    add(store, job, 5, {"proxy": {0: 0.1}}, definition={"cls": {"type": "of the future"}})
    end(store, job, 0, "test", 21, 0.50)
    end(store, job, 0, "test", 22, 0.51)
    store.set_job_state(job, "done", "every candidate is made")
    jobs["running"] = job = new_job(store, "running", funnel={"simulate": {"steps": 3, "keep": 2}})
    store.set_job_state(job, "running")
    add(store, job, 0, {"proxy": {0: 0.40}})
    add(store, job, 1, {"proxy": {0: 0.45}})
    add(store, job, 2, state="open")
    store.start_trial(job, 2, "proxy", 0, "spec that runs")
    jobs["failed"] = job = new_job(store, "failed")
    store.set_job_state(job, "running")
    store.set_job_state(job, "failed", f"it was {HOSTILE} in /srv/hidden/place/file.py")
    jobs["policy"] = job = new_job(store, "policy", **POLICY)
    store.set_job_state(job, "running")
    pap = CATALOG["pap-identity"].to_json()
    add(store, job, 0, {"proxy": {0: 0.30}}, name="pap-identity", definition=pap)
    add(store, job, 1, {"proxy": {0: 0.31}}, origin="policy", definition=pap)
    add(store, job, 2, {"proxy": {0: 0.35}}, origin="policy")
    store.set_job_state(job, "interrupted", "stopped by the user")
    tuning = {
        "branches": {"cls": {"space": "handmade"}, "bbox": {"space": "handmade"}},
        "searcher": {"type": "tuning"},
    }
    jobs["tuning"] = new_job(store, "tuning", **tuning)
    return jobs
