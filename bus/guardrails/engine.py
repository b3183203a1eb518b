"""The engine that the settings choose: which types a policy may name, and what scans for them."""

from __future__ import annotations

from bus.guardrails.presidio import PresidioEngine
from bus.guardrails.scanner import Scanners, default_scanner
from bus.guardrails.types import MODEL_TYPES, TYPES
from bus.settings import GuardrailEngine, Settings


def known_types(settings: Settings) -> frozenset[str]:
    """What a policy's guardrails may name; loads nothing."""
    return TYPES | MODEL_TYPES if settings.guardrail_engine is GuardrailEngine.PRESIDIO else TYPES


def load_engine(settings: Settings) -> Scanners:
    """The engine, ready. Raises SettingsError where its package or its model is not installed."""
    if settings.guardrail_engine is GuardrailEngine.PRESIDIO:
        return PresidioEngine(settings.guardrail_model).scanner
    return default_scanner
