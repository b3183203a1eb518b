"""Recall and precision of the guardrails' types: on the half of a published set that no rule was written against, and
on a set that is made, with look-alikes. ``python -m tests.pii`` prints all of it.
"""

from __future__ import annotations

import functools
import itertools
import json
import sys

import pytest

from bus.guardrails.scanner import Span
from bus.guardrails.types import TYPES
from tests.pii import __main__ as tool
from tests.pii import made
from tests.pii.measure import Sample, Score, measure, published

ENOUGH = 0.90


@functools.cache
def odd() -> dict[str, Score]:
    return measure(published(1))


@functools.cache
def generated() -> dict[str, Score]:
    return measure(made.generated())


def told(score: Score) -> str:
    return "\n".join(
        [*(f"missed {text}" for text in score.missed[:10]), *(f"wrong {text}" for text in score.wrong[:10])]
    )


# The demands.
def test_cards_of_the_half_that_no_rule_was_written_against_are_found():
    score = odd()["CREDIT_CARD"]
    assert score.labelled == 30
    assert score.recall >= ENOUGH, told(score)


def test_what_is_found_as_a_card_in_that_half_is_one():
    score = odd()["CREDIT_CARD"]
    assert score.found >= 27
    assert score.precision >= ENOUGH, told(score)


@pytest.mark.parametrize("kind", made.TYPES)
def test_values_of_the_made_set_are_found_whole(kind):
    score = generated()[kind]
    assert score.labelled >= 200
    assert score.recall >= ENOUGH, told(score)


@pytest.mark.parametrize("kind", made.TYPES)
def test_what_is_found_in_the_made_set_is_no_look_alike(kind):
    score = generated()[kind]
    assert score.found >= 180
    assert score.precision >= ENOUGH, told(score)


# The sets.
def test_the_halves_of_the_published_set_share_no_template():
    even, rest = published(0), published(1)
    assert len(even) + len(rest) == 750
    assert not {each.group for each in even} & {each.group for each in rest}


@pytest.mark.parametrize("samples", [published(0), published(1), made.generated()], ids=["even", "odd", "made"])
def test_labels_lie_within_their_texts_and_not_over_one_another(samples):
    for sample in samples:
        assert all(0 <= start < end <= len(sample.text) and kind in TYPES for start, end, kind in sample.spans)
        spans = sorted(sample.spans)
        assert all(one[1] <= other[0] for one, other in itertools.pairwise(spans))


def test_the_made_set_is_the_same_for_the_same_seed_and_another_for_another():
    assert made.generated() == made.generated()
    assert made.generated(1) != made.generated(2)


def test_the_made_set_has_as_many_texts_without_a_value_as_with_one():
    samples = made.generated()
    assert [bool(each.spans) for each in samples] == [True, False] * (len(samples) // 2)
    assert len({each.text for each in samples}) > 0.8 * len(samples)


@pytest.mark.parametrize("wrong", range(10))
def test_cards_and_ibans_of_the_made_set_are_right_unless_they_are_to_be_wrong(wrong):
    """By the textbook: double every second digit and add the digits; the number behind the country, modulo 97."""
    rng = made.Rng(5)
    for _ in range(50):
        digits = [int(each) for each in made.card(rng, wrong) if each.isdigit()]
        doubled = [sum(map(int, str(2 * each))) if place % 2 else each for place, each in enumerate(digits[::-1])]
        assert (sum(doubled) % 10 == 0) == (wrong == 0)
        text = made.iban(rng, wrong).replace(" ", "").upper()
        number = "".join(str(ord(each) - 55) if each.isalpha() else each for each in text[4:] + text[:4])
        assert (int(number) % 97 == 1) == (wrong == 0)


# The measure.
class Fixed:
    """Finds what it is told."""

    def __init__(self, *spans: Span) -> None:
        self._spans = list(spans)

    def scan(self, _: str) -> list[Span]:
        return self._spans


TEXT = "to x@y.org, (415) 555-0100!"
LABELS = ((3, 10, "EMAIL"), (12, 26, "PHONE"))
MAIL, PHONE = Span(3, 10, "EMAIL"), Span(12, 26, "PHONE")


@pytest.mark.parametrize(
    ("spans", "email", "phone"),
    [
        ((MAIL, PHONE), (1, 1, 1, 1), (1, 1, 1, 1)),
        ((Span(0, 12, "EMAIL"), PHONE), (1, 1, 1, 1), (1, 1, 1, 1)),
        ((MAIL, Span(13, 26, "PHONE")), (1, 1, 1, 1), (1, 1, 1, 1)),
        ((MAIL, Span(12, 18, "PHONE"), Span(18, 26, "PHONE")), (1, 1, 1, 1), (1, 1, 2, 2)),
        ((Span(4, 10, "EMAIL"), PHONE), (1, 0, 1, 1), (1, 1, 1, 1)),
        ((Span(3, 10, "URL"), PHONE), (1, 0, 0, 0), (1, 1, 1, 1)),
        ((Span(3, 10, "PHONE"), PHONE), (1, 0, 0, 0), (1, 1, 2, 1)),
        ((Span(0, 3, "EMAIL"),), (1, 0, 1, 0), (1, 0, 0, 0)),
        ((), (1, 0, 0, 0), (1, 0, 0, 0)),
    ],
)
def test_a_label_counts_where_all_of_it_is_found_and_a_find_where_it_lies_on_a_label(spans, email, phone):
    scores = measure([Sample(TEXT, LABELS)], Fixed(*spans))
    counts = [(each.labelled, each.hit, each.found, each.right) for each in (scores["EMAIL"], scores["PHONE"])]
    assert counts == [email, phone]


def test_a_score_is_a_share_and_shows_its_faults():
    samples = [Sample(TEXT, LABELS), Sample(TEXT, ()), Sample(TEXT, LABELS[:1])]
    score = measure(samples, Fixed(MAIL))["EMAIL"]
    assert (score.recall, round(score.precision, 3)) == (1.0, 0.667)
    assert score.wrong == ["to <<x@y.org>>, (415) 555-0100!"]
    score = measure(samples, Fixed())["EMAIL"]
    assert (score.recall, score.precision, len(score.missed)) == (0.0, 1.0, 2)


# The tool.
def test_the_tool_prints_a_row_for_every_type_of_every_set(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["tests.pii"])
    assert tool.main() == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == list(tool.COLUMNS)
    for kind in made.TYPES:
        assert [row.split("  ")[0] for row in rows if f" {kind} " in row] == [
            "published, even",
            "published, odd",
            "made",
        ]
    card = next(row for row in rows if row.startswith("published, odd") and "CREDIT_CARD" in row)
    assert card.split()[3:5] == ["30", f"{odd()['CREDIT_CARD'].recall:.3f}"]


def test_the_tool_prints_one_json_document(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["tests.pii", "--json", "--seed", "7"])
    assert tool.main() == 0
    document = json.loads(capsys.readouterr().out)
    assert document["published, odd"]["CREDIT_CARD"]["labelled"] == 30
    assert document["made"]["EMAIL"]["recall"] == round(measure(made.generated(7))["EMAIL"].recall, 4)
