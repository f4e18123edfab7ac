"""What the service keeps: tokens, sessions of browsers, and the jobs that it was asked to run.

Revision: 0009
Revises: 0008
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """To this revision."""
    op.create_table(
        "tokens",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("secret", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("revoked_at", sa.DateTime(), nullable=True),
        sa.CheckConstraint("role IN ('read', 'submit', 'admin')", name=op.f("ck_tokens_role")),
        sa.PrimaryKeyConstraint("id", name="pk_tokens"),
        sa.UniqueConstraint("name", name="uq_tokens_name"),
        sa.UniqueConstraint("secret", name="uq_tokens_secret"),
    )
    op.create_table(
        "web_sessions",
        sa.Column("secret", sa.String(length=64), nullable=False),
        sa.Column("token_id", sa.Integer(), nullable=False),
        sa.Column("expires_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["token_id"], ["tokens.id"], name="fk_web_sessions_token_id_tokens"
        ),
        sa.PrimaryKeyConstraint("secret", name="pk_web_sessions"),
    )
    op.create_table(
        "requests",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=True),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("settled", sa.Boolean(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("held_by", sa.Text(), nullable=True),
        sa.Column("held_until", sa.DateTime(), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_requests_job_id_jobs"),
        sa.PrimaryKeyConstraint("job_id", name="pk_requests"),
        sa.UniqueConstraint("key", name="uq_requests_key"),
    )
    op.create_index("ix_requests_settled", "requests", ["settled"])


def downgrade() -> None:
    """Back to the one before."""
    op.drop_table("requests")
    op.drop_table("web_sessions")
    op.drop_table("tokens")
