"""Key bundles: what an agent gets of an epoch comes back verified; another's, forged or damaged ones are refused."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bus.authority.bundle import FORMAT, Bundle, make_bundle, read_bundle
from bus.authority.roots import StoredEpoch
from bus.crypto import keys
from bus.crypto.keys import Secret, root_digest
from bus.crypto.signing import Signer, sign_object
from bus.errors import BusError, Refused, Unverified, WireError
from bus.files import write_secret
from bus.wire.names import NO_ZONE, AgentId, DomainName
from bus.wire.objects import Epoch
from tests.unit.ledger_build import ANCHOR, DEPLOYMENT, NOON, OTHER_DEPLOYMENT, STRANGER, domain, make_policy

WRITER, READER, BOTH = map(AgentId, ("writer-1", "reader-1", "both-1"))
NOTES, PLANS = DomainName("notes"), DomainName("plans")
POLICY = make_policy(agents={WRITER: ["WRITER"], READER: ["READER"], BOTH: ["READER", "WRITER"]})


def stored(name: str, number: int = 5, *, signer: Signer = ANCHOR, deployment: bytes = DEPLOYMENT) -> StoredEpoch:
    root = Secret(bytes([number, len(name)]) * 16, f"root({name}, {number})")
    epoch = Epoch(deployment, number, NOON, NOON + 600_000, NO_ZONE, name, root_digest(root))
    return StoredEpoch(epoch, sign_object(signer, epoch), root, bytes(32))


EPOCHS = [stored(NOTES), stored(PLANS)]


def document(agent: AgentId = BOTH) -> dict[str, Any]:
    return json.loads(make_bundle(agent, POLICY, EPOCHS) or b"")


def read(folder: Path, data: bytes | dict[str, Any], agent: AgentId = BOTH) -> Bundle:
    path = folder / "5"
    write_secret(path, data if isinstance(data, bytes) else json.dumps(data).encode())
    return read_bundle(path, agent, ANCHOR.public_key, DEPLOYMENT)


def test_a_bundle_comes_back_with_the_keys_of_its_agent(tmp_path):
    bundle = read(tmp_path, document())
    assert set(bundle) == {NOTES, PLANS}
    for each, held in zip(EPOCHS, (bundle[NOTES], bundle[PLANS]), strict=True):
        assert held.epoch == each.epoch
        assert held.own == keys.agent_keys(each.root, BOTH)
        roles = [keys.role_key(each.root, role) for role in ("READER", "WRITER")]
        assert held.reading == (keys.target_key(each.root, BOTH), *roles)


def test_an_agent_gets_what_its_roles_may_do(tmp_path):
    policy = make_policy({"notes": domain(consume=["READER"]), "plans": domain(produce=["READER"], consume=["WRITER"])})
    for agent, sends, reads in ((WRITER, {NOTES}, {PLANS}), (READER, {PLANS}, {NOTES})):
        bundle = read(tmp_path, make_bundle(agent, policy, EPOCHS) or b"", agent)
        assert {name for name, held in bundle.items() if held.own is not None} == sends
        assert {name for name, held in bundle.items() if held.reading} == reads


def test_an_agent_gets_only_those_of_its_roles_that_may_read(tmp_path):
    policy = make_policy({"notes": domain(consume=["READER"])}, {BOTH: ["READER", "WRITER"]})
    held = read(tmp_path, make_bundle(BOTH, policy, EPOCHS) or b"")[NOTES]
    root = EPOCHS[0].root
    assert held.reading == (keys.target_key(root, BOTH), keys.role_key(root, "READER"))


def test_a_closed_epoch_has_no_sending_keys(tmp_path):
    bundle = read(tmp_path, make_bundle(BOTH, POLICY, EPOCHS, sending=False) or b"")
    assert [held.own for held in bundle.values()] == [None, None]
    assert all(held.reading for held in bundle.values())
    own = keys.agent_keys(EPOCHS[0].root, BOTH)
    assert own.mac.reveal().hex() in json.dumps(document())
    assert own.mac.reveal().hex() not in (tmp_path / "5").read_text()


@pytest.mark.parametrize("sending", [True, False])
def test_every_agent_has_its_own_key_for_data_at_rest_in_closed_epochs_too(tmp_path, sending):
    held = {}
    for agent in (WRITER, READER):
        data = make_bundle(agent, POLICY, EPOCHS, sending=sending) or b""
        assert b"store" in data
        for name, each in read(tmp_path, data, agent).items():
            held[agent, name] = each.store.reveal()
    roots = {each.epoch.domain: each.root for each in EPOCHS}
    assert held == {place: keys.store_key(roots[place[1]], place[0]).reveal() for place in held}
    assert all(held[WRITER, name] != held[READER, name] for name in (NOTES, PLANS))


def test_a_bundle_without_a_store_key_or_with_a_short_one_is_refused(tmp_path):
    for change in (lambda entry: entry.pop("store"), lambda entry: entry.update(store="00" * 31)):
        changed = document()
        change(changed["domains"]["notes"])
        with pytest.raises(WireError):
            read(tmp_path, changed)


@pytest.mark.parametrize(
    ("agent", "domains"),
    [
        ("nobody-1", {"notes": domain()}),
        (READER, {"notes": domain(produce=["WRITER"], consume=["WRITER"])}),
        (WRITER, {"notes": domain(tier="COMPUTATION")}),
        (WRITER, {"notes": domain(attested=True)}),
        (WRITER, {"others": domain()}),
    ],
)
def test_who_has_no_domain_in_an_epoch_gets_no_bundle(agent, domains):
    policy = make_policy(domains, {WRITER: ["WRITER"], READER: ["READER"]})
    assert make_bundle(AgentId(agent), policy, EPOCHS) is None


def test_keys_of_a_domain_that_requires_attestation_are_for_who_attested_and_other_tiers_stay_without(tmp_path):
    policy = make_policy({"notes": domain(attested=True), "plans": domain()}, {BOTH: ["READER", "WRITER"]})
    assert set(read(tmp_path, make_bundle(BOTH, policy, EPOCHS) or b"")) == {"plans"}
    held = read(tmp_path, make_bundle(BOTH, policy, EPOCHS, attested=True) or b"")
    assert (set(held), held[NOTES].own is not None) == ({"notes", "plans"}, True)
    far = make_policy({"notes": domain(tier="FHE", attested=True)}, {BOTH: ["READER", "WRITER"]})
    assert make_bundle(BOTH, far, EPOCHS, attested=True) is None


def test_secrets_are_not_in_the_repr(tmp_path):
    held = read(tmp_path, document())[NOTES]
    assert held.own is not None
    shown = repr(held)
    for secret in (held.own.mac, held.own.seal, held.own.notice, *(each.kek for each in held.reading)):
        assert repr(secret.reveal()) not in shown
        assert secret.reveal().hex() not in shown


def test_another_agents_bundle_is_refused(tmp_path):
    with pytest.raises(WireError, match="not a bundle of both-1"):
        read(tmp_path, document(WRITER))


def test_another_format_is_refused(tmp_path):
    with pytest.raises(WireError, match="not a bundle of both-1"):
        read(tmp_path, document() | {"format": "sealbus.bundle/2"})


@pytest.mark.parametrize(
    ("epoch", "step"),
    [
        (stored(NOTES, signer=STRANGER), "signature"),
        (stored(NOTES, deployment=OTHER_DEPLOYMENT), "deployment"),
    ],
)
def test_an_epoch_that_the_anchor_did_not_sign_for_this_deployment_is_refused(tmp_path, epoch, step):
    changed = document()
    changed["domains"]["notes"]["epoch"] = epoch.signed.hex()
    with pytest.raises(Unverified) as refused:
        read(tmp_path, changed)
    assert refused.value.step == step


def test_an_epoch_of_another_domain_is_refused(tmp_path):
    changed = document()
    changed["domains"]["notes"]["epoch"] = changed["domains"]["plans"]["epoch"]
    with pytest.raises(Refused):
        read(tmp_path, changed)


def test_a_bundle_that_others_may_read_is_refused(tmp_path):
    read(tmp_path, document())
    (tmp_path / "5").chmod(0o640)
    with pytest.raises(Refused, match="expected mode 0600, found 0640"):
        read_bundle(tmp_path / "5", BOTH, ANCHOR.public_key, DEPLOYMENT)


@pytest.mark.parametrize("data", [b"", b"\xff", b"null", b"[]", b"5", b'"x"', b"{}", b"{"])
def test_bytes_that_are_no_bundle_are_refused(tmp_path, data):
    with pytest.raises(WireError, match="not a bundle"):
        read(tmp_path, data)


@pytest.mark.parametrize("key", ["key_id", "mac", "seal", "notice", "notice_key_id"])
@pytest.mark.parametrize("value", [None, 5, "zz", ["00"]])
def test_a_key_that_is_none_is_refused(tmp_path, key, value):
    changed = document()
    changed["domains"]["notes"]["own"][key] = value
    with pytest.raises(WireError, match="not a bundle"):
        read(tmp_path, changed)
    del changed["domains"]["notes"]["own"][key]
    with pytest.raises(WireError, match="not a bundle"):
        read(tmp_path, changed)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_document_with_any_values_is_refused_and_nothing_else_raised(tmp_path, data):
    changed: dict[str, Any] = {"format": FORMAT, "agent": BOTH, "domains": document()["domains"]}
    place: Any = changed
    for key in data.draw(st.sampled_from([["domains"], ["domains", "notes"], ["domains", "notes", "own"]]))[:-1]:
        place = place[key]
    key = data.draw(st.sampled_from(sorted(place)))
    place[key] = data.draw(JSON)
    with contextlib.suppress(BusError):
        read(tmp_path, changed)
