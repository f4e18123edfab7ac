"""Verbs that ask a service instead of a store: what they show is what the service answers."""

from __future__ import annotations

import io
import os
import uuid
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from search_server.candidate_names import split_name
from search_server.cli.output import (
    age,
    console,
    duration,
    one_line,
    plain,
    points,
    print_json,
    table,
)
from search_server.client import Client
from search_server.errors import ExportError, JobError, ServiceError, SpecError

if TYPE_CHECKING:
    from search_server.leaderboard_rows import LeaderboardRow
    from search_server.overview import JobSummary

T = TypeVar("T")
A_PAGE = 200  # rows of one answer at most


def connected(url: str) -> Client:
    """The service at a URL, with the token that $LOSSFORGE_TOKEN holds."""
    return Client(url, os.environ.get("LOSSFORGE_TOKEN") or None)


def jobs(url: str, state: str | None) -> tuple[list[JobSummary], list[dict[str, Any]]]:
    """The jobs, as records and as they were answered."""
    from search_server.overview import JobSummary

    with connected(url) as client:
        found = list(client.jobs(state))
    counts = ("confirmed", "published")
    given = [{**job, **{name: job[f"{name}_trials"] for name in counts}} for job in found]
    return [_record(JobSummary, job) for job in given], found


def status(url: str, job: str | None, as_json: bool) -> None:
    """Prints where a job stands."""
    with connected(url) as client:
        found = client.job(_newest(client) if job is None else job)
    if as_json:
        print_json(found)
        return
    from datetime import datetime

    now = found["progress"]
    why = f": {found['reason']}" if found["reason"] else ""
    trials: dict[str, int] = {}
    for states in now["trials"].values():
        for state, count in states.items():
            trials[state] = trials.get(state, 0) + count
    funnel = ", ".join(f"{count:,} {stage}" for stage, count in now["funnel"].items())
    facts = [
        ("state", f"{found['state']}{why}"),
        ("created", f"{age(datetime.fromisoformat(found['created_at']))} ago"),
        ("funnel", funnel),
        ("candidates", f"{found['candidates']}, {found['trained']} with a fitness"),
        ("trials", ", ".join(f"{count} {state}" for state, count in trials.items()) or "none yet"),
        ("best AP", f"{points(found['best'])}, baseline {points(found['baseline'])}"),
    ]
    if now["seconds_left"] is not None:
        facts.append(("left", f"about {duration(now['seconds_left'])}"))
    if now["note"]:
        facts.append(("note", now["note"]))
    out = console()
    out.print(plain(found["id"], "bold"))
    made = table("", " ", fold=(" ",))
    made.show_header = False
    for name, value in facts:
        made.add_row(name, plain(value))
    out.print(made)


def show(url: str, candidate: str, job: str | None, as_json: bool) -> None:
    """Prints one candidate in full."""
    with connected(url) as client:
        of, index = _candidate(client, candidate, job)
        found = client.candidate(of, index)
    if as_json:
        print_json(found)
        return
    from search_server.cli.jobs import print_candidate
    from search_server.store.records import CandidateRecord, TrialRecord

    texts = {"cls_text": found["cls"], "bbox_text": found["bbox"], "key": ""}
    record = _record(CandidateRecord, {**found, **texts})
    own = {"candidate": index, "spec_key": ""}
    trials = [_record(TrialRecord, {**trial, **own}) for trial in found["trials"]]
    print_candidate(of, record, _row(found), trials)


def leaderboard(
    url: str,
    job: str | None,
    *,
    limit: int,
    offset: int,
    state: str | None,
    pareto: bool,
    as_json: bool,
) -> None:
    """Prints the best losses of a job, or of each detector."""
    with connected(url) as client:
        size = min(A_PAGE, limit + offset + 1)
        found = client.leaderboard(job=job, state=state, pareto=pareto, limit=size)
        answered = list(islice(found, offset, offset + limit))
        more = next(found, None) is not None
        told = None if job is None else client.job(job)
        base = None
        if told is not None and told["baseline"] is not None:
            base = _row(client.candidate(told["id"], 0))
    if as_json:
        print_json({"job": job, "rows": answered})
        return
    from search_server.cli.leaderboard import print_group
    from search_server.leaderboard_rows import LeaderboardGroup

    out = console()
    if not answered:
        out.print("No candidates yet.")
    if told is not None:
        rows = tuple(_ranked([_row(row) for row in answered], offset))
        known = next((row for row in rows if row.baseline), base)
        group = LeaderboardGroup("", told["spec"], len(rows), rows, known)
        print_group(out, group, one_job=True)
    else:  # jobs of one detector may train otherwise: no ranks, and no baseline of all
        for number, detector in enumerate(dict.fromkeys(row["detector"] for row in answered)):
            if number:
                out.print()
            out.print(plain(detector, "bold"))
            rows = tuple(_row(row) for row in answered if row["detector"] == detector)
            print_group(out, LeaderboardGroup("", {}, len(rows), rows, None), one_job=False)
    if more:
        out.print("there are more candidates; --limit shows them", style="dim")


def export(
    url: str, job: str | None, candidate: str | None, output: Path, *, standalone: bool, force: bool
) -> tuple[str, list[Path]]:
    """Writes a candidate's config, and its module with `standalone`; the job and the files.

    Raises:
        ExportError: there is no such candidate, or a file is there already.
    """
    with connected(url) as client:
        of, index = _chosen(client, job, candidate)
        content = client.export(of, index, "standalone" if standalone else "config")
    if output.suffix != ".py":
        raise ExportError(f"{str(output)!a} must end in .py: mmengine reads a config as Python")
    files = {output: content}
    if standalone:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            # The config comes first; the module must keep the name that it is imported by.
            config, module = archive.namelist()
            beside = output.with_name(Path(module).name)
            files = {output: archive.read(config), beside: archive.read(module)}
    for file, written in files.items():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("wb" if force else "xb") as opened:
                opened.write(written)
        except FileExistsError:
            raise ExportError(
                f"{str(file)!a} exists; give another name, or --force to replace it"
            ) from None
        except OSError as error:
            raise ExportError(f"cannot write {str(file)!a}: {error.strerror}") from error
    return of, list(files)


def submit(url: str, spec: Path, as_json: bool) -> None:
    """Submits a spec, whose paths and names are read by the service."""
    try:
        text = spec.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SpecError(spec, "", reason, "give the path of a job spec, a YAML file") from None
    with connected(url) as client:
        told(client.submit(text, key=str(uuid.uuid4())), as_json)


def cancel(url: str, job: str, as_json: bool) -> None:
    """Ends a job for good."""
    with connected(url) as client:
        told(client.cancel(job), as_json)


def resume(url: str, job: str, *, force: bool, as_json: bool) -> None:
    """Has the service go on with a job."""
    with connected(url) as client:
        told(client.resume(job, force=force), as_json)


def told(found: dict[str, Any], as_json: bool) -> None:
    """Says what has become of a job."""
    if as_json:
        print_json(found)
        return
    why = f": {found['reason']}" if found["reason"] else ""
    print(one_line(f"job {found['id']} is {found['state']}{why}"))
    print(one_line(f"watch:  lossforge status {found['id']}"))


def _newest(client: Client) -> str:
    found = next(client.jobs(), None)
    if found is None:
        raise JobError("the service has no job yet")
    return str(found["id"])


def _candidate(client: Client, text: str, job: str | None) -> tuple[str, int]:
    """`JOB:INDEX`, or `INDEX` of `--job` or of the newest job."""
    named, index = split_name(text, job)
    return named or _newest(client), index


def _chosen(client: Client, job: str | None, candidate: str | None) -> tuple[str, int]:
    """Job and index of what is to be exported; see `export.choice.choose`."""
    if candidate not in (None, "best", "baseline", "mean"):
        assert candidate is not None
        return _candidate(client, candidate, job)
    of = job or _newest(client)
    if candidate == "baseline":
        return of, 0
    for row in _searched(client, of, candidate):
        return of, int(row["index"])
    what = "final mean" if candidate == "mean" else "candidate that was trained to the end"
    raise ExportError(f"job {of} has no {what} yet")


def _searched(client: Client, job: str, candidate: str | None) -> Iterator[dict[str, Any]]:
    """What a search has found, the best first."""
    for row in client.leaderboard(job=job, state="done", limit=A_PAGE):
        if row["baseline"] or row["rival"] or row["fitness"] is None:
            continue
        if candidate != "mean" or row["origin"] == "mean":
            yield row


def _ranked(rows: list[LeaderboardRow], offset: int) -> Iterator[LeaderboardRow]:
    for place, row in enumerate(rows, start=offset + 1):
        gain = None if row.judged is None else row.judged.gain
        ranked = row.state != "failed" and (row.fitness is not None or gain is not None)
        yield replace(row, rank=place) if ranked else row


def _row(found: dict[str, Any]) -> LeaderboardRow:
    from search_server.leaderboard_rows import LeaderboardRow

    return _record(LeaderboardRow, {**found, "rank": None})


def _record(kind: type[T], found: dict[str, Any]) -> T:
    """A record from what a service answered.

    Raises:
        ServiceError: it is not of this version.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_python(found)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ServiceError(
            f"the service answers otherwise than this version expects ({place}: {first['msg']})"
        ) from None
