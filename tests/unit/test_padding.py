"""Sizes of a padded domain tell the number of cells and no more: what a publisher seals, what an enforcer releases."""

from __future__ import annotations

import itertools
import json
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.client.composer import Composer
from bus.errors import PolicyError, TooLarge
from bus.native import native
from bus.policy.diff import access_changes
from bus.wire import derived, envelope, sealed
from bus.wire.envelope import Kind
from consumers.enforcer import compiled
from consumers.enforcer.compiled import acceptor_for
from consumers.enforcer.derive import derive
from tests.unit.build import MEMORY, NOW, WRITER, World, domain_policy, make_policy, plaintext
from tests.unit.inspected import NO_PII, Site
from tests.unit.law_build import domain, loaded

CELL = 512


def composed(payload: bytes, *, padding: int, purpose: str = "", law: dict | None = None, **changes):
    policy = make_policy(domain_policy(MEMORY, padding=padding, **(law or {})))
    composer = Composer(WRITER)
    route = composer.route(
        policy, MEMORY, Kind.MESSAGE, "", "", "", (), purpose, None, "application/json", None, notify=False
    )
    asked = {"session": "", "causation": (), "reply_to": "", "expires_in": 60.0, **changes}
    return composer.compose(route, payload, **asked).plaintexts


def compose(payload: bytes, **changes):
    (only,) = composed(payload, **changes)
    return only


def bodies(value: bytes) -> list[int]:
    """Bytes of each record's body, without its tag."""
    return [len(each.body) - 16 for each in derived.parse(value).entries]


@given(payload=st.binary(max_size=3 * CELL), cell=st.sampled_from([256, 512, 4352, 16_384]))
def test_what_a_publisher_seals_is_whole_cells_and_says_the_same(payload, cell):
    for causes in ((), (uuid.UUID(int=1),)):
        padded = compose(payload, padding=cell, causation=causes)
        bare = compose(payload, padding=0, causation=causes)
        assert len(padded) % cell == 0
        assert 0 <= len(padded) - len(bare) < cell
        assert envelope.decode_envelope(envelope.unpad(padded)).payload == payload


def test_the_largest_payload_leaves_room_for_its_cell():
    limit = sealed.MAX_LENGTH - envelope.MAX_PROFILE - 2048 - CELL
    assert len(compose(bytes(limit), padding=CELL)) <= sealed.MAX_LENGTH
    parts = composed(bytes(limit + 1), padding=CELL)
    assert [len(each) % CELL for each in parts] == [0, 0]
    assert max(map(len, parts)) <= sealed.MAX_LENGTH
    with pytest.raises(TooLarge, match=f"expected at most {limit} bytes, found {limit + 1}") as refused:
        composed(bytes(limit + 1), padding=CELL, law={"guardrails": (NO_PII,)})
    assert "in parts" in refused.value.hint


@pytest.mark.parametrize("guardrails", [(), (NO_PII,)])
def test_what_an_enforcer_releases_is_whole_cells_and_opens_as_it_was(guardrails):
    site = Site(padding=CELL, guardrails=guardrails)
    notes = [{"note": "x" * size} for size in range(0, 2 * CELL, 37)]
    _, made = site.run(*(site.sealed(each) for each in notes))
    sizes = list(itertools.chain.from_iterable(bodies(value) for value in made.bundles))
    assert len(sizes) == len(notes)
    assert {size % CELL for size in sizes} == {0}
    assert len(set(sizes)) <= 4
    assert [each.value() for each in site.read(made)] == notes


def test_without_padding_a_size_tells_the_payload():
    site = Site()
    _, made = site.run(*(site.sealed({"note": "x" * size}) for size in range(40)))
    assert len(set(bodies(made.bundles[0]))) == 32


def test_a_record_that_came_without_padding_is_padded_and_not_refused():
    site = Site(padding=CELL)
    (outcome,), _ = site.run(site.sealer.seal(0, plaintext(payload=b"{}", cell=64))[1])
    assert len(outcome.plaintext) % CELL == 0


@pytest.mark.skipif(native is None, reason="sealbus-native is not installed")
def test_the_compiled_steps_pad_alike_also_when_the_policy_changes():
    world = World(make_policy(domain_policy(MEMORY, padding=CELL)))
    site = Site(world, padding=CELL)
    site.place.acceptor = acceptor_for(site.place, site.context)
    for number, padding in enumerate((CELL, 0, 300)):
        policy = make_policy(domain_policy(MEMORY, padding=padding), number=number + 1)
        site.context.set_policy(policy, number + 1)
        values = [site.sealed({"note": "x" * size}) for size in range(0, 700, 50)]
        first, site.offset = site.offset, site.offset + len(values)
        offsets = list(range(first, site.offset))
        outcomes = compiled.enforce(values, [NOW] * len(values), offsets, site.place, site.context)
        assert len(site.place.acceptor) > 0, "some went through the compiled steps"
        assert {len(each.plaintext) % (padding or 1) for each in outcomes} == {0}
        if not padding:
            assert len({len(each.plaintext) for each in outcomes}) > 10
        made = derive(outcomes, first, site.offset, site.place, site.context)
        assert [json.loads(each.payload) for each in site.read(made)] == [
            {"note": "x" * size} for size in range(0, 700, 50)
        ]


def test_less_padding_widens_and_a_cell_has_bounds():
    def law(**keys):
        return loaded([domain("notes", "A", **keys)], {"ann": "A"})

    for before, after, widens in ((512, 256, True), (512, 1024, False), (0, 512, False)):
        (change,) = access_changes(law(**({"padding": before} if before else {})), law(padding=after))
        assert (change.text, change.widens) == (f"notes padding {before} -> {after}", widens)
    for size, told in ((255, "expected at least 256, found 255"), (16_385, "expected at most 16384, found 16385")):
        with pytest.raises(PolicyError, match=f"padding: {told}"):
            law(padding=size)
