"""Sums over shares: two deployments with a broker each, a party in each, a process of its own for each party."""

import dataclasses
import json
import math
import os
import re
import signal
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from bus import Bus
from bus.client.party import PartyOf, create_key
from bus.client.sharing import shares
from bus.codes import Code
from bus.errors import Refused, Unavailable, Unverified
from bus.files import Layout
from bus.tiers.mpc import add, split
from demo.observer import stored
from tests.integration.conftest import start_stack
from tests.integration.oracle import account, bus_command, until, verified

pytestmark = pytest.mark.broker
DOMAIN = "fraud_stats"
MESH = """
security_mesh:
  global: {{tls_min_version: "1.3", credential_rotation_interval_ms: 600000, audit_scope: FULL_MESH}}
  topics: {{partitions: 2}}
  zones: {{eu: {{}}, us: {{}}}}
  domains:
    - name: fraud_stats
      tier: COMPUTATION
      computation: mpc
      protect_at: source
      allowed_roles: [EXECUTOR, ANALYST, PARTY]
      metadata_masking: true
      audit_level: FULL_MESH
{mpc}"""
MPC = """      mpc:
        parties:
{parties}
        fields: {{amount: {{min: 0, max: 1000}}}}
        groups: {{country: [de, fr, us]}}
        minimum_cohort: 50
        release_to: [ANALYST]
"""
SECOND = {"eu": "us", "us": "eu"}


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    """Deployments eu and us, each with its party's key in both policies, and the other one as its peer."""
    home = tmp_path_factory.mktemp("parties")
    made, keys = {}, {}
    for zone in ("eu", "us"):
        law = home / f"law-{zone}"
        law.mkdir()
        names = {"bank-1": "EXECUTOR", "analyst-1": "ANALYST", f"party-{zone}": "PARTY"}
        lines = [f"  {name}: {{role: {role}, zone: {zone}}}" for name, role in names.items()]
        (law / "agents.yaml").write_text("\n".join(["agents:", *lines, ""]))
        (law / "mesh.yaml").write_text(MESH.format(mpc=""))
        made[zone] = start_stack(home / zone, policies=law)
        told = bus_command(made[zone], "mpc", "init", "--as", f"party-{zone}", "--json").stdout
        keys[zone] = json.loads(told)["key"]
    for zone, stack in made.items():
        other = SECOND[zone]
        parties = [
            f'          party-{zone}: {{key: "{keys[zone]}"}}',
            f'          party-{other}: {{key: "{keys[other]}", peer: {other}}}',
        ]
        (stack.settings.policies / "mesh.yaml").write_text(MESH.format(mpc=MPC.format(parties="\n".join(parties))))
        stack.apply(stack.plan(stack.load_policy()))
        with stack.layout.settings.open("a") as file:
            file.write(f'\n[peers]\n{other} = "{made[other].layout.settings}"\n')
        peers = {other: str(made[other].layout.settings)}
        stack.settings = dataclasses.replace(stack.settings, peers=peers)
    yield made
    for stack in made.values():
        stack.down(lambda _: None, purge=True)


class Process:
    """`bus run party` in a process of its own."""

    def __init__(self, stack, zone):
        environ = {**os.environ, "BUS_CONFIG": str(stack.layout.settings)}
        command = [sys.executable, "-m", "bus.cli.main", "run", "party", DOMAIN, "--as", f"party-{zone}"]
        self.process = subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True)
        self.errors = []
        for line in self.process.stderr:
            self.errors.append(line)
            if "party of" in line:
                return
        raise AssertionError("".join(self.errors))

    def kill(self):
        self.process.kill()
        self.process.communicate(timeout=30)

    def stop(self):
        self.process.terminate()
        self.process.communicate(timeout=30)
        assert self.process.returncode == 0


@pytest.fixture
def parties(sites):
    made = {zone: Process(stack, zone) for zone, stack in sites.items()}
    yield made
    for each in made.values():
        if each.process.poll() is None:
            each.stop()


def live(stack, agent):
    me = Bus(agent, settings=stack.settings)
    for each in (me, *(me.peer(name) for name in stack.settings.peers)):
        until(lambda each=each: each._policy().domains[DOMAIN].protectable)
        until(
            lambda each=each: (
                any(held.session for held in each._keys.begun(DOMAIN, 2**62).values()) or each._keys.refresh(force=True)
            )
        )
    return me


def rows(count, start=0):
    return {
        "amount": [float((start + number) * 7 % 1000) for number in range(count)],
        "country": [("de", "fr", "us")[number % 3] for number in range(count)],
    }


def memory_of(pid):
    """Every readable byte of a process."""
    found = []
    with Path(f"/proc/{pid}/mem").open("rb") as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span = re.match(r"([0-9a-f]+)-([0-9a-f]+) r", line)
            if span and "[v" not in line:
                begin, end = (int(each, 16) for each in span.groups())
                memory.seek(begin)
                try:
                    found.append(memory.read(end - begin))
                except OSError:
                    continue
    return found


def test_two_parties_on_two_brokers_give_totals_that_neither_has(sites, parties, monkeypatch):
    made = []
    monkeypatch.setattr("bus.client.sharing.split", lambda *told: made.append(split(*told)) or made[-1])
    with live(sites["eu"], "bank-1") as bank, live(sites["us"], "analyst-1") as analyst:
        for start in (0, 300, 600):
            bank.publish(DOMAIN, rows(300, start), purpose="fraud")
        found = analyst.mpc.aggregate(DOMAIN, timeout=60)
        values = [float(number * 7 % 1000) for number in range(900)]
        assert found.rows == 900
        assert math.isclose(found.fields["amount"].mean, statistics.fmean(values), abs_tol=1e-2)
        assert math.isclose(found.fields["amount"].variance, statistics.pvariance(values), rel_tol=1e-4)
        assert sum(found.fields["amount"].counts) == 900
        assert found.groups["country"] == {"de": 300, "fr": 300, "us": 300}

        # A scan of each party finds its own key's name and no other's share, in memory and in files.
        places = {"eu": 0, "us": 1}
        for zone, place in places.items():
            memory = memory_of(parties[zone].process.pid)
            assert any(f"party-{zone}".encode() in part for part in memory), "the control: this memory was read"
            others = [each[1 - place][1:] for each in made]
            assert len(others) == 3
            for part in memory:
                assert not any(share in part for share in others)
            folder = sites[zone].layout.state
            for file in folder.rglob("*"):
                inside = file.is_relative_to(folder / "kafka")
                for data in (stored(file) if inside else [file.read_bytes()]) if file.is_file() else ():
                    assert not any(each[1:] in data for both in made for each in both)

        # A batch is in one job alone: nothing is left for another.
        with pytest.raises(Refused, match="expected at least 50 rows, found 0") as refused:
            analyst.mpc.aggregate(DOMAIN, timeout=30)
        assert refused.value.code is Code.COHORT


def test_fewer_rows_than_the_cohort_are_not_told_and_wait_for_more(sites, parties):
    with live(sites["eu"], "bank-1") as bank, live(sites["eu"], "analyst-1") as analyst:
        bank.publish(DOMAIN, rows(20))
        with pytest.raises(Refused, match="found 20"):
            analyst.mpc.aggregate(DOMAIN, timeout=30)
        bank.publish(DOMAIN, rows(40))
        told = bus_command(sites["eu"], "mpc", "totals", DOMAIN, "--as", "analyst-1", "--json")
        assert json.loads(told.stdout)["rows"] == 60
        with pytest.raises(Refused, match="amount: expected values within 0 and 1000"):
            bank.publish(DOMAIN, {"amount": [1001.0], "country": ["de"]})
    with live(sites["eu"], "bank-1") as bank, pytest.raises(Refused, match="no role of release_to"):
        bank.mpc.aggregate(DOMAIN, timeout=30)


def test_a_party_that_is_killed_midway_is_named_and_the_same_job_goes_on(sites, parties):
    with live(sites["eu"], "bank-1") as bank, live(sites["eu"], "analyst-1") as analyst:
        bank.publish(DOMAIN, rows(80))
        parties["us"].kill()
        with pytest.raises(Unavailable, match="party party-us did not answer; nothing was combined") as late:
            analyst.mpc.aggregate(DOMAIN, timeout=5)
        job = re.search(r"job ([0-9a-f]{32})", str(late.value))[1]
        parties["us"] = Process(sites["us"], "us")
        assert analyst.mpc.aggregate(DOMAIN, timeout=60, job=job).rows == 80
        # Asked once more, both answer what they gave: nothing is computed anew.
        os.kill(parties["eu"].process.pid, signal.SIGKILL)
        parties["eu"].process.communicate(timeout=30)
        parties["eu"] = Process(sites["eu"], "eu")
        assert analyst.mpc.aggregate(DOMAIN, timeout=60, job=job).rows == 80


def test_parties_that_hold_different_batches_are_named_and_what_all_hold_can_be_asked_for(sites, parties):
    with live(sites["eu"], "bank-1") as bank, live(sites["eu"], "analyst-1") as analyst:
        bank.publish(DOMAIN, rows(70))
        rule = bank._policy().domains[DOMAIN].sharing
        bank.publish(
            DOMAIN, shares(rule, DOMAIN, "bank-1", rows(30))[0], target="party-eu"
        )  # as if its source had been killed
        with pytest.raises(Unverified, match="party-eu lacks 0, party-us lacks 1 of 2") as refused:
            analyst.mpc.aggregate(DOMAIN, timeout=8)
        assert refused.value.code is Code.PARTIES
        assert analyst.mpc.aggregate(DOMAIN, timeout=60, common=True).rows == 70


def test_a_party_that_lies_about_its_set_is_found(sites, parties, monkeypatch):
    parties["us"].stop()
    monkeypatch.setattr("bus.client.party.add", lambda vectors, width: add(list(vectors)[1:], width))
    with (
        live(sites["eu"], "bank-1") as bank,
        live(sites["eu"], "analyst-1") as analyst,
        Bus("party-us", settings=sites["us"].settings) as liar,
    ):
        until(lambda: liar._policy().domains[DOMAIN].protectable)
        liar.subscribe(DOMAIN)(PartyOf(liar, Layout(sites["us"].settings.state), DOMAIN).take)
        bank.publish(DOMAIN, rows(60))
        bank.publish(DOMAIN, rows(60))
        with pytest.raises(Unverified, match="a party did not add up what it said") as refused:
            analyst.mpc.aggregate(DOMAIN, timeout=10, common=True)
        assert refused.value.code is Code.PARTIES


def test_who_is_no_party_of_the_policy_does_not_serve(sites, tmp_path):
    with live(sites["eu"], "bank-1") as bank:
        with pytest.raises(Refused, match="bank-1 has no key of a party"):
            PartyOf(bank, Layout(sites["eu"].settings.state), DOMAIN)
        create_key(Layout(sites["eu"].settings.state), "bank-1")
        with pytest.raises(Refused, match="the policy has bank-1 with no such key"):
            PartyOf(bank, Layout(sites["eu"].settings.state), DOMAIN)


def test_every_input_has_one_outcome_and_one_hop_on_both_brokers(sites):
    for stack in sites.values():
        account(stack, DOMAIN)
        assert verified(stack)["problems"] == []
