"""The package sealbus-native where it is installed, else None: compiled steps of the enforcer (docs/adr/0005).

Nothing depends on it: what it does, plain Python does too, in the same way and more slowly.
"""

from __future__ import annotations

from types import ModuleType

native: ModuleType | None
try:
    import sealbus_native as native
except ImportError:
    native = None
