"""Known answers of a bundle: DEKs, reader sets, bodies, tree and signature, and what each reader gets out of it."""

from __future__ import annotations

import os
from dataclasses import replace
from types import SimpleNamespace

import pytest

from bus.client.opening import Opened, Profiles, open_bundle
from bus.codes import Code
from bus.crypto import blind, dek, keys
from bus.crypto.keys import ReadingKey, Secret
from bus.crypto.signing import Signer, Trust, bundle_message, key_id_of, sign_object, verify_bundle
from bus.errors import Refused, Unverified
from bus.tiers.base import TIERS
from bus.wire import codec, derived, objects, preimage
from bus.wire.names import DomainName, Tier
from bus.wire.schemas import schema
from tests.vectors.test_sealbus_v1 import (
    DEPLOYMENT,
    INPUTS,
    MESSAGE,
    PARTITION,
    PROFILE,
    READERS,
    SIGNER,
    TOPICS,
    raw,
    told,
)


def trust(*zones: str) -> Trust:
    """The anchor's trust in the enforcer of the vectors, for these zones."""
    made = replace(objects.EnforcerCertificate.parse(raw("certificate.value")), zones=zones)
    signed = sign_object(Signer(raw("inputs.anchor_seed")), made)
    return Trust(DEPLOYMENT, raw("inputs.anchor"), [signed])


def readers_of(set_path: str) -> list[ReadingKey]:
    ids = [bytes.fromhex(entry["reader_key_id"]) for entry in told(f"{set_path}.entries")]
    return [key for key in READERS.values() if key.key_id in ids]


def make_dek(path: str, monkeypatch: pytest.MonkeyPatch) -> dek.Dek:
    """A DEK whose random bytes are those of the reader set at ``path``."""
    stream = [raw(f"{path}.dek"), *(bytes.fromhex(each["nonce"]) for each in told(f"{path}.entries"))]
    drawn = iter(stream)

    def urandom(size: int) -> bytes:
        data = next(drawn)
        assert len(data) == size
        return data

    monkeypatch.setattr(dek, "os", SimpleNamespace(urandom=urandom, getpid=os.getpid))
    made = dek.Dek(DEPLOYMENT, TOPICS["out"], INPUTS["epoch"], readers_of(path))
    assert next(drawn, None) is None
    return made


@pytest.mark.parametrize("path", ["derived.sets.0", "derived.sets.1"])
def test_a_dek_is_committed_to_and_wrapped_for_its_readers(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    key, commitment = raw(f"{path}.dek"), raw(f"{path}.commitment")
    assert preimage.dek_commitment(key) == raw(f"{path}.commitment_preimage")
    assert dek.commit(key) == commitment
    assert preimage.wrap_aad(DEPLOYMENT, TOPICS["out"], INPUTS["epoch"], commitment) == raw(f"{path}.wrap_aad")
    entries = tuple((bytes.fromhex(e["reader_key_id"]), bytes.fromhex(e["wrapped"])) for e in told(f"{path}.entries"))
    assert make_dek(path, monkeypatch).reader_set == derived.ReaderSet(commitment, entries)


@pytest.mark.parametrize("reader", [*INPUTS["roles"], INPUTS["target"]])
def test_a_dek_is_unwrapped_by_its_readers_and_nobody_else(reader: str) -> None:
    sets, _ = derived.parse_key_table(raw("derived.key_table"))
    own, other = (sets[1], sets[0]) if reader == INPUTS["target"] else sets
    place = DEPLOYMENT, TOPICS["out"], INPUTS["epoch"]
    assert dek.unwrap(READERS[reader], other, *place) is None
    opened = dek.unwrap(READERS[reader], own, *place)
    assert opened is not None
    for record in told("derived.records"):
        nonce, body, aad = (bytes.fromhex(record[name]) for name in ("nonce", "body", "aad"))
        if sets[record["reader_set"]] is own:
            assert opened.open(nonce, body, aad).hex() == record["plaintext"]
    for wrong in ((bytes(16), *place[1:]), (place[0], "eu.other.out", place[2]), (*place[:2], place[2] + 1)):
        with pytest.raises(Unverified) as refused:
            dek.unwrap(READERS[reader], own, *wrong)
        assert refused.value.code is Code.OPEN


@pytest.mark.parametrize("number", range(3))
def test_a_record_is_protected_for_its_reader_set(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    record = told(f"derived.records.{number}")
    made = make_dek(f"derived.sets.{record['reader_set']}", monkeypatch)
    assert made.take(record["counter"]) == 0
    counter = made.take(1)
    prefix = preimage.derived_aad(DEPLOYMENT, TOPICS["out"], PARTITION) + raw("derived.head")
    aad = prefix + made.reader_set.commitment + bytes.fromhex(record["record_id"])
    assert (counter, aad.hex()) == (record["counter"], record["aad"])
    assert preimage.counter_nonce(counter).hex() == record["nonce"]
    body = TIERS[Tier.RETRIEVAL].protect(made, counter, bytes.fromhex(record["plaintext"]), aad)
    assert body.hex() == record["body"]


@pytest.mark.parametrize("path", ["derived", "derived_plaintext"])
def test_a_bundle_is_put_together_and_sliced(path: str) -> None:
    value, records = raw(f"{path}.value"), told(f"{path}.records")
    bundle = derived.parse(value)
    assert bundle.head.encode() == bundle.head_bytes == raw(f"{path}.head")
    assert (bundle.head.epoch, bundle.head.count) == (INPUTS["epoch"], len(records))
    assert bundle.head.enforcer_key_id == SIGNER.key_id == key_id_of(raw("inputs.enforcer_key"))
    assert derived.encode_key_table(bundle.sets, bundle.index) == bundle.key_table == raw(f"{path}.key_table")
    for entry, record in zip(bundle.entries, records, strict=True):
        assert (entry.record_id.hex(), entry.reader_set, entry.counter, entry.body.hex()) == tuple(
            record[name] for name in ("record_id", "reader_set", "counter", "body")
        )
    entries = [bytes.fromhex(record["entry"]) for record in records]
    assert derived.encode(bundle.head_bytes, bundle.key_table, entries, raw(f"{path}.signature")) == value


def test_a_blind_index_is_of_normalised_values_under_a_key_for_each_field() -> None:
    made = []
    for each in told("derived.index"):
        key = keys.index_key(keys.reading_key(Secret(bytes.fromhex(each["kek"]), "kek")), each["field"])
        assert key.reveal().hex() == each["key"]
        assert blind.token(key, each["value"]).hex() == each["token"]
        made.append((each["record"], bytes.fromhex(each["token"])))
    assert derived.parse(raw("derived.value")).index == tuple(made)


@pytest.mark.parametrize("path", ["derived", "derived_plaintext"])
def test_a_bundles_leaves_are_signed_as_one_tree(path: str) -> None:
    bundle = derived.parse(raw(f"{path}.value"))
    zone, domain = INPUTS["zone"], INPUTS["domain"]
    leaves = verify_bundle(bundle, trust(zone), TOPICS["out"], PARTITION, zone=zone, domain=domain)
    assert [leaf.hex() for leaf in leaves] == [record["leaf"] for record in told(f"{path}.records")]
    prefix = preimage.derived_signature(DEPLOYMENT, TOPICS["out"], PARTITION)
    message = bundle_message(prefix, bundle.head_bytes, bundle.key_table, leaves)
    assert message == raw(f"{path}.message")
    assert message.endswith(raw(f"{path}.key_table_digest") + raw(f"{path}.root"))
    assert SIGNER.sign(message) == raw(f"{path}.signature")
    with pytest.raises(Unverified):
        verify_bundle(
            bundle, Trust(DEPLOYMENT, raw("inputs.anchor")), TOPICS["out"], PARTITION, zone=zone, domain=domain
        )


def plaintexts(path: str, *readers: str) -> list[str | None]:
    bundle = derived.parse(raw(f"{path}.value"))
    own = tuple(READERS[reader] for reader in readers)
    opened = TIERS[bundle.head.tier].open(bundle, own, DEPLOYMENT, TOPICS["out"], PARTITION)
    return [each if each is None else each.hex() for each in opened]


def test_each_reader_opens_the_records_that_are_for_it() -> None:
    first, second, targeted = (record["plaintext"] for record in told("derived.records"))
    for role in INPUTS["roles"]:
        assert plaintexts("derived", role) == [first, second, None]
    assert plaintexts("derived", INPUTS["target"]) == [None, None, targeted]
    assert plaintexts("derived", *READERS) == [first, second, targeted]
    assert plaintexts("derived") == [None, None, None]
    assert plaintexts("derived_plaintext") == [told("derived_plaintext.records.0.plaintext")]


def deliver(path: str, *readers: str, tier: Tier | None = None, certified: Trust | None = None) -> Opened:
    """What a client makes of a bundle; this release's clients read for the empty zone."""
    return open_bundle(
        raw(f"{path}.value"),
        domain=DomainName(INPUTS["domain"]),
        topic=TOPICS["out"],
        partition=PARTITION,
        offset=7,
        append_time=derived.parse(raw(f"{path}.value")).head.decided_at,
        trust=trust(INPUTS["zone"], "") if certified is None else certified,
        tier=tier,
        highest=lambda _instance: -1,
        reading=lambda epoch: tuple(map(READERS.__getitem__, readers)) if epoch == INPUTS["epoch"] else None,
        profiles=Profiles(),
    )


def test_a_client_gets_the_released_payloads() -> None:
    records = told("derived.records")
    opened = deliver("derived", *READERS, tier=Tier.RETRIEVAL)
    assert (opened.count, opened.skipped, opened.refusals) == (3, 0, ())
    assert [index for index, _ in opened.deliveries] == [0, 1, 2]
    for (index, delivery), record in zip(opened.deliveries, records, strict=True):
        released = record["released"]
        assert delivery.payload.hex() == released["payload"]
        assert delivery.place == (PARTITION, 7, index)
        assert codec.decode(schema("released"), bytes.fromhex(released["value"])) == {
            name: bytes.fromhex(released[name]) for name in ("decision_id", "ticket", "envelope")
        }
    masked = opened.deliveries[0][1]
    assert masked.metadata == {"locale": "de-AT", "priority": "high"}
    assert (masked.source, masked.correlation) == (PROFILE.source, MESSAGE.correlation_id)
    assert deliver("derived", INPUTS["target"]).skipped == 2
    with pytest.raises(Unverified):
        deliver("derived", *READERS, certified=trust(INPUTS["zone"]))


def test_a_readable_bundle_is_delivered_only_below_every_tier_floor() -> None:
    (delivery,) = deliver("derived_plaintext").deliveries
    assert delivery[1].payload.hex() == told("derived_plaintext.records.0.released.payload")
    with pytest.raises(Refused) as refused:
        deliver("derived_plaintext", tier=Tier.RETRIEVAL)
    assert refused.value.code is Code.TIER_FLOOR
