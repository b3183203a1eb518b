"""Targets: the enforcer's whole step over one partition, then what it writes, then who reads that.

Any bytes give one outcome; only honest ones are accepted; everything written for it is read back by its readers: the
bundle by a permitted agent, the dead letter, the notice by the source, the hop by the recorder.
"""

from __future__ import annotations

from collections.abc import Sequence

from bus.codes import Code
from bus.crypto import keys
from bus.crypto.seal import Sealer
from bus.errors import Refused
from bus.kafka.windows import PartitionWindows
from bus.wire import envelope, records
from consumers.audit.recorder import record_block
from consumers.enforcer.compiled import acceptor_for
from consumers.enforcer.compiled import enforce as compiled_enforce
from consumers.enforcer.context import EnforcerContext, PartitionState
from consumers.enforcer.derive import Derivation, derive
from consumers.enforcer.outcome import Accepted, Outcome
from consumers.enforcer.pipeline import enforce_batch
from tests.fuzz.target import Fault, Target
from tests.fuzz.wire import open_notice
from tests.fuzz.world import (
    AGENT,
    AUDIT_ROOT,
    DAY,
    DAY_KEYS,
    DEPLOYMENT,
    DOMAIN,
    ENFORCER,
    OTHER_ROOT,
    OUTSIDER,
    PARTITION,
    POLICY,
    ROOT,
    TOPICS,
    TRUST,
    WRITER,
    keyring,
    opened,
    raw,
)
from tests.unit.build import told
from tests.vectors import generate

FIRST = 900
HONEST = raw("sealed.value")
INSTANCE = bytes(range(16))
SEALER = Sealer(AGENT, DEPLOYMENT, TOPICS.inbound, INSTANCE)


def make_context() -> EnforcerContext:
    made = EnforcerContext(DEPLOYMENT, keyring(), ENFORCER, POLICY, 4)
    made.now_ms = made.received_ms = made.refreshed_ms = generate.DECIDED
    made.set_audit_root(DAY, AUDIT_ROOT)
    return made


CONTEXT = make_context()


def step(*values: bytes) -> tuple[list[Outcome], Derivation]:
    """Outcomes of ``values`` in a partition that was just assigned, and what is written for them."""
    state = PartitionState(DOMAIN, TOPICS, PARTITION, DEPLOYMENT, PartitionWindows())
    offsets = range(FIRST, FIRST + len(values))
    outcomes = enforce_batch(values, [generate.APPENDED] * len(values), offsets, state, CONTEXT)
    if [each.offset for each in outcomes] != list(offsets):
        raise Fault("not one outcome for each record")
    twin = PartitionState(DOMAIN, TOPICS, PARTITION, DEPLOYMENT, PartitionWindows())
    twin.acceptor = acceptor_for(twin, CONTEXT)
    same = compiled_enforce(list(values), [generate.APPENDED] * len(values), list(offsets), twin, CONTEXT)
    if [told(each) for each in same] != [told(each) for each in outcomes]:
        raise Fault("the compiled steps come to another outcome than the plain ones")
    written = derive(outcomes, FIRST, FIRST + len(values), state, CONTEXT)
    return outcomes, written


def check_written(outcomes: Sequence[Outcome], written: Derivation) -> None:
    """Everything that is written is read by its readers."""
    accepted = [each for each in outcomes if isinstance(each, Accepted)]
    delivered = 0
    for bundle in written.bundles:
        targets = {each.decided.profile.target for each in accepted if each.decided.profile is not None}
        got = [opened(bundle, target) for target in sorted(targets)]
        delivered += len({index for each in got for index, _ in each.deliveries})
    letters = [records.parse_dead_letter(each) for each in written.dead]
    if delivered != len(accepted) or len(letters) != len(outcomes) - len(accepted):
        raise Fault("a record is neither delivered nor a dead letter, or both")
    for agent, notice in written.notices:
        if agent == WRITER:
            open_notice(notice)
    entries = [entry for block in written.blocks for entry in record_block(block, 1, 55, TRUST, lambda _: DAY_KEYS)[0]]
    if len(entries) != len(outcomes) or any(each.day != DAY for each in entries):
        raise Fault("the recorder does not keep one hop for each record")


def settle(outcome: Outcome, allowed: bool) -> None:
    """Raise Refused for a refusal with a code, Fault for one without, or for what must not be accepted."""
    if isinstance(outcome, Accepted):
        if not allowed:
            raise Fault("the enforcer accepts what no agent sealed")
        return
    code = outcome.decision.code
    if not isinstance(code, Code) or code in (Code.ALLOW, Code.INTERNAL):
        raise Fault(f"the enforcer refuses with {code!r}")
    raise Refused("refused", code=code)


def enforce(value: bytes) -> None:
    """Any value behind an honest one."""
    outcomes, written = step(HONEST, value)
    check_written(outcomes, written)
    if not isinstance(outcomes[0], Accepted):
        raise Fault("the honest record is not accepted any more")
    settle(outcomes[1], value in SEALED)


def enforce_plaintext(plain: bytes) -> None:
    """Any plaintext that an honest agent's keys sealed; the same outcome where its profile is known and where not."""
    _, value = SEALER.seal(PARTITION, plain)
    (cold,), written = step(value)
    check_written([cold], written)
    warm = step(HONEST, value)[0][1]
    facts = [
        (each.plaintext, each.session, each.causes, each.message_id) if isinstance(each, Accepted) else each.decision
        for each in (cold, warm)
    ]
    if facts[0] != facts[1]:
        raise Fault("a known profile changes the outcome")
    if isinstance(cold, Accepted):
        source = envelope.decode_envelope(envelope.unpad(plain)).profile
        if (source.source, source.domain) != (WRITER, DOMAIN):
            raise Fault("the enforcer believes another source or domain")
    settle(cold, allowed=True)


def plaintext(**changes: object) -> bytes:
    """The vectors' envelope; ``changes`` are fields of its profile or its message."""
    in_message = {name: changes.pop(name) for name in list(changes) if name in envelope.Message.__dataclass_fields__}
    profile = envelope.encode_profile(generate.replace(generate.PROFILE, **changes))
    message = envelope.encode_message(generate.replace(generate.MESSAGE, **in_message))
    return envelope.encode_plaintext(profile, message, generate.PAYLOAD)


PLAINTEXTS = (
    raw("envelope.frame"),
    plaintext(kind=envelope.Kind.TOOL_CALL, target="exe-1", tool="search.web", delegation=b""),
    plaintext(chunk=None, tickets=(), field_protection=(), traceparent="", causation_ids=()),
    plaintext(metadata={}, labels=(), notify=False, tier_floor=None, delegation=b""),
)
REFUSED_PLAINTEXTS = (
    plaintext(source=OUTSIDER),
    plaintext(delegation=generate.DELEGATION["first"]["value"]),
    plaintext(domain="coordination"),
    plaintext(kind=envelope.Kind.RPC_REQUEST),
    plaintext(tier_floor=generate.Tier.FHE),
    plaintext(expires_at=1),
    plaintext(created_at=2**63),
)


def other_agent() -> bytes:
    own = keys.agent_keys(ROOT, OUTSIDER)
    return Sealer(own, DEPLOYMENT, TOPICS.inbound, INSTANCE).seal(PARTITION, plaintext(source=OUTSIDER))[1]


def other_domain() -> bytes:
    own = keys.agent_keys(OTHER_ROOT, WRITER)
    return Sealer(own, DEPLOYMENT, TOPICS.inbound, INSTANCE).seal(PARTITION, plaintext(domain="coordination"))[1]


def other_partition() -> bytes:
    return Sealer(AGENT, DEPLOYMENT, TOPICS.inbound, INSTANCE).seal(PARTITION + 1, plaintext())[1]


SEALED = tuple(Sealer(AGENT, DEPLOYMENT, TOPICS.inbound, bytes([n]) * 16).seal(PARTITION, plain)[1]
               for n, plain in enumerate(PLAINTEXTS))  # fmt: skip
UNACCEPTED = (HONEST, other_agent(), other_domain(), other_partition(), raw("derived.value"), raw("claim.sealed.value"))
"""Honest values that are replayed, denied, or of another place."""

TARGETS = (
    Target("enforcer", enforce, (*SEALED, *UNACCEPTED), share=8),
    Target("plaintext", enforce_plaintext, (*PLAINTEXTS, *REFUSED_PLAINTEXTS), share=8),
)
