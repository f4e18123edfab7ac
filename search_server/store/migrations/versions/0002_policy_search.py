"""Candidates of a policy search: the origins `policy` and `mean`.

Revision: 0002
Revises: 0001
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

BEFORE = "origin IN ('baseline', 'named', 'random', 'mutation', 'crossover')"
AFTER = "origin IN ('baseline', 'named', 'random', 'mutation', 'crossover', 'policy', 'mean')"


def upgrade() -> None:
    """To this revision."""
    _check_origin(AFTER)


def downgrade() -> None:
    """Back to the one before, which has no word for the new origins: such rows become `random`."""
    op.execute("UPDATE candidates SET origin = 'random' WHERE origin IN ('policy', 'mean')")
    _check_origin(BEFORE)


def _check_origin(condition: str) -> None:
    """SQLite cannot change a constraint: there the table is made anew and its rows are copied, with
    foreign keys off (`engine.connect`), else its trials would go with the old one."""
    with op.batch_alter_table("candidates") as candidates:
        candidates.drop_constraint(op.f("ck_candidates_origin"), type_="check")
        candidates.create_check_constraint(op.f("ck_candidates_origin"), condition)
