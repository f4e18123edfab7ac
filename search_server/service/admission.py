"""A spec that somebody has sent becomes a `JobSpec` that names nothing but what the service allows.

Names of detectors and data sets are looked up in the settings; every other place of a spec where a
path could stand refuses one before it is touched (`spec.places`). So who can submit can neither
read a file of this machine nor run code on it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from search_server.errors import SpecError
from search_server.service.problems import Problem, of_specs, told
from search_server.service.settings import Most, ServiceSettings
from search_server.spec import JobSpec
from search_server.spec.data import DataSpec
from search_server.spec.loading import MAX_BYTES, MAX_DEPTH, read_yaml, spec_or_problems
from search_server.spec.places import Places

log = logging.getLogger(__name__)

SOURCE = "spec"
PACKAGED_DATA = "digits"  # what a spec without `data` means
Kind = Literal["json", "yaml"]


def admitted(
    content: bytes, kind: Kind, settings: ServiceSettings, *, wrapped: bool = False
) -> JobSpec:
    """The spec in a body.

    Args:
        wrapped: JSON has the spec as its field `spec`.

    Raises:
        Problem: 422, with every field that is wrong; 413, it is too long.
    """
    if len(content) > MAX_BYTES:
        raise Problem(413, f"a spec has at most {MAX_BYTES} bytes")
    try:
        data = _read_json(content) if kind == "json" else read_yaml(content, SOURCE)
        if wrapped and kind == "json":
            if not isinstance(data, dict) or list(data) != ["spec"]:
                raise _wrong("", data, 'it must be {"spec": {...}}')
            data = data["spec"]
        if not isinstance(data, dict):
            raise _wrong("", data, "a job spec is a mapping of fields")
    except SpecError as error:
        raise _refused([error]) from None
    return admitted_fields(data, settings)


def admitted_fields(data: Mapping[str, Any], settings: ServiceSettings) -> JobSpec:
    """The spec in plain data, which has been bounded in size and depth. Raises: see `admitted`."""
    given, wrong = dict(data), list(_wrong_names(data, settings))
    detectors = settings.allowed_detectors()
    # In the place of a wrong name comes a right one, so that the other fields are looked at too.
    if (name := given.get("detector")) is not None:
        given["detector"] = detectors.get(name if isinstance(name, str) else "") or next(
            iter(detectors.values()), name
        )
    if "data" in given:
        chosen = given["data"]
        meant = settings.data.get(chosen if isinstance(chosen, str) else "", PACKAGED_DATA)
        given["data"] = meant.model_dump(mode="json") if isinstance(meant, DataSpec) else meant
    found = spec_or_problems(given, SOURCE, Places(only=_paths(settings)))
    if isinstance(found, list):
        raise _refused([*wrong, *found])
    wrong += _beyond(found, settings.most)
    if wrong:
        raise _refused(wrong)
    return found


def _read_json(content: bytes) -> object:
    """Raises: SpecError."""
    try:
        data: object = json.loads(content, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        found = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise _wrong("", found, "it must be JSON in UTF-8") from None
    if not _shallow(data, MAX_DEPTH):
        raise _wrong("", "it is nested too deeply", f"at most {MAX_DEPTH} levels are read")
    return data


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _shallow(data: object, levels: int) -> bool:
    if not isinstance(data, dict | list):
        return True
    within = data.values() if isinstance(data, dict) else data
    return levels > 0 and all(_shallow(each, levels - 1) for each in within)


def _wrong_names(data: Mapping[str, Any], settings: ServiceSettings) -> Iterator[SpecError]:
    """A detector or data set that is not one of the settings'."""
    allowed: dict[str, Mapping[str, object]] = {
        "detector": settings.allowed_detectors(),
        "data": settings.data,
    }
    for field, names in allowed.items():
        listed = ", ".join(names) or "none: this service allows no detector"
        value = data.get(field)
        if field in data and not (isinstance(value, str) and value in names):
            yield _wrong(field, value, f"it must be one of {listed}")
    if "data" not in data and settings.data.get(PACKAGED_DATA) != PACKAGED_DATA:
        yield _wrong("data", "nothing", f"it must be one of {', '.join(settings.data)}")


def _paths(settings: ServiceSettings) -> frozenset[str]:
    """What the settings themselves name; nobody else has put it into a spec."""
    splits = (
        split
        for given in settings.data.values()
        if isinstance(given, DataSpec)
        for name in DataSpec.model_fields
        if (split := getattr(given, name)) is not None
    )
    data = {path for split in splits for path in (split.annotations, split.images)}
    return frozenset(data | set(settings.allowed_detectors().values()))


def _beyond(spec: JobSpec, most: Most) -> Iterator[SpecError]:
    """What asks for more than the settings grant."""
    resources, funnel = spec.resources, spec.funnel
    asked: list[tuple[str, float | None, float | None]] = [
        (f"resources.{name}", getattr(resources, name), getattr(most, name))
        for name in ("cpus", "gpus", "threads", "processes", "memory_gb")
    ]
    stages = {
        "funnel.simulate": funnel.simulate,
        "funnel.proxy": funnel.proxy,
        "funnel.proxy.warm_start": funnel.proxy.warm_start,
        "funnel.confirm": funnel.confirm,
    }
    steps = {f"{name}.steps": stage.steps for name, stage in stages.items() if stage is not None}
    asked += [(field, given, most.trial_steps) for field, given in steps.items()]
    asked.append(("candidates", spec.candidates, most.candidates))
    asked.append(("limits.job_hours", spec.limits.job_hours, most.job_hours))
    for field, given, bound in asked:
        if bound is not None and given is not None and given > bound:
            yield _wrong(field, given, f"this service grants at most {bound:g}")
    if most.job_hours is not None and spec.limits.job_hours is None:
        allowed = f"this service wants a limit, of at most {most.job_hours:g} hours"
        yield _wrong("limits.job_hours", None, allowed)


def _refused(found: Sequence[SpecError]) -> Problem:
    """The problem; what was tried is logged."""
    tried = ", ".join(f"{each.field[:100]!a}: {told(each.value)!a}" for each in found[:5])
    log.warning("refused 422 a spec with %d problems: %s", len(found), tried)
    return of_specs(found)


def _wrong(field: str, value: object, allowed: str) -> SpecError:
    return SpecError(SOURCE, field, value, allowed)
