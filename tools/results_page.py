"""Writes what the evidence's store holds into docs/results.md, its pictures, and the found losses.

    python tools/results_page.py     # the last step of tools/evidence.py too

Everything below the page's heading "Results" is written anew from the store; the protocol above it
is left alone. Nothing is trained.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from losses import LossDefinition
from search_server.export.choice import gains_of
from search_server.export.evidence import write_published
from search_server.formulas import branch_texts
from search_server.leaderboard import trial_group
from search_server.paired_statistics import Paired
from search_server.power import seeds_needed
from search_server.publish import Publication, ReadOut, prepare_publication, read_out
from search_server.report import report
from search_server.report.races import Race, races
from search_server.seed_statistics import spread
from search_server.spec import load_spec
from search_server.spec_trials import spec_trials
from search_server.store import CandidateRecord, JobRecord, Store
from workers.result import LOST

ROOT = Path(__file__).resolve().parent.parent
SPECS = ROOT / "configs" / "evidence"
WORK = ROOT / "work_dirs" / "evidence"
STORE = f"sqlite:///{WORK / 'store.db'}"
PAGE = ROOT / "docs" / "results.md"
FOUND = ROOT / "configs" / "losses" / "discovered"
HEADING = "## Results\n"
GAINS = {"atss": 0.008, "faster_rcnn": 0.011, "retinanet": 0.008}  # AP that the papers report
FEWEST, MOST = 8, 16  # seeds of a reading of `test`
DETECTORS = {"atss": "ATSS", "faster_rcnn": "Faster R-CNN", "retinanet": "RetinaNet"}
KINDS = ("tuning", "tuning_long", "search", "vanilla", "random", "plain")
RIVALS = ("random", "plain", "vanilla", "tuning")  # whose way is drawn beside the search's


def jobs(store: Store, detector: str, kind: str) -> list[JobRecord]:
    """The jobs of one spec of the evidence."""
    name = f"evidence-{detector}-{kind}".replace("_", "-")
    return [job for job in store.jobs() if job.name == name]


def done(store: Store, detector: str, kind: str) -> str | None:
    """The id of the job of a spec that came to its end."""
    return next((job.id for job in jobs(store, detector, kind) if job.state == "done"), None)


def write_page(store: Store) -> None:
    """The page, for as many detectors as have been read on `test`."""
    head, _, _ = PAGE.read_text(encoding="utf-8").partition(HEADING)
    parts = [part for detector in DETECTORS for part in section(store, detector)]
    if not parts:
        return
    text = "\n".join([head.rstrip() + "\n", HEADING, *parts, *ledger(store)])
    PAGE.write_text(text.rstrip() + "\n", encoding="utf-8")


def section(store: Store, detector: str) -> Iterator[str]:
    """What there is to say of one detector; nothing before its row of `test` is complete."""
    job = done(store, detector, "search")
    if job is None:
        return
    if discovered(store, job) is None:
        yield f"### {DETECTORS[detector]}\n"
        yield f"`{job}` confirmed nothing that it made itself, so `test` was not read.\n"
        return
    reading = read(store, job)
    if reading is None:
        return
    publication, found = reading
    name = f"discovered-{detector.replace('_', '-')}"
    path, beside = write_published(store, publication, found, FOUND / f"{name}.json", force=True)
    others = [other for kind in RIVALS if (other := done(store, detector, kind))]
    picture = ROOT / "docs" / "images" / f"results_{detector}.png"
    ways = races(store, job, others)
    report(store, job, picture, ways, discovered(store, job))
    yield f"### {DETECTORS[detector]}\n"
    yield from _floor(store, detector)
    yield from _readings(publication, found)
    files = f"[definition]({_link(path)}), [evidence]({_link(beside)})"
    yield f"The discovered loss, `{name}` ({files}):"
    yield from _formula(publication.row.definition)
    yield from _tuned(publication)
    yield f"![the search]({_link(picture)})\n"
    yield from _draws(store, job)
    yield from _ways(ways)
    yield "```"
    yield f"python tools/evidence.py --detector {detector}"
    yield f"lossforge compare {name} --spec configs/evidence/{detector}_search.yaml --seeds 8"
    yield "```\n"


def discovered(store: Store, job: str) -> int | None:
    """Index of the best confirmed candidate that the search made itself: not one of the losses that
    it was given to start from. None where there is none."""
    gains = gains_of(store, job)
    given = ("baseline", "rival", "named")
    made = [
        each.index
        for each in store.candidates(job)
        if each.index in gains and each.origin not in given
    ]
    return max(made, key=lambda index: (gains[index], -index), default=None)


def read(store: Store, job: str) -> tuple[Publication, ReadOut] | None:
    """What `test` says of what a job discovered; None until its reading is complete."""
    publication = prepare_publication(store, job, discovered(store, job))
    if not publication.fixed:
        return None
    found = read_out(store, publication)
    return None if found.missing else (publication, found)


def _link(path: Path) -> str:
    """As the page names a file."""
    return os.path.relpath(path, PAGE.parent)


def _called(candidate: CandidateRecord) -> str:
    """A loss by what it is to the reader."""
    if candidate.index == 0:
        return "default"
    if _is_tuned(candidate):
        return "best hand-made loss, tuned"
    return candidate.name or "?"


def _is_tuned(candidate: CandidateRecord) -> bool:
    return (candidate.name or "").startswith("tuned")


def confirm_group(detector: str) -> str:
    """The trial group of a detector's confirmations, by which its noise floor is known."""
    spec = SPECS / f"{detector}_tuning.yaml"
    return trial_group(spec_trials(load_spec(spec), spec).template)


def _floor(store: Store, detector: str) -> Iterator[str]:
    floor, gain = store.noise_floor(confirm_group(detector)), GAINS[detector]
    if floor is not None and floor.sd_paired is not None:
        wanted = seeds_needed(gain, floor.sd_paired) or "too many"
        yield (
            f"Noise floor on `confirm`: single trials vary by {100 * floor.sd_single:.2f} AP (sd), "
            f"differences within a seed by {100 * floor.sd_paired:.2f}. To see {100 * gain:g} AP "
            f"with a chance of 0.8 takes {wanted} seeds; "
            f"{FEWEST} to {MOST} are read.\n"
        )


def _readings(publication: Publication, found: ReadOut) -> Iterator[str]:
    """The table of the split `test`."""
    first, last = publication.seeds[0], publication.seeds[-1]
    yield (
        f"On `test`, {len(publication.seeds)} seeds ({first} to {last}), "
        f"{publication.job.spec.funnel.confirm.steps} steps from scratch:\n"  # type: ignore[union-attr]
    )
    yield "| loss | AP (sd) | discovered minus it | 95% interval | p | better in |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    yield f"| **discovered** | **{_ap(found.ap.values())}** | | | | |"
    for other in found.against:
        what, ap = _called(other.candidate), _ap(other.ap.values())
        yield f"| {what} | {ap} | {_difference(other.difference)} |"
    lost = f" {found.lost} trials failed and do not count." if found.lost else ""
    yield f"\nDifferences within each seed, Student's t.{lost}\n"


def _ap(values: Iterable[float]) -> str:
    found = spread(dict(enumerate(values)))
    deviation = "" if found.deviation is None else f" ({100 * found.deviation:.2f})"
    return f"{100 * found.mean:.2f}{deviation}"


def _difference(paired: Paired | None) -> str:
    if paired is None or paired.low is None or paired.high is None or paired.p is None:
        return " | | | "
    p = "<0.0001" if paired.p < 1e-4 else f"{paired.p:.4f}"
    interval = f"{100 * paired.low:+.2f} to {100 * paired.high:+.2f}"
    return f"{100 * paired.mean:+.2f} | {interval} | {p} | {paired.wins} of {paired.count}"


def _formula(definition: Mapping[str, Any]) -> Iterator[str]:
    loss = LossDefinition.from_json(definition)
    yield "\n```"
    yield from (f"{branch}: {text}" for branch, text in branch_texts(loss).items())
    if loss.learning_rate_scale != 1.0:
        yield f"learning rate: {loss.learning_rate_scale:g} times the detector's"
    yield "```\n"


def _tuned(publication: Publication) -> Iterator[str]:
    for each in publication.candidates[1:]:
        if _is_tuned(each):
            yield f"The best hand-made loss, {each.name}:"
            yield from _formula(each.definition)


def _draws(store: Store, job: str) -> Iterator[str]:
    """The funnel's counts in a sentence."""
    outcomes: dict[str, int] = defaultdict(int)
    for (origin, outcome), count in store.counts(job).items():
        if origin not in ("baseline", "rival"):
            outcomes[outcome] += count
    trained = [t for t in store.trials(job, curves=False) if t.stage == "proxy" and t.candidate]
    ends: dict[str, int] = defaultdict(int)
    for trial in trained:
        ends[trial.state] += 1
    drawn = sum(outcomes.values())
    rejected = ", ".join(
        f"{outcome} {count:,}"
        for outcome, count in sorted(outcomes.items(), key=lambda each: -each[1])
        if outcome != "accepted"
    )
    lost = sum(ends[state] for state in LOST)
    yield (
        f"Funnel of `{job}`: {drawn:,} drawn, {outcomes['accepted']:,} accepted"
        f"{f' (not: {rejected})' if rejected else ''}; {len(trained)} trained or taken over: "
        f"{ends['done']} to the end, {ends['paused']} stopped at a rung, {ends['diverged']} "
        f"diverged{f', {lost} lost' if lost else ''}.\n"
    )


def _ways(found: tuple[Race, ...]) -> Iterator[str]:
    """Who was how far when."""
    own, *others = found
    if not others:
        return
    yield "| job | best AP of its own making | after steps | the search was there after | ratio |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    if own.best is not None:
        yield f"| `{own.job}` | {100 * own.best:.1f} | {own.took:,.0f} | | |"
    for other in others:
        took = other.took
        if other.best is None or took is None:
            continue
        reached = own.steps_to(other.best)
        there = "not reached | " if reached is None else f"{reached:,.0f} | {reached / took:.2f}"
        yield f"| `{other.job}` | {100 * other.best:.1f} | {took:,.0f} | {there} |"
    yield "\nAP is that of the proxy task's one seed: luck included, for all."
    yield "Steps are those of the proxy task and of simulations."
    if own.given is not None:
        yield (
            "The searches were given the same losses to start from, the best of them with "
            f"{100 * own.given:.1f}: no find of theirs.\n"
        )


def ledger(store: Store) -> Iterator[str]:
    """The core-hours that were spent, each trial on one thread."""
    yield "### Ledger\n"
    yield (
        "Time of all trials that were trained, one core each, that of a warm start with the trial "
        "that waited for it; what was taken over cost nothing.\n"
    )
    yield "| | search | confirm | test | core-hours |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    total = 0.0
    for detector, kind in ((d, k) for d in DETECTORS for k in KINDS):
        for job in jobs(store, detector, kind):
            hours: dict[str, float] = defaultdict(float)
            for trial in store.trials(job.id, curves=False):
                if trial.reused_from is None:
                    stage = trial.stage if trial.stage in ("confirm", "test") else "search"
                    hours[stage] += trial.seconds.get("total", 0.0) / 3600
            total += (whole := sum(hours.values()))
            cells = " | ".join(f"{hours[stage]:.2f}" for stage in ("search", "confirm", "test"))
            yield f"| `{job.id}` | {cells} | {whole:.2f} |"
    for path in sorted(WORK.glob("*_noise.jsonl")):
        lines = path.read_text(encoding="utf-8").splitlines()
        whole = (
            sum(json.loads(line)["result"]["seconds"].get("total", 0.0) for line in lines) / 3600
        )
        total += whole
        yield f"| noise, {path.stem.removesuffix('_noise')} | | | | {whole:.2f} |"
    yield f"| **all** | | | | **{total:.2f}** |\n"


if __name__ == "__main__":
    with Store.open(STORE) as opened:
        write_page(opened)
