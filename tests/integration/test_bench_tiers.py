"""`bus bench tiers` on a real broker, with few records: every process does its part, and every figure is there."""

import pytest

from bench import fhe, trickle
from bench.mix import TIERED, Mix
from bench.tiers import FIGURES, SIZE, opened, site, through
from bus.settings import Mechanism
from bus.tiers.fhe import MIN_ROWS
from bus.wire.names import Tier

pytest.importorskip("tenseal", reason="tenseal is not installed: pip install 'sealbus[fhe]'")
PARTS = {Tier.RETRIEVAL: 400, Tier.COMPUTATION: 400, Tier.FHE: [MIN_ROWS]}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    with site(tmp_path_factory.mktemp("tiers") / "state", sasl_mechanism=Mechanism.SCRAM) as held:
        yield held


@pytest.mark.broker
@pytest.mark.long
def test_each_part_goes_through_sources_enforcer_and_readers(made):
    told = through(made, PARTS)
    assert tuple(told) == FIGURES
    assert all(each > 0 for each in told.values())
    assert told["cpu_us"] == pytest.approx(told["source_us"] + told["enforcer_us"] + told["reader_us"])
    clear = 2 * 800 * SIZE / (800 + MIN_ROWS)
    assert told["bytes"] > clear, "payloads are on both topics, and a batch of ciphertexts beside them"

    beside = opened(made.stack, 400)
    assert beside["ratio"] == beside["COMPUTATION"]["cpu_us"] / beside["RETRIEVAL"]["cpu_us"]

    delays = trickle.measure(made.stack, MIN_ROWS, records=3)
    assert {tier: len(each) for tier, each in delays.items()} == {
        Tier.RETRIEVAL: 3,
        Tier.COMPUTATION: 3,
        Tier.FHE: 1,
    }
    found = trickle.summary(delays, Mix({Tier.RETRIEVAL: 90, Tier.COMPUTATION: 9, Tier.FHE: 1}))
    assert list(found) == [TIERED, "all-RETRIEVAL", "all-COMPUTATION", "all-FHE"]
    assert all(each["p99"] >= each["p50"] > 0 for each in found.values())


def test_the_steps_of_encrypted_columns_have_figures():
    told = fhe.measure()
    assert all(each > 0 for each in told.values())
    assert told["linear_us_a_value"] == pytest.approx(told["linear_ms"] * 1000 / told["rows"] / told["columns"])
