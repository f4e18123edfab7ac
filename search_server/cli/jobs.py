"""`lossforge jobs` and `lossforge show`: what there is, and one candidate in full."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search_server.cli.options import (
    JsonOption,
    ServerOption,
    StoreOption,
    candidate_id,
    open_store,
    server_url,
)

if TYPE_CHECKING:
    from rich.table import Table

    from search_server.leaderboard import LeaderboardRow
    from search_server.overview import JobSummary, RoundSummary
    from search_server.store import CandidateRecord, Store, TrialRecord


class JobStateFilter(StrEnum):
    """The states of a job."""

    created = "created"
    running = "running"
    cancelling = "cancelling"
    interrupted = "interrupted"
    done = "done"
    failed = "failed"
    cancelled = "cancelled"


def jobs(
    job: Annotated[
        str | None,
        typer.Argument(
            metavar="[JOB]", help="One job: its funnel and traced draws.", show_default=False
        ),
    ] = None,
    state: Annotated[
        JobStateFilter | None, typer.Option(help="Only jobs in this state.", show_default=False)
    ] = None,
    store: StoreOption = None,
    server: ServerOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the jobs, the newest first: state, candidates, best AP beside the baseline's.

    With a JOB: how many draws of each kind were rejected why, and what `--trace` kept of them; of
    a policy search its rounds instead. There `mean AP` is the final mean's: what was found.

    Example: lossforge jobs --state interrupted
    """
    from search_server.cli.output import print_json
    from search_server.overview import summaries

    if (url := server_url(server, store)) is not None:
        from search_server.cli import remote

        if job is not None:
            remote.status(url, job, as_json)
            return
        told, answered = remote.jobs(url, None if state is None else state.value)
        print_json({"jobs": answered}) if as_json else _print_jobs(told, state)
        return
    if job is not None:
        with open_store(store) as opened:
            _one_job(opened, job, as_json)
        return
    with open_store(store) as opened:
        found = [each for each in summaries(opened) if state is None or each.state == state.value]
    if as_json:
        print_json({"jobs": found})
        return
    _print_jobs(found, state)


def _print_jobs(found: list[JobSummary], state: JobStateFilter | None) -> None:
    from search_server.cli.output import age, console, plain, points, table

    out = console()
    if not found:
        out.print("No jobs." if state is None else f"No jobs that are {state.value}.")
        return
    by_round = any(each.rounds is not None for each in found)
    made = table(
        *("job", "state", "age", "candidates"),
        *(["round"] if by_round else []),
        *("trained", "best AP"),
        *(["mean AP"] if by_round else []),
        *("baseline", "why"),
        right=("age", "candidates", "round", "trained", "best AP", "mean AP", "baseline"),
        fold=("why",),
    )
    for each in found:
        made.add_row(
            plain(each.id),
            each.doing,
            age(each.created_at),
            str(each.candidates),
            *([_round(each)] if by_round else []),
            str(each.trained),
            points(each.best),
            *([points(each.mean)] if by_round else []),
            points(each.baseline),
            plain(each.reason),
        )
    out.print(made)


def _round(job: JobSummary) -> str:
    """How far a policy search is: 7/40."""
    return "-" if job.rounds is None else f"{job.round}/{job.rounds}"


def _one_job(store: Store, job_id: str, as_json: bool) -> None:
    """A job's state, its rounds or its funnel counts by outcome and origin, its traced draws."""
    from search_server.cli.formula import Formula
    from search_server.cli.output import age, console, plain, print_json, table
    from search_server.overview import round_summaries
    from search_server.store.records import SAME

    job, counts, draws = store.job(job_id), store.counts(job_id), store.draws(job_id)
    rounds = round_summaries(store, job_id)
    if as_json:
        listed = [{"origin": o, "outcome": why, "count": n} for (o, why), n in counts.items()]
        print_json({"job": job, "counts": listed, "rounds": rounds, "draws": draws})
        return
    out = console()
    why = f": {job.reason}" if job.reason else ""
    out.print(plain(f"{job.id}, {job.state}{why}, created {age(job.created_at)} ago", "bold"))
    if rounds:
        out.print(_rounds_table(rounds))
        return
    origins = sorted({origin for origin, _ in counts})
    totals: dict[str, int] = {}
    for (_, outcome), count in counts.items():
        totals[outcome] = totals.get(outcome, 0) + count
    made = table("outcome of a draw", *origins, "all", right=(*origins, "all"))
    for outcome in sorted(totals, key=lambda name: (name != "accepted", -totals[name])):
        row = [counts.get((origin, outcome), 0) for origin in origins]
        made.add_row(plain(outcome), *(f"{count:,}" for count in (*row, totals[outcome])))
    out.print(made)
    # merged draws are whole definitions, for `db check-identity`: too long for people
    if draws := [draw for draw in draws if not draw.outcome.startswith(SAME)]:
        traced = table("for", "origin", "outcome", "draw", fold=("draw",))
        for draw in draws:
            traced.add_row(
                str(draw.candidate), draw.origin, plain(draw.outcome), Formula(draw.text)
            )
        out.print(traced)


def _rounds_table(rounds: list[RoundSummary]) -> Table:
    """A policy search, a line per round: the rewards that moved the policy."""
    from search_server.cli.output import points, table

    names = ("round", "made", "trained", "AP 0", "failed", "mean AP", "± sd", "best AP")
    made = table(*names, right=names)
    for each in rounds:
        made.add_row(
            "final mean" if each.round is None else str(each.round),
            str(each.made),
            str(each.trained),
            str(each.zero),
            str(each.failed),
            points(each.mean),
            points(each.deviation),
            points(each.best),
        )
    return made


def show(
    candidate: Annotated[str, typer.Argument(metavar="CANDIDATE", help="JOB:INDEX, or INDEX.")],
    job: Annotated[
        str | None,
        typer.Option(help="The job, when CANDIDATE is an INDEX; default: the newest."),
    ] = None,
    store: StoreOption = None,
    server: ServerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one candidate: its loss in full, where it comes from, and all its trials.

    Example: lossforge show digits-atss-1:12
    """
    from search_server.cli.output import print_json
    from search_server.leaderboard import leaderboard_row

    if (url := server_url(server, store)) is not None:
        from search_server.cli import remote

        remote.show(url, candidate, job, as_json)
        return
    with open_store(store) as opened:
        job_id, index = candidate_id(opened, candidate, job)
        record = opened.candidate(job_id, index)
        trials = opened.trials(job_id, index, curves=as_json)
        row = leaderboard_row(opened, job_id, index)
    if as_json:
        row_part = {name: getattr(row, name) for name in ("deviation", "difference", "judged")}
        print_json({"job": job_id, "candidate": record, **row_part, "trials": trials})
        return
    print_candidate(job_id, record, row, trials)


def print_candidate(
    job_id: str, record: CandidateRecord, row: LeaderboardRow, trials: list[TrialRecord]
) -> None:
    """One candidate in full, for people."""
    import json

    from search_server.cli.formula import Formula
    from search_server.cli.leaderboard import difference
    from search_server.cli.output import console, duration, plain, points, table
    from search_server.store import METRICS

    out = console()
    title = f"{job_id}:{record.index}" + ("" if record.name is None else f"  {record.name}")
    out.print(plain(title, "bold"))
    why = f": {record.reason}" if record.reason else ""
    facts: list[tuple[str, str]] = [
        ("origin", _origin(record, row)),
        ("state", f"{record.state} at {record.stage}{why}"),
        *_losses(record, row),
        *_factors(record),
        ("simulated", f"AP {points(record.simulate_score)}"),
        ("fitness", f"AP {points(record.fitness)}" + _spread(row)),
        ("to baseline", "it is the baseline" if row.baseline else difference(row.difference)),
        *_readings(row),
        ("definition", json.dumps(record.definition)),
    ]
    made = table("", " ", fold=(" ",))
    made.show_header = False
    for name, value in facts:
        made.add_row(name, Formula(value))
    out.print(made)
    if not trials:
        return
    out.print()
    listed = table(
        *("stage", "seed", "state", "AP", "AP50", "AP75", "APs", "APm", "APl", "took", "why"),
        right=("seed", "AP", "AP50", "AP75", "APs", "APm", "APl", "took"),
        fold=("why",),
    )
    for trial in trials:
        listed.add_row(
            trial.stage,
            str(trial.seed),
            trial.state,
            points(trial.fitness),
            *(points(trial.metrics.get(name)) for name in METRICS),
            duration(trial.seconds.get("total")),
            plain(trial.reason),
        )
    out.print(listed)
    for trial in trials:
        if trial.log:
            out.print(plain(f"the end of what {trial.stage} seed {trial.seed} printed:", "bold"))
            for line in trial.log.splitlines()[-20:]:
                out.print(plain(line, "dim"))


def _factors(record: CandidateRecord) -> list[tuple[str, str]]:
    """What calibration multiplied the losses by, where the job calibrates."""
    found = (record.calibration or {}).items()
    return [("calibrated", ", ".join(f"{name} × {value:g}" for name, value in found))] * bool(found)


def _origin(record: CandidateRecord, row: LeaderboardRow) -> str:
    """Where a candidate comes from, in words."""
    if record.origin == "mean":
        return "mean of the final policy"
    if row.round is not None:
        return f"{record.origin}, round {row.round}"
    parents = ", ".join(map(str, record.parents))
    return record.origin + (f" of {parents}" if parents else "")


def _losses(record: CandidateRecord, row: LeaderboardRow) -> list[tuple[str, str]]:
    """The loss of every branch; of a ranking loss its formula, its functions too."""
    own = "the detector's own loss"
    if row.joint:
        facts = [("loss", record.cls_text or own)]
    else:
        facts = [("cls", record.cls_text or own), ("bbox", record.bbox_text or own)]
    if row.rpn is not None:
        facts.append(("rpn", row.rpn))
    if record.size:
        facts.append(("size", f"{record.size} nodes"))
    return [*facts, *_ranking_facts(record.definition)]


def _ranking_facts(definition: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The formulas of the ranking branches, each once, and their functions."""
    given = {name: definition.get(name) for name in ("cls", "rpn")}
    ranking = {
        name: data
        for name, data in given.items()
        if isinstance(data, dict) and data.get("type") == "ranking"
    }
    if not ranking:
        return []
    from losses import LossesError, RankingBranch
    from search_server.ranking_formulas import function_lines, ranking_lines

    facts: list[tuple[str, str]] = []
    seen: set[str] = set()
    for name, data in ranking.items():
        try:
            branch = RankingBranch.from_json(data)
        except LossesError:
            continue  # what a later version wrote: its summary stands above
        lines = [] if branch.loss in seen else ranking_lines(branch)
        seen.add(branch.loss)
        facts += [("formula" * (not n), line) for n, line in enumerate(lines)]
        title = "functions" if name == "cls" else "of the RPN"
        facts += [(title * (not n), line) for n, line in enumerate(function_lines(branch))]
    return facts


def _readings(row: LeaderboardRow) -> list[tuple[str, str]]:
    """What the stages that judge say of a candidate, each on a line, and what it took over."""
    from search_server.cli.leaderboard import interval, p_value
    from search_server.cli.output import points

    facts: list[tuple[str, str]] = []
    if (judged := row.judged) is not None:
        more = "" if judged.p is None else f", p {p_value(judged.p)}"
        if more and judged.family:
            more += f", corrected for {judged.family} confirmed"
        if judged.shrunken is not None:
            more += f"; shrunken {100 * judged.shrunken:+.1f}"
        test = None if judged.test is None else judged.test.difference
        own = "" if test is None or test.p is None else f", p {p_value(test.p)}"
        for stage, reading, what in (("confirm", judged.confirm, more), ("test", judged.test, own)):
            if reading is None:
                continue
            seeds = "1 seed" if reading.ap.count == 1 else f"{reading.ap.count} seeds"
            text = f"AP {points(reading.ap.mean)} over {seeds}"
            if reading.difference is not None:
                text += f"; {interval(reading.difference)} to the baseline{what}"
            facts.append((stage, text))
    if row.reused:
        facts.append(("reused", ", ".join(row.reused)))
    return facts


def _spread(row: LeaderboardRow) -> str:
    if row.deviation is None:
        return ""
    return f" ± {100 * row.deviation:.1f} over {row.seeds} seeds"
