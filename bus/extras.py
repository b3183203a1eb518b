"""Packages that come with an extra of the installation."""

from __future__ import annotations

import importlib
from types import ModuleType

from bus.errors import SettingsError


def package(module: str, extra: str, setting: str = "key_provider") -> ModuleType:
    """The optional package ``module``, which ``setting`` asks for. Raises SettingsError that names the extra."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        raise SettingsError(f"{setting}: {module} is not installed", hint=f"pip install 'sealbus[{extra}]'") from None
