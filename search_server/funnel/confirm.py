"""The stage `confirm` as pure functions of rows: which losses are trained anew."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from losses import LossDefinition
from search_server.funnel.outcomes import TrialKey
from search_server.funnel.past import Fate
from search_server.spec.budgets import Confirm
from search_server.spec.given_losses import definition_of
from search_server.store import CandidateRecord
from search_server.store.records import Stage


def rivals_of(confirm: Confirm) -> list[LossDefinition]:
    """The rivals of a job, in the order of its spec."""
    return [definition_of(given) for given in confirm.rivals]


def best_candidates(candidates: Sequence[CandidateRecord | Fate], top: int) -> list[int]:
    """The best `top` candidates by fitness, the first of equals first; a policy search's final
    mean too. None without an AP above 0: it was trained in vain."""
    trained = [
        each
        for each in candidates
        if each.origin not in ("baseline", "rival") and each.state == "done" and each.fitness
    ]
    ranked = sorted(trained, key=lambda each: (-(each.fitness or 0.0), each.index))
    mean = [each.index for each in ranked[top:] if each.origin == "mean"]
    return [each.index for each in ranked[:top]] + mean


def confirmed(
    candidates: Mapping[int, Fate], known: Mapping[str, int], confirm: Confirm | None
) -> tuple[int, ...]:
    """Who is trained in the stage `confirm`, once all candidates are resolved: the baseline, the
    best and the rivals; nobody where there is no such stage, or nothing was found.

    A rival that is a candidate of the job anyway has no row of its own.

    Args:
        known: the candidates by the keys of their losses.
    """
    if confirm is None:
        return ()
    best = best_candidates(list(candidates.values()), confirm.top)
    if not best:
        return ()
    rivals = [known[rival.key] for rival in rivals_of(confirm) if rival.key in known]
    return tuple(dict.fromkeys((0, *best, *rivals)))


def paired_trials(indices: Sequence[int], stage: Stage, seeds: Sequence[int]) -> Iterator[TrialKey]:
    """Their trials, seed by seed: what is there early can be compared."""
    for seed in seeds:
        for index in indices:
            yield TrialKey(index, stage, seed)
