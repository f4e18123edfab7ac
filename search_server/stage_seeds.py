"""The seeds of the stages that judge: none of them was used by a stage that chose."""

from __future__ import annotations

from collections.abc import Collection
from itertools import count, islice

from search_server.spec import JobSpec

FIRST_CONFIRM, FIRST_TEST = 1000, 2000


def confirm_seeds(spec: JobSpec) -> tuple[int, ...]:
    """The seeds of the stage `confirm`, which is asked for; the same for all that it trains."""
    confirm = spec.funnel.confirm
    return () if confirm is None else _free(FIRST_CONFIRM, confirm.seeds, _searched(spec))


def publish_seeds(spec: JobSpec, number: int) -> tuple[int, ...]:
    """The first `number` seeds of the stage `test`; a larger number only adds to them."""
    return _free(FIRST_TEST, number, _searched(spec) | set(confirm_seeds(spec)))


def _searched(spec: JobSpec) -> set[int]:
    """The seeds of the search itself."""
    return {spec.seed, *spec.funnel.proxy.seeds}


def _free(first: int, number: int, used: Collection[int]) -> tuple[int, ...]:
    return tuple(islice((seed for seed in count(first) if seed not in used), number))
