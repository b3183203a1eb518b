"""Delegations through the enforcer: what they permit, what is refused and by which name, and that none ever widens."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.authority.bundle import make_bundle, read_bundle
from bus.authority.roots import StoredEpoch
from bus.codes import Code
from bus.crypto import keys
from bus.crypto.delegations import give, pass_on, verify
from bus.crypto.keys import Secret
from bus.crypto.seal import open_counted
from bus.crypto.signing import Signer, sign_object
from bus.errors import WireError
from bus.native import native
from bus.policy.decide import decide
from bus.policy.question import Action, Context
from bus.wire import codec, envelope, hopblock, preimage
from bus.wire.delegation import MAX_BLOCKS, Block, Chain, encode_signed, parse, parse_told, without_mac
from bus.wire.envelope import Kind
from bus.wire.hop import decode_hop
from bus.wire.names import NO_ZONE, AgentId, DomainName
from bus.wire.objects import Tombstone
from bus.wire.schemas import schema
from consumers.enforcer.compiled import acceptor_for
from consumers.enforcer.compiled import enforce as compiled_enforce
from consumers.enforcer.derive import derive
from consumers.enforcer.outcome import Refused
from tests.unit.build import DEPLOYMENT, GRACE, INTERVAL, LEAD, NOW, World, enforce, message_of, state
from tests.unit.law_build import domain, loaded

DESK, LAB = "desk", "lab"
A, B, C, D, READER = map(AgentId, ("planner", "worker-1", "worker-2", "helper", "reader"))
STAFF = {A: "PLANNER", B: "WORKER", C: "WORKER", D: "HELPER", READER: "READER", "planner-2": "PLANNER"}
ENDS = NOW + 300_000
ROLES = ("PLANNER", "WORKER", "READER")


def law(agents=STAFF, **changes):
    keys_ = {"produce": ["PLANNER"], "consume": ["READER"], "delegates": ["WORKER"], **changes}
    others = [domain("side", "HELPER", "READER", consume=["READER"])]
    return loaded([domain(DESK, *ROLES, **keys_), domain(LAB, *ROLES, **keys_), *others], agents)


class Desk:
    """An enforcer of one domain, its agents, and the hops of what they write."""

    def __init__(self, policy=None, name=DESK):
        self.world = World(policy or law())
        self.context, self.place = self.world.context(), state(name)
        self.sealers = {}
        self.offset = 0

    def key(self, giver=A, name=DESK, epoch=1):
        return keys.delegation_key(self.world.root(name, epoch)[1], giver)

    def given(self, to=B, *, giver=A, name=DESK, epoch=1, ends=ENDS, deployment=DEPLOYMENT, **caveats):
        chain = Chain(epoch, DomainName(name), giver, (block(to, ends=ends, **caveats),))
        return give(self.key(giver, name, epoch), deployment, chain)

    def on(self, delegation, block, *, by=None):
        """Passed on by its holder, or ``by`` another who got hold of it."""
        chain, _ = parse(delegation)
        key = self.key(by or chain.agents[-1], chain.domain, chain.epoch)
        return pass_on(key, delegation, block)

    def says(self, who, delegation=b"", at=NOW, *, life=60_000, **changes):
        """The hop of a record of ``who``, appended at ``at``."""
        sealer = self.sealers.setdefault(who, self.world.sealer(who, self.place.domain))
        profile = envelope.Profile(**{"source": who, "domain": self.place.domain, "delegation": delegation, **changes})
        told = message_of(created_at=at, expires_at=at + life)
        plain = envelope.encode_plaintext(envelope.encode_profile(profile), envelope.encode_message(told), b"{}")
        first, self.offset = self.offset, self.offset + 1
        outcomes = enforce(self.context, self.place, sealer.seal(0, plain)[1], at=at, first=first)
        (self.outcome,) = outcomes
        (block,) = map(hopblock.parse, derive(outcomes, first, self.offset, self.place, self.context).blocks)
        key = keys.purpose_key(self.world.audit_roots[block.day], "block")
        aad = preimage.hop_block_aad(DEPLOYMENT, block.header)
        body = open_counted(key, "audit", block.instance, block.sequence, block.body, aad)
        (hop,) = hopblock.split_hops(body, block.count)
        return decode_hop(hop).tail


def block(to, *, ends=ENDS, kinds=(), tools=()):
    return Block(AgentId(to), ends, frozenset(kinds), frozenset(tools))


def verdict(tail):
    return (tail.code, tail.rule) if tail.code else tail.rule


REFUSED = f"{DESK}.delegates"


# What it permits.
def test_who_may_only_act_for_another_needs_its_delegation_and_the_hop_shows_the_chain():
    desk = Desk()
    assert verdict(desk.says(B)) == (Code.DELEGATES, REFUSED)
    tail = desk.says(B, desk.given())
    assert verdict(tail) == f"{DESK}.produce"
    assert parse_told(tail.delegation).agents == (A, B)
    tail = desk.says(C, desk.on(desk.given(), block(C)))
    assert verdict(tail) == f"{DESK}.produce"
    assert parse_told(tail.delegation).agents == (A, B, C)


def test_neither_the_hop_nor_what_is_released_has_its_mac():
    desk = Desk()
    token = desk.given()
    tail = desk.says(B, token)
    mac = parse(token)[1]
    assert token.startswith(tail.delegation)
    assert mac not in tail.delegation
    assert mac not in desk.outcome.plaintext
    assert without_mac(token[:-1]) == b""


def test_records_without_a_delegation_are_remembered_and_those_with_one_only_for_its_time():
    desk = Desk()
    token = desk.given(ends=NOW + 1000)
    for _ in range(2):
        desk.says(A)
        assert verdict(desk.says(B, token)) == f"{DESK}.produce"
    assert len(desk.place.profiles) == 1
    assert {each.profile.source for each in desk.place.hot.values()} == {A}
    assert next(iter(desk.place.delegated.values()))[0] == NOW + 1000
    assert verdict(desk.says(B, token, at=NOW + 1001)) == (Code.DELEGATION, "delegation.expired")
    desk.context.set_policy(law(agents={**STAFF, A: "READER"}), 2)
    assert verdict(desk.says(A, at=NOW + 1001)) == (Code.PRODUCE, f"{DESK}.produce")


@pytest.mark.skipif(native is None, reason="sealbus-native is not installed")
def test_the_compiled_steps_leave_delegations_to_plain_python_and_the_rest_goes_on_compiled():
    desk = Desk()
    desk.place.acceptor = acceptor_for(desk.place, desk.context)
    token = desk.given(ends=NOW + 1000)
    values = []
    for _ in range(4):
        for who, shown in ((A, b""), (B, token)):
            sealer = desk.sealers.setdefault(who, desk.world.sealer(who, DESK))
            profile = envelope.encode_profile(envelope.Profile(who, DomainName(DESK), delegation=shown))
            plain = envelope.encode_plaintext(profile, envelope.encode_message(message_of()), b"{}")
            values.append(sealer.seal(0, plain)[1])
    times = [NOW] * 7 + [NOW + 1001]
    outcomes = compiled_enforce(values, times, list(range(8)), desk.place, desk.context)
    assert [each.decision.rule if isinstance(each, Refused) else "" for each in outcomes] == [
        *[""] * 7,
        "delegation.expired",
    ]
    assert len(desk.place.acceptor) == 2, "the planner's sender and its profile"


@pytest.mark.parametrize("compiled", [False, True])
def test_a_delegation_under_keys_that_were_not_read_yet_waits_for_them_as_a_key_id_does(compiled):
    """Its giver may hold the next epoch's keys before the enforcer does; its user's own key is of this epoch."""
    if compiled and native is None:
        pytest.skip("sealbus-native is not installed")
    desk = Desk()
    if compiled:
        desk.place.acceptor = acceptor_for(desk.place, desk.context)
    at = desk.world.root(DESK, 2)[0].not_before - LEAD
    sealer, values = desk.world.sealer(B, DESK), []
    for epoch in (1, 2, 7, 1):
        token = desk.given(epoch=epoch, ends=at)
        profile = envelope.encode_profile(envelope.Profile(B, DomainName(DESK), delegation=token))
        told = envelope.encode_message(message_of(created_at=at, expires_at=at))
        values.append(sealer.seal(0, envelope.encode_plaintext(profile, told, b"{}"))[1])

    def run(first: int) -> list[str]:
        some, offsets = values[first:], list(range(first, len(values)))
        outcomes = compiled_enforce(some, [at] * len(some), offsets, desk.place, desk.context)
        return [each.decision.rule if isinstance(each, Refused) else "" for each in outcomes]

    desk.context.received_ms, desk.context.refreshed_ms = at, at - 1
    assert run(0) == [""]
    assert run(1) == [], "the keys are still those from before"
    desk.context.refreshed_ms = at
    desk.context.keyring.add(*desk.world.root(DESK, 2), desk.world.policy.agents, desk.world.openers(DESK))
    assert run(1) == ["", "delegation.forged", ""], "and no record was seen twice"
    window = desk.place.windows
    assert [window.accept(values[0][12:44], sequence) < 0 for sequence in range(5)] == [True] * 4 + [False]


def test_a_delegation_of_an_erased_epoch_waits_for_nothing():
    desk = Desk()
    desk.context.keyring.erase(Tombstone(DEPLOYMENT, 2, NOW, NOW, NO_ZONE, DESK, ()))
    desk.context.received_ms, desk.context.refreshed_ms = NOW, NOW - 1
    assert verdict(desk.says(B, desk.given(epoch=2))) == (Code.DELEGATION, "delegation.forged")


def test_caveats_narrow_kinds_and_tools():
    desk = Desk(law(tools={"sql.read": ["PLANNER"], "sql.write": ["PLANNER"]}))
    token = desk.given(kinds=(Kind.MESSAGE, Kind.TOOL_CALL), tools=("sql.read",))
    call = {"kind": Kind.TOOL_CALL, "target": READER}
    assert verdict(desk.says(B, token, tool="sql.read", **call)) == f"{DESK}.produce"
    assert verdict(desk.says(B, token)) == f"{DESK}.produce"
    assert verdict(desk.says(B, token, tool="sql.write", **call)) == (Code.DELEGATION, "delegation.tools")
    assert verdict(desk.says(B, token, **call)) == (Code.DELEGATION, "delegation.tools")
    assert verdict(desk.says(B, token, kind=Kind.MEMORY)) == (Code.DELEGATION, "delegation.kinds")


# Attacks: each is refused, under its name.
def foreign_root(desk):
    return give(keys.delegation_key(Secret.random("other"), A), DEPLOYMENT, parse(desk.given())[0])


def cut(desk):
    token = desk.on(desk.given(kinds=(Kind.MEMORY,)), block(C))
    chain, mac = parse(token)
    return encode_signed(replace(chain, blocks=chain.blocks[1:])) + mac


def reordered(desk):
    chain, mac = parse(desk.on(desk.given(C), block(B)))
    return encode_signed(replace(chain, blocks=(chain.blocks[1], chain.blocks[0]))) + mac


def cut_end(desk):
    """The holder of the second block takes away the caveats that it was given with."""
    chain, mac = parse(desk.on(desk.given(), block(B, kinds=(Kind.MEMORY,))))
    return encode_signed(replace(chain, blocks=chain.blocks[:1])) + mac


def deep(desk, count):
    token = desk.given(B)
    for _ in range(count - 1):
        token = desk.on(token, block(B))
    return token


def changed(desk, **changes):
    chain, mac = parse(desk.given())
    return encode_signed(replace(chain, **changes)) + mac


def stolen(desk):
    """Another agent that may act for others gets hold of one, and passes it on to itself."""
    return desk.on(desk.given(C), block(B), by=B)


def widened(desk, first, then):
    return desk.on(desk.given(B, **first), block(B, **then))


def replaced_domain(desk):
    chain, mac = parse(desk.given(name=LAB))
    return encode_signed(replace(chain, domain=DomainName(DESK))) + mac


ATTACKS = {
    "no delegation at all": (lambda _: b"noise", "form"),
    "a byte too many": (lambda desk: desk.given() + b"\x00", "form"),
    "too long": (lambda _: bytes(3000), "form"),
    "without a block": (lambda desk: changed(desk, blocks=()), "depth"),
    "longer than the limit": (lambda desk: deep(desk, MAX_BLOCKS + 1), "depth"),
    "of another domain": (lambda desk: desk.given(name=LAB), "domain"),
    "of another domain, renamed": (replaced_domain, "forged"),
    "of another deployment": (lambda desk: desk.given(deployment=bytes(16)), "forged"),
    "under another root": (foreign_root, "forged"),
    "of an epoch that is not held": (lambda desk: desk.given(epoch=7), "forged"),
    "in another giver's name": (lambda desk: changed(desk, giver=AgentId("planner-2")), "forged"),
    "with a later end": (lambda desk: changed(desk, blocks=(block(B, ends=ENDS + 1),)), "forged"),
    "made out to another agent": (lambda desk: changed(desk, blocks=(block(C),)), "forged"),
    "the first block cut": (cut, "forged"),
    "the last block cut": (cut_end, "forged"),
    "blocks in another order": (reordered, "forged"),
    "passed on by another than its holder": (stolen, "forged"),
    "expired": (lambda desk: desk.given(ends=NOW - 1), "expired"),
    "for another audience": (lambda desk: desk.given(C), "audience"),
    "passed on to another": (lambda desk: desk.on(desk.given(), block(C)), "audience"),
    "a later end than before": (lambda desk: widened(desk, {"ends": NOW + 9}, {"ends": NOW + 10}), "claims-more"),
    "a kind more": (
        lambda desk: widened(desk, {"kinds": [Kind.MESSAGE]}, {"kinds": [Kind.MESSAGE, Kind.MEMORY]}),
        "claims-more",
    ),
    "a tool more": (lambda desk: widened(desk, {"tools": ["a.b"]}, {"tools": ["a.b", "a.c"]}), "claims-more"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused_and_named(name):
    made, fault = ATTACKS[name]
    desk = Desk()
    who = C if name in ("the first block cut", "made out to another agent") else B
    assert verdict(desk.says(who, made(desk))) == (Code.DELEGATION, f"delegation.{fault}")
    assert verdict(desk.says(B, desk.given())) == f"{DESK}.produce", "and an honest one is taken"


@pytest.mark.parametrize(
    ("code", "changes"),
    [(Code.EXPIRED, {"life": -1}), (Code.UNVERIFIED, {"source": C}), (Code.WRONG_DOMAIN, {"domain": DomainName(LAB)})],
)
@pytest.mark.parametrize("moment", [False, True])
def test_what_was_refused_for_something_else_is_in_nobodys_name_whose_delegation_does_not_hold(code, changes, moment):
    made = domain(DESK, *ROLES, produce=["PLANNER"], consume=["READER"], delegates=["WORKER"], when=["calm"] * moment)
    desk = Desk(loaded([made], STAFF | {D: "READER"}, conditions={"calm": "context.load < 9.0"}))
    tail = desk.says(B, changed(desk, giver=AgentId("planner-2")), **changes)
    assert (tail.code, tail.agent, tail.delegation) == (code, B, b"")
    told = desk.says(B, desk.given(), **changes)
    assert (told.code, parse_told(told.delegation).agents) == (code, (A, B))
    claimed = desk.says(B, changed(desk, giver=AgentId("planner-2")))
    assert (claimed.code, parse_told(claimed.delegation).agents) == (Code.DELEGATION, ("planner-2", B))


def test_the_limit_of_blocks_itself_is_taken():
    desk = Desk()
    assert verdict(desk.says(B, deep(desk, MAX_BLOCKS))) == f"{DESK}.produce"


def test_a_delegation_ends_with_the_keys_of_its_epoch_whatever_it_says():
    desk = Desk()
    closes = NOW - 100_000 + INTERVAL + GRACE
    token = desk.given(ends=closes + INTERVAL)
    desk.sealers[B] = desk.world.sealer(B, DESK, 2)
    desk.context = desk.world.context((1, 2))
    assert verdict(desk.says(B, token, at=closes)) == f"{DESK}.produce"
    assert verdict(desk.says(B, token, at=closes + 1)) == (Code.DELEGATION, "delegation.expired")


def test_an_agent_cannot_delegate_what_it_has_only_by_delegation_or_not_at_all():
    desk = Desk()
    assert verdict(desk.says(C, desk.given(C, giver=B))) == (Code.PRODUCE, f"{DESK}.produce")
    assert verdict(desk.says(B, desk.given(giver=READER))) == (Code.DELEGATES, REFUSED)
    assert verdict(desk.says(B, desk.given(giver=AgentId("nobody")))) == (Code.DELEGATES, REFUSED)


def test_an_agent_that_is_no_delegate_gains_nothing_by_one():
    desk = Desk()
    assert verdict(desk.says(READER, desk.given(READER))) == (Code.DELEGATES, REFUSED)


@pytest.mark.parametrize("gone", [A, B])
def test_whoever_passed_it_on_and_is_revoked_ends_it_at_once(gone):
    desk = Desk()
    token = desk.on(desk.given(), block(C))
    assert verdict(desk.says(C, token)) == f"{DESK}.produce"
    desk.context.set_policy(law(agents={name: role for name, role in STAFF.items() if name != gone}), 2)
    assert verdict(desk.says(C, token)) == (Code.DELEGATES, REFUSED)


@pytest.mark.parametrize(
    ("sections", "staff"),
    [
        ({"tenants": ["hr", "sales"]}, {A: "PLANNER@hr", B: "WORKER@sales", C: "WORKER@hr", READER: "READER@hr"}),
        ({"zones": {"us": {}, "eu": {}}}, {A: "PLANNER/us", B: "WORKER/eu", C: "WORKER/us", READER: "READER/us"}),
    ],
)
def test_no_right_is_passed_on_to_another_tenant_or_zone(sections, staff):
    made = domain(DESK, *ROLES, produce=["PLANNER"], consume=["READER"], delegates=["WORKER"])
    desk = Desk(loaded([made], staff, **sections))
    assert verdict(desk.says(C, desk.given(C))) == f"{DESK}.produce"
    assert verdict(desk.says(B, desk.given())) == (Code.DELEGATES, REFUSED)
    assert verdict(desk.says(C, desk.on(desk.given(), block(C)))) == (Code.DELEGATES, REFUSED)


def test_conditions_and_tools_are_asked_of_whose_right_it_is():
    told = {"conditions": {"planner-2-only": "principal.id == 'planner-2'"}}
    made = domain(DESK, *ROLES, produce=["PLANNER"], consume=["READER"], delegates=["WORKER"], when=["planner-2-only"])
    desk = Desk(loaded([made], STAFF | {D: "READER"}, **told))
    assert verdict(desk.says(B, desk.given())) == (Code.CONDITION, "planner-2-only")
    assert verdict(desk.says(B, desk.given(giver=AgentId("planner-2")))) == f"{DESK}.produce"


def test_an_agent_that_may_write_by_itself_only_narrows_by_showing_one():
    tools = {"sql.read": ["PLANNER"]}
    made = domain(DESK, *ROLES, "CLERK", produce=["PLANNER", "CLERK"], consume=["READER"], tools=tools)
    desk = Desk(loaded([made], STAFF | {D: "CLERK", B: "READER", C: "READER"}))
    call = {"kind": Kind.TOOL_CALL, "target": READER, "tool": "sql.read"}
    assert verdict(desk.says(D)) == f"{DESK}.produce"
    assert verdict(desk.says(D, desk.given(D))) == f"{DESK}.produce"
    assert verdict(desk.says(D, desk.given(D, kinds=[Kind.MEMORY]))) == (Code.DELEGATION, "delegation.kinds")
    assert verdict(desk.says(D, desk.given(D), **call)) == (Code.TOOLS, f"{DESK}.tools"), "not by another's right"
    assert verdict(desk.says(A, **call)) == f"{DESK}.produce"


def test_what_is_written_has_the_higher_label_of_both():
    labels = {"levels": ["public", "secret"], "categories": [], "propagate": "session"}
    roles = {"PLANNER": {}, "WORKER": {}, "BOSS": {"clearance": "secret"}, "READER": {"clearance": "secret"}}
    consume = ["READER", "BOSS", "WORKER"]
    made = domain(DESK, *ROLES, "BOSS", produce=["PLANNER", "BOSS"], consume=consume, delegates=["WORKER"])
    staff = {A: "PLANNER", "boss": "BOSS", B: "WORKER", READER: "READER"}
    desk = Desk(loaded([made], staff, labels=labels, roles=roles))
    assert desk.says(A).labels == ("public",)
    assert desk.says(B, desk.given()).labels == ("public",)
    assert desk.says(AgentId("boss")).labels == ("secret",)
    assert desk.says(B, desk.given(giver=AgentId("boss"))).labels == ("secret",), "it may hold what its giver read"


# Never wider, whatever the blocks say.
TOOLS = ("a.b", "a.c")
BLOCKS = st.builds(
    block,
    st.sampled_from([A, B, C, D]),
    ends=st.integers(NOW - 2, NOW + 2),
    kinds=st.frozensets(st.sampled_from([Kind.MESSAGE, Kind.TOOL_CALL, Kind.MEMORY])),
    tools=st.frozensets(st.sampled_from(TOOLS)),
)
SHARED = Desk(law(tools={"a.b": ["PLANNER"], "a.c": ["PLANNER"]}))


@settings(max_examples=300)
@given(
    giver=st.sampled_from([A, B, D, READER, AgentId("nobody")]),
    blocks=st.lists(BLOCKS, min_size=1, max_size=MAX_BLOCKS + 1),
    kind=st.sampled_from([Kind.MESSAGE, Kind.TOOL_CALL, Kind.MEMORY]),
    tool=st.sampled_from(["", *TOOLS]),
    at=st.integers(NOW - 2, NOW + 2),
)
def test_whatever_is_allowed_its_giver_and_every_block_allow(giver, blocks, kind, tool, at):
    first, *more = blocks
    token = give(SHARED.key(giver), DEPLOYMENT, Chain(1, DomainName(DESK), giver, (first,)))
    for each in more:
        token = SHARED.on(token, each)
    user = blocks[-1].to
    ring, policy = SHARED.context.keyring, SHARED.world.policy
    chain, fault = verify(token, ring.epoch, DEPLOYMENT, DESK, user, kind, tool, at)
    target = READER if kind.targeted else ""
    asked = Context(kind=kind, target=target, tool=tool)
    given_ = decide(giver, Action.PRODUCE, DomainName(DESK), asked, policy)
    decision = decide(user, Action.PRODUCE, DomainName(DESK), replace(asked, delegated_by=chain.agents[:-1]), policy)
    if fault or not decision.allowed:
        return
    assert given_.allowed
    assert decision.obligations.roles == given_.obligations.roles
    for each in blocks:
        assert at <= each.not_after
        assert not each.kinds or kind in each.kinds
        assert not each.tools or tool in each.tools or (not tool and kind is not Kind.TOOL_CALL)


@given(st.data())
def test_a_delegation_with_one_bit_changed_proves_nothing(data):
    good = SHARED.on(SHARED.given(), block(C))
    find = SHARED.context.keyring.epoch
    asked = (DEPLOYMENT, DESK, C, Kind.MESSAGE, "", NOW)
    assert verify(good, find, *asked)[1] == ""
    at = data.draw(st.integers(0, 8 * len(good) - 1))
    bad = bytearray(good)
    bad[at // 8] ^= 1 << at % 8
    assert verify(bytes(bad), find, *asked)[1] in ("form", "depth", "domain", "forged")


@given(st.binary(max_size=2100))
def test_any_bytes_are_a_delegation_or_a_wire_error(data):
    try:
        chain, mac = parse(data)
    except WireError as error:
        assert error.code in (Code.DECODE, Code.TOO_LARGE)
    else:
        assert encode_signed(chain) + mac == data


def test_kinds_and_tools_are_written_in_one_way():
    value = {"epoch": bytes(8), "domain": DESK, "giver": A, "mac": bytes(32)}
    for kinds, tools in ((["MESSAGE", "MEMORY"], []), ([], ["b", "a"]), (["MEMORY"] * 2, []), ([], ["a", "a"])):
        blocks = [{"to": B, "not_after": bytes(8), "kinds": kinds, "tools": tools}]
        with pytest.raises(WireError, match="not in order"):
            parse(codec.encode(schema("delegation"), {**value, "blocks": blocks}))


# Who has the key.
def test_only_who_may_write_is_given_a_key_to_delegate_with(tmp_path):
    policy, anchor = law(), Signer.generate()
    told, root = World(policy).root(DESK)
    stored = StoredEpoch(told, sign_object(anchor, told), root, bytes(32))
    for agent, sending, delegates in ((A, True, True), (B, True, True), (READER, True, False), (READER, False, False)):
        path = tmp_path / agent
        path.write_bytes(make_bundle(agent, policy, [stored], sending=sending))
        path.chmod(0o600)
        held = read_bundle(path, agent, anchor.public_key, DEPLOYMENT)[DomainName(DESK)]
        assert held.delegation == (keys.delegation_key(root, agent) if delegates else None)
    assert make_bundle(A, law(consume=["PLANNER"]), [stored], sending=False) is not None
    assert b"delegation" not in make_bundle(A, law(consume=["PLANNER"]), [stored], sending=False), (
        "the epoch has closed"
    )
