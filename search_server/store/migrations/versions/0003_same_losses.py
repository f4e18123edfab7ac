"""Equal losses are known and trained once; rungs, confirmation, calibration and noise floors.

Revision: 0003
Revises: 0002
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

CHECKS = {  # (table, column): what was allowed, and what is added
    ("candidates", "origin"): (
        ("baseline", "named", "random", "mutation", "crossover", "policy", "mean"),
        ("rival", "refined", "tuned"),
    ),
    ("candidates", "stage"): (("simulate", "proxy"), ("confirm", "test")),
    ("trials", "stage"): (("simulate", "proxy"), ("confirm", "test")),
    ("trials", "state"): (("running",), ("paused",), ("done", "diverged", "timeout", "failed")),
}
# What specs meant by the fields that they did not have, by the part that has them now.
ADDED: dict[tuple[str, ...], dict[str, Any]] = {
    (): {"calibrate": False, "target_gain": None},
    ("searcher",): {
        **{"selection": "truncation", "tournament": 4, "radius": 0.25, "tolerance": 0.0},
        **{"objectives": "fitness", "refine": 0.0, "sigma": 0.3, "inherit": False},
    },
    ("searcher", "mutate"): {"constant": 0.0},
    ("funnel",): {"confirm": None},
    ("funnel", "proxy"): {"rungs": [], "reduction": 3, "hopeless": 0.5, "warm_start": None},
    ("resources",): {"precision": "float32"},
    ("limits",): {"steps": None},
}
JOBS = sa.table("jobs", sa.column("id", sa.Text()), sa.column("spec", sa.JSON()))


def upgrade() -> None:
    """To this revision."""
    op.create_table(
        "losses",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("form", sa.String(length=64), nullable=False),
        sa.Column("bucket", sa.BigInteger(), nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.Column("scales", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_losses"),
    )
    op.create_index("ix_losses_form_bucket", "losses", ["form", "bucket"])
    op.create_table(
        "noise_floors",
        sa.Column("trial_group", sa.String(length=64), nullable=False),
        sa.Column("seeds", sa.Integer(), nullable=False),
        sa.Column("mean", sa.Double(), nullable=False),
        sa.Column("sd_single", sa.Double(), nullable=False),
        sa.Column("sd_paired", sa.Double(), nullable=True),
        sa.Column("freedom", sa.Integer(), nullable=False),
        sa.Column("losses", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("trial_group", name="pk_noise_floors"),
    )
    with op.batch_alter_table("candidates") as candidates:
        _check(candidates, "candidates", after=True)
        candidates.add_column(sa.Column("calibration", sa.JSON(none_as_null=True), nullable=True))
        candidates.add_column(sa.Column("loss_id", sa.Integer(), nullable=True))
        candidates.create_foreign_key("fk_candidates_loss_id_losses", "losses", ["loss_id"], ["id"])
    with op.batch_alter_table("trials") as trials:
        _check(trials, "trials", after=True)
        trials.add_column(sa.Column("rungs", sa.JSON(none_as_null=True), nullable=True))
        trials.add_column(sa.Column("trained_key", sa.String(length=64), nullable=True))
        trials.add_column(sa.Column("reused_from", sa.Text(), nullable=True))
        trials.create_unique_constraint("uq_trials_trained_key", ["trained_key"])
    op.create_index("ix_trials_stage_job_id", "trials", ["stage", "job_id"])
    _patch_specs(_spelt_out)


def downgrade() -> None:
    """Back to the one before.

    It has no word for the later stages: their trials go, and their candidates are at `proxy`.
    Candidates of the new origins become `random`. What was paused has failed.
    """
    op.execute("DELETE FROM trials WHERE stage IN ('confirm', 'test')")
    op.execute("UPDATE trials SET state = 'failed', reason = 'paused' WHERE state = 'paused'")
    op.execute("UPDATE candidates SET stage = 'proxy' WHERE stage IN ('confirm', 'test')")
    op.execute(
        "UPDATE candidates SET origin = 'random' WHERE origin IN ('rival', 'refined', 'tuned')"
    )
    _patch_specs(_cut_back)
    op.drop_index("ix_trials_stage_job_id", table_name="trials")
    with op.batch_alter_table("trials") as trials:
        _check(trials, "trials", after=False)
        trials.drop_constraint("uq_trials_trained_key", type_="unique")
        for column in ("reused_from", "trained_key", "rungs"):
            trials.drop_column(column)
    with op.batch_alter_table("candidates") as candidates:
        _check(candidates, "candidates", after=False)
        candidates.drop_constraint("fk_candidates_loss_id_losses", type_="foreignkey")
        for column in ("loss_id", "calibration"):
            candidates.drop_column(column)
    op.drop_table("noise_floors")
    op.drop_index("ix_losses_form_bucket", table_name="losses")
    op.drop_table("losses")


def _check(batch: Any, table: str, *, after: bool) -> None:
    """Replace the constraints on the words of a table. SQLite makes the table anew for it, with
    foreign keys off (`engine.connect`)."""
    for (owner, column), (before, added, *rest) in CHECKS.items():
        if owner == table:
            words = (*before, *(added if after else ()), *(word for part in rest for word in part))
            listed = ", ".join(f"'{word}'" for word in words)
            name = op.f(f"ck_{table}_{column}")
            batch.drop_constraint(name, type_="check")
            batch.create_check_constraint(name, f"{column} IN ({listed})")


def _spelt_out(spec: Any) -> Any:
    """A spec with all that it meant: the defaults of what is new may change, and its candidates,
    for one, were trained at the scale that they have."""
    spec = deepcopy(spec)
    for path, fields in ADDED.items():
        if (part := _part(spec, path)) is not None:
            part |= {name: value for name, value in fields.items() if name not in part}
    return spec


def _cut_back(spec: Any) -> Any:
    """A spec without the fields that are new."""
    spec = deepcopy(spec)
    for path, fields in ADDED.items():
        if (part := _part(spec, path)) is not None:
            for name in fields:
                part.pop(name, None)
    return spec


def _part(spec: Any, path: tuple[str, ...]) -> dict[str, Any] | None:
    """A part of a spec; None where it has none, or one for a searcher of another kind."""
    part = spec
    for name in path:
        part = part.get(name)
        if not isinstance(part, dict):
            return None
        if name == "searcher" and part.get("type") not in ("evolution", "random"):
            return None
    return part


def _patch_specs(change: Any) -> None:
    """Change the spec of every job."""
    connection = op.get_bind()
    for job_id, spec in connection.execute(sa.select(JOBS.c.id, JOBS.c.spec)).fetchall():
        connection.execute(sa.update(JOBS).where(JOBS.c.id == job_id).values(spec=change(spec)))
