"""What the enforcer tells an agent, and the policy it publishes: two feeds followed by one background thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from bus.authority.trust import LiveSnapshot, TrustFile, open_snapshot
from bus.client.keystore import KeyStore
from bus.crypto.seal import open_counted
from bus.errors import BusError
from bus.kafka.config import Connection
from bus.kafka.feed import Feed
from bus.policy.model import Policy
from bus.wire import preimage, records
from bus.wire.names import NOTICE, POLICY, AgentId, notice_partition

log = logging.getLogger("bus.client")


class Follower:
    """Follows bus.policy and the agent's partition of bus.notice."""

    def __init__(
        self,
        connection: Connection,
        keys: KeyStore,
        agent: AgentId,
        trust: TrustFile,
        on_verdict: Callable[[records.Verdict, Policy | None], None],
    ) -> None:
        """``on_verdict`` is told of each verdict, with the policy that is held then."""
        self._keys = keys
        self._trust = trust
        self._on_verdict = on_verdict
        self.snapshot: LiveSnapshot | None = None
        self._policy = Feed(connection, POLICY)
        self._notices = Feed(connection, NOTICE, notice_partition(agent), from_end=True)
        for value in self._policy.catch_up():
            self._take_policy(value)
        self._notices.catch_up()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"{agent} follower", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                value = self._notices.poll(0.1)
                if value is not None:
                    self._take_notice(value)
                if (told := self._policy.poll(0)) is not None:
                    self._take_policy(told)
            except BusError as error:
                log.warning("%s", error)
                self._stop.wait(1)
            except Exception:  # decisions and policies must go on being followed
                log.exception("following notices and policy failed")
                self._stop.wait(1)

    def _take_policy(self, value: bytes) -> None:
        try:
            self.snapshot = open_snapshot(value, self._trust, self.snapshot)
        except BusError as error:
            log.warning("policy snapshot refused: %s", error)

    def _take_notice(self, value: bytes) -> None:
        try:
            notice = records.parse_notice(value)
            own = self._keys.notice_key(notice.key_id)
            if own is None:
                return  # another agent's: partitions are shared
            aad = preimage.notice_aad(self._trust.deployment, notice.header)
            plain = open_counted(own.notice, "notice", notice.instance, notice.sequence, notice.body, aad)
            policy = self.snapshot.policy if self.snapshot is not None else None
            self._on_verdict(records.parse_verdict(plain), policy)
        except BusError as error:
            log.warning("notice refused: %s", error)

    def close(self) -> None:
        """Stop following."""
        self._stop.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(10)
        self._policy.close()
        self._notices.close()
