"""What the leaderboard and the list of jobs are read by: places, gains and totals, in columns.

Revision: 0005
Revises: 0004
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import sqlalchemy as sa
from alembic import op

from search_server.confirmation import Judged, confirmations

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

STANDING = (
    "CASE WHEN state = 'failed' THEN 4 WHEN gain IS NOT NULL THEN 0 "
    "WHEN fitness IS NOT NULL THEN 1 WHEN simulate_score IS NOT NULL THEN 2 ELSE 3 END"
)
BEHIND = "-COALESCE(gain, fitness, simulate_score, 0.0)"
DONE = "state = 'done' AND fitness IS NOT NULL"
OLD_INDEX = ("job_id", "state", "fitness", "simulate_score", "index")
INDICES: tuple[tuple[tuple[str, ...], str | None], ...] = (  # columns, and which rows
    (("board", "standing", "behind", "serial", "index"), None),
    (("board", "state", "standing", "behind", "serial", "index"), None),
    (("serial", "standing", "behind", "index"), None),
    (("board", "size", "fitness", "serial", "index"), DONE),
    (("serial", "size", "fitness", "index"), DONE),
)


def upgrade() -> None:
    """To this revision."""
    for name in ("board", "rounds", "samples"):
        op.add_column("jobs", sa.Column(name, sa.Integer(), nullable=True))
    op.execute(
        "UPDATE jobs SET board = CASE WHEN trial_group = '' THEN serial ELSE "
        "(SELECT MIN(first.serial) FROM jobs AS first "
        "WHERE first.trial_group = jobs.trial_group) END"
    )
    _fill_rounds()
    with op.batch_alter_table("jobs") as jobs:
        jobs.alter_column("board", existing_type=sa.Integer(), nullable=False)
    op.create_index("ix_jobs_board", "jobs", ["board"])
    for name in ("board", "serial", "family"):
        op.add_column("candidates", sa.Column(name, sa.Integer(), nullable=True))
    for name in ("gain", "p", "shrunken"):
        op.add_column("candidates", sa.Column(name, sa.Double(), nullable=True))
    op.execute(
        "UPDATE candidates SET "
        "board = (SELECT jobs.board FROM jobs WHERE jobs.id = candidates.job_id), "
        "serial = (SELECT jobs.serial FROM jobs WHERE jobs.id = candidates.job_id)"
    )
    _fill_gains()
    op.drop_index(f"ix_candidates_{'_'.join(OLD_INDEX)}", table_name="candidates")
    with op.batch_alter_table("candidates") as candidates:
        for name in ("board", "serial"):
            candidates.alter_column(name, existing_type=sa.Integer(), nullable=False)
        for name, kind, how in (
            ("standing", sa.Integer(), STANDING),
            ("behind", sa.Double(), BEHIND),
        ):
            made = sa.Computed(how, persisted=True)
            candidates.add_column(sa.Column(name, kind, made, nullable=False))
    for columns, where in INDICES:
        rows = None if where is None else sa.text(where)
        name = f"ix_candidates_{'_'.join(columns)}"
        op.create_index(name, "candidates", list(columns), sqlite_where=rows, postgresql_where=rows)
    op.create_table(
        "job_totals",
        sa.Column("job_id", sa.Text(), nullable=False),
        *(
            sa.Column(name, sa.Integer(), nullable=False)
            for name in ("candidates", "searched", "trained", "confirmed", "published")
        ),
        *(sa.Column(name, sa.Double(), nullable=True) for name in ("best", "baseline", "mean")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_job_totals_job_id_jobs"),
        sa.PrimaryKeyConstraint("job_id", name="pk_job_totals"),
    )
    _fill_totals()


def downgrade() -> None:
    """Back to the one before, which works all of this out whenever it is asked."""
    op.drop_table("job_totals")
    for columns, _ in INDICES:
        op.drop_index(f"ix_candidates_{'_'.join(columns)}", table_name="candidates")
    with op.batch_alter_table("candidates") as candidates:
        for name in ("behind", "standing", "shrunken", "p", "gain", "family", "serial", "board"):
            candidates.drop_column(name)
    op.create_index(f"ix_candidates_{'_'.join(OLD_INDEX)}", "candidates", list(OLD_INDEX))
    op.drop_index("ix_jobs_board", table_name="jobs")
    with op.batch_alter_table("jobs") as jobs:
        for name in ("samples", "rounds", "board"):
            jobs.drop_column(name)


def _fill_rounds() -> None:
    """A policy search's rounds, out of its spec."""
    jobs = sa.table("jobs", *(sa.column(name) for name in ("id", "rounds", "samples")))
    specs = sa.table("jobs", sa.column("id"), sa.column("spec", sa.JSON()))
    connection = op.get_bind()
    for job, spec in connection.execute(sa.select(specs.c.id, specs.c.spec)).fetchall():
        searcher = spec.get("searcher") if isinstance(spec, dict) else None
        if not isinstance(searcher, dict) or searcher.get("type") != "policy":
            continue
        counts = [searcher.get(name) for name in ("rounds", "samples")]
        if all(isinstance(count, int) and count > 0 for count in counts):
            values = dict(zip(("rounds", "samples"), counts, strict=True))
            connection.execute(sa.update(jobs).where(jobs.c.id == job).values(values))


def _fill_gains() -> None:
    """What `confirm` says of the candidates, as this version of the program works it out."""
    connection = op.get_bind()
    found = connection.execute(
        sa.text(
            "SELECT t.job_id, t.candidate, c.origin, t.stage, t.seed, "
            "CASE WHEN t.state = 'diverged' THEN 0.0 ELSE t.fitness END AS value "
            'FROM trials AS t JOIN candidates AS c ON c.job_id = t.job_id AND c."index" = '
            "t.candidate WHERE t.stage = 'confirm' AND t.state IN ('done', 'diverged') "
            "ORDER BY t.job_id, t.candidate, t.seed"
        )
    )
    trials: dict[str, list[Judged]] = defaultdict(list)
    for job, candidate, origin, stage, seed, value in found:
        if value is not None:
            trials[job].append(Judged(candidate, origin, stage, seed, value))
    update = sa.text(
        "UPDATE candidates SET gain = :gain, p = :p, shrunken = :shrunken, family = :family "
        'WHERE job_id = :job AND "index" = :index'
    )
    for job, own in trials.items():
        for index, one in confirmations(own).items():
            values = {name: getattr(one, name) for name in ("gain", "p", "shrunken", "family")}
            connection.execute(update, {**values, "job": job, "index": index})


def _fill_totals() -> None:
    """What every job has so far."""
    searched = "origin NOT IN ('baseline', 'rival')"
    trained = f"{searched} AND fitness IS NOT NULL AND state <> 'failed'"

    def count(condition: str) -> str:
        return f"COALESCE(SUM(CASE WHEN {condition} THEN 1 ELSE 0 END), 0)"

    def highest(condition: str) -> str:
        return f"MAX(CASE WHEN {condition} THEN fitness END)"

    def ended(stage: str) -> str:
        return (
            "(SELECT COUNT(*) FROM trials WHERE trials.job_id = jobs.id "
            f"AND trials.stage = '{stage}' AND trials.state <> 'running')"
        )

    of_candidates: dict[str, Any] = {
        "candidates": "COUNT(*)",
        "searched": count(searched),
        "trained": count(trained),
        "best": highest(trained),
        "baseline": highest("origin = 'baseline'"),
        "mean": highest(f"{trained} AND origin = 'mean'"),
    }
    listed = ", ".join(f"{what} AS {name}" for name, what in of_candidates.items())
    counts = ", ".join(
        f"COALESCE(found.{name}, 0)" for name in ("candidates", "searched", "trained")
    )
    op.execute(
        "INSERT INTO job_totals "
        "(job_id, candidates, searched, trained, confirmed, published, best, baseline, mean) "
        f"SELECT jobs.id, {counts}, {ended('confirm')}, {ended('test')}, "
        "found.best, found.baseline, found.mean FROM jobs LEFT JOIN "
        f"(SELECT job_id, {listed} FROM candidates GROUP BY job_id) AS found "
        "ON found.job_id = jobs.id"
    )
