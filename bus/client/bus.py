"""``Bus``: one agent's way to publish and subscribe. Settings come from bus.toml and ``BUS_*``."""

from __future__ import annotations

import functools
import inspect
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, get_type_hints

from bus import settings as settings_module
from bus.attester.base import Attester
from bus.attester.chosen import choose
from bus.authority.trust import read_trust
from bus.client.authority import AuthorityClient
from bus.client.composer import Composer, check_text, session_of, user_token_bytes
from bus.client.delegation import Delegating, Delegation, end_of
from bus.client.delivery import Delivery
from bus.client.fhe import Encryption
from bus.client.keystore import KeyStore
from bus.client.law import Law
from bus.client.leases import LeaseKeeper
from bus.client.memory import Memory
from bus.client.notices import Follower
from bus.client.payload import Encoded, encode_payload
from bus.client.publisher import Publisher, partition_of
from bus.client.refusal import refusal
from bus.client.search import Search
from bus.client.sent import Sent, Verdicts
from bus.client.sessions import Sessions
from bus.client.sharing import Answer, Ask, Sharing
from bus.client.shelves import Shelves
from bus.client.source import Sources
from bus.client.sourceguard import Fields, SourceGuard
from bus.client.store import Store
from bus.client.subscriber import MAX_INFLIGHT, Observing, Subscriber
from bus.codes import Code
from bus.crypto.blind import Value
from bus.errors import AccessRefused, BusError, Denied, Refused, Unavailable
from bus.files import Layout
from bus.guardrails.engine import load_engine
from bus.kafka.config import connect
from bus.policy.decide import decide_constant
from bus.policy.labels import Propagate
from bus.policy.model import DomainPolicy, Policy
from bus.policy.question import Action, Context
from bus.settings import Issuing, Settings
from bus.wire import records
from bus.wire.delegation import Block
from bus.wire.envelope import Kind
from bus.wire.hop import Verdict
from bus.wire.names import DomainName, Tier, agent_id

log = logging.getLogger("bus.client")

DEFAULT_TTL_S = 300.0
Confirm = Literal["queued", "stored", "decided"]


class Bus:
    """One agent identity. A context manager; ``close`` flushes, stores places and leaves."""

    def __init__(self, agent: str, *, settings: Settings | None = None, attester: Attester | None = None) -> None:
        """``attester``: what it attests with, in place of the one that the settings name."""
        self._settings = settings or settings_module.load()
        self._agent = agent_id(agent)
        layout = Layout(self._settings.state)
        deployment = self._settings.deployment_id
        folder = layout.agent(agent)
        self._connection = connect(self._settings, agent)
        self._trust_path = layout.trust
        trust = read_trust(layout.trust)
        self._leases = self._lease(folder, layout, attester)
        asked = (self._leases.wake, self._leases.withheld) if self._leases is not None else (None, self._unasked)
        self._keys = KeyStore(folder / "keys", self._agent, trust.anchor, deployment, *asked)
        self._keys.refresh(force=True)
        self._on_refused: list[Callable[[BusError], None]] = []
        self._verdicts = Verdicts()
        self._composer = Composer(self._agent)
        self._sources = Sources(self._keys, self._agent, deployment)
        self._guard = SourceGuard(functools.partial(load_engine, self._settings))
        self._fields = Fields(self._keys, self._sources, self._agent, deployment)
        self._sessions = Sessions(since=time.time_ns() // 1_000_000)
        self._lock = threading.Lock()
        self._subscribers: list[Subscriber] = []
        self._handlers: list[threading.Thread] = []
        self._publisher: Publisher | None = None
        self._store_path = layout.store(agent)
        self._shelves: Shelves | None = None
        self._peers: dict[str, Bus] = {}
        self._memories: dict[DomainName, Memory] = {}
        self._closed = False
        self._follower = Follower(self._connection, self._keys, self._agent, trust, self._on_verdict)
        self._law = Law(layout.snapshot, trust, lambda: self._follower.snapshot)

    def _lease(self, folder: Path, layout: Layout, attester: Attester | None) -> LeaseKeeper | None:
        if self._settings.issuing is not Issuing.AUTHORITY:
            return None
        attester = attester or choose(self._settings)
        client = AuthorityClient(folder, self._settings.authorities, layout.ca.read_bytes(), attester)
        keeper = LeaseKeeper(client, self._agent)
        keeper.start()
        return keeper

    def _unasked(self, domain: str) -> AccessRefused | None:
        """Why there are no keys of ``domain``, where keys in files go to nobody who attested."""
        live = self._follower.snapshot
        found = live.policy.domains.get(DomainName(domain)) if live is not None else None
        if found is None or not found.attestation_required:
            return None
        return AccessRefused(
            f"{self._agent}: no keys of {domain}, which requires attestation: keys are written into files here",
            principal=self._agent,
            operation="lease",
            resource=domain,
            code=Code.ATTESTATION,
            hint='issuing = "authority" in bus.toml (docs/operations/attestation.md)',
        )

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
        delegation: Delegation | None = None,
        user_token: str = "",
        confirm: Confirm = "stored",
        timeout: float = 30.0,
    ) -> Sent:
        """Publish one message and return once it is ``queued``, ``stored`` (acks=all, default) or ``decided``.

        With a ``delegation`` it is written by the right of who gave it, with a ``user_token`` (a JWT) on behalf of that
        user, whom the enforcer verifies; readers get neither. Raises Denied before sending where the policy
        says no, TooLarge, Refused(schema) for a payload that is not JSON or bytes, AccessRefused where the broker says
        no or keys wait for an attestation that it does not have, RetryLater where it may succeed later. ``decided``
        also raises what ``Sent.decision`` raises.
        """
        if self._closed:
            raise Refused("this Bus is closed", code=Code.CLOSED)
        policy = self._policy()
        found = policy.domains.get(DomainName(domain))
        if found is not None and found.sharing is not None and not isinstance(payload, Encoded | Ask | Answer):

            def send(owner: Bus, share: Encoded, party: str) -> Sent:
                return owner.publish(
                    domain,
                    share,
                    purpose=purpose,
                    kind=kind,
                    target=party,
                    task_type=task_type,
                    correlation=correlation,
                    causation=causation,
                    metadata=metadata,
                    labels=labels,
                    tier_floor=tier_floor,
                    expires_in=expires_in,
                    user_token=user_token,
                    confirm=confirm,
                    timeout=timeout,
                )

            return self.mpc.publish(found.sharing, domain, payload, send)
        if found is not None and found.tier is Tier.FHE and found.protectable:
            data, content_type = self.fhe.encoded(found, payload)
        else:
            data, content_type = encode_payload(payload)
        session, shown = session_of(correlation, causation), None
        if policy.propagate is Propagate.TICKETS:
            shown = self._sessions.shown(session, causation)
        tickets, proven = shown or ((), None)
        token, givers = delegation.shown(self._agent, domain, kind, tool) if delegation is not None else (b"", ())
        route = self._composer.route(
            policy,
            domain,
            kind,
            target,
            tool,
            task_type,
            labels,
            purpose,
            tier_floor,
            content_type,
            metadata,
            proven=proven,
            delegation=token,
            user_token=user_token_bytes(user_token),
            delegated_by=givers,
            notify=confirm == "decided",
        )
        protect = None
        if found is not None and route.at_source:
            if found.at_source:
                data = self._guard.released(found, policy, data, content_type)
            protect = functools.partial(self._protect, found, policy)
        if partition_key:
            check_text("partition_key", partition_key)
        made = self._composer.compose(
            route,
            data,
            session=session,
            causation=causation,
            tickets=tickets,
            reply_to=reply_to,
            expires_in=expires_in,
            protect=protect,
        )
        partition = partition_of(partition_key or made.session, route.partitions)
        for each in made.parts:
            self._verdicts.part(each, made.message_id)
        sent = Sent(made.message_id, domain, self._verdicts, len(made.plaintexts))
        sender = self._publisher or self._sender()
        for plaintext in made.plaintexts:
            sent._keys.append(sender.send(route.domain, partition, plaintext, sent._done))
        if confirm != "queued":
            sent.wait_stored(timeout)
        if confirm == "decided":
            sent.decision(timeout)
        return sent

    def delegate(
        self,
        to: str,
        *,
        domains: Iterable[str],
        kinds: Iterable[Kind] = (),
        tools: Iterable[str] = (),
        minutes: float = 5.0,
        under: Delegation | None = None,
    ) -> Delegation:
        """This agent's right to write ``domains``, for ``to`` alone: only some kinds or tools where they are told.
        ``under`` a delegation that this agent was given it passes that one on, and can only narrow it.

        It ends after ``minutes``, with the key epoch of its domain or with the one that it is under, whichever is first
        (``Delegation.not_after``). Raises Denied where the policy, or the delegation, gives this agent no such right or
        ``to`` may not act for others; WireError or Refused(schema); RetryLater where there is no key now.
        """
        block = Block(agent_id(to), end_of(minutes), frozenset(kinds), frozenset(tools))
        settings = self._settings
        way = Delegating(self._agent, self._policy(), self._keys, settings.deployment_id, settings.grace_ms)
        if under is None:
            return Delegation([way.first(block, domain) for domain in domains])
        return Delegation([way.passed_on(block, domain, under) for domain in domains])

    def _sender(self) -> Publisher:
        with self._lock:
            if self._publisher is None:
                self._publisher = Publisher(
                    self._connection,
                    self._keys,
                    self._agent,
                    self._settings.deployment_id,
                    self._settings.seal_deadline_ms,
                    compiled=self._settings.compiled,
                )
            return self._publisher

    def _on_verdict(self, verdict: records.Verdict, policy: Policy | None) -> None:
        self._verdicts.put(verdict, policy)
        if verdict.decision is not Verdict.ALLOW:
            whole = self._verdicts.whole(verdict.message_id)
            message_id = str(uuid.UUID(bytes=whole)) if any(whole) else ""
            self._tell(refusal(verdict, message_id, policy))

    def on_refused(self, handler: Callable[[BusError], None]) -> Callable[[BusError], None]:
        """Register a handler for refusals of own records (Denied, Throttled, CircuitOpen) and of deliveries
        (Unverified, Erased) and of what a store lost (Erased); usable as a decorator. Never gets a payload."""
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
        Raises Denied where the policy says that this agent may not consume, AccessRefused where its keys wait for an
        attestation that it does not have.
        """
        return Subscription(self, self._subscriber(domain, Observing() if observe else None, max_inflight))

    def _subscriber(self, domain: str, observe: Observing | None, max_inflight: int = MAX_INFLIGHT) -> Subscriber:
        """As ``subscribe``; ``observe`` says where to begin."""
        name = self._may_consume(domain).name
        subscriber = Subscriber(
            self._connection,
            self._keys,
            self._agent,
            name,
            lambda: read_trust(self._trust_path).trust(),
            lambda: self._policy().domains.get(name),
            self._tell,
            self._sessions.given,
            self._fields,
            max_inflight,
            observe=observe,
        )
        self._subscribers.append(subscriber)
        return subscriber

    def _protect(self, domain: DomainPolicy, policy: Policy, message_id: bytes, payload: bytes) -> bytes:
        now = time.time_ns() // 1_000_000
        if domain.at_source:
            return self._sources.seal(domain.name, message_id, payload, now)
        return self._fields.seal(domain, policy, message_id, payload, now)

    @functools.cached_property
    def fhe(self) -> Encryption:
        """Homomorphic encryption: what a domain of tier FHE takes, to compute on and to decrypt."""
        return Encryption(Layout(self._settings.state), self._agent)

    @functools.cached_property
    def mpc(self) -> Sharing:
        """Totals of a domain of tier COMPUTATION by mpc."""
        return Sharing(self)

    def peer(self, name: str) -> Bus:
        """This agent in the deployment that bus.toml has under this name in `peers`; closed with this one.

        Raises SettingsError for a name that is not there, and what opening a ``Bus`` raises.
        """
        with self._lock:
            found = self._peers.get(name)
            if found is None:
                found = self._peers[name] = Bus(self._agent, settings=settings_module.load_peer(self._settings, name))
        return found

    def store(self, name: str, domain: str) -> Store:
        """This agent's store ``name`` (a checkpoint, a cache): sealed in its folder under its keys of ``domain``, and
        wiped where it loses them (docs/store.md).

        Raises Denied where the policy gives this agent neither reading nor writing in ``domain``, and what every call
        of ``Store`` raises.
        """
        if self._closed:
            raise Refused("this Bus is closed", code=Code.CLOSED)
        with self._lock:
            if self._shelves is None:
                self._shelves = Shelves(
                    self._store_path,
                    self._keys,
                    self._agent,
                    self._settings.deployment_id,
                    (self._settings.grace_ms, self._settings.max_clock_skew_ms),
                    self._law,
                    self._leases.last_word if self._leases is not None else lambda: None,
                    self._tell,
                )
        return Store(self._shelves, name, DomainName(domain))

    def memory(self, domain: str) -> Memory:
        """``domain`` as keys and values, shared by all who may write and read it (docs/store.md).

        Raises Denied where the policy says that this agent may not consume, and what ``store`` raises.
        """
        name = self._may_consume(domain).name
        with self._lock:
            found = self._memories.get(name)
        if found is None:
            store = self.store(f"memory-{name}"[:63], name)
            found = Memory(
                name,
                store,
                self._keys,
                self._connection,
                lambda places: self._subscriber(name, Observing(places)),
                self.publish,
                self._policy,
                self._tell,
            )
            with self._lock:
                found = self._memories.setdefault(name, found)
        return found

    def search(self, domain: str, *, timeout: float = 30.0, **values: Value) -> list[Delivery]:
        """What ``domain`` holds whose payload has all of ``values`` in fields of its blind index, oldest first.

        A nested field is named with its dots: ``search("notes", **{"customer.id": "c-17"})``. Text is compared by NFKC
        and without case. Opens nothing else; finds what this agent may read, of the epochs whose keys it holds. Raises
        Denied, Refused(schema) for a field without an index, or RetryLater.
        """
        consumed = self._may_consume(domain)
        search = Search(
            self._connection,
            self._keys,
            self._agent,
            consumed,
            lambda: read_trust(self._trust_path).trust(),
            self._tell,
        )
        found = search.run(values, timeout)
        if consumed.sealed_fields:
            found = [each for each in map(functools.partial(self._with_fields, consumed), found) if each is not None]
        for each in found:
            self._sessions.given(each)
        return found

    def _with_fields(self, domain: DomainPolicy, delivery: Delivery) -> Delivery | None:
        """``delivery`` with what this agent may read of its sealed fields; None where that is refused, and told."""
        try:
            return self._fields.opened(domain, delivery)
        except Refused as refused:
            self._tell(refused)
            return None

    def _may_consume(self, domain: str) -> DomainPolicy:
        """Raises Denied where the policy says that this agent may not consume, AccessRefused where its keys wait for an
        attestation that it does not have."""
        policy, name = self._policy(), DomainName(domain)
        decision = decide_constant(self._agent, Action.CONSUME, name, Context(), policy)
        if not decision.allowed:
            raise Denied(
                f"{self._agent} may not consume {domain}: {decision.why}", rule=decision.rule, code=decision.code
            )
        self._keys.check(name)
        return policy.domains[name]

    def flush(self, timeout: float = 30.0) -> bool:
        """Until everything published so far is acknowledged or refused; False when ``timeout`` s pass first."""
        return self._publisher is None or self._publisher.flush(timeout)

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
            for memory in self._memories.values():
                memory.close()
            for subscriber in self._subscribers:
                subscriber.close()
            if self._publisher is not None:
                self._publisher.close(timeout)
            if self._shelves is not None:
                self._shelves.close()
            for peer in self._peers.values():
                peer.close(timeout)
        finally:
            self._follower.close()
            if self._leases is not None:
                self._leases.close()

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
