"""One job's candidates in a state are found in their order, however many others stand before them.

Revision: 0010
Revises: 0009
"""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

COLUMNS = ("serial", "state", "standing", "behind", "index")
NAME = f"ix_candidates_{'_'.join(COLUMNS)}"


def upgrade() -> None:
    """To this revision."""
    op.create_index(NAME, "candidates", list(COLUMNS))


def downgrade() -> None:
    """Back to the one before, which looks through those that stand before."""
    op.drop_index(NAME, table_name="candidates")
