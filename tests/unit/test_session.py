"""Payloads that are protected at their source: who has the session key opens them, and nothing else does."""

from types import SimpleNamespace

import pytest

from bus.authority.bundle import make_bundle, read_bundle
from bus.authority.sessions import read_session
from bus.client.source import Opened, Sources
from bus.codes import Code
from bus.crypto import keys
from bus.crypto.keys import Secret
from bus.crypto.session import OVERHEAD, SourceOpener, SourceSealer, session_key
from bus.errors import Refused, RetryLater, StackError, Unverified
from bus.files import Layout, ensure_secret, write_secret
from bus.wire.envelope import Profile, ProtectAt
from bus.wire.names import AgentId, DomainName, Tier
from tests.unit.build import DEPLOYMENT, MEMORY, READER, WRITER, World, domain_policy, make_policy
from tests.unit.ledger_build import ANCHOR, domain
from tests.unit.ledger_build import DEPLOYMENT as LEDGER
from tests.unit.ledger_build import make_policy as ledger_policy
from tests.unit.test_bundle import NOTES, stored

ROOT, SECRET = Secret(b"r" * 32, "root"), Secret(b"s" * 32, "session")
KEY = session_key(ROOT, SECRET, MEMORY, 3)
MESSAGE = bytes(range(16))


def opener(key=KEY, deployment=DEPLOYMENT, domain=MEMORY):
    return SourceOpener(deployment, domain, lambda epoch: key if epoch == 3 else None)


def sealer(**changes):
    return SourceSealer(
        **{"session": KEY, "epoch": 3, "deployment": DEPLOYMENT, "domain": MEMORY, "agent": WRITER} | changes
    )


def test_it_opens_as_it_was_and_costs_49_bytes():
    made = sealer()
    for payload in (b"", b"x", bytes(100_000)):
        sealed = made.seal(MESSAGE, payload)
        assert len(sealed) == len(payload) + OVERHEAD == len(payload) + 49
        assert opener().open(WRITER, MESSAGE, sealed) == payload


def test_neither_root_nor_secret_alone_gives_the_key():
    others = [
        session_key(ROOT, Secret(bytes(32), "x"), MEMORY, 3),
        session_key(Secret(bytes(32), "x"), SECRET, MEMORY, 3),
        session_key(ROOT, SECRET, "memories", 3),
        session_key(ROOT, SECRET, MEMORY, 4),
        keys.purpose_key(ROOT, "session"),
    ]
    assert KEY not in others
    sealed = sealer().seal(MESSAGE, b"payload")
    for each in others:
        with pytest.raises(Unverified):
            opener(each).open(WRITER, MESSAGE, sealed)


@pytest.mark.parametrize("at", [0, 1, 8, 9, 24, 25, 32, 33, -17, -1])
def test_a_changed_byte_is_refused(at):
    sealed = bytearray(sealer().seal(MESSAGE, b"payload"))
    sealed[at] ^= 1
    with pytest.raises((Unverified, Refused)):
        opener().open(WRITER, MESSAGE, bytes(sealed))


@pytest.mark.parametrize(
    "found",
    [
        lambda sealed: opener().open("writer-2", MESSAGE, sealed),
        lambda sealed: opener().open(WRITER, bytes(16), sealed),
        lambda sealed: opener(deployment=bytes(16)).open(WRITER, MESSAGE, sealed),
        lambda sealed: opener(domain="memories").open(WRITER, MESSAGE, sealed),
    ],
    ids=["agent", "message", "deployment", "domain"],
)
def test_it_is_bound_to_its_place(found):
    with pytest.raises(Unverified):
        found(sealer().seal(MESSAGE, b"payload"))


@pytest.mark.parametrize("payload", [b"", b'{"plain": true}', b"\x01" + bytes(47), b"\x02" + bytes(60)])
def test_what_is_not_protected_is_refused(payload):
    with pytest.raises(Unverified, match="expected one that is protected at its source"):
        opener().open(WRITER, MESSAGE, payload)


def test_an_epoch_whose_key_was_taken_back_opens_nothing_any_more(monkeypatch):
    monkeypatch.setattr("bus.crypto.session.LOOK_AGAIN_S", -1.0)
    held = {3: KEY}
    made = SourceOpener(DEPLOYMENT, MEMORY, held.get)
    sealed = sealer().seal(MESSAGE, b"payload")
    assert made.open(WRITER, MESSAGE, sealed) == b"payload"
    held.clear()
    with pytest.raises(Refused, match="no session key of epoch 3") as refused:
        made.open(WRITER, MESSAGE, sealed)
    assert refused.value.code is Code.OPEN


def test_the_enforcers_keys_do_not_open_it():
    world = World(make_policy(domain_policy(MEMORY, Tier.COMPUTATION, at_source=True)))
    _, root = world.root(MEMORY)
    own = keys.agent_keys(root, WRITER)
    derived = [own.mac, own.seal, own.notice, keys.store_key(root, WRITER), keys.target_key(root, READER).kek, root]
    sealed = sealer(session=session_key(root, SECRET, MEMORY, 3)).seal(MESSAGE, b"payload")
    for each in derived:
        with pytest.raises(Unverified):
            opener(each).open(WRITER, MESSAGE, sealed)


def test_a_forked_child_does_not_go_on_counting(monkeypatch):
    made = sealer()
    monkeypatch.setattr("os.getpid", lambda: -1)
    with pytest.raises(Refused, match="a forked child makes a Bus of its own"):
        made.seal(MESSAGE, b"payload")


def test_what_the_policy_wants_protected_is_not_taken_otherwise_whatever_an_enforcer_says():
    keys_held = SimpleNamespace(session=lambda _domain, epoch: KEY if epoch == 3 else None)
    made = Opened(keys_held, DEPLOYMENT, MEMORY)
    sealed, plain = Profile(WRITER, MEMORY, protect_at=ProtectAt.SOURCE), Profile(WRITER, MEMORY)
    assert made.payload(sealed, MESSAGE, sealer().seal(MESSAGE, b"{}"), required=True) == b"{}"
    with pytest.raises(Unverified, match="expected one that is protected at its source"):
        made.payload(plain, MESSAGE, b"{}", required=True)
    assert made.payload(plain, MESSAGE, b"{}", required=False) == b"{}"


def test_a_source_seals_under_the_newest_epoch_that_has_begun_and_waits_where_it_has_no_session_key():
    asked = []
    held = SimpleNamespace(session=KEY, epoch=SimpleNamespace(epoch=3))
    store = SimpleNamespace(check=lambda _: None, sending=lambda _domain, _now: held, ask=lambda: asked.append(1))
    made = Sources(store, WRITER, DEPLOYMENT)
    assert made.seal(MEMORY, MESSAGE, b"x", 0)[1:9] == (3).to_bytes(8, "big")
    held = SimpleNamespace(session=session_key(ROOT, SECRET, MEMORY, 4), epoch=SimpleNamespace(epoch=4))
    assert made.seal(MEMORY, MESSAGE, b"x", 0)[1:9] == (4).to_bytes(8, "big"), (
        "an early epoch takes the old one's place"
    )
    held = SimpleNamespace(session=None, epoch=SimpleNamespace(epoch=5))
    with pytest.raises(RetryLater, match="no session key of memory yet"):
        made.seal(MEMORY, MESSAGE, b"x", 0)
    assert asked == [1]


# In bundles.
ROLES = {"produce": ["WRITER"], "consume": ["READER"]}
READS, WRITES, BOTH_WAYS = map(AgentId, ("reader-1", "writer-1", "both-1"))


def law(**changes):
    made = {**domain(), "tier": "COMPUTATION", "protect_at": "source", **ROLES, **changes}
    return ledger_policy(
        {"notes": made}, agents={WRITES: ["WRITER"], READS: ["READER"], BOTH_WAYS: ["READER", "WRITER"]}
    )


def bundle(tmp_path, agent, policy, **told):
    data = make_bundle(agent, policy, [stored(NOTES)], **told)
    if data is None:
        return None
    write_secret(tmp_path / "5", data)
    return read_bundle(tmp_path / "5", agent, ANCHOR.public_key, LEDGER)[DomainName("notes")]


def test_who_may_write_or_read_has_the_session_key_of_a_domain_that_protects_at_its_source(tmp_path):
    expected = session_key(stored(NOTES).root, SECRET, NOTES, 5)
    for agent in (WRITES, READS, BOTH_WAYS):
        assert bundle(tmp_path, agent, law(), session=SECRET).session == expected
    assert bundle(tmp_path, READS, law(protect_at="enforcer", tier="RETRIEVAL"), session=SECRET).session is None
    closed = bundle(tmp_path, READS, law(), session=SECRET, sending=False)
    assert closed.session == expected, "readers come to closed epochs late"
    assert bundle(tmp_path, WRITES, law(), session=SECRET, sending=False).session is None


def test_there_are_no_keys_without_the_secret_or_before_an_attestation(tmp_path):
    assert bundle(tmp_path, BOTH_WAYS, law()) is None
    gated = law(attestation_required=True)
    assert bundle(tmp_path, BOTH_WAYS, gated, session=SECRET) is None
    assert bundle(tmp_path, BOTH_WAYS, gated, session=SECRET, attested=True).session is not None


def test_the_secret_is_made_once_and_kept_from_others(tmp_path):
    layout = Layout(tmp_path)
    assert read_session(layout) is None
    path = layout.signer("session")
    ensure_secret(path)
    made = read_session(layout)
    ensure_secret(path)
    assert read_session(layout) == made
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    with pytest.raises(Refused, match="expected mode 0600"):
        read_session(layout)
    write_secret(path, b"short")
    with pytest.raises(StackError, match="expected 32 bytes, found 5"):
        read_session(layout)
