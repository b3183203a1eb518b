"""An epoch is erased while everything runs: readers go on, enforcers acknowledge, copies of its root stay closed."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
from datetime import UTC, datetime

import pytest

from bus import Bus, Erased
from bus.admin.erasing import plan_erasure
from bus.authority.local import open_roots
from bus.authority.trust import read_trust
from bus.errors import Refused, RetryLater
from bus.files import Layout
from demo.raw import RawClient
from tests.integration import oracle
from tests.integration.oracle import bus_command, hops, read_topic, verified, wait_for_hop
from tests.integration.test_epochs import SHORT, short_policies

pytestmark = pytest.mark.broker

DOMAIN = "agent_memory"
ENFORCERS = ["bus-enforcer-1", "bus-enforcer-2"]
until = functools.partial(oracle.until, timeout=60)


def erase(stack, *arguments: str):
    return bus_command(stack, "keys", "erase", "--domain", DOMAIN, "--yes", "--json", *arguments, check=False)


def erasures(stack) -> dict[int, dict]:
    document = json.loads(bus_command(stack, "keys", "status", "--json").stdout)
    return {each["epoch"]: each for each in document["erasures"] if each["domain"] == DOMAIN}


def publish(me, text: str) -> None:
    me.publish(DOMAIN, {"text": text}, purpose="care", confirm="decided").decision(timeout=30)


@pytest.mark.timeout(600)
def test_an_epoch_is_erased_while_readers_and_enforcers_run(own_stack, tmp_path):
    stack = own_stack(policies=short_policies(tmp_path / "short"), enforcers=2, **SHORT)
    settings, keys = stack.settings, stack.layout.roots.parent
    trust = read_trust(stack.layout.trust)
    with Bus("retriever-1", settings=settings) as writer, Bus("orchestrator-1", settings=settings) as reader:
        publish(writer, "before")
        ((partition, _, sent),) = read_topic(stack, f"{DOMAIN}.in")
        running = reader.subscribe(DOMAIN)
        first = running.get(timeout=30)
        assert first.value() == {"text": "before"}

        # 1. An epoch that is open is not erased; once it has ended it is.
        # By its own end, and not by now: this machine may be slow.
        roots, law = open_roots(settings, stack.layout, trust), stack.load_policy()
        ends = roots.open(first.epoch, f".{DOMAIN}").epoch.not_after
        with pytest.raises(Refused, match="is open"):
            plan_erasure(settings, roots, law, DOMAIN, number=first.epoch, before=None, now_ms=ends)
        shutil.copytree(keys, tmp_path / "copy")
        told = json.loads(
            until(lambda: (done := erase(stack, "--epoch", str(first.epoch))).returncode == 0 and done).stdout
        )
        assert told["epochs"] == [f"{DOMAIN}/{first.epoch}"]
        assert len(told["destroyed"]) == 1
        # The key of the sender may be of the epoch before: all that ended, in one go.
        assert erase(stack, "--before", datetime.now(UTC).isoformat()).returncode == 0

        # 2. Both enforcers acknowledge, in the ledger; then it is erased.
        done = until(lambda: (each := erasures(stack)[first.epoch])["state"] == "erased" and each)
        assert done["waiting"] == []
        acknowledged = [each for each in hops(stack, "--code", "erased") if each["decision"] == "RETRY"]
        named = {
            e["facts"]["enforcer"] for e in acknowledged if f"{DOMAIN}/{first.epoch}" in e["facts"]["epochs"].split()
        }
        assert sorted(named) == ENFORCERS

        # 3. A record under an erased key is refused as such, also by an enforcer that never held the key.
        raw, digest = RawClient(stack), wait_for_hop(stack, sent)["origin_digest"]

        def refused() -> list[str]:
            return [each["decision"] for each in hops(stack, "--code", "erased") if each["origin_digest"] == digest]

        raw.produce(f"{DOMAIN}.in", sent, partition)
        assert until(refused) == ["DENY"]
        for name in ENFORCERS:
            stack.restart_service(name)
        raw.produce(f"{DOMAIN}.in", sent, partition)
        until(lambda: refused() == ["DENY", "DENY"])

        # 4. Readers go on with what follows: the running one, and one that begins with the erased record.
        publish(writer, "after")
        assert running.get(timeout=30).value() == {"text": "after"}
        refusals = []
        writer.on_refused(refusals.append)
        assert writer.subscribe(DOMAIN).get(timeout=30).value() == {"text": "after"}
        # The erased record may stand in another partition, and be read after what follows.
        until(lambda: [(each.domain, each.epoch) for each in refusals if isinstance(each, Erased)])
        erased = [each for each in refusals if isinstance(each, Erased)]
        assert [(each.domain, each.epoch) for each in erased] == [(DOMAIN, first.epoch)]

        # 5. A copy of its root file beside the tombstone, and one of roots and tombstones from before.
        name = f"{first.epoch}/.{DOMAIN}"
        assert not (stack.layout.roots / name).exists()
        (stack.layout.roots / name).parent.mkdir(exist_ok=True)
        shutil.copy(tmp_path / "copy" / "roots" / name, stack.layout.roots / name)
        with pytest.raises(Refused, match="is erased"):
            open_roots(settings, stack.layout, trust).open(first.epoch, f".{DOMAIN}")
        elsewhere = Layout(tmp_path / "elsewhere")
        shutil.copytree(tmp_path / "copy", elsewhere.state / "keys")
        for path in elsewhere.kek.parent.glob("kek*"):
            path.unlink()
        shutil.copy(stack.layout.kek, elsewhere.kek)
        restored = open_roots(dataclasses.replace(settings, state=elsewhere.state), elsewhere, trust)
        with pytest.raises(RetryLater, match=r"the wrapping key file:[0-9a-f]+ is not there"):
            restored.open(first.epoch, f".{DOMAIN}")
    assert verified(stack)["problems"] == []
