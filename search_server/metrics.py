"""A store's figures as Prometheus metrics: a collector that any registry takes, with no server.

    registry = CollectorRegistry()
    registry.register(StoreCollector("postgresql://..."))

Every scrape reads the store anew and writes nothing. A store that is away, or has another schema,
is `lossforge_up 0` and no figures, never an exception: the next scrape tries again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from search_server.errors import SchemaError, StoreError
from search_server.figures import Figures, JobFigures, figures
from search_server.store import schema
from search_server.store.engine import connect
from search_server.store.records import JOB_STATES, NOTHING_YET, STAGES, TRIAL_STATES
from search_server.store.sessions import Sessions
from search_server.store.url import parse_url, shown

JOBS_SHOWN = 50
PATIENCE = 5  # seconds for a connection, and for a scrape that another one holds up
WAITING = ("running", "paused")
# Those of a cancelled job have come to nothing: as if they had ended, rates would leap.
ENDED = tuple(state for state in TRIAL_STATES if state not in (*WAITING, *NOTHING_YET))

log = logging.getLogger(__name__)


class StoreCollector(Collector):
    """The metrics of one store. It may be scraped from several threads.

    Attributes:
        trouble: why the last scrape had no figures, for people; empty where it had.
    """

    def __init__(self, url: str, jobs: int = JOBS_SHOWN) -> None:
        """Nothing is opened yet.

        Args:
            jobs: how many jobs get series of their own: the active ones, then the newest others.

        Raises:
            StoreError: not the URL of a store.
        """
        parsed = parse_url(url)
        if parsed.get_backend_name() == "postgresql" and "connect_timeout" not in parsed.query:
            parsed = parsed.update_query_dict({"connect_timeout": str(PATIENCE)})
        self._url = parsed
        self._jobs = jobs
        self._store: Sessions | None = None
        self._busy = threading.Lock()
        self.trouble = ""

    def describe(self) -> Iterator[Metric]:
        """What it may collect, without looking into the store."""
        empty = Figures({}, {}, {}, 0, [], 0)
        yield from _own(up=False, seconds=0.0, found="")
        yield from _of_store(empty)
        yield from _of_jobs([])

    def collect(self) -> Iterator[Metric]:
        """The metrics now."""
        start = time.perf_counter()
        found = ""
        read: Figures | None = None
        if self._busy.acquire(timeout=PATIENCE):
            try:
                read = self._read()
                found = schema.head()
                self._tell("")
            except StoreError as error:
                self.close()
                found = (error.found or "") if isinstance(error, SchemaError) else ""
                self._tell(str(error))
            finally:
                self._busy.release()
        else:
            log.warning("no figures: another scrape still waits for the store")
        seconds = time.perf_counter() - start
        yield from _own(up=read is not None, seconds=seconds, found=found)
        if read is not None:
            yield from _of_store(read)
            yield from _of_jobs(read.shown)

    def close(self) -> None:
        """Give the store's connections back; the next scrape opens new ones."""
        if self._store is not None:
            self._store.close()
            self._store = None

    def _read(self) -> Figures:
        if self._store is None:
            # Opening an SQLite file that is not there would make an empty one.
            if (
                self._url.get_backend_name() == "sqlite"
                and not Path(str(self._url.database)).exists()
            ):
                raise StoreError(f"there is no store at {self._url.database} yet")
            self._store = Sessions(connect(self._url), self._url)
        return figures(self._store, self._jobs)

    def _tell(self, trouble: str) -> None:
        """Say once that the store is away, and once that it is back."""
        if trouble and trouble != self.trouble:
            log.warning("no figures: %s", trouble)
        elif self.trouble and not trouble:
            log.warning("%s answers again", shown(self._url))
        self.trouble = trouble


class OpenStoreCollector(Collector):
    """The metrics of a store that is open already; one that does not answer is an error."""

    def __init__(self, store: Sessions, jobs: int = JOBS_SHOWN) -> None:
        self._store, self._jobs = store, jobs

    def describe(self) -> Iterator[Metric]:
        """Nothing: to be registered is no reason to read."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """The metrics now. Raises StoreError."""
        start = time.perf_counter()
        read = figures(self._store, self._jobs)
        yield from _own(up=True, seconds=time.perf_counter() - start, found=schema.head())
        yield from _of_store(read)
        yield from _of_jobs(read.shown)


def _own(*, up: bool, seconds: float, found: str) -> Iterator[Metric]:
    """What is known of a scrape even if the store is away."""
    yield GaugeMetricFamily("lossforge_up", "Whether the store could be read: 1 or 0.", value=up)
    yield GaugeMetricFamily(
        "lossforge_scrape_seconds", "How long reading the store took.", value=seconds
    )
    yield InfoMetricFamily(
        "lossforge_schema",
        "The store's schema, empty where it is not known, and the one that this version reads.",
        value={"found": found, "reads": schema.head()},
    )


def _of_store(read: Figures) -> Iterator[Metric]:
    """Of all jobs together; states that none is in are there as 0, so that rates have a start."""
    jobs = GaugeMetricFamily("lossforge_jobs", "Jobs by state.", labels=("state",))
    for state in JOB_STATES:
        jobs.add_metric((state,), read.jobs.get(state, 0))
    yield jobs
    trials = GaugeMetricFamily(
        "lossforge_trials", "Trials by stage and state.", labels=("stage", "state")
    )
    finished = CounterMetricFamily(
        "lossforge_trials_finished",
        "Trials that have ended, by stage and how; those whose result was taken over among them, "
        "those that were cancelled with their job not.",
        labels=("stage", "state"),
    )
    for stage in STAGES:
        for state in TRIAL_STATES:
            count = read.trials.get((stage, state), 0)
            trials.add_metric((stage, state), count)
            if state in ENDED:
                finished.add_metric((stage, state), count)
    yield trials
    yield finished
    queue = GaugeMetricFamily(
        "lossforge_queue_trials",
        "Trials of active jobs that are handed out (running) or wait at a rung (paused).",
        labels=("state",),
    )
    for state in WAITING:
        queue.add_metric((state,), read.queue.get(state, 0))
    yield queue
    yield GaugeMetricFamily(
        "lossforge_queue_candidates",
        "Candidates of active jobs about which nothing is decided yet.",
        value=read.open,
    )
    yield GaugeMetricFamily(
        "lossforge_jobs_left_out",
        "Active jobs without series of their own, beyond the limit.",
        value=read.left_out,
    )


def _of_jobs(shown: Sequence[JobFigures]) -> Iterator[Metric]:
    """Of the jobs that get series of their own; `job` is a label that Prometheus itself adds."""
    info = GaugeMetricFamily(
        "lossforge_job_state", "1 for the state that a job is in.", labels=("job_id", "state")
    )
    trials = GaugeMetricFamily(
        "lossforge_job_trials",
        "Trials of a job by stage and state.",
        labels=("job_id", "stage", "state"),
    )
    values = {
        name: GaugeMetricFamily(f"lossforge_job_{name}", what, labels=("job_id",))
        for name, what in (
            ("candidates", "Candidates of a job so far, its baseline among them."),
            ("trained", "Candidates that the searcher found and that have a fitness."),
            ("open", "Candidates of an active job about which nothing is decided yet."),
            ("best", "Highest fitness that the searcher found: box AP in 0 to 1."),
            ("baseline", "Fitness of the baseline: box AP in 0 to 1."),
        )
    }
    for job in shown:
        info.add_metric((job.id, job.state), 1)
        for (stage, state), count in sorted(job.trials.items()):
            trials.add_metric((job.id, stage, state), count)
        for name, family in values.items():
            value = getattr(job, name)
            if value is not None:
                family.add_metric((job.id,), value)
    yield from (info, trials, *values.values())
