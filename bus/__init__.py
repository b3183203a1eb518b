"""sealbus: a secure event bus for multi-agent AI systems on Apache Kafka.

    with Bus("retriever-1") as me:
        me.publish("agent_memory", {"text": "prefers mail"}, purpose="care")

The names below are the public surface; they are loaded on first use, so that `import bus.wire` needs no Kafka client.
"""

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bus.client.bus import Bus
    from bus.client.delegation import Delegation
    from bus.client.delivery import Delivery
    from bus.client.payload import avro
    from bus.client.sent import Sent
    from bus.client.store import Store
    from bus.errors import BusError, CircuitOpen, Denied, Erased, Refused, RetryLater, Throttled
    from bus.wire.envelope import Kind

__version__ = "0.1.0"
__all__ = [
    "Bus",
    "BusError",
    "CircuitOpen",
    "Delegation",
    "Delivery",
    "Denied",
    "Erased",
    "Kind",
    "Refused",
    "RetryLater",
    "Sent",
    "Store",
    "Throttled",
    "avro",
]

_HOMES = {
    "Bus": "bus.client.bus",
    "BusError": "bus.errors",
    "CircuitOpen": "bus.errors",
    "Delegation": "bus.client.delegation",
    "Delivery": "bus.client.delivery",
    "Denied": "bus.errors",
    "Erased": "bus.errors",
    "Kind": "bus.wire.envelope",
    "Refused": "bus.errors",
    "RetryLater": "bus.errors",
    "Sent": "bus.client.sent",
    "Store": "bus.client.store",
    "Throttled": "bus.errors",
    "avro": "bus.client.payload",
}

logging.getLogger("bus").addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    """Load a public name from its module."""
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(name)
