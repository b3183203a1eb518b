"""What an agent serves: every delivery is handled to its end before the next one is asked for, and so acknowledged."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from bus.client.delivery import Delivery
from bus.errors import Refused, RetryLater

if TYPE_CHECKING:
    from bus.client.bus import Bus


def serve(
    me: Bus,
    domain: str,
    stop: threading.Event,
    handle: Callable[[Delivery], None],
    refused: Callable[[Delivery, Refused], None],
) -> None:
    """``handle`` what ``me`` may read of ``domain`` until ``stop``. What raises RetryLater is handled again, and
    nothing behind it before; ``refused`` is told what raises Refused, and the next one comes."""
    inbox = me.subscribe(domain)
    while not stop.is_set():
        got = inbox.get(0.2)
        while got is not None and not stop.is_set():
            try:
                handle(got)
            except RetryLater as wait:
                stop.wait(wait.after)
                continue
            except Refused as error:
                refused(got, error)
            break
