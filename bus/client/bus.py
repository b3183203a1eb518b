"""``Bus``: one agent's way to publish and subscribe. Settings come from bus.toml and ``BUS_*``."""

from __future__ import annotations

import inspect
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self, get_type_hints

import uuid_utils

from bus import settings as settings_module
from bus.authority.trust import read_trust
from bus.client.delivery import Delivery
from bus.client.keystore import KeyStore
from bus.client.notices import Follower
from bus.client.payload import encode_payload
from bus.client.publisher import Key, Publisher, check_payload, partition_of
from bus.client.subscriber import MAX_INFLIGHT, Subscriber
from bus.codes import Code
from bus.errors import BusError, Denied, Refused, Unavailable
from bus.files import Layout
from bus.kafka.config import Connection, read_identity
from bus.policy.decide import Action, Context, decide
from bus.policy.model import Policy
from bus.settings import Settings
from bus.wire import envelope, records
from bus.wire.envelope import Kind, Message, Profile
from bus.wire.hop import Verdict, decision_id
from bus.wire.names import DomainName, Tier, agent_id

log = logging.getLogger("bus.client")

DEFAULT_TTL_S = 300.0
MAX_TTL_S = 86_400 * 365
MAX_WAITING = 100_000
"""Messages whose decision may still be asked for; the oldest are forgotten first."""
Confirm = Literal["queued", "stored", "decided"]


class Sent:
    """A published message. ``decision`` gives the enforcer's answer when it was asked for, and every denial."""

    __slots__ = ("_decided", "_domain", "_error", "_stored", "_verdict", "id")

    def __init__(self, message_id: uuid.UUID, domain: str) -> None:
        self.id = message_id
        self._domain = domain
        self._stored = threading.Event()
        self._decided = threading.Event()
        self._error: BusError | None = None
        self._verdict: records.Verdict | None = None

    def __repr__(self) -> str:
        return f"Sent({self.id}, {self._domain})"

    def _done(self, error: BusError | None) -> None:
        self._error = error
        if error is not None:
            error.message_id = str(self.id)
            self._decided.set()
        self._stored.set()

    def _told(self, verdict: records.Verdict) -> None:
        if self._verdict is None and verdict.code is not Code.REPLAY:  # a resend of ours was refused: it is there
            self._verdict = verdict
            self._decided.set()

    @property
    def stored(self) -> bool:
        """Whether the broker has it."""
        return self._stored.is_set() and self._error is None

    def wait_stored(self, timeout: float) -> None:
        """Until the broker has it. Raises what refused it, or Unavailable after ``timeout`` s."""
        if not self._stored.wait(timeout):
            raise Unavailable(
                f"{self._domain}: the broker has not answered in {timeout:.0f} s",
                code=Code.UNKNOWN,
                message_id=str(self.id),
                hint="it may still arrive: wait for it again, or look for its id, before publishing anew",
            )
        if self._error is not None:
            raise self._error

    def decision(self, timeout: float = 10.0) -> tuple[str, ...]:
        """Obligations of the ALLOW (asked for with ``confirm="decided"``). Raises Denied, or Unavailable in time."""
        if not self._decided.wait(timeout):
            raise Unavailable(f"{self._domain}: no decision in {timeout:.0f} s", message_id=str(self.id))
        if self._error is not None:
            raise self._error
        verdict = self._verdict
        if verdict is None or verdict.decision is Verdict.ALLOW:
            return verdict.obligations if verdict is not None else ()
        raise denial(verdict, str(self.id))


def denial(verdict: records.Verdict, message_id: str) -> Denied:
    """The typed error of a notice."""
    name = decision_id(verdict.decision_id)
    return Denied(
        f"refused by the enforcer: {verdict.rule or verdict.code}",
        rule=verdict.rule,
        code=verdict.code,
        decision_id=name,
        message_id=message_id,
        hint=verdict.hint,
    )


class Bus:
    """One agent identity. A context manager; ``close`` flushes, stores places and leaves."""

    def __init__(self, agent: str, *, settings: Settings | None = None) -> None:
        self._settings = settings or settings_module.load()
        self._agent = agent_id(agent)
        layout = Layout(self._settings.state)
        deployment = self._settings.deployment_id
        folder = layout.agent(agent)
        identity = read_identity(folder, agent)
        self._connection = Connection(self._settings.bootstrap, layout.ca, identity)
        self._trust_path = layout.trust
        trust = read_trust(layout.trust)
        self._keys = KeyStore(folder / "keys", self._agent, trust.anchor, deployment)
        self._keys.refresh(force=True)
        self._on_refused: list[Callable[[BusError], None]] = []
        self._waiting: dict[Key, Sent] = {}
        self._profiles: dict[tuple[Any, ...], bytes] = {}
        self._lock = threading.Lock()
        self._subscribers: list[Subscriber] = []
        self._handlers: list[threading.Thread] = []
        self._publisher: Publisher | None = None
        self._closed = False
        self._follower = Follower(self._connection, self._keys, self._agent, trust, self._on_verdict)

    @property
    def agent(self) -> str:
        """This agent's id."""
        return self._agent

    def _policy(self) -> Policy:
        live = self._follower.snapshot
        if live is None:
            raise Unavailable("no policy was applied yet", hint="bus policy apply")
        live.check_validity(time.time_ns() // 1_000_000, self._settings.max_clock_skew_ms)
        return live.policy

    def publish(
        self,
        domain: str,
        payload: object,
        *,
        purpose: str = "",
        kind: Kind = Kind.MESSAGE,
        target: str = "",
        tool: str = "",
        task_type: str = "",
        correlation: str = "",
        causation: Sequence[uuid.UUID | Delivery] = (),
        metadata: Mapping[str, str] | None = None,
        labels: Sequence[str] = (),
        reply_to: str = "",
        tier_floor: Tier | None = None,
        expires_in: float = DEFAULT_TTL_S,
        partition_key: str = "",
        confirm: Confirm = "stored",
        timeout: float = 30.0,
    ) -> Sent:
        """Publish one message and return once it is ``queued``, ``stored`` (acks=all, default) or ``decided``.

        Raises Denied before sending where the policy says no, TooLarge, Refused(schema) for a payload that is not
        JSON or bytes, AccessRefused where the broker says no, RetryLater where it may succeed later.
        """
        if self._closed:
            raise Refused("this Bus is closed", code=Code.CLOSED)
        if not 0 < expires_in <= MAX_TTL_S:
            raise Refused(f"expires_in: expected up to {MAX_TTL_S} s, found {expires_in!r}", code=Code.SCHEMA)
        for name, text in (("purpose", purpose), ("correlation", correlation), ("partition_key", partition_key)):
            _check_text(name, text)
        data, content_type = encode_payload(payload)
        check_payload(len(data))
        policy = self._policy()
        name = DomainName(domain)
        self._check(policy, name, Context(kind=kind, target=target, tier_floor=tier_floor))
        profile = self._profile(
            Profile(
                source=self._agent,
                domain=name,
                kind=kind,
                target=target,
                tool=tool,
                task_type=task_type,
                labels=tuple(labels),
                purpose=purpose,
                tier_floor=tier_floor,
                notify=confirm == "decided",
                content_type=content_type,
                metadata=dict(metadata or {}),
            )
        )
        message_id = uuid_utils.uuid7().bytes
        now = time.time_ns() // 1_000_000
        session = correlation or _inherited(causation) or uuid.UUID(bytes=message_id).hex
        message = envelope.encode_message(
            Message(
                message_id=message_id,
                created_at=now,
                expires_at=now + int(expires_in * 1000),
                correlation_id=session,
                causation_ids=tuple((each.id if isinstance(each, Delivery) else each).bytes for each in causation),
                reply_to=reply_to,
            )
        )
        plaintext = envelope.encode_plaintext(profile, message, data)
        partition = partition_of(partition_key or session, policy.domains[name].partitions)
        sent = Sent(uuid.UUID(bytes=message_id), domain)
        self._sender().send(name, partition, plaintext, sent._done, lambda key: self._expect(key, sent))
        if confirm != "queued":
            sent.wait_stored(timeout)
        if confirm == "decided":
            sent.decision(timeout)
        return sent

    def _check(self, policy: Policy, domain: DomainName, context: Context) -> None:
        decision = decide(self._agent, Action.PRODUCE, domain, context, policy)
        if not decision.allowed:
            raise Denied(
                f"{self._agent} may not produce to {domain}: {decision.why} ({decision.location or 'no such domain'})",
                rule=decision.rule,
                code=decision.code,
                hint="the policy decides who may: `bus policy plan`; nothing was sent",
            )

    def _profile(self, profile: Profile) -> bytes:
        """Encoded profiles are kept: an agent's messages repeat them."""
        name = (
            profile.domain,
            profile.kind,
            profile.target,
            profile.tool,
            profile.task_type,
            profile.labels,
            profile.purpose,
            profile.tier_floor,
            profile.notify,
            profile.content_type,
            tuple(profile.metadata.items()),
        )
        found = self._profiles.get(name)
        if found is None:
            if len(self._profiles) >= 1024:
                self._profiles.clear()
            found = self._profiles[name] = envelope.encode_profile(profile)
        return found

    def _sender(self) -> Publisher:
        with self._lock:
            if self._publisher is None:
                self._publisher = Publisher(
                    self._connection,
                    self._keys,
                    self._agent,
                    self._settings.deployment_id,
                    self._settings.seal_deadline_ms,
                )
            return self._publisher

    def _expect(self, key: Key, sent: Sent) -> None:
        with self._lock:
            while len(self._waiting) >= MAX_WAITING:
                del self._waiting[next(iter(self._waiting))]
            self._waiting[key] = sent

    def _on_verdict(self, verdict: records.Verdict) -> None:
        with self._lock:
            sent = self._waiting.pop((verdict.instance, verdict.partition, verdict.sequence), None)
        if sent is not None:
            sent._told(verdict)
        if verdict.decision is not Verdict.ALLOW:
            message_id = str(uuid.UUID(bytes=verdict.message_id)) if any(verdict.message_id) else ""
            self._tell(denial(verdict, str(sent.id) if sent is not None else message_id))

    def on_refused(self, handler: Callable[[BusError], None]) -> Callable[[BusError], None]:
        """Register a handler for own denials and refused deliveries; usable as a decorator. Never gets a payload."""
        self._on_refused.append(handler)
        return handler

    def _tell(self, error: BusError) -> None:
        for handler in self._on_refused:
            try:
                handler(error)
            except Exception:  # the caller's own fault must not end the thread that tells it
                log.exception("a handler of refusals failed")

    def subscribe(self, domain: str, *, max_inflight: int = MAX_INFLIGHT, observe: bool = False) -> Subscription:
        """Deliveries of ``domain``: iterate over it, or use it as a decorator on a handler.

        ``observe`` shows everything from the beginning beside the agent's own reading, whose place it leaves alone.
        Raises Denied where the policy says that this agent may not consume.
        """
        name = DomainName(domain)
        decision = decide(self._agent, Action.CONSUME, name, Context(), self._policy())
        if not decision.allowed:
            raise Denied(
                f"{self._agent} may not consume {domain}: {decision.why}", rule=decision.rule, code=decision.code
            )
        subscriber = Subscriber(
            self._connection,
            self._keys,
            self._agent,
            name,
            lambda: read_trust(self._trust_path).trust(),
            lambda: self._policy().domains[name].tier if name in self._policy().domains else None,
            self._tell,
            max_inflight,
            observe=observe,
        )
        self._subscribers.append(subscriber)
        return Subscription(self, subscriber)

    def close(self, timeout: float = 30.0) -> None:
        """Wait for what was sent, finish handlers, store places, leave. Idempotent."""
        if self._closed:
            return
        self._closed = True
        for subscriber in self._subscribers:
            subscriber.stop()
        me = threading.current_thread()
        for thread in self._handlers:
            if thread is not me:
                thread.join(timeout)
        try:
            for subscriber in self._subscribers:
                subscriber.close()
            if self._publisher is not None:
                self._publisher.close(timeout)
        finally:
            self._follower.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Subscription:
    """Iterate, or decorate a handler that takes the payload (by its annotation) and, if it wants, the Delivery."""

    def __init__(self, owner: Bus, subscriber: Subscriber) -> None:
        self._owner = owner
        self._subscriber = subscriber

    def get(self, timeout: float | None = None) -> Delivery | None:
        """The next delivery, acknowledging the last; None after ``timeout`` s."""
        return self._subscriber.get(timeout)

    def __iter__(self) -> Iterator[Delivery]:
        while (delivery := self._subscriber.get()) is not None:
            yield delivery

    @property
    def skipped(self) -> int:
        """Records that were verified and are meant for others."""
        return self._subscriber.skipped

    def wait_assigned(self, timeout: float = 30.0) -> bool:
        """Until partitions are assigned: what is published from now on is seen without a wait."""
        return self._subscriber.assigned.wait(timeout)

    def __call__(self, handler: Callable[..., object]) -> Callable[..., object]:
        """Run ``handler`` for each delivery on a thread of its own; it may take minutes."""
        if inspect.iscoroutinefunction(handler):
            raise Refused("subscribe: expected a plain function, found an async one", code=Code.SCHEMA)
        parameters = list(inspect.signature(handler).parameters)
        kind = get_type_hints(handler).get(parameters[0]) if parameters else None
        wants_delivery = len(parameters) > 1

        def handle(delivery: Delivery) -> None:
            if kind is Delivery:
                handler(delivery)
            elif wants_delivery:
                handler(delivery.value(kind), delivery)
            else:
                handler(delivery.value(kind))

        def work() -> None:
            try:
                for delivery in self:
                    try:
                        handle(delivery)
                    except BusError as error:
                        self._owner._tell(error)
                    except Exception as error:  # the handler's own fault: told, and the next delivery comes
                        log.exception("handler of %s failed", delivery.domain)
                        message = f"handler of {delivery.domain} failed: {type(error).__name__}"
                        self._owner._tell(Refused(message, code=Code.INTERNAL, message_id=str(delivery.id)))
            except BusError as error:  # reading cannot go on
                self._owner._tell(error)

        thread = threading.Thread(target=work, name=f"{self._owner.agent} handler", daemon=True)
        self._owner._handlers.append(thread)
        thread.start()
        return handler


def _check_text(name: str, text: str) -> None:
    """Raise Refused(schema) for what has no UTF-8: a lone surrogate, or no text at all."""
    try:
        text.encode()
    except (UnicodeEncodeError, AttributeError):
        raise Refused(f"{name}: expected text, found {text!r}", code=Code.SCHEMA) from None


def _inherited(causation: Sequence[uuid.UUID | Delivery]) -> str:
    """A message that answers a delivery stays in its session."""
    return next((each.correlation for each in causation if isinstance(each, Delivery)), "")
