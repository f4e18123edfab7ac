"""A ranking branch in a few words, from its JSON alone: a leaderboard loads no torch for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

NAMES: Mapping[str, str] = {"ap": "AP", "alrp": "aLRP", "pap": "PAP", "rank_sort": "RankSort"}
#: Those that are the loss of the boxes too, so that there is no box loss beside them.
JOINT = frozenset({"alrp", "pap", "rank_sort"})
#: Settings that are only shown where they are not these; `delta` of AP always is.
_USUAL: Mapping[str, Any] = {
    "alrp": {"delta": 1.0, "box_loss": "GIoULoss", "balance_start": 50.0, "balance_every": 3665},
    "pap": {"overlap": "giou", "num_topk": 100_000, "all_processes": False},
    "rank_sort": {"delta": 0.5, "box_loss": "GIoULoss"},
    "ap": {},
}


def ranking_text(data: Mapping[str, Any]) -> str:
    """One line: ``PAP (5 functions, box gradient ×4.12)``, ``AP (delta 1)``, ``aLRP``.

    Args:
        data: a ranking branch as JSON. What is no ranking branch is shown as it can be, because
            a store may hold what a later version wrote.
    """
    loss = str(data.get("loss"))
    notes = _notes(loss, data)
    text = NAMES.get(loss, loss) + (f" ({', '.join(notes)})" if notes else "")
    weight = data.get("loss_weight")
    return text if weight is None else f"{_short(weight)} × {text}"


def is_joint(data: object) -> bool:
    """Whether the JSON of a branch is a ranking loss that is the loss of the boxes too."""
    return isinstance(data, Mapping) and data.get("type") == "ranking" and data.get("loss") in JOINT


def functions_text(functions: Mapping[str, Sequence[Sequence[float]]]) -> str:
    """Which of PAP's functions are not the identity: ``5 functions``, ``H2, I1``."""
    bent = [name for name, points in functions.items() if any(x != y for x, y in points)]
    if not bent:
        return "identity functions"
    return f"{len(bent)} functions" if len(bent) == len(functions) else ", ".join(bent)


def _notes(loss: str, data: Mapping[str, Any]) -> list[str]:
    notes = []
    if isinstance(functions := data.get("functions"), Mapping):
        notes.append(functions_text(functions))
    if (scale := data.get("box_gradient_scale")) is not None:
        notes.append(f"box gradient ×{_short(scale)}")
    if loss == "ap" and data.get("delta") is not None:
        notes.append(f"delta {_short(data['delta'])}")
    for name, usual in _USUAL.get(loss, {}).items():
        value = data.get(name, usual)
        if value == usual:
            continue
        notes.append(value if name == "box_loss" else f"{name.replace('_', ' ')} {_short(value)}")
    if data.get("box_weight") is not None:
        notes.append(f"box weight {_short(data['box_weight'])}")
    return notes


def _short(value: Any) -> str:
    """A number with three digits, a large whole one in full; anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.3g}"
