"""Names: which strings may name an agent, domain or role, which are reserved, and where topics and partitions follow.

The oracle for names is written out by hand; it shares no pattern with the product.
"""

from __future__ import annotations

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bus.codes import Code
from bus.errors import WireError
from bus.wire.names import (
    AUDIT_PARTITIONS,
    NOTICE_PARTITIONS,
    DomainName,
    ZoneName,
    agent_id,
    audit_partition,
    domain_topics,
    folded,
    is_lower_name,
    is_role_name,
    notice_partition,
)
from tests.unit import build  # noqa: F401  # no deadline for an example

LOWER = string.ascii_lowercase + string.digits + "_-"
ROLE = string.ascii_uppercase + string.digits + "_"


def lower_by_hand(name: str) -> bool:
    """The rule of the wire format, section 1.2, without a pattern."""
    shaped = 1 <= len(name) <= 63 and name[0] in string.ascii_lowercase and all(each in LOWER for each in name)
    reserved = name == "bus" or (name[:3] == "bus" and name[3:4] in ("-", "_", "."))
    return shaped and not reserved


@given(st.one_of(st.text(alphabet=LOWER + "B.\n é", max_size=66), st.text(max_size=5)))
@example("bus")
@example("bus-enforcer-1")
@example("bus_audit")
@example("busy")
@example("a" * 63)
@example("a" * 64)
@example("agent\n")
@example("é")
@example("٣")
def test_a_lower_name_is_exactly_what_the_wire_format_says(name):
    assert is_lower_name(name) is lower_by_hand(name)


@given(st.text(alphabet=ROLE + "a-\n", max_size=66))
@example("R" * 63)
@example("R" * 64)
@example("ROLE\n")
def test_a_role_name_is_exactly_what_the_wire_format_says(name):
    shaped = 1 <= len(name) <= 63 and name[0] in string.ascii_uppercase and all(each in ROLE for each in name)
    assert is_role_name(name) is shaped


@pytest.mark.parametrize("name", ["bus", "bus-enforcer-1", "bus_x", "bus-", "bus_"])
def test_a_reserved_name_is_no_agent_id(name):
    with pytest.raises(WireError, match="`bus` is reserved") as refusal:
        agent_id(name)
    assert refusal.value.code is Code.BOUNDS


@pytest.mark.parametrize("name", ["business", "busy-1", "b-us", "abus", "retriever-1"])
def test_a_name_that_only_resembles_the_reserved_one_is_an_agent_id(name):
    assert agent_id(name) == name


@pytest.mark.parametrize("same", [("a-b", "a_b"), ("a.b", "a-b"), ("a__b", "a-_b"), ("x_", "x-")])
def test_names_that_kafka_confuses_fold_to_one(same):
    assert folded(same[0]) == folded(same[1])


@pytest.mark.parametrize("other", [("a-b", "ab"), ("a-b", "a--b"), ("a1", "a2")])
def test_names_that_kafka_keeps_apart_do_not_fold_to_one(other):
    assert folded(other[0]) != folded(other[1])


@given(st.text(alphabet=LOWER + "."), st.text(alphabet=LOWER + "."))
def test_folding_loses_only_the_three_separators(one, other):
    def plain(name: str) -> str:
        return "".join("." if each in "-_." else each for each in name)

    assert (folded(one) == folded(other)) is (plain(one) == plain(other))
    assert folded(folded(one)) == folded(one)


def test_a_domain_has_four_topics_and_a_zone_is_their_prefix():
    topics = domain_topics(DomainName("agent_memory"))
    told = ["agent_memory.in", "agent_memory.out", "agent_memory.dead", "agent_memory.windows"]
    assert [topics.inbound, topics.outbound, topics.dead, topics.windows] == told
    assert domain_topics(DomainName("agent_memory"), ZoneName("eu")).dead == "eu.agent_memory.dead"


@given(st.integers(0, 2**31 - 1), st.text(alphabet=LOWER, min_size=1, max_size=63))
def test_audit_and_notice_partitions_exist(partition, agent):
    assert 0 <= audit_partition(partition) < AUDIT_PARTITIONS
    assert 0 <= notice_partition(agent) < NOTICE_PARTITIONS


def test_an_agents_notice_partition_is_crc_32_of_its_id():
    """Enforcers and agents compute it apart from each other; cbf43926 is the published check value of CRC-32."""
    assert notice_partition("123456789") == 0xCBF43926 % 4
