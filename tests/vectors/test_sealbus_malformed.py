"""Every malformed variant of the vectors is refused with its code, by the product's readers in the order of the page.

``READERS`` holds one reader a kind of value; each also reads the honest value, so that none refuses for another reason
than the damage. What agents send is given to the enforcer's own steps besides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from bus.client.opening import Profiles, open_bundle
from bus.codes import Code
from bus.crypto import keys
from bus.crypto.keyring import Keyring
from bus.crypto.keys import Secret
from bus.crypto.seal import Sealer, open_counted, open_sealed
from bus.crypto.signing import Trust, open_object, verify_bundle, verify_hop_block, verify_window
from bus.errors import BusError, Refused
from bus.kafka.windows import PartitionWindows
from bus.ledger.leaf import UNVERIFIED_INDEX, day_keys
from bus.policy.compiling import compile_policy
from bus.wire import codec, derived, envelope, hop, hopblock, objects, preimage, records, sealed
from bus.wire.names import DomainName, DomainTopics, TopicName
from bus.wire.schemas import schema
from consumers.audit.recorder import record_block
from consumers.enforcer.context import EnforcerContext, PartitionState
from consumers.enforcer.outcome import Accepted, Outcome
from consumers.enforcer.pipeline import enforce_batch
from tests.vectors import generate
from tests.vectors.test_sealbus_derived import trust
from tests.vectors.test_sealbus_records import POLICY
from tests.vectors.test_sealbus_v1 import AGENT, INPUTS, PARTITION, ROLES, ROOT, SIGNER, TOPICS, VECTORS, raw, told

ANCHOR = raw("inputs.anchor")
AUDIT_ROOT = Secret(raw("inputs.audit_root"), "audit root")
VARIANTS = told("malformed")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value is read; a variant's ``with`` changes one of these."""

    topic: str
    deployment: bytes = raw("inputs.deployment")
    partition: int = PARTITION
    zone: str = INPUTS["zone"]
    domain: str = INPUTS["domain"]

    @property
    def trust(self) -> Trust:
        """The certificate of the vectors, believed."""
        return Trust(self.deployment, ANCHOR, [raw("certificate.value")])


def keyring() -> Keyring:
    ring = Keyring(lead_ms=0, grace_ms=0)
    ring.add(generate.EPOCH_OBJECT, ROOT, [generate.AGENT], bytes(32))
    return ring


def read_sealed(value: bytes, at: Place) -> None:
    """Section 3, steps 1 to 5, 8 and 9; the epoch and the window need more than the value."""
    parts = sealed.parse(value)
    key = keyring().find(parts.key_id)
    if key is None:
        raise Refused("no such key id", code=Code.UNKNOWN_KEY)
    if key.topic != at.topic:
        raise Refused("the key is of another domain", code=Code.WRONG_DOMAIN)
    plain = open_sealed(key.keys, at.deployment, at.topic, at.partition, value)
    envelope.decode_envelope(envelope.unpad(plain))


def read_derived(value: bytes, at: Place) -> None:
    """Section 5.6. The client of this release reads for the empty zone, so that the zone is asked before it."""
    bundle = derived.parse(value)
    verify_bundle(bundle, at.trust, at.topic, at.partition, zone=at.zone, domain=at.domain)
    opened = open_bundle(
        value,
        domain=DomainName(at.domain),
        topic=at.topic,
        partition=at.partition,
        offset=0,
        append_time=bundle.head.decided_at,
        trust=trust(at.zone, ""),
        tier=bundle.head.tier,
        highest=lambda _instance: -1,
        reading=lambda _epoch: tuple(ROLES.values()),
        profiles=Profiles(),
    )
    for _, error in opened.refusals:
        raise error


def read_hop_block(value: bytes, at: Place) -> None:
    """Section 8, then each hop."""
    block = hopblock.parse(value)
    verify_hop_block(block, at.trust, "agent_memory")
    key = day_keys(block.day, AUDIT_ROOT).blocks
    aad = preimage.hop_block_aad(at.deployment, block.header)
    opened = open_counted(key, "audit", block.instance, block.sequence, block.body, aad)
    for each in hopblock.split_hops(opened, block.count):
        hop.decode_hop(each)


def read_dead_letter(value: bytes, at: Place) -> None:
    """Section 9."""
    letter = records.parse_dead_letter(value)
    if letter.sealed is not None:
        aad = preimage.dead_aad(at.deployment, at.topic, at.partition, letter.origin_digest)
        key, body = keys.purpose_key(ROOT, "dead"), letter.sealed
        open_counted(key, "dead", body.instance, body.sequence, body.body, aad)


def read_window(value: bytes, at: Place) -> None:
    """Section 10."""
    verify_window(records.parse_window(value), at.trust, at.topic, at.partition, at.domain)


def read_notice(value: bytes, at: Place) -> None:
    """Section 11."""
    notice = records.parse_notice(value)
    aad = preimage.notice_aad(at.deployment, notice.header)
    opened = open_counted(AGENT.notice, "notice", notice.instance, notice.sequence, notice.body, aad)
    records.parse_verdict(opened)


READERS: dict[str, tuple[str, Callable[[bytes, Place], Any]]] = {
    "profile": ("", lambda value, _: envelope.decode_profile(value)),
    "envelope": ("", lambda value, _: envelope.decode_envelope(envelope.unpad(value))),
    "sealed": (TOPICS["in"], read_sealed),
    "derived": (TOPICS["out"], read_derived),
    "hop": ("", lambda value, _: hop.decode_hop(value)),
    "hop_block": ("bus.audit", read_hop_block),
    "dead_letter": (TOPICS["dead"], read_dead_letter),
    "window": (TOPICS["windows"], read_window),
    "verdict": ("", lambda value, _: records.parse_verdict(value)),
    "notice": ("bus.notice", read_notice),
    "claim": ("", lambda value, _: codec.decode_marked(schema("claim"), value)),
    "epoch": ("", lambda value, at: open_object(objects.Epoch, value, ANCHOR, at.deployment)),
    "tombstone": ("bus.control", lambda value, at: open_object(objects.Tombstone, value, ANCHOR, at.deployment)),
    "certificate": ("", lambda value, at: Trust(at.deployment, ANCHOR, [value])),
    "snapshot": (
        "bus.policy",
        lambda value, at: open_object(objects.SignedSnapshot, value, raw("inputs.policy_signer"), at.deployment),
    ),
}
"""Topic and reader of each kind."""


def place_of(variant: dict[str, Any]) -> Place:
    """Where ``variant`` is read."""
    changes = dict(variant.get("with", {}))
    if "deployment" in changes:
        changes["deployment"] = bytes.fromhex(changes["deployment"])
    return replace(Place(READERS[variant["of"]][0]), **changes)


def variants(*kinds: str) -> list[Any]:
    """Parameters with ids that say what is damaged."""
    return [pytest.param(each, id=f"{each['of']}: {each['name']}") for each in VARIANTS if each["of"] in kinds]


@pytest.mark.parametrize("kind", READERS)
def test_the_honest_value_is_read(kind: str) -> None:
    value = raw("envelope.frame") if kind == "envelope" else raw(f"{kind}.value")
    topic, read = READERS[kind]
    read(value, Place(topic))


@pytest.mark.parametrize("variant", variants(*READERS))
def test_a_malformed_value_is_refused_with_its_code(variant: dict[str, Any]) -> None:
    with pytest.raises(BusError) as refused:
        READERS[variant["of"]][1](bytes.fromhex(variant["value"]), place_of(variant))
    assert refused.value.code == variant["code"]


def test_every_variant_is_tried_and_named_once() -> None:
    assert len(variants(*READERS)) == len(VECTORS["malformed"]) == 258
    assert len({(each["of"], each["name"]) for each in VARIANTS}) == 258


# The enforcer.
def enforce(value: bytes, at: Place) -> Outcome:
    """What the enforcer makes of one record of the input topic at ``at``."""
    context = EnforcerContext(at.deployment, keyring(), SIGNER, compile_policy(POLICY), 4)
    context.now_ms = context.received_ms = context.refreshed_ms = generate.DECIDED
    stem = at.topic.removesuffix(".in")
    topics = DomainTopics(*(TopicName(f"{stem}.{part}") for part in ("in", "out", "dead", "windows")))
    state = PartitionState(DomainName(at.domain), topics, at.partition, at.deployment, PartitionWindows())
    (outcome,) = enforce_batch([value], [generate.APPENDED], [900], state, context)
    return outcome


def test_the_enforcer_releases_the_honest_record_masked() -> None:
    outcome = enforce(raw("sealed.value"), Place(TOPICS["in"]))
    assert isinstance(outcome, Accepted)
    masked = raw("derived.records.0.released.envelope")
    content = raw("sealed.decision_id") + codec.prefixed(b"") + codec.prefixed(masked)
    assert outcome.plaintext == envelope.pad(content)
    assert (outcome.digest, outcome.gap) == (raw("sealed.origin_digest"), told("sealed.sequence"))


@pytest.mark.parametrize("variant", variants("sealed"))
def test_the_enforcer_refuses_a_malformed_sealed(variant: dict[str, Any]) -> None:
    value = bytes.fromhex(variant["value"])
    outcome = enforce(value, place_of(variant))
    assert not isinstance(outcome, Accepted)
    assert (outcome.decision.code, outcome.digest) == (variant["code"], hashlib.sha256(value).digest())


@pytest.mark.parametrize("variant", variants("envelope", "profile"))
def test_the_enforcer_refuses_what_is_malformed_inside_an_honest_sealed(variant: dict[str, Any]) -> None:
    frame = bytes.fromhex(variant["value"])
    if variant["of"] == "profile":
        frame = envelope.encode_plaintext(frame, raw("envelope.message"), raw("envelope.payload"))
    at = Place(TOPICS["in"])
    _, value = Sealer(AGENT, at.deployment, at.topic).seal(at.partition, frame)
    outcome = enforce(value, at)
    assert not isinstance(outcome, Accepted)
    assert (outcome.decision.code, outcome.body) == (variant["code"], frame)


# The audit consumer.
@pytest.mark.parametrize("variant", variants("hop_block"))
def test_the_audit_consumer_keeps_a_block_that_it_refuses_as_one_leaf(variant: dict[str, Any]) -> None:
    value = bytes.fromhex(variant["value"])
    entries, intervals = record_block(value, 1, 55, Place("bus.audit").trust, lambda day: day_keys(day, AUDIT_ROOT))
    assert [(each.index, each.body, each.disclosure) for each in entries] == [(UNVERIFIED_INDEX, value, bytes(32))]
    position = preimage.audit_position("bus.audit", 1, 55, UNVERIFIED_INDEX)
    assert entries[0].leaf == hashlib.sha256(b"\0" + position + hashlib.sha256(value).digest() + bytes(32)).digest()
    assert intervals == []
