"""Trials that ran out of memory are told apart; the smaller batch that one needed is kept.

Revision: 0004
Revises: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

BEFORE = ("running", "paused", "done", "diverged", "timeout", "failed")
AFTER = ("running", "paused", "done", "diverged", "timeout", "out_of_memory", "failed")


def upgrade() -> None:
    """To this revision."""
    with op.batch_alter_table("trials") as trials:
        trials.drop_constraint(op.f("ck_trials_state"), type_="check")
        trials.create_check_constraint(op.f("ck_trials_state"), _one_of(AFTER))
        trials.add_column(sa.Column("batch_size", sa.Integer(), nullable=True))


def downgrade() -> None:
    """Back to the one before, which calls a trial without memory failed."""
    op.execute("UPDATE trials SET state = 'failed' WHERE state = 'out_of_memory'")
    with op.batch_alter_table("trials") as trials:
        trials.drop_column("batch_size")
        trials.drop_constraint(op.f("ck_trials_state"), type_="check")
        trials.create_check_constraint(op.f("ck_trials_state"), _one_of(BEFORE))


def _one_of(states: tuple[str, ...]) -> str:
    return f"state IN ({', '.join(repr(state) for state in states)})"
