"""Other ways to train or to measure, whose noise is compared with that of a spec as it is."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from search_server.errors import JobError
from search_server.joined_splits import JOIN
from search_server.spec import JobSpec
from search_server.spec_trials import SpecTrials, spec_trials

_OWN = ("steps", "batch_size", "split", "average")


@dataclass(frozen=True)
class Variant:
    """Another way to train or to measure, whose noise is to be compared.

    Attributes:
        options: `key=value` changes of the detector's config.
        steps, batch_size, split: None: as without it.
        average: weight of the newest weights in a running mean of all, which is what is
            evaluated, in (0, 1); None: the last weights are evaluated.
    """

    name: str
    options: tuple[str, ...] = ()
    steps: int | None = None
    batch_size: int | None = None
    split: str | None = None
    average: float | None = None

    def trials(self, spec: JobSpec, source: object, base: Variant) -> SpecTrials:
        """What it trains, where it says nothing as `base` does.

        Raises:
            JobError: it would read the split `test`, which `publish` alone reads.
            Others: see `spec_trials`.
        """
        split = self.split or base.split
        if split is not None and "test" in split.split(JOIN):
            raise JobError(
                f"the split {split!a}: noise is not measured on `test`, which a published row "
                "reads once; take confirm, or several: search_val+confirm"
            )
        return spec_trials(
            spec,
            source,
            split=split,
            steps=self.steps or base.steps,
            batch_size=self.batch_size or base.batch_size,
            options=self.options,
            average=self.average,
        )


def parse_variant(text: str) -> Variant:
    """A variant from ``NAME: key=value key=value ...``.

    `steps`, `batch_size`, `split` and `average` are its own keys, all others are changes of the
    detector's config.

    Raises:
        JobError: it is not of this form.
    """
    name, colon, rest = text.partition(":")
    try:
        words = shlex.split(rest)
    except ValueError as error:
        raise JobError(f"--variant {text!a}: {error}") from error
    if not name.strip() or not colon or not words:
        example = "'averaged: average=0.02', 'longer: steps=600'"
        raise JobError(f"--variant {text!a}: it must be NAME: KEY=VALUE ..., as in {example}")
    own: dict[str, str] = {}
    options = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise JobError(f"--variant {text!a}: {word!a} must be KEY=VALUE")
        if key in _OWN:
            own[key] = value
        else:
            options.append(word)
    average = own.get("average")
    return Variant(
        name.strip(),
        tuple(options),
        steps=_whole(text, "steps", own.get("steps")),
        batch_size=_whole(text, "batch_size", own.get("batch_size")),
        split=own.get("split"),
        average=None if average is None else _share(text, average),
    )


def _whole(text: str, key: str, value: str | None) -> int | None:
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and 0 < int(value) < 10**9):
        raise JobError(f"--variant {text!a}: {key} must be a whole number above 0, got {value!a}")
    return int(value)


def _share(text: str, value: str) -> float:
    try:
        share = float(value)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise JobError(f"--variant {text!a}: average must lie between 0 and 1, got {value!a}")
    return share
