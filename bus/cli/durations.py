"""Durations as options of commands: 24h, 7d."""

from __future__ import annotations

import click
from pydantic import TypeAdapter, ValidationError

from bus.policy.values import Duration


def duration_ms(option: str, text: str, told: str = "as in 24h or 7d") -> int:
    """``text`` in ms. Raises click.UsageError, which names ``option`` and what was expected (``told``)."""
    try:
        found: int = TypeAdapter(Duration).validate_python(text)
    except ValidationError:
        raise click.UsageError(f"{option}: expected a duration, {told}; found {text!r}") from None
    return found
