"""The budget of training steps: what a search has spent, and whether one more candidate fits.

It is counted in steps of the proxy's batch size, from the results alone: two searches of one budget
trained on as many images, on whatever machines. A result that an earlier job paid for counts too,
or a search would depend on what else is in its store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from search_server.funnel.outcomes import TrialKey
from search_server.funnel.rungs import steps_taken
from search_server.spec import JobSpec


class StepBudget:
    """What the trials of the simulation and of the proxy task took.

    Sums are exact, so that they do not depend on the order in which the trials ended.

    Attributes:
        limit: steps; None: there is no budget.
    """

    def __init__(self, spec: JobSpec) -> None:
        simulate, proxy = spec.funnel.simulate, spec.funnel.proxy
        self.limit = spec.limits.steps
        self._steps = {"proxy": proxy.steps}
        self._share = {"proxy": 1.0}
        self._baseline = float(proxy.steps * len(proxy.seeds))
        self._candidate = self._baseline  # the most that one costs, on average over a cohort
        if simulate is not None:
            self._steps["simulate"] = simulate.steps
            self._share["simulate"] = simulate.batch_size / proxy.batch_size
            promoted = min(1.0, simulate.keep / spec.searcher.population)
            first = simulate.steps * self._share["simulate"]
            self._candidate = first + promoted * self._baseline
        self._taken: dict[int, dict[TrialKey, float]] = {}  # by candidate
        self._spent = Fraction()
        self._sum = Fraction()  # of the candidates that `upto` was asked for
        self._sums: list[float] = []  # of all up to a candidate

    @property
    def room(self) -> int:
        """Candidates that there is room for beside the baseline, if each costs the most it can."""
        if self.limit is None:
            return 0
        return max(1, int((self.limit - self._baseline) / self._candidate))

    @property
    def spent(self) -> float:
        """Steps of all trials so far."""
        return float(self._spent)

    def note(
        self,
        key: TrialKey,
        state: str,
        rungs: Mapping[int, float],
        curves: Mapping[str, Sequence[float | None]],
    ) -> None:
        """A trial that has ended, or is paused; later stages are not counted.

        Nothing may be noted any more of candidates that `upto` was asked for.
        """
        if key.stage in self._steps:
            assert key.candidate >= len(self._sums), key
            steps = steps_taken(state, self._steps[key.stage], rungs, curves)
            taken = self._taken.setdefault(key.candidate, {})
            before, taken[key] = taken.get(key, 0.0), steps * self._share[key.stage]
            self._spent += Fraction(taken[key]) - Fraction(before)

    def refuses(self, index: int, seen: int) -> str:
        """Why candidate `index` is not made; empty where it finds room.

        Args:
            seen: the last candidate whose results count; those after it are taken to cost what the
                ones before cost on average. So what is decided depends on no timing.
        """
        if self.limit is None or index == 0:
            return ""
        base = self.upto(0) if seen >= 0 else self._baseline
        own = self.upto(seen) - base if seen > 0 else 0.0
        mean = own / seen if seen > 0 else self._candidate
        if base + own + (index - max(seen, 0)) * mean <= self.limit:
            return ""
        return f"the budget of {self.limit:,} training steps has no room for candidate {index}"

    def share(self, last: int) -> float | None:
        """The share of the budget that the candidates up to `last` took; None without a budget."""
        return None if self.limit is None else self.upto(last) / self.limit

    def upto(self, last: int) -> float:
        """Steps of the baseline's trials and those of the candidates up to `last`."""
        while len(self._sums) <= last:
            taken = self._taken.pop(len(self._sums), {})
            self._sum += sum(map(Fraction, taken.values()))
            self._sums.append(float(self._sum))
        return self._sums[last] if last >= 0 else 0.0
