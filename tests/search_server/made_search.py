"""A store as searches leave it behind, made in a moment: what the service's tests read."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fake_search import spec

from search_server.jobs import detector_text
from search_server.store import CandidateRecord, Store
from workers import TrialResult

CLASSES = [str(number) for number in range(10)]
GIOU = "Add(Sub(1,Div(I,U)),Div(Sub(E,U),E))"
SECRET = "/home/somebody/secrets/run.log"
"""A place in a trial's reason and log, which no answer may hold."""


@dataclass(frozen=True)
class Made:
    """Ids of the jobs: `first` and `second` train alike, `other` trains otherwise."""

    first: str
    second: str
    other: str


def expression(index: int) -> str:
    """A loss that no other index has."""
    return f"Mul(Sub(Q,Sig(X)),Sub(Mul(Q,{index + 1}),X))"


def definition(index: int) -> dict[str, Any]:
    """A loss definition that no other index has; the first is the detector's own."""
    if not index:
        return {"name": "default", "cls": None, "bbox": None, "iou_centerness": False}
    cls = {"type": "expression", "space": "binary_cls", "expression": expression(index)}
    box = {"type": "expression", "space": "box", "expression": GIOU}
    whole = {"cls": cls, "bbox": box, "iou_centerness": False}
    return {"name": f"candidate-{index}", **whole}


def add(
    store: Store,
    job: str,
    index: int,
    parents: Sequence[int] = (),
    proxy: Mapping[int, float | None] | None = None,
    confirm: Mapping[int, float] | None = None,
    state: str = "done",
    given: Mapping[str, Any] | None = None,
    **fields: Any,
) -> None:
    """A candidate with ended trials by seed; None stands for a diverged one."""
    made = definition(index) if given is None else dict(given)
    origin = "mutation" if parents else "random"
    record = CandidateRecord(
        index, origin if index else "baseline", tuple(parents), made, f"key {index}",
        name=made["name"], stage="proxy",
        cls_text=None if not index else expression(index),
        bbox_text=None if not index else GIOU,
        **{"size": 9 + index % 4, **fields},
    )  # fmt: skip
    store.add_candidate(job, record, {(record.origin, "accepted"): 1, ("random", "dull"): 3})
    for seed, value in (proxy or {}).items():
        train(store, job, index, "proxy", seed, value)
    values = [value or 0.0 for value in (proxy or {}).values()]
    fitness = sum(values) / len(values) if values and state == "done" else None
    store.update_candidate(job, index, state=state, fitness=fitness)
    for seed, ap in (confirm or {}).items():
        train(store, job, index, "confirm", seed, ap)


def train(
    store: Store, job: str, index: int, stage: Any, seed: int, value: float | None, **more: Any
) -> None:
    """One ended trial, with a curve."""
    store.start_trial(job, index, stage, seed, "k")
    status = "done" if value is not None else "diverged"
    given: dict[str, Any] = {
        "curves": {"step": [2.0, 4.0], "loss": [1.0, 0.5 + seed / 1000]},
        "metrics": {"ap50": value} if value is not None else {},
        "seconds": {"total": 1.5},
        **more,
    }
    why = "" if value is not None else f"a weight was no number; see {SECRET}"
    store.finish_trial(job, index, stage, seed, TrialResult(status, why, value, seed, 10, **given))


def make(store: Store) -> Made:
    """Three jobs: 24 candidates, some of them confirmed, dropped, failed; 6; and 4."""
    given = spec()
    text = detector_text(given)
    first, second = (
        store.create_job("made", given.to_json(), text, CLASSES, "group-a") for _ in range(2)
    )
    retina = spec(detector="digits/retinanet")
    other = store.create_job("other", retina.to_json(), detector_text(retina), CLASSES, "group-b")
    rng = random.Random(1)
    add(store, first, 0, proxy={0: 0.30, 7: 0.32}, confirm={100: 0.40, 101: 0.42, 102: 0.41})
    for index in range(1, 24):
        parents = () if index < 4 else sorted(rng.sample(range(1, index), 2))
        if index % 7 == 3:
            add(store, first, index, parents, state="dropped", simulate_score=0.1)
        elif index == 11:
            add(store, first, index, parents, {0: None}, state="failed", reason=f"see {SECRET}")
        else:
            seeds = {0: round(rng.uniform(0.1, 0.5), 3), 7: round(rng.uniform(0.1, 0.5), 3)}
            judged = index in (5, 8, 9)
            confirm = {s: round(rng.uniform(0.4, 0.5), 3) for s in (100, 101, 102)}
            add(store, first, index, parents, seeds, confirm if judged else None)
    for index in range(6):
        add(store, second, index, proxy={0: 0.3 + index / 50, 7: 0.31 + index / 40})
    for index in range(4):
        add(store, other, index, proxy={0: 0.2 + index / 50})
    return Made(first, second, other)
