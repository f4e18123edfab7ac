"""A job spec from the fields of the form, which are named after the fields of the spec."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

BOTH, CLS, BBOX, ZERO, TUNING = "both", "cls", "bbox", "autoloss_zero", "tuning"
SEARCHES: Mapping[str, str] = {
    BOTH: "expressions for both losses",
    CLS: "expressions for the classification loss",
    BBOX: "expressions for the box loss",
    ZERO: "both, in the space of AutoLoss-Zero",
    TUNING: "the numbers of hand-made losses",
}
"""What can be searched, by the value of the form's field."""

NUMBERS = (
    "funnel.proxy.steps",
    "funnel.proxy.batch_size",
    "candidates",
    "limits.steps",
    "limits.job_hours",
    "seed",
)
CONFIRM = ("funnel.confirm.top", "funnel.confirm.seeds", "funnel.confirm.steps")
DEFAULTS: Mapping[str, str] = {
    "name": "my search",
    "search": BOTH,
    "funnel.proxy.steps": "200",
    "funnel.proxy.seeds": "0",
    "limits.steps": "4800",
    "confirm": "true",
    "funnel.confirm.top": "2",
    "funnel.confirm.seeds": "3",
    "seed": "0",
}


def spec_of_form(fields: Mapping[str, str], cls_space: Callable[[str], str]) -> dict[str, Any]:
    """The spec as plain data; what is left empty is left out, what is wrong is passed on as it is.

    Args:
        fields: dotted name -> text.
        cls_space: the classification space of a detector's head, by the detector's name.
    """
    spec: dict[str, Any] = {"name": fields.get("name", "").strip()}
    for name in ("detector", "data"):
        if fields.get(name):
            spec[name] = fields[name]
    search = fields.get("search", BOTH)
    if search == ZERO:
        spec["search_space"] = ZERO
    elif search == TUNING:
        spec["searcher"] = {"type": TUNING}
        spec["branches"] = {"cls": {"space": "handmade"}, "bbox": {"space": "handmade"}}
    else:
        cls = {"space": cls_space(fields.get("detector", ""))}
        branches = {"cls": cls, "bbox": {"space": "box"}}
        spec["branches"] = branches if search == BOTH else {search: branches.get(search)}
    for name in (*NUMBERS, *(CONFIRM if fields.get("confirm") else ())):
        if text := fields.get(name, "").strip():
            _put(spec, name, text)
    if fields.get("confirm") and "confirm" not in spec.get("funnel", {}):
        _put(spec, "funnel.confirm", {})
    if seeds := fields.get("funnel.proxy.seeds", "").replace(",", " ").split():
        _put(spec, "funnel.proxy.seeds", seeds)
    return spec


def _put(spec: dict[str, Any], name: str, value: Any) -> None:
    *folders, last = name.split(".")
    for folder in folders:
        spec = spec.setdefault(folder, {})
    spec[last] = value
