"""Single rows of several sources become batches of a domain of tier FHE, on the real broker."""

import json
import threading

import pytest

from bus import Bus
from bus.client.gatherer import Gatherer
from bus.errors import Refused
from bus.tiers.fhe import MIN_ROWS
from tests.integration.conftest import POLICIES, start_stack
from tests.integration.oracle import bus_command, until

pytestmark = pytest.mark.broker
pytest.importorskip("tenseal", reason="tenseal is not installed: pip install 'sealbus[fhe]'")
AGENTS = """agents:
  bank-1: {role: EXECUTOR}
  bank-2: {role: EXECUTOR}
  lender-1: {roles: [ORCHESTRATOR, ANALYST]}
"""


@pytest.fixture(scope="module")
def lending(tmp_path_factory):
    home = tmp_path_factory.mktemp("lending")
    law = home / "law"
    law.mkdir()
    (law / "agents.yaml").write_text(AGENTS)
    text = (POLICIES / "mesh.yaml").read_text().replace("      attestation_required: true\n", "")
    (law / "mesh.yaml").write_text(text)
    local = start_stack(home / "state", policies=law)
    made = json.loads(bus_command(local, "fhe", "init", "--as", "lender-1", "--json").stdout)
    line = '      tier: "FHE"\n'
    text = text.replace(line, f"{line}      protect_at: source\n      fhe_context: {made['fhe_context']}\n")
    (law / "mesh.yaml").write_text(text)
    local.apply(local.plan(local.load_policy()))
    yield local
    local.down(lambda _: None, purge=True)


class Running:
    """A gatherer in a thread, with what it told of rows that it refused."""

    def __init__(self, stack, **changes):
        self.told, self._stop = [], threading.Event()
        self.me = Bus("lender-1", settings=stack.settings)
        self.me.on_refused(self.told.append)
        until(lambda: self.me._policy().domains["financial_models"].protectable)
        self.gatherer = Gatherer(self.me, "coordination", "financial_models", **changes)
        self._thread = threading.Thread(target=self.gatherer.run, args=(self._stop,), daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join(30)
        self.me.close()


def test_rows_of_two_sources_are_one_batch_and_wait_over_a_restart(lending):
    rows = MIN_ROWS
    with Bus("bank-1", settings=lending.settings) as one, Bus("bank-2", settings=lending.settings) as two:
        with Running(lending, rows=rows, every=3600) as first:
            for number in range(rows // 2):
                one.publish("coordination", {"income": number / rows, "debt": 0.5}, confirm="queued")
            one.publish("coordination", {"income": "much"})
            one.publish("coordination", {"income": float(1), "other": 2.0})
            until(lambda: first.gatherer.waiting == rows // 2 and len(first.told) == 2)
        assert {str(each) for each in first.told} == {
            "coordination: expected a row of finite numbers",
            "coordination: expected the columns of the rows that wait",
        }
        with Running(lending, rows=rows, every=3600) as second, Bus("lender-1", settings=lending.settings) as reader:
            assert second.gatherer.waiting == rows // 2
            inbox = reader.subscribe("financial_models", observe=True)
            for number in range(rows // 2, rows):
                two.publish("coordination", {"income": number / rows, "debt": 0.5}, confirm="queued")
            batch = reader.fhe.open(next(iter(inbox)))
            until(lambda: second.gatherer.waiting == 0)
            assert (batch.rows, sorted(batch.columns)) == (rows, ["debt", "income"])
            income = sorted(reader.fhe.decrypt(batch)["income"])
            assert income == pytest.approx([number / rows for number in range(rows)], abs=1e-3)


def test_what_is_late_goes_with_256_rows_and_not_with_fewer(lending):
    with Bus("bank-1", settings=lending.settings) as one, Bus("lender-1", settings=lending.settings) as reader:
        before = 1
        with Running(lending, rows=4096, every=0.0) as late:
            for number in range(MIN_ROWS - 1):
                one.publish("coordination", {"income": number / 256}, confirm="queued")
            until(lambda: late.gatherer.waiting == MIN_ROWS - 1)
            one.publish("coordination", {"income": 1.0}, confirm="queued")
            until(lambda: late.gatherer.waiting == 0)
        inbox = reader.subscribe("financial_models", observe=True)
        found = [reader.fhe.open(next(iter(inbox))).rows for _ in range(before + 1)]
        assert found == [MIN_ROWS, MIN_ROWS]


@pytest.mark.parametrize(
    ("sink", "rows", "why"),
    [
        ("coordination", 4096, "expected a domain of tier FHE"),
        ("financial_models", 8, "rows: expected 256 to 4096, found 8"),
        ("nowhere", 4096, "expected a domain of tier FHE"),
    ],
)
def test_what_it_cannot_do_is_refused_before_it_reads(lending, sink, rows, why):
    with Bus("lender-1", settings=lending.settings) as me:
        until(lambda: me._policy().domains["financial_models"].protectable)
        with pytest.raises(Refused, match=why):
            Gatherer(me, "coordination", sink, rows=rows)
