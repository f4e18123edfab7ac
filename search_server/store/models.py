"""The tables of the store, as typed SQLAlchemy models; migrations must give exactly these."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Computed,
    DateTime,
    Dialect,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import JSON, TypeDecorator

from search_server.store.records import (
    CANDIDATE_STATES,
    JOB_STATES,
    ORIGINS,
    ROLES,
    STAGES,
    TRIAL_STATES,
)

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class UTCDateTime(TypeDecorator[datetime]):
    """An aware datetime, stored as naive UTC: SQLite has no time zones."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Aware time to naive UTC."""
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Naive UTC to aware time."""
        return None if value is None else value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    """Holds the metadata; every constraint has a name, which SQLite's batch migrations need."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own protocol
        str: Text(),
        datetime: UTCDateTime(),
        dict[str, Any]: JSON(),
        list[str]: JSON(),
        list[int]: JSON(),
        list[dict[str, Any]]: JSON(),
    }


def one_of(column: str, values: Sequence[str]) -> CheckConstraint:
    """CHECK that a text column holds one of `values`; the constraint is named after the column."""
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


def fraction(column: str) -> CheckConstraint:
    """CHECK that a number is an AP in [0, 1], or unknown."""
    return CheckConstraint(f"{column} IS NULL OR ({column} BETWEEN 0 AND 1)", name=column)


class Job(Base):
    """One row per search job. `serial` is the order of creation.

    `board` is the serial of the first job of its trial group, or its own where that is not known:
    jobs of one board are ranked together. `rounds` and `samples` are those of a policy search.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        one_of("state", JOB_STATES),
        UniqueConstraint("serial"),
        UniqueConstraint("slug", "number"),
        Index(None, "trial_group"),
        Index(None, "board"),
        Index(None, "state"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    serial: Mapped[int]
    slug: Mapped[str]
    number: Mapped[int]
    name: Mapped[str]
    state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str]
    spec: Mapped[dict[str, Any]]
    detector: Mapped[str]
    classes: Mapped[list[str]]
    trial_group: Mapped[str] = mapped_column(String(64))
    owner: Mapped[str | None]
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    board: Mapped[int]
    rounds: Mapped[int | None]
    samples: Mapped[int | None]


class JobTotals(Base):
    """One row per job: what it has so far, written with what is counted; see `totals`."""

    __tablename__ = "job_totals"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    candidates: Mapped[int]
    searched: Mapped[int]
    trained: Mapped[int]
    confirmed: Mapped[int]
    published: Mapped[int]
    best: Mapped[float | None]
    baseline: Mapped[float | None]
    mean: Mapped[float | None]


class TrialCount(Base):
    """How many trials of a job's stage are in a state, written with the trials; see `totals`."""

    __tablename__ = "trial_counts"
    __table_args__ = (
        one_of("stage", STAGES),
        one_of("state", TRIAL_STATES),
        CheckConstraint("count >= 0", name="count"),
    )

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    stage: Mapped[str] = mapped_column(String(16), primary_key=True)
    state: Mapped[str] = mapped_column(String(16), primary_key=True)
    count: Mapped[int]


# Confirmed ones first, then by fitness, by simulation, what has neither, and failed ones last;
# within these the higher value first, which makes the index an ascending one.
STANDING = (
    "CASE WHEN state = 'failed' THEN 4 WHEN gain IS NOT NULL THEN 0 "
    "WHEN fitness IS NOT NULL THEN 1 WHEN simulate_score IS NOT NULL THEN 2 ELSE 3 END"
)
BEHIND = "-COALESCE(gain, fitness, simulate_score, 0.0)"
DONE = text("state = 'done' AND fitness IS NOT NULL")


class Candidate(Base):
    """One row per accepted candidate; rejected draws are counted in `funnel_counts` only.

    `board` and `serial` are its job's. `gain`, `p`, `shrunken` and `family` are what `confirm`
    says, written with the trials that say it; see `confirmation.Confirmation`. `standing` and
    `behind` are what the leaderboard ranks by, worked out by the database.
    """

    __tablename__ = "candidates"
    __table_args__ = (
        one_of("origin", ORIGINS),
        one_of("stage", STAGES),
        one_of("state", CANDIDATE_STATES),
        fraction("fitness"),
        UniqueConstraint("job_id", "key_hash"),
        # All that the leaderboard ranks by, over jobs and in one: it never reads what it does not
        # show. The others are those of the front of AP and size.
        Index(None, "board", "standing", "behind", "serial", "index"),
        Index(None, "board", "state", "standing", "behind", "serial", "index"),
        Index(None, "serial", "standing", "behind", "index"),
        Index(None, "serial", "state", "standing", "behind", "index"),
        Index(
            *(None, "board", "size", "fitness", "serial", "index"),
            sqlite_where=DONE,
            postgresql_where=DONE,
        ),
        Index(
            *(None, "serial", "size", "fitness", "index"), sqlite_where=DONE, postgresql_where=DONE
        ),
    )

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    index: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    origin: Mapped[str] = mapped_column(String(16))
    parents: Mapped[list[int]]
    definition: Mapped[dict[str, Any]]
    key: Mapped[str]
    # PostgreSQL cannot index a text of any length: the hash stands for the key in the constraint.
    key_hash: Mapped[str] = mapped_column(String(64))
    name: Mapped[str | None]
    cls_text: Mapped[str | None]
    bbox_text: Mapped[str | None]
    size: Mapped[int]
    stage: Mapped[str] = mapped_column(String(16))
    state: Mapped[str] = mapped_column(String(16))
    simulate_score: Mapped[float | None]
    fitness: Mapped[float | None]
    reason: Mapped[str]
    created_at: Mapped[datetime]
    calibration: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    loss_id: Mapped[int | None] = mapped_column(ForeignKey("losses.id"))
    board: Mapped[int]
    serial: Mapped[int]
    family: Mapped[int | None]
    gain: Mapped[float | None]
    p: Mapped[float | None]
    shrunken: Mapped[float | None]
    standing: Mapped[int] = mapped_column(Computed(STANDING, persisted=True))
    behind: Mapped[float] = mapped_column(Computed(BEHIND, persisted=True))


class Loss(Base):
    """One row per loss that any job of the store has: candidates of one row are the same loss.

    `form` is what of a loss is text, hashed, and `bucket` a number close to that of every equal
    loss: what is looked up before `vector` and `scales` are compared. See `fingerprints`.
    """

    __tablename__ = "losses"
    __table_args__ = (Index(None, "form", "bucket"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    form: Mapped[str] = mapped_column(String(64))
    bucket: Mapped[int] = mapped_column(BigInteger)
    vector: Mapped[bytes] = mapped_column(LargeBinary)
    scales: Mapped[dict[str, Any]]


class Trial(Base):
    """One row per training run, written before it starts and again when it has ended.

    `trained_key` names what is trained, up to what makes no difference: being unique, it lets no
    two rows of the store train the same. A row that takes the result of another has none.
    """

    __tablename__ = "trials"
    __table_args__ = (
        ForeignKeyConstraint(["job_id", "candidate"], ["candidates.job_id", "candidates.index"]),
        one_of("stage", STAGES),
        one_of("state", TRIAL_STATES),
        fraction("fitness"),
        UniqueConstraint("trained_key"),
        Index(None, "job_id", "state"),
        Index(None, "stage", "job_id"),
    )

    job_id: Mapped[str] = mapped_column(primary_key=True)
    candidate: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    stage: Mapped[str] = mapped_column(String(16), primary_key=True)
    seed: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    state: Mapped[str] = mapped_column(String(16))
    spec_key: Mapped[str] = mapped_column(String(64))
    reason: Mapped[str]
    fitness: Mapped[float | None]
    ap50: Mapped[float | None]
    ap75: Mapped[float | None]
    ap_s: Mapped[float | None]
    ap_m: Mapped[float | None]
    ap_l: Mapped[float | None]
    steps: Mapped[int | None]
    curves: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    versions: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    log: Mapped[str | None]
    seconds_start: Mapped[float | None]
    seconds_setup: Mapped[float | None]
    seconds_train: Mapped[float | None]
    seconds_evaluate: Mapped[float | None]
    seconds_total: Mapped[float | None]
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    rungs: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    trained_key: Mapped[str | None] = mapped_column(String(64))
    reused_from: Mapped[str | None]
    batch_size: Mapped[int | None]


class Submission(Base):
    """One attempt of a job on a Ray cluster; written before the cluster hears of it."""

    __tablename__ = "submissions"
    __table_args__ = (UniqueConstraint("submission_id"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    submission_id: Mapped[str]
    address: Mapped[str]
    created_at: Mapped[datetime]


class Controller(Base):
    """The process that runs a job; there is a row while one does, and after one was killed.

    `wrote` is drawn anew in each of its transactions, so that a commit whose answer was lost can be
    asked for, and so that a process which another one has replaced writes no more.
    """

    __tablename__ = "controllers"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    wrote: Mapped[str] = mapped_column(String(32))


class Token(Base):
    """A key to the service: what it may do, and the hash of its secret, never the secret."""

    __tablename__ = "tokens"
    __table_args__ = (one_of("role", ROLES), UniqueConstraint("name"), UniqueConstraint("secret"))

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    role: Mapped[str] = mapped_column(String(16))
    secret: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]


class WebSession(Base):
    """Somebody who has shown a token to the pages; `secret` is the hash of what the cookie says."""

    __tablename__ = "web_sessions"

    secret: Mapped[str] = mapped_column(String(64), primary_key=True)
    token_id: Mapped[int] = mapped_column(ForeignKey("tokens.id"))
    expires_at: Mapped[datetime]


class Request(Base):
    """A job that was submitted through the service, which sees to it that it runs.

    `key` is drawn by who submits, so that one who asks again gets the same job. `tries` counts the
    controllers that were started; `held_by` and `held_until` say which service is starting one now.
    """

    __tablename__ = "requests"
    __table_args__ = (UniqueConstraint("key"), Index(None, "settled"))

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    key: Mapped[str | None] = mapped_column(String(64))
    by: Mapped[str]
    settled: Mapped[bool]
    tries: Mapped[int]
    note: Mapped[str]
    created_at: Mapped[datetime]
    held_by: Mapped[str | None]
    held_until: Mapped[datetime | None]


class NoiseFloor(Base):
    """How much trials of a trial group vary between seeds, as measured last."""

    __tablename__ = "noise_floors"

    trial_group: Mapped[str] = mapped_column(String(64), primary_key=True)
    seeds: Mapped[int]
    mean: Mapped[float]
    sd_single: Mapped[float]
    sd_paired: Mapped[float | None]
    freedom: Mapped[int]
    losses: Mapped[list[dict[str, Any]]]
    created_at: Mapped[datetime]


class FunnelCount(Base):
    """How many draws of an origin had an outcome: 'accepted', or the reason of the rejection."""

    __tablename__ = "funnel_counts"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    origin: Mapped[str] = mapped_column(String(16), primary_key=True)
    outcome: Mapped[str] = mapped_column(primary_key=True)
    count: Mapped[int]


class Draw(Base):
    """One draw that was kept; `position` counts the draws kept for one candidate."""

    __tablename__ = "draws"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    candidate: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    origin: Mapped[str] = mapped_column(String(16))
    text: Mapped[str]
    outcome: Mapped[str]
