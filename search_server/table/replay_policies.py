"""Successive halving and confirmation, replayed: what they cost, and what they lose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search_server.funnel.rungs import stop_reason
from search_server.table.contents import Table, TableLoss, finals

CANDIDATES = 48  # of a replayed search
WINDOW = 12
ROUNDS = 200


@dataclass(frozen=True)
class HalvingPolicy:
    """Settings of `funnel.proxy`: rungs, reduction and hopeless."""

    rungs: tuple[int, ...]
    reduction: int
    hopeless: float


@dataclass(frozen=True)
class HalvingRow:
    """A policy over many replayed searches.

    Attributes:
        cost: mean of steps taken over those without a policy.
        finished: mean share of the candidates that were trained to the end.
        survives: share of the searches in which the candidate that would have won was not stopped.
        best: share in which the best of the candidates by all their seeds was not stopped.
        regret: mean AP, on other seeds, of the winner without the policy less that with it.
        error: standard error of the regret over the searches.
    """

    policy: HalvingPolicy
    cost: float
    finished: float
    survives: float
    best: float
    regret: float
    error: float


@dataclass(frozen=True)
class ConfirmRow:
    """A confirmation of the best `top` with `seeds` trials each, over many replayed searches.

    Attributes:
        trials: of the confirmation, the baseline's included.
        regret: mean true AP of the best candidate less that of the chosen one.
        luck: mean of what the chosen one was measured at less its true AP.
        gain: mean true AP of the chosen one less the baseline's.
    """

    top: int
    seeds: int
    trials: int
    regret: float
    luck: float
    gain: float


def policies_of(rungs: Sequence[int]) -> list[HalvingPolicy]:
    """The policies that are compared; the first one stops nobody."""
    every, middle = tuple(rungs), tuple(rungs[1:-1]) or tuple(rungs)
    found = [HalvingPolicy((), 3, 0.0)]
    if every:
        found += [
            HalvingPolicy(every, 10**6, 0.5),  # only the hopeless are stopped
            *(HalvingPolicy(every, reduction, 0.5) for reduction in (2, 3, 4)),
            HalvingPolicy(every, 3, 0.0),
            HalvingPolicy(middle, 3, 0.5),
            *(HalvingPolicy((rung,), 3, 0.5) for rung in every),
        ]
    return list(dict.fromkeys(found))


def replay_halving(
    table: Table, group: str, policies: Sequence[HalvingPolicy], seed: int = 0
) -> list[HalvingRow]:
    """Every policy on the same searches; empty as long as fewer than three losses have two seeds.

    A search takes `CANDIDATES` accepted losses in random order, trains them with one of the seeds,
    stops them as the controller does, and chooses the best of those that came to the end. The
    choice is valued on the other seeds.
    """
    losses = [loss for loss in table.trained(group, seeds=2) if not loss.rejected]
    base = table.baseline(group)
    losses = [loss for loss in losses if loss.id != base.id]
    if len(losses) < 3 or len(base.readings) < 2:
        return []
    searches = _searches(table, losses, seed)
    return [_halving_row(policy, table, base, searches) for policy in policies]


def _searches(
    table: Table, losses: Sequence[TableLoss], seed: int
) -> list[tuple[int, list[TableLoss]]]:
    """Seed and candidates in order, of every search."""
    rng = np.random.default_rng(seed)
    found = []
    for turn in range(ROUNDS):
        order = rng.permutation(len(losses))[:CANDIDATES]
        chosen = [losses[int(place)] for place in order]
        seeds = sorted(set.intersection(*(set(loss.readings) for loss in chosen)))
        if len(seeds) > 1:
            found.append((seeds[turn % len(seeds)], chosen))
    return found


def _halving_row(
    policy: HalvingPolicy,
    table: Table,
    base: TableLoss,
    searches: Sequence[tuple[int, list[TableLoss]]],
) -> HalvingRow:
    cost, finished, survives, best, regret = [], [], [], [], []
    for seed, candidates in searches:
        reached = stops(policy, base, seed, candidates)
        spent = [
            min(table.share_of(rung), loss.readings[seed].share)
            for rung, loss in zip(reached, candidates, strict=True)
        ]
        whole = sum(loss.readings[seed].share for loss in candidates)
        through = [loss for loss, rung in zip(candidates, reached, strict=True) if rung is None]
        winner = max(candidates, key=lambda loss: loss.readings[seed].ap)
        chosen = max(through, key=lambda loss: loss.readings[seed].ap, default=base)
        ideal = max(candidates, key=lambda loss: loss.mean() or 0.0)
        cost.append(sum(spent) / whole)
        finished.append(len(through) / len(candidates))
        survives.append(winner in through)
        best.append(ideal in through)
        regret.append(elsewhere(winner, seed) - elsewhere(chosen, seed))
    return HalvingRow(
        policy,
        float(np.mean(cost)),
        float(np.mean(finished)),
        float(np.mean(survives)),
        float(np.mean(best)),
        float(np.mean(regret)),
        float(np.std(regret) / np.sqrt(len(regret))),
    )


def elsewhere(loss: TableLoss, seed: int) -> float:
    """Mean final AP of a loss over its other seeds; of its own where it has no other."""
    others = [each.ap for number, each in loss.readings.items() if number != seed]
    return float(np.mean(others)) if others else loss.readings[seed].ap


def stops(
    policy: HalvingPolicy,
    base: TableLoss,
    seed: int,
    candidates: Sequence[TableLoss],
    window: int = WINDOW,
) -> list[int | None]:
    """The rung at which each candidate is stopped, None where it is not; as the controller does it:
    candidate k is compared with those of 1 .. k - window that reached the rung."""
    found: list[int | None] = []
    for place, loss in enumerate(candidates):
        found.append(None)
        for rung in policy.rungs:
            older = zip(candidates[: max(0, place + 1 - window)], found, strict=False)
            earlier = [
                other.readings[seed].rungs[rung]
                for other, stopped in older
                if stopped is None or stopped >= rung
            ]
            own = base.readings[seed].rungs[rung]
            ap = loss.readings[seed].rungs[rung]
            if stop_reason(rung, ap, own, earlier, policy.reduction, policy.hopeless):
                found[place] = rung
                break
    return found


def replay_confirm(
    table: Table,
    group: str,
    tops: Sequence[int] = (1, 3, 5, 10),
    seeds: Sequence[int] = (1, 2, 4, 8),
    seed: int = 0,
) -> list[ConfirmRow]:
    """Confirmation policies on searches whose noise is drawn; empty before the noise is known.

    A loss's true AP is taken to be its mean over the table's seeds, shrunken towards the mean of
    all by what noise there is in it; a trial is that and a normal deviate of the table's own noise.
    The effect that a seed has on all losses does not change an order and is left out. First every
    candidate has one trial; the best `top` by it have `seeds` more, which alone decide.
    """
    own_noise, base = table.own_noise(group), table.baseline(group)
    losses = [loss for loss in table.trained(group, seeds=2) if not loss.rejected]
    sound = [loss for loss in losses if (loss.mean() or 0.0) >= (base.mean() or 0.0) / 2]
    if own_noise is None or len(sound) < max(*tops, 3):
        return []
    true = shrunken(finals(sound), own_noise / np.sqrt(len(table.seeds)))
    own = float(true[[loss.id for loss in sound].index(base.id)]) if base in sound else None
    if own is None:
        return []
    rows = []
    for top in tops:
        for number in seeds:
            rng = np.random.default_rng(seed)
            regret, luck, gain = [], [], []
            for _ in range(10 * ROUNDS):
                pick = rng.permutation(len(true))[:CANDIDATES]
                values = true[pick]
                first = values + rng.normal(0, own_noise, len(values))
                best = np.argsort(-first, kind="stable")[:top]
                again = values[best] + rng.normal(0, own_noise / np.sqrt(number), len(best))
                chosen = best[int(np.argmax(again))]
                regret.append(values.max() - values[chosen])
                luck.append(again.max() - values[chosen])
                gain.append(values[chosen] - own)
            means = [float(np.mean(each)) for each in (regret, luck, gain)]
            rows.append(ConfirmRow(top, number, (top + 1) * number, *means))
    return rows


def shrunken(values: NDArray[np.float64], error: float) -> NDArray[np.float64]:
    """Values moved towards their mean by the share of their variance that is error.

    Args:
        error: standard deviation of the error of a single value.
    """
    variance = float(np.var(values, ddof=1))
    kept = max(0.0, 1 - error**2 / variance) if variance > 0 else 0.0
    return values.mean() + kept * (values - values.mean())
