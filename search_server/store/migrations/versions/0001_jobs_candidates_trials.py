"""The first schema: jobs, candidates, trials, counts of the funnel and traced draws.

Revision: 0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """To this revision."""
    op.create_table(
        "jobs",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("serial", sa.Integer(), nullable=False),
        sa.Column("slug", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("detector", sa.Text(), nullable=False),
        sa.Column("classes", sa.JSON(), nullable=False),
        sa.Column("trial_group", sa.String(length=64), nullable=False),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("started_at", sa.DateTime(), nullable=True),
        sa.Column("finished_at", sa.DateTime(), nullable=True),
        sa.CheckConstraint(
            "state IN ('created', 'running', 'interrupted', 'done', 'failed', 'cancelled')",
            name=op.f("ck_jobs_state"),
        ),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
        sa.UniqueConstraint("serial", name="uq_jobs_serial"),
        sa.UniqueConstraint("slug", "number", name="uq_jobs_slug_number"),
    )
    op.create_index("ix_jobs_trial_group", "jobs", ["trial_group"])
    op.create_table(
        "candidates",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("index", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("origin", sa.String(length=16), nullable=False),
        sa.Column("parents", sa.JSON(), nullable=False),
        sa.Column("definition", sa.JSON(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("key_hash", sa.String(length=64), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("cls_text", sa.Text(), nullable=True),
        sa.Column("bbox_text", sa.Text(), nullable=True),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("stage", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("simulate_score", sa.Double(), nullable=True),
        sa.Column("fitness", sa.Double(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.CheckConstraint(
            "origin IN ('baseline', 'named', 'random', 'mutation', 'crossover')",
            name=op.f("ck_candidates_origin"),
        ),
        sa.CheckConstraint("stage IN ('simulate', 'proxy')", name=op.f("ck_candidates_stage")),
        sa.CheckConstraint(
            "state IN ('open', 'dropped', 'done', 'failed')", name=op.f("ck_candidates_state")
        ),
        sa.CheckConstraint(
            "fitness IS NULL OR (fitness BETWEEN 0 AND 1)", name=op.f("ck_candidates_fitness")
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_candidates_job_id_jobs"),
        sa.PrimaryKeyConstraint("job_id", "index", name="pk_candidates"),
        sa.UniqueConstraint("job_id", "key_hash", name="uq_candidates_job_id_key_hash"),
    )
    op.create_index(
        "ix_candidates_job_id_state_fitness_simulate_score_index",
        "candidates",
        ["job_id", "state", "fitness", "simulate_score", "index"],
    )
    op.create_table(
        "draws",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("candidate", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("origin", sa.String(length=16), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_draws_job_id_jobs"),
        sa.PrimaryKeyConstraint("job_id", "candidate", "position", name="pk_draws"),
    )
    op.create_table(
        "funnel_counts",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("origin", sa.String(length=16), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_funnel_counts_job_id_jobs"),
        sa.PrimaryKeyConstraint("job_id", "origin", "outcome", name="pk_funnel_counts"),
    )
    op.create_table(
        "trials",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("candidate", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("stage", sa.String(length=16), nullable=False),
        sa.Column("seed", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("spec_key", sa.String(length=64), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("fitness", sa.Double(), nullable=True),
        sa.Column("ap50", sa.Double(), nullable=True),
        sa.Column("ap75", sa.Double(), nullable=True),
        sa.Column("ap_s", sa.Double(), nullable=True),
        sa.Column("ap_m", sa.Double(), nullable=True),
        sa.Column("ap_l", sa.Double(), nullable=True),
        sa.Column("steps", sa.Integer(), nullable=True),
        sa.Column("curves", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("versions", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("log", sa.Text(), nullable=True),
        sa.Column("seconds_start", sa.Double(), nullable=True),
        sa.Column("seconds_setup", sa.Double(), nullable=True),
        sa.Column("seconds_train", sa.Double(), nullable=True),
        sa.Column("seconds_evaluate", sa.Double(), nullable=True),
        sa.Column("seconds_total", sa.Double(), nullable=True),
        sa.Column("started_at", sa.DateTime(), nullable=False),
        sa.Column("finished_at", sa.DateTime(), nullable=True),
        sa.CheckConstraint("stage IN ('simulate', 'proxy')", name=op.f("ck_trials_stage")),
        sa.CheckConstraint(
            "state IN ('running', 'done', 'diverged', 'timeout', 'failed')",
            name=op.f("ck_trials_state"),
        ),
        sa.CheckConstraint(
            "fitness IS NULL OR (fitness BETWEEN 0 AND 1)", name=op.f("ck_trials_fitness")
        ),
        sa.ForeignKeyConstraint(
            ["job_id", "candidate"],
            ["candidates.job_id", "candidates.index"],
            name="fk_trials_job_id_candidate_candidates",
        ),
        sa.PrimaryKeyConstraint("job_id", "candidate", "stage", "seed", name="pk_trials"),
    )
    op.create_index("ix_trials_job_id_state", "trials", ["job_id", "state"])


def downgrade() -> None:
    """Back to the one before."""
    op.drop_index("ix_trials_job_id_state", table_name="trials")
    op.drop_table("trials")
    op.drop_table("funnel_counts")
    op.drop_table("draws")
    op.drop_index(
        "ix_candidates_job_id_state_fitness_simulate_score_index", table_name="candidates"
    )
    op.drop_table("candidates")
    op.drop_index("ix_jobs_trial_group", table_name="jobs")
    op.drop_table("jobs")
