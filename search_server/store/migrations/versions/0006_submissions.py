"""Attempts of jobs on Ray clusters are known to the store, and so is the wish to cancel a job.

Revision: 0006
Revises: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

BEFORE = ("created", "running", "interrupted", "done", "failed", "cancelled")
AFTER = ("created", "running", "cancelling", "interrupted", "done", "failed", "cancelled")


def upgrade() -> None:
    """To this revision."""
    _allow(AFTER)
    op.create_table(
        "submissions",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("submission_id", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_submissions_job_id_jobs"),
        sa.PrimaryKeyConstraint("job_id", "attempt", name="pk_submissions"),
        sa.UniqueConstraint("submission_id", name="uq_submissions_submission_id"),
    )


def downgrade() -> None:
    """Back to the one before, which calls a job that is being cancelled interrupted."""
    op.drop_table("submissions")
    op.execute("UPDATE jobs SET state = 'interrupted', owner = NULL WHERE state = 'cancelling'")
    _allow(BEFORE)


def _allow(states: tuple[str, ...]) -> None:
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_constraint(op.f("ck_jobs_state"), type_="check")
        listed = ", ".join(repr(state) for state in states)
        jobs.create_check_constraint(op.f("ck_jobs_state"), f"state IN ({listed})")
