"""Successive halving over training steps: who goes on at a rung. Pure functions of the rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from search_server.funnel.outcomes import Heard, TrialKey


def stop_reason(
    rung: int,
    ap: float,
    baseline: float | None,
    earlier: Sequence[float] | NDArray[np.float64],
    reduction: int,
    hopeless: float,
) -> str:
    """Why a candidate is stopped at a rung; empty: it goes on.

    Args:
        rung: training steps.
        ap: the candidate's mean AP there, in [0, 1].
        baseline: the baseline's mean AP there; None: it has none.
        earlier: mean APs there of the predecessors that reached it, those stopped there included,
            in any order.
        reduction: the best `len(earlier) // reduction` predecessors set the mark, once there is
            one; whoever equals it goes on.
        hopeless: share of the baseline's AP that has to be reached.
    """
    if baseline is not None and ap < hopeless * baseline:
        return (
            f"AP {100 * ap:.1f} after {rung} steps; {100 * hopeless * baseline:.1f} was needed, "
            f"{hopeless:g} of the baseline's"
        )
    best = len(earlier) // reduction
    if best and ap < (mark := float(np.partition(earlier, -best)[-best])):
        return (
            f"AP {100 * ap:.1f} after {rung} steps; {100 * mark:.1f} was needed, "
            f"to be like the best {best} of {len(earlier)} before it"
        )
    return ""


@dataclass(frozen=True)
class Standing:
    """How far a candidate is with its rungs.

    Attributes:
        cleared: how many of the rungs, from the first, it may pass or has passed.
        stop: why it is stopped at the next one; empty where it is not.
    """

    cleared: int
    stop: str = ""


@dataclass(frozen=True)
class Halving:
    """The rules of the rungs for one job.

    A candidate at a rung is compared with the baseline and with candidates 1 .. k - window alone,
    so a decision is the same under any timing. It waits only for these, which are older.

    Attributes:
        rungs: training steps, ascending; empty: nobody is stopped.
        reduction, hopeless: see `stop_reason`.
        window: W.
        seeds: of the proxy task; what is compared are means over them.
    """

    rungs: tuple[int, ...]
    reduction: int
    hopeless: float
    window: int
    seeds: tuple[int, ...]

    def standing(self, index: int, heard: Heard) -> Standing:
        """What the results say of candidate `index`, which is at the proxy task."""
        if index == 0:
            return Standing(len(self.rungs))
        for cleared in range(heard.cleared.get(index, 0), len(self.rungs)):
            rung = self.rungs[cleared]
            if not all(self._arrived(key, rung, heard) for key in self._keys(index)):
                return Standing(cleared)
            if (ap := self._mean(index, rung, heard)) is None:
                break  # a seed is lost: the candidate fails when the others have ended
            if not self._judgeable(index, rung, heard):
                return Standing(cleared)
            stop = stop_reason(
                rung,
                ap,
                self._baseline(rung, heard),
                self._earlier(index, rung, heard),
                self.reduction,
                self.hopeless,
            )
            if stop:
                return Standing(cleared, stop)
            heard.cleared[index] = cleared + 1
        return Standing(len(self.rungs))

    def pause(self, index: int, cleared: int) -> int | None:
        """The rung at which a trial of candidate `index` has to wait for a decision; None: it runs
        to its end, as does one that can only be told to go on.

        It depends on no result: what a trial showed at a rung outlives it if it is lost later, and
        would not if it had not waited there.
        """
        enough = index - self.window >= self.reduction
        if index == 0 or cleared == len(self.rungs) or not (enough or self.hopeless > 0):
            return None
        return self.rungs[cleared]

    def means(self, index: int, heard: Heard) -> dict[int, float]:
        """The mean APs over the seeds of a candidate at the rungs that all of its trials reached,
        or did not because they diverged."""
        found = ((rung, self._mean(index, rung, heard)) for rung in self.rungs)
        return {rung: mean for rung, mean in found if mean is not None}

    def _keys(self, index: int) -> Iterable[TrialKey]:
        return (TrialKey(index, "proxy", seed) for seed in self.seeds)

    def _arrived(self, key: TrialKey, rung: int, heard: Heard) -> bool:
        return rung in heard.rungs.get(key, {}) or key in heard.outcomes

    def _value(self, key: TrialKey, rung: int, heard: Heard) -> float:
        """AP of a trial at a rung that it has passed; 0 if it diverged before."""
        return heard.rungs.get(key, {}).get(rung, 0.0)

    def _mean(self, index: int, rung: int, heard: Heard) -> float | None:
        """None for a candidate that did not come there, or lost a seed on the way."""
        keys = list(self._keys(index))
        reached = [rung in heard.rungs.get(key, {}) for key in keys]
        known = [
            there or (key in heard.outcomes and heard.outcomes[key].known)
            for key, there in zip(keys, reached, strict=True)
        ]
        if not any(reached) or not all(known):
            return None
        return fmean(self._value(key, rung, heard) for key in keys)

    def _baseline(self, rung: int, heard: Heard) -> float | None:
        """The mean over the seeds that the baseline was not lost in."""
        values = [
            self._value(key, rung, heard)
            for key in self._keys(0)
            if rung in heard.rungs.get(key, {})
            or (key in heard.outcomes and heard.outcomes[key].known)
        ]
        return fmean(values) if values else None

    def _earlier(self, index: int, rung: int, heard: Heard) -> NDArray[np.float64]:
        open_ones = (self._mean(other, rung, heard) for other in self._open_before(index, heard))
        past = heard.past.upto(rung, index - self.window)
        return np.append(past, [mean for mean in open_ones if mean is not None])

    def _open_before(self, index: int, heard: Heard) -> Iterable[int]:
        return (other for other in heard.open if 1 <= other <= index - self.window)

    def _judgeable(self, index: int, rung: int, heard: Heard) -> bool:
        """Whether all that candidate `index` is compared with is known."""
        if not all(self._arrived(key, rung, heard) for key in self._keys(0)):
            return False
        return all(
            self._arrived(key, rung, heard)
            for other in self._open_before(index, heard)
            for key in self._keys(other)
        )


def steps_taken(
    state: str, steps: int, rungs: Mapping[int, float], curves: Mapping[str, Sequence[float | None]]
) -> int:
    """How many training steps a trial took, as well as its row tells: exactly for one that is done
    or stopped, to a hundredth of `steps` for one that diverged or failed.

    Args:
        steps: of its budget.
    """
    if state in ("done", "timeout"):
        return steps
    last = max(rungs, default=0)
    if state == "paused":
        return last
    drawn = [step for step in curves.get("step", ()) if step is not None]
    return max(last, int(drawn[-1]) if drawn else 0)
