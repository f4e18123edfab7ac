"""A detector's learning-rate schedule, brought to the budget of a trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

FOREVER = 10**9  # mmengine's default for `end`
WARM_UP_SHARE = 0.1
_TIMES = ("begin", "end", "T_max", "step_size", "total_steps", "total_iters")
_TIME_LISTS = ("milestones", "periods")
_RISING = frozenset(
    kind + suffix
    for kind in ("Linear", "Constant", "QuadraticWarmup")
    for suffix in ("LR", "ParamScheduler")
)


def scale_schedule(schedulers: Any, train_cfg: Mapping[str, Any], steps: int) -> Any:
    """`schedulers` of a config trained for its own length, for a training of `steps` steps.

    The rules, so that a config trained for its own length in steps keeps its schedule exactly:

    - The config's own length is ``max_iters``, or ``max_epochs`` for schedulers counted in epochs.
      Begin, end, milestones, periods and the like are multiplied by ``steps / length``; all that
      comes out counts steps. An exponential decay keeps its total.
    - A warm-up (linear, constant or quadratic, from step 0) keeps its own number of steps, but at
      most a tenth of the budget, or its own share of its own training where that is more; shorter
      than two steps it is dropped. What began where the warm-up ended still does.
    - In a config counted in epochs, a scheduler counted in steps that is no warm-up has no length
      to compare with; the last ``end`` among these counts as one.
    - Schedulers that follow a metric are dropped: a trial evaluates once, at its end.

    Args:
        schedulers: a config's `param_scheduler`: None, a mapping, a list of them, or a mapping
            from optimiser names to these.
        train_cfg: the config's own `train_cfg`.
        steps: the budget.
    """
    if not schedulers:
        return None
    if isinstance(schedulers, Mapping) and "type" not in schedulers:
        return {name: scale_schedule(part, train_cfg, steps) for name, part in schedulers.items()}
    listed = [schedulers] if isinstance(schedulers, Mapping) else schedulers
    items: list[dict[str, Any]] = [dict(item) for item in listed if "Plateau" not in _name(item)]
    by_epoch = "max_iters" not in train_cfg
    if not by_epoch:  # counted in epochs it never moves in a training that has one epoch
        items = [item for item in items if not item.get("by_epoch", True)]
    length = train_cfg.get("max_epochs" if by_epoch else "max_iters")
    step_length = _last_end(items) if by_epoch else length
    ends = {}
    scaled = []
    for item in items:
        own = length if item.pop("by_epoch", True) else step_length
        item.pop("convert_to_iter_based", None)
        factor = steps / own if own else 1.0
        if _is_warm_up(item):
            end = _warm_up_end(item["end"], 0.0 if by_epoch else factor, steps)
            ends[item["end"]] = end
            if end >= 2:
                scaled.append({**item, "end": end, "by_epoch": False})
            continue
        scaled.append({**_stretch(item, factor, ends), "by_epoch": False})
    return scaled or None


def _warm_up_end(end: int, factor: float, steps: int) -> int:
    return min(end, max(int(steps * WARM_UP_SHARE), round(end * factor)))


def _stretch(item: Mapping[str, Any], factor: float, ends: Mapping[int, int]) -> dict[str, Any]:
    """One scheduler with every time multiplied; `ends` maps warm-up ends, old to new."""
    new = dict(item)
    for name in _TIMES:
        if isinstance(new.get(name), int | float) and new[name] < FOREVER:
            new[name] = round(new[name] * factor)
    for name in _TIME_LISTS:
        if isinstance(new.get(name), Sequence):
            new[name] = [max(1, round(time * factor)) for time in new[name]]
    begin = item.get("begin", 0)
    if begin in ends:
        new["begin"] = ends[begin]
    end = item.get("end", FOREVER)
    if end < FOREVER:
        # mmengine divides by `end - begin - 1`.
        new["end"] = max(new["end"], new.get("begin", 0) + 2)
        if item.get("T_max") == end - begin:
            new["T_max"] = new["end"] - new.get("begin", 0)
    for name in ("T_max", "step_size", "total_steps"):
        if name in new and new[name] is not None:
            new[name] = max(1, new[name])
    if "Exponential" in _name(item) and factor > 0:
        new["gamma"] = item["gamma"] ** (1.0 / factor)
    return new


def _is_warm_up(item: Mapping[str, Any]) -> bool:
    finite = isinstance(item.get("end"), int) and item["end"] < FOREVER
    return _name(item) in _RISING and item.get("begin", 0) == 0 and finite


def _last_end(items: Sequence[Mapping[str, Any]]) -> int | None:
    ends = [
        item["end"]
        for item in items
        if not item.get("by_epoch", True) and not _is_warm_up(item) and item.get("end", 0) > 0
    ]
    return max((end for end in ends if end < FOREVER), default=None)


def _name(item: Mapping[str, Any]) -> str:
    kind = item["type"]
    return (kind if isinstance(kind, str) else kind.__name__).rsplit(".", 1)[-1]
