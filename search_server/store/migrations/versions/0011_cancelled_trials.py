"""Trials that ran when their job was cancelled have ended with it.

Revision: 0011
Revises: 0010
"""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

BEFORE = ("running", "paused", "done", "diverged", "timeout", "out_of_memory", "failed")
AFTER = (*BEFORE, "cancelled")


def upgrade() -> None:
    """To this revision."""
    _allow(AFTER)
    gone = "state = 'running' AND job_id IN (SELECT id FROM jobs WHERE jobs.state = 'cancelled')"
    op.execute(
        "UPDATE trials SET state = 'cancelled', reason = 'its job was cancelled', finished_at = "
        f"(SELECT jobs.finished_at FROM jobs WHERE jobs.id = trials.job_id) WHERE {gone}"
    )
    op.execute(f"UPDATE trial_counts SET state = 'cancelled' WHERE {gone}")


def downgrade() -> None:
    """Back to the one before, which leaves them running."""
    op.execute(
        "UPDATE trials SET state = 'running', reason = '', finished_at = NULL "
        "WHERE state = 'cancelled'"
    )
    op.execute("DELETE FROM trial_counts WHERE state IN ('running', 'cancelled')")
    op.execute(
        "INSERT INTO trial_counts (job_id, stage, state, count) "
        "SELECT job_id, stage, state, COUNT(*) FROM trials WHERE state = 'running' "
        "GROUP BY job_id, stage, state"
    )
    _allow(BEFORE)


def _allow(states: tuple[str, ...]) -> None:
    listed = f"state IN ({', '.join(repr(state) for state in states)})"
    for name in ("trials", "trial_counts"):
        with op.batch_alter_table(name) as table:
            table.drop_constraint(op.f(f"ck_{name}_state"), type_="check")
            table.create_check_constraint(op.f(f"ck_{name}_state"), listed)
