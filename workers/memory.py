"""What a detector remembers in plain attributes, where no state_dict has it.

Most detectors remember nothing there. Some do: mmdet's dynamic R-CNN keeps its history of overlaps
in a list, YOLOX's preprocessor the size of its current batches, RTMDet's pipelines the images of
batches before. Such a training cannot be continued from its tensors.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_OWN_RECORDS = ("mmengine.", "workers.")  # hooks that time and log, or come with a state of theirs


def memory_of(runner: Any) -> dict[str, Any]:
    """The plain attributes of a runner's model, training pipeline and foreign hooks, by name.

    Numbers, texts and lists of these. They are equal at two times if nothing was remembered in
    between; of what is no plain data it says nothing.
    """
    model = getattr(runner.model, "module", runner.model)  # what several processes wrap it in
    things: dict[str, Any] = {f"model.{name}": part for name, part in model.named_modules()}
    for transform in _transforms(runner.train_dataloader.dataset):
        things[f"pipeline.{len(things)}.{type(transform).__name__}"] = transform
    for hook in runner.hooks:
        if not type(hook).__module__.startswith(_OWN_RECORDS):
            things[f"hook.{type(hook).__name__}"] = hook
    return {
        f"{name}.{attribute}": _copy(value)
        for name, thing in things.items()
        for attribute, value in getattr(thing, "__dict__", {}).items()
        if attribute != "training" and _is_plain(value)
    }


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """The names whose values differ, or are in one of the two alone."""
    nothing = object()
    names = sorted(set(before) | set(after))
    return [name for name in names if before.get(name, nothing) != after.get(name, nothing)]


def _transforms(part: Any) -> Iterator[Any]:
    """The transforms of a data set, of those that it is made of, and of nested pipelines."""
    if isinstance(part, list | tuple):
        for each in part:
            yield from _transforms(each)
        return
    inside = [getattr(part, name, None) for name in ("pipeline", "transforms", "dataset")]
    yield from _transforms([each for each in inside if each is not None])
    if not hasattr(part, "__getitem__"):
        yield part


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def _copy(value: Any) -> Any:
    return tuple(map(_copy, value)) if isinstance(value, list | tuple) else value
