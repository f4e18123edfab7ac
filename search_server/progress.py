"""A picture of a running job, for whoever watches it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from search_server.candidates import ACCEPTED
from search_server.jobs import Job
from search_server.ledger import Ledger
from search_server.ranking_text import is_joint, ranking_text
from search_server.rounds import Rounds
from search_server.spec import JobSpec, PolicySearcher
from search_server.store import CandidateRecord


@dataclass(frozen=True)
class Best:
    """The best candidate so far; `fitness` is AP in [0, 1], the losses as in `LeaderboardRow`."""

    index: int
    fitness: float
    cls: str | None
    bbox: str | None
    rpn: str | None = None
    joint: bool = False


@dataclass(frozen=True)
class Progress:
    """Where a job stands.

    Attributes:
        funnel: draws that were made, candidates that were verified, simulated and proxy-trained,
            of these `stopped` at a rung and `confirmed` where the job has such; the baseline is not
            among them.
        candidates, of: candidates made so far, and how many the job is to make.
        baseline: fitness of the baseline, AP in [0, 1], once it is known.
        best: best candidate other than the baseline.
        running: trials under way, `candidate 12 proxy seed 0`.
        done: trials that have ended.
        trials: trials that the whole job is expected to take.
        seconds_left: estimate from the mean of the trials so far; None before the first.
        waiting_for: what has to come before any trial can run; empty while there is room.
        round: of a policy search: `round 3 of 10`, or `final mean`; `confirming` once the search is
            over; else empty.
        steps_spent, steps_of: of the budget of training steps; None where there is none.
    """

    job: str
    funnel: Mapping[str, int]
    candidates: int
    of: int
    baseline: float | None
    best: Best | None
    running: tuple[str, ...]
    done: int
    trials: int
    seconds_left: float | None
    waiting_for: str = ""
    round: str = ""
    steps_spent: float | None = None
    steps_of: int | None = None


def expected_trials(
    candidates: int, population: int, keep: int | None, seeds: int
) -> dict[str, int]:
    """Trials per stage if nothing fails: the baseline, and the candidates in their cohorts."""
    if keep is None:
        return {"simulate": 0, "proxy": (candidates + 1) * seeds}
    full, rest = divmod(candidates, population)
    promoted = full * min(keep, population) + min(keep, rest)
    return {"simulate": candidates, "proxy": (promoted + 1) * seeds}


def expected_confirmations(spec: JobSpec) -> int:
    """Trials of the stage `confirm`: the baseline, the best, the rivals."""
    confirm = spec.funnel.confirm
    if confirm is None:
        return 0
    best = min(confirm.top, spec.candidates) + isinstance(spec.searcher, PolicySearcher)
    return confirm.seeds * (1 + best + len(confirm.rivals))


def snapshot(job: Job, ledger: Ledger, slots: int, lacks: str = "") -> Progress:
    """The state of a job now; `slots` and `lacks` are what its `Executor` says."""
    made = [each for each in ledger.candidates.values() if 0 < each.index <= ledger.last]
    ranked = [each for each in made if each.state == "done" and each.fitness is not None]
    best = max(ranked, key=lambda each: (each.fitness or 0.0, -each.index), default=None)
    baseline = ledger.candidates.get(0)
    expected = expected_trials(
        _candidates(ledger, len(made)),
        job.spec.searcher.population,
        job.stages.keep,
        len(job.stages.proxy_seeds),
    )
    funnel = {
        "drawn": sum(ledger.counts.values()),
        "verified": sum(n for (_, why), n in ledger.counts.items() if why == ACCEPTED),
        "simulated": sum(each.simulate_score is not None for each in made),
        "proxy": sum(each.stage == "proxy" and each.state != "open" for each in made),
    }
    confirming = ledger.confirmed
    if job.stages.halving.rungs:
        at_a_rung = (each for each in made if each.stage == "proxy")
        funnel["stopped"] = sum(each.state == "dropped" for each in at_a_rung)
    if job.stages.confirm_seeds:
        funnel["confirmed"] = sum(ledger.is_confirmed(index) for index in confirming if index)
        expected["confirm"] = (
            len(confirming) * len(job.stages.confirm_seeds)
            if confirming
            else expected_confirmations(job.spec)
        )
    limit = ledger.budget.limit
    return Progress(
        job=job.id,
        funnel=funnel,
        candidates=len(made),
        of=_candidates(ledger, len(made)),
        baseline=baseline.fitness if baseline is not None else None,
        best=None if best is None else _best(ledger.record(best.index)),
        running=tuple(
            f"candidate {key.candidate} {key.stage} seed {key.seed}" for key in ledger.running
        ),
        done=ledger.hearing.ended.total(),
        trials=sum(expected.values()),
        seconds_left=_seconds_left(ledger, expected, slots),
        waiting_for=lacks if ledger.running else _others(ledger.awaited),
        round="confirming" if confirming else _round(job, len(made)),
        steps_spent=None if limit is None else ledger.budget.spent,
        steps_of=limit,
    )


def _candidates(ledger: Ledger, made: int) -> int:
    """How many candidates there will be; under a budget of steps, if they go on to cost as much."""
    limit, spent = ledger.budget.limit, ledger.budget.spent
    if limit is None:
        return ledger.last
    if made < 2 or not spent:
        return min(ledger.last, ledger.budget.room)
    return min(ledger.last, max(made, round(made * limit / spent)))


def _best(record: CandidateRecord) -> Best:
    rpn, cls = record.definition.get("rpn"), record.definition.get("cls")
    return Best(
        record.index,
        record.fitness or 0.0,
        record.cls_text,
        record.bbox_text,
        None if rpn is None else ranking_text(rpn),
        is_joint(cls),
    )


def _others(awaited: int) -> str:
    """What a job waits for that trains nothing, because another one does."""
    return f"{awaited} trials that another job of this store trains now" if awaited else ""


def _round(job: Job, newest: int) -> str:
    """The round of the newest candidate of a policy search, for people."""
    searcher = job.spec.searcher
    if not isinstance(searcher, PolicySearcher) or newest == 0:
        return ""
    number = Rounds(searcher.rounds, searcher.samples).round(newest)
    return "final mean" if number is None else f"round {number} of {searcher.rounds}"


def _seconds_left(ledger: Ledger, expected: Mapping[str, int], slots: int) -> float | None:
    """Trials that are left times the mean seconds of their stage, shared by the slots."""
    means = ledger.hearing.mean_seconds()
    if not means:
        return None
    total = 0.0
    for stage, count in expected.items():
        ended = ledger.hearing.ended[stage]
        # a stage that nothing is known of yet counts like the one that is known
        total += max(0, count - ended) * means.get(stage, max(means.values()))
    return total / max(1, slots)
