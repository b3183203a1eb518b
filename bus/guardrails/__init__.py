"""Guardrails: what of a payload or its metadata must not go on, found and redacted before anything leaves."""
