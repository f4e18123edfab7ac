"""Whose write of a job was the last one: lost answers to commits, and replaced controllers.

Revision: 0008
Revises: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """To this revision."""
    op.create_table(
        "controllers",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("wrote", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_controllers_job_id_jobs"),
        sa.PrimaryKeyConstraint("job_id", name="pk_controllers"),
    )


def downgrade() -> None:
    """Back to the one before."""
    op.drop_table("controllers")
