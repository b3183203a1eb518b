"""The ledger of a deployment: the file in its state folder, or the database that its settings name."""

from __future__ import annotations

from bus.files import Layout
from bus.ledger.store import Ledger
from bus.settings import Settings


def open_ledger(settings: Settings, *, read_only: bool = True) -> Ledger:
    """Open it. Raises Refused (ledger) where there is none to read, SettingsError, RetryLater."""
    if settings.ledger_database:
        from bus.ledger.postgres import PostgresLedger  # its packages are an extra

        database = PostgresLedger(settings.ledger_database, settings.deployment_id, read_only=read_only)
        return Ledger(database, settings.deployment_id)
    return Ledger(Layout(settings.state).ledger, settings.deployment_id, read_only=read_only)
