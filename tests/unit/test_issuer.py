"""The local issuer under a clock of the test: epochs in time, keys only for who may have them, none kept too long."""

from __future__ import annotations

import itertools
import json
import os
import stat
from pathlib import Path

import pytest

from bus.authority.bundle import Bundle, read_bundle
from bus.authority.issuer import Issuer
from bus.authority.roots import StoredEpoch
from bus.crypto import keys
from bus.crypto.keyring import Keyring
from bus.errors import PolicyError, SettingsError
from bus.policy.model import Policy
from bus.wire.hopblock import DAY_MS
from bus.wire.names import AgentId, DomainName
from tests.unit.ledger_build import DAY, DEPLOYMENT, NOON, Authority, domain, make_authority, make_policy

INTERVAL, LEAD, GRACE, SKEW = 600_000, 120_000, 120_000, 30_000
HORIZON = 3_600_000
NOTES, PLANS = DomainName("notes"), DomainName("plans")
DOMAINS = {"notes": domain(), "plans": domain(produce=["READER"])}


def policy_with(*agents: str, domains: dict | None = None) -> Policy:
    """A policy with an hour of backlog; agents are named after their role."""
    roles = {name: [name.split("-")[0].upper()] for name in agents or ("writer-1", "reader-1")}
    return make_policy(domains, roles, horizon_ms=HORIZON)


@pytest.fixture
def authority(tmp_path) -> Authority:
    return make_authority(tmp_path)


def files(authority: Authority, agent: str) -> list[int]:
    """Epochs that an agent holds a bundle of."""
    folder = authority.layout.agent(agent) / "keys"
    return sorted(int(path.name) for path in folder.iterdir()) if folder.is_dir() else []


def bundle(authority: Authority, agent: str, number: int) -> Bundle:
    path = authority.layout.agent(agent) / "keys" / str(number)
    return read_bundle(path, AgentId(agent), authority.trust.anchor, DEPLOYMENT)


def everything(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Bytes and change time of every file."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def epochs(authority: Authority) -> list[tuple[int, int, int]]:
    """(number, not_before, not_after) of every stored epoch."""
    stored = (authority.store.load(number)[0].epoch for number in authority.store.numbers())
    return [(each.epoch, each.not_before, each.not_after) for each in stored]


def secrets_of(stored: StoredEpoch, agent: str, roles: list[str]) -> set[bytes]:
    """Everything that is derived for one agent in one epoch."""
    own = keys.agent_keys(stored.root, agent)
    reading = [keys.target_key(stored.root, agent), *(keys.role_key(stored.root, role) for role in roles)]
    return {each.reveal() for each in (own.mac, own.seal, own.notice, *(each.kek for each in reading))}


def test_the_first_epoch_has_begun_for_clocks_that_are_behind(authority):
    due = authority.issuer.step(policy_with(), NOON)
    assert epochs(authority) == [(1, NOON - SKEW, NOON - SKEW + INTERVAL)]
    assert due == NOON - SKEW + INTERVAL - LEAD - SKEW


def test_the_next_epoch_is_made_a_lead_before_it_begins_and_follows_without_a_gap(authority):
    policy = policy_with()
    due = authority.issuer.step(policy, NOON)
    authority.issuer.step(policy, due - 1)
    assert authority.store.numbers() == [1]
    authority.issuer.step(policy, due + 1)
    (_, _, end), (number, begin, _) = epochs(authority)
    assert (number, begin) == (2, end)
    assert begin - (due + 1) >= LEAD
    assert files(authority, "writer-1") == files(authority, "reader-1") == [1, 2]


def test_an_issuer_that_was_away_makes_an_epoch_that_has_begun(authority):
    policy = policy_with()
    authority.issuer.step(policy, NOON)
    late = NOON + 5 * INTERVAL
    authority.issuer.step(policy, late)
    assert epochs(authority)[1:] == [(2, late - SKEW, late - SKEW + INTERVAL)]


def test_over_twenty_epochs_one_epoch_is_the_newest_and_its_successor_is_there_in_time(authority):
    policy = policy_with()
    now, held = NOON, {}
    while len(held) < 22:
        due = authority.issuer.step(policy, now)
        assert due + 1 > now
        for number in files(authority, "writer-1"):
            epoch = bundle(authority, "writer-1", number)[NOTES].epoch
            held.setdefault(number, (epoch.not_before, epoch.not_after, now))
        now = due + 1
    ordered = [held[number] for number in sorted(held)]
    assert sorted(held) == list(range(1, len(held) + 1))
    for (begin, end, _), (following, _, made) in itertools.pairwise(ordered):
        assert end - begin == INTERVAL
        assert following == end
        assert end - made >= LEAD
    for at in range(NOON, ordered[19][1], 7_919):
        begun = [begin for begin, _, made in ordered if begin <= at and made <= at]
        newest = max(begun)
        assert begun.count(newest) == 1
        assert next(end for begin, end, _ in ordered if begin == newest) >= at


def test_no_key_is_accepted_for_longer_than_fifteen_minutes(authority):
    longest = 15 * 60_000 - LEAD - GRACE
    authority.issuer.step(make_policy(interval_ms=longest), NOON)
    assert [end - begin for _, begin, end in epochs(authority)] == [longest]
    before = everything(authority.layout.state)
    with pytest.raises(SettingsError, match="expected at most 900000, found 900001"):
        authority.issuer.step(make_policy(interval_ms=longest + 1), NOON + longest)
    assert everything(authority.layout.state) == before


def test_bundles_are_stripped_of_sending_keys_after_the_grace(authority):
    policy = policy_with()
    authority.issuer.step(policy, NOON)
    closes = epochs(authority)[0][2] + GRACE
    authority.issuer.step(policy, closes)
    assert bundle(authority, "writer-1", 1)[NOTES].own is not None
    authority.issuer.step(policy, closes + 1)
    for agent in ("writer-1", "reader-1"):
        for each in bundle(authority, agent, 1).values():
            assert each.own is None
            assert each.reading != ()
    assert bundle(authority, "writer-1", 2)[NOTES].own is not None


def test_an_epoch_beyond_the_backlog_horizon_is_destroyed(authority):
    policy = policy_with()
    authority.issuer.step(policy, NOON)
    last = epochs(authority)[0][2] + GRACE + HORIZON
    authority.issuer.step(policy, last)
    assert 1 in authority.store.numbers()
    authority.issuer.step(policy, last + 1)
    assert 1 not in authority.store.numbers()
    assert 1 not in files(authority, "writer-1") + files(authority, "reader-1")
    authority.restart()
    authority.issuer.step(policy, last + 2)
    assert min(authority.store.numbers()) > 1


def test_an_agent_that_left_the_policy_loses_its_keys_at_once(authority):
    authority.issuer.step(policy_with(), NOON)
    assert files(authority, "reader-1") == [1]
    authority.issuer.step(policy_with("writer-1"), NOON + 1)
    assert files(authority, "reader-1") == []
    assert files(authority, "writer-1") == [1, 2]


@pytest.mark.parametrize("restarted", [False, True])
def test_an_agent_that_left_the_policy_loses_the_keys_of_closed_epochs_too(authority, restarted):
    authority.issuer.step(policy_with(), NOON)
    closed = epochs(authority)[0][2] + GRACE + 1
    authority.issuer.step(policy_with(), closed)
    assert files(authority, "reader-1") == [1, 2]
    if restarted:
        authority.restart()
    authority.issuer.step(policy_with("writer-1"), closed + 1)
    assert files(authority, "reader-1") == []


def test_an_agent_that_lost_a_role_loses_the_reading_keys_of_closed_epochs_too(authority):
    authority.issuer.step(policy_with(), NOON)
    closed = epochs(authority)[0][2] + GRACE + 1
    authority.issuer.step(policy_with(), closed)
    narrowed = policy_with(domains={"notes": domain(consume=["WRITER"]), "plans": domain(produce=["READER"])})
    authority.issuer.step(narrowed, closed + 1)
    for number in files(authority, "reader-1"):
        assert NOTES not in bundle(authority, "reader-1", number)
        assert NOTES in bundle(authority, "writer-1", number)


def test_an_agent_that_came_back_has_keys_again(authority):
    for at, policy in enumerate((policy_with(), policy_with("writer-1"), policy_with())):
        authority.issuer.step(policy, NOON + at)
    assert files(authority, "reader-1") == [1, 2, 3]


def test_a_domain_that_the_policy_gained_has_keys_at_once_and_rotates_with_the_others(authority):
    authority.issuer.step(policy_with(domains={"notes": domain()}), NOON)
    assert set(bundle(authority, "writer-1", 1)) == {NOTES}
    due = authority.issuer.step(policy_with(), NOON + 1)
    first, joined = bundle(authority, "writer-1", 1), bundle(authority, "writer-1", 2)
    assert (set(first), set(joined)) == ({NOTES}, {PLANS})
    assert joined[PLANS].epoch.not_before == NOON + 1 - SKEW
    assert joined[PLANS].epoch.not_after == first[NOTES].epoch.not_after
    authority.issuer.step(policy_with(), due + 1)
    assert set(bundle(authority, "writer-1", 3)) == {NOTES, PLANS}
    assert len({each.root.reveal() for number in (1, 2, 3) for each in authority.store.load(number)}) == 4


def test_a_domain_that_comes_when_the_next_epochs_are_made_already_gets_those_too(authority):
    before = policy_with(domains={"notes": domain()})
    due = authority.issuer.step(before, NOON)
    authority.issuer.step(before, due + 1)
    authority.issuer.step(policy_with(), due + 2)
    spans = [(begin, end) for number, begin, end in epochs(authority)]
    assert spans[2:] == [(due + 2 - SKEW, spans[0][1]), spans[1]]
    assert [{each.epoch.domain for each in authority.store.load(number)} for number in (1, 2, 3, 4)] == [
        {"notes"}, {"notes"}, {"plans"}, {"plans"},
    ]  # fmt: skip


def sealing(authority: Authority, name: str, now: int) -> int:
    """The number of the epoch under which an enforcer seals for readers."""
    ring = Keyring(lead_ms=LEAD, grace_ms=GRACE)
    for number in authority.store.numbers():
        for each in authority.store.load(number):
            ring.add(each.epoch, each.root, [], each.openers)
    found = ring.sealing(name, now)
    assert found is not None
    assert found.begins <= now <= found.closes - GRACE
    return found.epoch


NARROWED = {"notes": domain(consume=["WRITER"]), "plans": domain(produce=["READER"])}


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("with_next", [False, True])
def test_who_may_not_open_a_domain_any_more_has_no_key_of_what_is_sealed_from_then_on(authority, restarted, with_next):
    due, now = authority.issuer.step(policy_with(), NOON), NOON
    if with_next:
        now = due + 1
        authority.issuer.step(policy_with(), now)
    held = {number: bundle(authority, "reader-1", number) for number in files(authority, "reader-1")}
    assert all(NOTES in each for each in held.values())
    if restarted:
        authority.restart()
    now += 1
    before = authority.store.numbers()
    authority.issuer.step(policy_with(domains=NARROWED), now)
    for later in range(now, epochs(authority)[0][2] + 2 * INTERVAL, 60_000):
        authority.issuer.step(policy_with(domains=NARROWED), later)
        number = sealing(authority, "notes", later)
        assert number not in held, "a key that it was given opens nothing new"
        assert NOTES not in (bundle(authority, "reader-1", number) if number in files(authority, "reader-1") else ())
        assert bundle(authority, "writer-1", number)[NOTES].own is not None
    made = [number for number in authority.store.numbers() if number not in before]
    first = [each.epoch.domain for each in authority.store.load(made[0])]
    assert first == ["notes"], "the other domain keeps its epochs"
    assert authority.store.load(made[0])[0].epoch.not_after == epochs(authority)[0][2]


def test_what_decides_on_records_alone_starts_no_epoch(authority):
    authority.issuer.step(policy_with(), NOON)
    masked = {name: {**each, "metadata_masking": False, "kinds": ["MESSAGE"]} for name, each in DOMAINS.items()}
    assert policy_with(domains=masked).digest != policy_with(domains=DOMAINS).digest
    for at, domains in enumerate((masked, DOMAINS, masked)):
        authority.issuer.step(policy_with(domains=domains), NOON + at)
    assert authority.store.numbers() == [1]


def test_a_domain_whose_tokens_may_not_grow_old_rotates_more_often(authority):
    domains = {**DOMAINS, "notes": {**domain(), "max_token_age_ms": 150_000}}
    policy, now = policy_with(domains=domains), NOON
    while now < NOON + 2 * INTERVAL:
        due = authority.issuer.step(policy, now)
        for name in domains:
            sealing(authority, name, now)
        now = max(due + 1, now + 1)
    stored = [each.epoch for number in authority.store.numbers() for each in authority.store.load(number)]
    ages = {name: {each.not_after - each.not_before for each in stored if each.domain == name} for name in domains}
    assert ages == {"notes": {150_000}, "plans": {INTERVAL}}
    for name in domains:
        spans = [(each.not_before, each.not_after) for each in stored if each.domain == name]
        assert all(end == begin for (_, end), (begin, _) in itertools.pairwise(spans))


def test_keys_are_made_only_for_domains_that_can_be_protected(authority):
    domains = {"notes": domain(), "vault": domain(tier="FHE", attested=True)}
    authority.issuer.step(policy_with(domains=domains), NOON)
    assert set(bundle(authority, "writer-1", 1)) == {NOTES}


def test_files_for_a_domain_that_waits_for_attestation_are_refused_with_place_and_remedy(authority):
    policy = policy_with(domains={"notes": domain(), "guarded": domain(attested=True)})
    with pytest.raises(PolicyError, match=r'^mesh.yaml:7: attestation_required: guarded: .* issuing = "authority"'):
        authority.issuer.step(policy, NOON)
    assert files(authority, "writer-1") == []
    asked = Issuer(authority.layout, authority.store, authority.issuer._signer, authority.settings, {}, files=False)
    asked.step(policy, NOON)
    assert b"guarded" not in asked.leases(AgentId("writer-1"), policy, asked.held(), NOON)[1]
    assert b"guarded" in asked.leases(AgentId("writer-1"), policy, asked.held(), NOON, attested=True)[1]


def test_an_agent_without_a_domain_has_no_bundle(authority):
    authority.issuer.step(policy_with("writer-1", "idle-1"), NOON)
    assert files(authority, "idle-1") == []


def test_a_bundle_holds_no_root_and_no_key_of_another_agent(authority):
    roles = {"writer-1": ["WRITER"], "writer-2": ["WRITER"], "reader-1": ["READER"], "both-1": ["READER", "WRITER"]}
    authority.issuer.step(make_policy(agents=roles, horizon_ms=HORIZON), NOON)
    stored = authority.store.load(1)
    raw = {agent: (authority.layout.agent(agent) / "keys" / "1").read_bytes() for agent in roles}
    for agent, data in raw.items():
        shared = {keys.role_key(each.root, role).kek.reveal() for each in stored for role in roles[agent]}
        forbidden = {each.root.reveal() for each in stored}
        for other in set(roles) - {agent}:
            forbidden |= set().union(*(secrets_of(each, other, roles[other]) for each in stored))
        forbidden -= shared
        assert len(forbidden) >= 2 + 2 * 4 * 3
        assert [secret for secret in forbidden if secret in data or secret.hex().encode() in data] == []
        mine = set().union(*(secrets_of(each, agent, roles[agent]) for each in stored))
        assert any(secret.hex().encode() in data for secret in mine)


def test_a_step_that_has_nothing_to_do_writes_nothing(authority):
    policy = policy_with()
    authority.issuer.step(policy, NOON)
    before = everything(authority.layout.state)
    for later in (0, 1, 1000):
        authority.issuer.step(policy, NOON + later)
    assert everything(authority.layout.state) == before


@pytest.mark.parametrize("later", [0, INTERVAL + GRACE + 1])
def test_a_restarted_issuer_reads_back_what_it_made(authority, later):
    policy = policy_with()
    authority.issuer.step(policy, NOON)
    due = authority.issuer.step(policy, NOON + later)
    before = everything(authority.layout.state)
    authority.restart()
    assert authority.issuer.step(policy, NOON + later) == due
    after = everything(authority.layout.state)
    assert {name: data for name, (data, _) in after.items()} == {name: data for name, (data, _) in before.items()}


def test_a_restarted_issuer_makes_what_an_epoch_that_was_cut_off_lacks(authority):
    policy = policy_with()
    authority.issuer.step(policy, NOON)
    folder = authority.layout.roots / "1"
    (folder / ".plans").unlink()
    (authority.layout.agent("reader-1") / "keys" / "1").unlink()
    (folder / ".notes.77.new").write_bytes(b"half")
    authority.restart()
    authority.issuer.step(policy, NOON + 1)
    assert [{each.epoch.domain for each in authority.store.load(number)} for number in (1, 2)] == [{"notes"}, {"plans"}]
    assert [set(bundle(authority, "reader-1", number)) for number in (1, 2)] == [{NOTES}, {PLANS}]


@pytest.mark.parametrize("number", ["1", "2"])
def test_an_epoch_folder_that_a_crash_left_empty_does_not_stop_the_issuer(authority, number):
    policy = policy_with()
    if number == "2":
        authority.issuer.step(policy, NOON)
    (authority.layout.roots / number).mkdir(parents=True)
    authority.restart()
    authority.issuer.step(policy, NOON + 1)
    newest = max(files(authority, "writer-1"))
    assert bundle(authority, "writer-1", newest)[NOTES].own is not None


def test_the_audits_roots_of_today_and_tomorrow_are_there_and_stay(authority):
    authority.issuer.step(policy_with(), NOON)
    first = [authority.store.audit_root(day) for day in (DAY, DAY + 1)]
    assert first[0] != first[1]
    authority.issuer.step(policy_with(), NOON + DAY_MS)
    assert [authority.store.audit_root(day) for day in (DAY, DAY + 1)] == first
    authority.store.audit_root(DAY + 2)
    with pytest.raises(FileNotFoundError):
        authority.store.audit_root(DAY + 3)


def test_bundles_are_secret_files_of_their_owner(tmp_path):
    authority = make_authority(tmp_path, owners={"writer-1": os.getuid()})
    authority.issuer.step(policy_with(), NOON)
    folder = authority.layout.agent("writer-1")
    assert stat.S_IMODE((folder / "keys" / "1").stat().st_mode) == 0o600
    assert [stat.S_IMODE(each.stat().st_mode) for each in (folder, folder / "keys")] == [0o700, 0o700]
    assert {each.stat().st_uid for each in (folder, folder / "keys", folder / "keys" / "1")} == {os.getuid()}
    assert json.loads((folder / "keys" / "1").read_bytes())["agent"] == "writer-1"
