"""The seeds of the stages that judge: none of them was used by a stage that chose.

Not by another job either: a loss that one search has confirmed may be what the next one starts
from, or a rival there. So every spec has seeds of its own, a block of numbers that follows from its
content; the same spec, run again, has the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from itertools import count, islice

from search_server.spec import JobSpec

FIRST, BLOCK, BLOCKS = 100_000, 1_000, 100_000  # far above what people give, below 2**31
CONFIRM, TEST = 0, BLOCK // 2  # where in its block a stage begins


def confirm_seeds(spec: JobSpec) -> tuple[int, ...]:
    """The seeds of the stage `confirm`, which is asked for; the same for all that it trains."""
    confirm = spec.funnel.confirm
    if confirm is None:
        return ()
    return _free(_block(spec) + CONFIRM, confirm.seeds, _searched(spec))


def publish_seeds(spec: JobSpec, number: int) -> tuple[int, ...]:
    """The first `number` seeds of the stage `test`; a larger number only adds to them."""
    return _free(_block(spec) + TEST, number, _searched(spec) | set(confirm_seeds(spec)))


def _block(spec: JobSpec) -> int:
    """The first of a spec's own seeds. What is at its default does not count, so that a field of a
    later version changes nothing."""
    text = json.dumps(spec.model_dump(mode="json", exclude_defaults=True), sort_keys=True)
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    return FIRST + BLOCK * (number % BLOCKS)


def _searched(spec: JobSpec) -> set[int]:
    """The seeds of the search itself."""
    return {spec.seed, *spec.funnel.proxy.seeds}


def _free(first: int, number: int, used: Collection[int]) -> tuple[int, ...]:
    return tuple(islice((seed for seed in count(first) if seed not in used), number))
