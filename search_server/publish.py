"""Publishes what a search found: the one reading of the split `test`.

A row of the leaderboard, the baseline and the rivals are trained from seeds that neither the search
nor its confirmation used, and measured on a split that neither has seen. The row's seeds are fixed
when it is first asked for, before anything is trained; asked again, it is the same reading.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from search_server.confirmation import Confirmation, confirmations
from search_server.errors import JobError
from search_server.executors import Executor
from search_server.export.choice import choose, gains_of
from search_server.funnel.confirm import paired_trials, rivals_of
from search_server.funnel.outcomes import TrialKey
from search_server.jobs import Job, open_job
from search_server.paired_statistics import Paired, paired
from search_server.same_losses import trained_key
from search_server.stage_seeds import publish_seeds
from search_server.store import CandidateRecord, Store, TrialRecord
from search_server.store.judged import judged
from search_server.store.records import Stage
from workers import TrialResult, TrialSpec
from workers.result import LOST

TEST: Stage = "test"
FEWEST_SEEDS = 2  # for an interval
SEEDS = 8
PATIENCE = 0.5  # seconds until the stop signal is looked at again
MARGIN = 1  # trials handed out beyond the slots, so that no slot waits


@dataclass(frozen=True)
class Publication:
    """What is to be read of the split `test`, or was.

    Attributes:
        candidates: the row that is published, the baseline, the rivals.
        seeds: one trial of each per seed.
        fixed: whether the seeds were there before; a wish for another number is then in vain.
        confirmed: whether the row was confirmed.
    """

    job: Job
    candidates: tuple[CandidateRecord, ...]
    seeds: tuple[int, ...]
    fixed: bool
    confirmed: bool

    @property
    def row(self) -> CandidateRecord:
        """What is published."""
        return self.candidates[0]

    def trials(self) -> Iterator[TrialKey]:
        """All trials, seed by seed."""
        return paired_trials([each.index for each in self.candidates], TEST, self.seeds)


@dataclass(frozen=True)
class Against:
    """The published row against the baseline or a rival, paired by seed.

    Attributes:
        ap: the other's AP by seed, in [0, 1].
        difference: row minus other; None without a common seed.
    """

    candidate: CandidateRecord
    ap: Mapping[int, float]
    difference: Paired | None


@dataclass(frozen=True)
class ReadOut:
    """What the split `test` says of a row.

    Attributes:
        ap: the row's AP by seed, in [0, 1]; a diverged training counts as 0.
        against: the baseline first.
        missing: trials that have not ended.
        lost: trials that failed or ran out of time; they do not count, and are not repeated.
    """

    ap: Mapping[int, float]
    against: tuple[Against, ...]
    missing: int
    lost: int


@dataclass(frozen=True)
class ReadTrial:
    """A trial that has just ended, and how far the reading is.

    Attributes:
        done, of: trials that have ended, those of earlier runs included; all trials.
        seconds_left: estimate from the trials of this run.
    """

    key: TrialKey
    name: str
    state: str
    fitness: float | None
    reason: str
    done: int
    of: int
    seconds_left: float


def prepare_publication(
    store: Store,
    job_id: str,
    wanted: int | str | None = None,
    seeds: int | None = None,
    unconfirmed: bool = False,
) -> Publication:
    """What publishing a row takes; nothing is written or trained yet.

    Args:
        wanted: see `export.choice.choose`; None: the best.
        seeds: how many; None: 8. Of no account for a row that was published before.
        unconfirmed: publish a row that fresh seeds have not confirmed.

    Raises:
        JobError: the job is not done, has no split `test`, or the row cannot be published.
        ExportError: there is no such candidate, or it was not trained to the end.
    """
    record = store.job(job_id)
    if record.state != "done":
        raise JobError(
            f"job {job_id} is {record.state}; only finds of a search that is done can be published"
        )
    job = open_job(store, job_id)
    if TEST not in job.splits:
        raise JobError(f"the data of job {job_id} has no split `test`: give one as data.test")
    candidates = store.candidates(job_id)
    gains = gains_of(store, job_id)
    row, _ = choose(job_id, candidates, wanted, gains)
    if row is None:
        raise JobError(f"job {job_id} has not trained {wanted}; give one of its candidates")
    if row.origin in ("baseline", "rival"):
        raise JobError(
            f"{job_id}:{row.index} is a {row.origin}: it is read along with every published row"
        )
    if row.index not in gains and not unconfirmed:
        raise JobError(
            f"{job_id}:{row.index} is not confirmed, so its lead may be luck; `test` is read once: "
            "add funnel.confirm to the spec, or insist with --unconfirmed"
        )
    trials = [t for t in store.trials(job_id, row.index, curves=False) if t.stage == TEST]
    chosen = tuple(sorted(trial.seed for trial in trials))
    if not chosen:
        number = SEEDS if seeds is None else seeds
        if number < FEWEST_SEEDS:
            raise JobError(f"{number} seed gives no interval; at least {FEWEST_SEEDS} are needed")
        chosen = publish_seeds(job.spec, number)
    others = [candidates[0], *_rivals(job, candidates)]
    group = (row, *(each for each in others if each.index != row.index))
    return Publication(job, group, chosen, bool(trials), row.index in gains)


def _rivals(job: Job, candidates: list[CandidateRecord]) -> list[CandidateRecord]:
    """The rivals in the order of the spec; one may be a candidate that the search made too."""
    confirm = job.spec.funnel.confirm
    by_key = {each.key: each for each in candidates}
    rivals = [] if confirm is None else rivals_of(confirm)
    return [by_key[rival.key] for rival in rivals if rival.key in by_key]


def run_publication(
    store: Store,
    publication: Publication,
    executor: Executor,
    say: Callable[[ReadTrial], None] | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Trains what is missing of a publication. Stopped, or killed, it goes on when run again.

    Args:
        say: told of every trial that ends.
        stop: when set, running trials are cancelled.

    Raises:
        JobError: another process works on the job.
    """
    job_id = publication.job.id
    store.hold_job(job_id)
    try:
        if not publication.fixed:  # the seeds are written down before anything is known
            own = (TrialKey(publication.row.index, TEST, seed) for seed in publication.seeds)
            store.plan_trials(job_id, {key: _spec(publication, key).key for key in own})
        _Run(store, publication, executor, say, stop or threading.Event()).all()
    finally:
        executor.cancel_all()
        store.release_job(job_id)


def read_out(store: Store, publication: Publication) -> ReadOut:
    """What is known by now; from the rows alone."""
    job_id = publication.job.id
    found = confirmations(judged(store, [job_id]).get(job_id, ()))

    def values(candidate: CandidateRecord) -> Mapping[int, float]:
        known = found.get(candidate.index, Confirmation()).test
        by_seed = {} if known is None else known.by_seed
        return {seed: ap for seed, ap in by_seed.items() if seed in publication.seeds}

    own = values(publication.row)
    others = [(each, values(each)) for each in publication.candidates[1:]]
    ended = _ended(store, publication)
    return ReadOut(
        ap=own,
        against=tuple(Against(each, ap, paired(own, ap)) for each, ap in others),
        missing=sum(key not in ended for key in publication.trials()),
        lost=sum(trial.state in LOST for trial in ended.values()),
    )


def _ended(store: Store, publication: Publication) -> dict[TrialKey, TrialRecord]:
    wanted = set(publication.trials())
    rows = {
        TrialKey(trial.candidate, trial.stage, trial.seed): trial
        for trial in store.trials(publication.job.id, curves=False)
        if trial.stage == TEST and trial.state != "running"
    }
    return {key: trial for key, trial in rows.items() if key in wanted}


def _spec(publication: Publication, key: TrialKey) -> TrialSpec:
    record = next(each for each in publication.candidates if each.index == key.candidate)
    return publication.job.trial(key, record.definition)


class _Run:
    """The trials of a publication: those under way, and those that are left."""

    def __init__(
        self,
        store: Store,
        publication: Publication,
        executor: Executor,
        say: Callable[[ReadTrial], None] | None,
        stop: threading.Event,
    ) -> None:
        self._store, self._publication, self._executor = store, publication, executor
        self._say, self._stop = say, stop
        self._records = {each.index: each for each in publication.candidates}
        ended = _ended(store, publication)
        self._left = [key for key in publication.trials() if key not in ended]
        self._of = len(ended) + len(self._left)
        self._running: dict[TrialKey, TrialSpec] = {}
        self._began, self._trained = time.monotonic(), 0

    def all(self) -> None:
        """Until nothing is left, or it is stopped."""
        while (self._left or self._running) and not self._stop.is_set():
            self._hand_out()
            for key, result in self._executor.wait(PATIENCE):
                del self._running[key]
                self._store.finish_trial(self._publication.job.id, *key, result)
                self._trained += 1
                self._tell(key, result)

    def _hand_out(self) -> None:
        for key in list(self._left):
            if len(self._running) >= self._executor.slots() + MARGIN:
                return
            spec = _spec(self._publication, key)
            start = self._store.start_trial(
                self._publication.job.id,
                *key,
                spec.key,
                trained_key(spec, self._records[key.candidate].loss_id),
                running=self._running,
            )
            if start.verdict == "wait":
                continue
            self._left.remove(key)
            if start.trial is not None:
                self._tell(key, start.trial)
                continue
            self._running[key] = spec
            self._executor.submit(key, spec)

    def _tell(self, key: TrialKey, ended: TrialResult | TrialRecord) -> None:
        if self._say is None:
            return
        left = len(self._left) + len(self._running)
        each = (time.monotonic() - self._began) / max(1, self._trained)
        record = self._records[key.candidate]
        state = ended.status if isinstance(ended, TrialResult) else ended.state
        self._say(
            ReadTrial(
                key=key,
                name=record.name or f"candidate {key.candidate}",
                state=state,
                fitness=ended.fitness,
                reason=ended.reason,
                done=self._of - left,
                of=self._of,
                seconds_left=each * left,
            )
        )
