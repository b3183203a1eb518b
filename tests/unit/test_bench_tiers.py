"""What `bus bench tiers` makes of its figures: the mix, its batches, percentiles by share, ratios and sentences."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.mix import LEAST, TIERED, Mix, batches, percentile, saved, uniform
from bench.tiers import beside, small, spared
from bench.tiersreport import compared
from bus.tiers.fhe import MAX_ROWS, MIN_ROWS
from bus.wire.names import Tier


def test_the_mix_is_of_ninety_nine_and_one_percent_and_its_figures_fill_a_batch():
    mix = Mix.of(60_000)
    assert mix.parts == {Tier.RETRIEVAL: 54_000, Tier.COMPUTATION: 5_400, Tier.FHE: 600}
    assert Mix.of(10).parts[Tier.FHE] == MIN_ROWS
    assert Mix.of(10).records == LEAST
    assert mix.shares() == {Tier.RETRIEVAL: 0.9, Tier.COMPUTATION: 0.09, Tier.FHE: 0.01}


@given(st.integers(LEAST, 10_000_000))
def test_no_record_is_lost_in_the_mix(records):
    assert Mix.of(records).records == records


@given(st.integers(MIN_ROWS, 1_000_000))
def test_rows_fill_as_few_batches_as_hold_them(rows):
    made = batches(rows)
    assert sum(made) == rows
    assert MIN_ROWS <= min(made) <= max(made) <= MAX_ROWS
    assert (len(made) - 1) * MAX_ROWS < rows


def test_fewer_rows_than_are_published_make_no_batch():
    with pytest.raises(ValueError, match="at least 256 rows, found 255"):
        batches(255)


def test_a_percentile_counts_records_and_not_samples():
    parts = [(0.9, [1.0, 2.0]), (0.09, [10.0] * 50), (0.01, [500.0])]
    assert [percentile(parts, each) for each in (40, 50, 95, 99, 99.5)] == [1.0, 2.0, 10.0, 10.0, 500.0]
    assert percentile([(1.0, [3.0, 1.0, 2.0])], 50) == 2.0
    assert percentile([(1.0, [3.0, 1.0, 2.0])], 100) == 3.0


def test_what_is_saved_is_negative_where_tiers_take_more():
    assert saved(40, 100) == pytest.approx(0.6)
    assert saved(150, 100) == pytest.approx(-0.5)


def figures(cpu, size):
    return {"cpu_us": cpu, "bytes": size}


TOLD = {
    TIERED: [figures(50.0, 2000.0), figures(60.0, 2000.0)],
    uniform(Tier.RETRIEVAL): [figures(40.0, 1600.0), figures(80.0, 1600.0)],
    uniform(Tier.FHE): [figures(44.0, 1000.0)] * 2,
    small(600): [figures(220.0, 8000.0)] * 2,
}


def test_ways_are_compared_within_one_turn():
    ratios = beside(TOLD)
    assert TIERED not in ratios
    assert ratios[uniform(Tier.RETRIEVAL)]["cpu_us"] == {"median": 1.0, "min": 0.75, "max": 1.25}
    assert ratios[uniform(Tier.RETRIEVAL)]["bytes"]["median"] == 1.25


def test_what_tiers_spare_is_said_for_every_assumption_about_gathering():
    steps = {"alone_us": 50_000.0, "alone_bytes": 3_000_000.0}
    found = spared(TOLD, Mix.of(60_000), 600, steps)
    assert found["full"] == {"cpu_us": pytest.approx(1 - 55 / 44), "bytes": pytest.approx(-1.0)}
    assert found["whole"]["cpu_us"] == pytest.approx(1 - 55 / (44 * (0.01 + 0.99 * 16)))
    assert found["same"] == {"cpu_us": pytest.approx(0.75), "bytes": pytest.approx(0.75)}
    assert found["alone"]["cpu_us"] == pytest.approx(1 - (55 + 500) / 50_000)
    assert found["alone"]["bytes"] == pytest.approx(1 - (2000 + 60_000) / 6_000_000)


def test_the_sentences_are_made_of_the_figures():
    full, same, mixed = compared(
        {
            "full": {"cpu_us": -0.25, "bytes": 0.1},
            "same": {"cpu_us": 0.75, "bytes": 0.6},
            "alone": {"cpu_us": 0.99, "bytes": 0.5},
        }
    )
    assert "1.2 times the CPU and 10.0% less bytes; published: up to 60% less: not reached" in full
    assert "75.0% less CPU and 60.0% less bytes" in same
    assert same.endswith(": reached")
    assert mixed.endswith("reached in part")
