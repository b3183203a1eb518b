"""What led to what: every hop once, below what its sender named, whatever that is."""

import uuid
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from bus.ledger.causes import drawn, forest, mermaid
from bus.wire.hop import Verdict
from tests.unit.test_reconcile import hop


def said(number, *causes, verdict=Verdict.ALLOW, at=0):
    made = hop(number, verdict)
    causation_ids = tuple(each.to_bytes(16, "big") for each in causes)
    return replace(made, message_id=number.to_bytes(16, "big"), causation_ids=causation_ids, decided_at=1000 + at)


def shape(hops):
    return [(branch, int.from_bytes(node.hop.message_id, "big"), later) for branch, node, later in drawn(forest(hops))]


def test_messages_hang_below_their_causes_with_the_time_since():
    hops = [said(1), said(2, 1, at=5), said(3, 2, at=9), said(4, 1, at=20), said(5, at=30)]
    assert shape(hops) == [("", 1, 0), ("├─ ", 2, 5), ("│  └─ ", 3, 9), ("└─ ", 4, 20), ("", 5, 0)]


def test_several_causes_are_told_and_missing_ones_begin_a_tree():
    (root, lost) = forest([said(1), said(2, 1), said(3, 2, 1), said(4, 77)])
    (second,) = root.children
    (third,) = second.children
    assert third.others == (str(uuid.UUID(int=1)),)
    assert lost.hop.message_id == (4).to_bytes(16, "big")


def test_causes_in_a_circle_and_of_itself_end():
    assert sorted(number for _, number, _ in shape([said(1, 2), said(2, 1), said(3, 3)])) == [1, 2, 3]


def test_a_record_without_a_message_is_a_tree_of_its_own():
    assert len(forest([replace(said(1), message_id=bytes(16)), replace(said(2), causation_ids=(bytes(16),))])) == 2


@given(st.lists(st.tuples(st.integers(1, 12), st.lists(st.integers(1, 12), max_size=3)), max_size=30))
def test_every_hop_is_there_once(rows):
    hops = [said(number, *causes) for number, causes in rows]
    assert len(list(drawn(forest(hops)))) == len(hops)


def test_a_chart_has_every_hop_and_edge_and_refusals_in_red():
    chart = mermaid(forest([said(1), said(2, 1), said(3, 2, verdict=Verdict.DENY)]))
    assert chart.startswith("flowchart TD\n")
    assert chart.count("-->") == 2
    assert chart.count("stroke:#cc0000") == 1
