"""A definition's factor on the learning rate, in a detector's config: put there, and taken off."""

from collections.abc import Iterator, Mapping
from typing import Any

from losses.errors import DefinitionError
from losses.families import type_name

# top level of a config: the factor that its learning rates have been multiplied by
LEARNING_RATE_SCALE = "learning_rate_scale"
# of schedulers: learning rates and no shares of one
_ABSOLUTE = ("eta_min", "eta_max", "min_value")


def scale_learning_rate(config: dict[str, Any], factor: float) -> None:
    """Multiplies a config's own learning rates by a factor.

    These are the optimiser's `lr` and the absolute bounds of the schedulers of learning rates
    (`eta_min`, `eta_max`, `min_value`). What is relative to them follows by itself: `lr_mult` of
    parameter groups, `start_factor`, `gamma`, `eta_min_ratio`. A factor that was put there before
    is divided out first, to 12 digits, so that this gives the old numbers back.

    Args:
        config: plain data; changed in place, with a note of a factor that is not 1.
        factor: in [1e-3, 1e3].

    Raises:
        DefinitionError: the factor is not 1, and the config does not say the learning rate.
    """
    before = config.pop(LEARNING_RATE_SCALE, 1.0)
    if factor == before:
        if factor != 1.0:
            config[LEARNING_RATE_SCALE] = factor
        return
    optimizers = list(_optimizers(config.get("optim_wrapper")))
    if not optimizers or not all(isinstance(each.get("lr"), int | float) for each in optimizers):
        raise DefinitionError(
            "the config names no learning rate: it needs optim_wrapper.optimizer.lr",
            "learning_rate_scale",
        )
    for optimizer in optimizers:
        _rescale(optimizer, "lr", factor, before)
    for scheduler in _schedulers(config.get("param_scheduler")):
        for name in _ABSOLUTE:
            if isinstance(scheduler.get(name), int | float):
                _rescale(scheduler, name, factor, before)
    if factor != 1.0:
        config[LEARNING_RATE_SCALE] = factor


def _rescale(part: dict[str, Any], name: str, factor: float, before: float) -> None:
    own = part[name] if before == 1.0 else float(f"{part[name] / before:.12g}")
    part[name] = float(f"{own * factor:.15g}") if factor != 1.0 else own


def _optimizers(wrapper: Any) -> Iterator[dict[str, Any]]:
    """The optimiser of a wrapper, or those of a mapping from names to wrappers."""
    if not isinstance(wrapper, Mapping):
        return
    if isinstance(wrapper.get("optimizer"), dict):
        yield wrapper["optimizer"]
        return
    for part in wrapper.values():
        yield from _optimizers(part)


def _schedulers(given: Any) -> Iterator[dict[str, Any]]:
    """The schedulers of learning rates in a config's `param_scheduler`."""
    if isinstance(given, list | tuple):
        for part in given:
            yield from _schedulers(part)
    elif isinstance(given, Mapping) and "type" not in given:
        for part in given.values():
            yield from _schedulers(part)
    elif isinstance(given, dict) and _moves_learning_rate(given):
        yield given


def _moves_learning_rate(scheduler: Mapping[str, Any]) -> bool:
    """Those of momentum and of other parameters are named after them."""
    kind = type_name(scheduler["type"])
    if kind.endswith("ParamScheduler"):
        return scheduler.get("param_name", "lr") == "lr"
    return not kind.endswith("Momentum")
