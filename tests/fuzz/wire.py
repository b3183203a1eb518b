"""Targets: records as they stand on topics, and what stands inside of them once it is opened."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bus.crypto.seal import open_counted, open_sealed
from bus.crypto.signing import verify_window
from bus.kafka.restore import METADATA_PREFIX, snapshot_offset
from bus.kafka.windows import restored
from bus.policy.masking import KEPT, mask_profile
from bus.wire import codec, derived, envelope, hop, hopblock, preimage, records, sealed
from bus.wire.schemas import schema
from tests.fuzz.target import Fault, Target, refusal
from tests.fuzz.world import AGENT, DEPLOYMENT, DOMAIN, PARTITION, TOPICS, TRUST, opened, raw


def encode_sealed(parts: sealed.Sealed) -> bytes:
    return sealed.header(parts.key_id, parts.instance, parts.sequence) + parts.mac + codec.prefixed(parts.body)


def open_record(value: bytes) -> bytes:
    return open_sealed(AGENT, DEPLOYMENT, TOPICS.inbound, PARTITION, value)


def encode_derived(bundle: derived.Derived) -> bytes:
    entries = [each.leaf_tail[:26] + codec.prefixed(each.body) for each in bundle.entries]
    return derived.encode(
        bundle.head.encode(), derived.encode_key_table(bundle.sets, bundle.index), entries, bundle.signature
    )


# Envelopes.
def read_frame(plain: bytes) -> tuple[envelope.Envelope, int]:
    """The envelope and its padding; whatever the enforcer steps over, the complete reader takes too."""
    parts = envelope.split(plain)
    content = envelope.unpad(plain)
    if envelope.split(plain, parts[0]) != parts:
        raise Fault("another envelope is found where its profile is known")
    if refusal(lambda data: codec.decode_marked(schema("envelope"), data), content) is not None:
        raise Fault("the enforcer steps over an envelope that the codec refuses")
    return envelope.decode_envelope(content), len(plain) - envelope.content_end(plain)


def encode_frame(told: tuple[envelope.Envelope, int]) -> bytes:
    read, padding = told
    profile, message = envelope.encode_profile(read.profile), envelope.encode_message(read.message)
    return envelope.encode_plaintext(profile, message, read.payload) + bytes(padding)


def read_profile(data: bytes) -> envelope.Profile:
    """A profile; what masking leaves of it is a profile too, and holds nothing that is masked."""
    profile = envelope.decode_profile(data)
    masked = envelope.decode_profile(envelope.encode_profile(mask_profile(profile, masked=True)))
    if masked.delegation or not masked.metadata.keys() <= KEPT or masked.source != profile.source:
        raise Fault("masking leaves what it should not")
    return profile


# Hops and their blocks.
def encode_hop(told: hop.Hop) -> bytes:
    causes = told.causation_ids
    return hop.encode_hop(
        origin_digest=told.origin_digest,
        output_digest=told.output_digest,
        message_id=told.message_id,
        instance_sequence=told.instance + told.sequence.to_bytes(8, "big"),
        partition=told.partition,
        offset=told.offset,
        append_time=told.append_time,
        decided_at=told.decided_at,
        gap=told.gap,
        size=told.size,
        session=told.correlation_id.encode(),
        causes=codec.length(len(causes)) + b"".join(causes) + b"\x00" if causes else b"\x00",
        tail=hop.encode_tail(told.tail),
    )


def encode_hop_block(block: hopblock.HopBlock) -> bytes:
    fields = ("day", "enforcer_key_id", "instance", "sequence", "partition", "start", "end", "count", "topic")
    header = hopblock.header(**{name: getattr(block, name) for name in fields})
    return header + codec.prefixed(block.body) + block.signature


def read_decision_id(data: bytes) -> None:
    """A decision id as an operator types it: upper case and blanks around it are overlooked, nothing else."""
    text = data.decode(errors="replace")
    if hop.decision_id(hop.parse_decision_id(text)) != text.strip().lower():
        raise Fault("another spelling of a decision id")


# Smaller records.
def encode_notice(notice: records.Notice) -> bytes:
    return records.notice_header(notice.key_id, notice.instance, notice.sequence) + codec.prefixed(notice.body)


def open_notice(value: bytes) -> records.Verdict:
    told = records.parse_notice(value)
    aad = preimage.notice_aad(DEPLOYMENT, told.header)
    return records.parse_verdict(open_counted(AGENT.notice, "notice", told.instance, told.sequence, told.body, aad))


def open_window(value: bytes) -> None:
    verify_window(records.parse_window(value), TRUST, TOPICS.windows, PARTITION, DOMAIN)


def encode_window(window: records.Window) -> bytes:
    return window.encode_unsigned() + window.signature


def restore(data: bytes) -> int:
    """Windows out of one record, as an enforcer starts with them."""
    window = records.parse_window(data)
    return len(restored([window], window.upto))


def read_place(data: bytes) -> None:
    """Where an enforcer's windows begin, out of the metadata of its committed offset."""
    text = data.decode(errors="replace")
    offset = snapshot_offset(text)
    if text.startswith(METADATA_PREFIX) and text != f"{METADATA_PREFIX}{abs(offset)}":
        raise Fault("a place that no enforcer writes")


def avro(name: str) -> tuple[Callable[[bytes], Any], Callable[[Any], bytes]]:
    """Reader and writer of a marked value that has no typed form."""
    kind = schema(name)
    return lambda data: codec.decode_marked(kind, data), lambda value: kind.head + codec.encode(kind, value)


def values(*paths: str) -> tuple[bytes, ...]:
    return tuple(raw(f"{path}.value") for path in paths)


CLAIM = avro("claim")
HOPS = (*values("hop"), raw("hop.value_of_a_refusal"))
WINDOWS = values("window", "window_snapshot")

TARGETS = (
    Target("sealed", sealed.parse, values("sealed"), encode_sealed, open_record),
    Target("derived", derived.parse, values("derived", "derived_plaintext"), encode_derived, opened),
    Target(
        "key_table",
        derived.parse_key_table,
        (raw("derived.key_table"), b"\x00\x00"),
        lambda told: derived.encode_key_table(*told),
    ),
    Target("frame", read_frame, (raw("envelope.frame"), raw("dead_letter.plaintext")[9:]), encode_frame),
    Target("profile", read_profile, values("profile"), envelope.encode_profile),
    Target("hop", hop.decode_hop, HOPS, encode_hop),
    Target("hop_block", hopblock.parse, values("hop_block"), encode_hop_block),
    Target("decision_id", read_decision_id, (b"kofnvvxhaqgltwfk",), limit=64, share=3),
    Target(
        "dead_letter",
        records.parse_dead_letter,
        values("dead_letter", "dead_letter_bare"),
        records.DeadLetter.encode,
    ),
    Target("window", records.parse_window, WINDOWS, encode_window, open_window),
    Target("restored", restore, WINDOWS),
    Target("place", read_place, (b"w1:0", b"w1:4711", b""), limit=64, share=3),
    Target("verdict", records.parse_verdict, values("verdict"), records.Verdict.encode),
    Target("notice", records.parse_notice, values("notice"), encode_notice, open_notice),
    Target("claim", CLAIM[0], values("claim"), CLAIM[1]),
)
