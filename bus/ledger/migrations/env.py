"""Runs the migrations of the shared ledger (Alembic) on the connection that ``bus.ledger.postgres`` hands over."""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"], version_table="ledger_version")
with context.begin_transaction():
    context.run_migrations()
