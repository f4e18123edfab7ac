"""How many trials are in which state is a column, and jobs are found by their state.

Revision: 0007
Revises: 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

STAGES = ("simulate", "proxy", "confirm", "test")
STATES = ("running", "paused", "done", "diverged", "timeout", "out_of_memory", "failed")


def upgrade() -> None:
    """To this revision."""
    op.create_index("ix_jobs_state", "jobs", ["state"])
    op.create_table(
        "trial_counts",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("stage", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.CheckConstraint(_one_of("stage", STAGES), name=op.f("ck_trial_counts_stage")),
        sa.CheckConstraint(_one_of("state", STATES), name=op.f("ck_trial_counts_state")),
        sa.CheckConstraint("count >= 0", name=op.f("ck_trial_counts_count")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_trial_counts_job_id_jobs"),
        sa.PrimaryKeyConstraint("job_id", "stage", "state", name="pk_trial_counts"),
    )
    op.execute(
        "INSERT INTO trial_counts (job_id, stage, state, count) "
        "SELECT job_id, stage, state, COUNT(*) FROM trials GROUP BY job_id, stage, state"
    )


def downgrade() -> None:
    """Back to the one before, which counts the trials whenever it is asked."""
    op.drop_table("trial_counts")
    op.drop_index("ix_jobs_state", table_name="jobs")


def _one_of(column: str, values: tuple[str, ...]) -> str:
    return f"{column} IN ({', '.join(repr(value) for value in values)})"
