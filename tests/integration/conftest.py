"""One real broker for the whole run, with bundled policies, issuer, two enforcers and audit, in its own folder."""

import dataclasses
import os
from pathlib import Path

import pytest

from bus.settings import Mechanism, Settings
from bus.stack.local import Stack, prepare
from demo.raw import RawClient

POLICIES = Path(__file__).resolve().parents[2] / "policies"


def start_stack(state: Path, *, services: bool = True, **changes) -> Stack:
    """A stack in ``state``; keyword arguments are settings.

    Agents have passwords unless told: with tokens each of their clients takes a second more to open
    (docs/identity.md), and these tests open hundreds. What tokens do is test_credentials' and `make rotation`'s.
    """
    given = {"state": state, "policies": POLICIES, "sasl_mechanism": Mechanism.SCRAM, **changes}
    settings = dataclasses.replace(Settings(), **given)
    local = Stack(prepare(settings))
    local.up(lambda _: None, services=services)
    return local


@pytest.fixture(scope="session")
def stack(tmp_path_factory):
    """The shared stack. Tests that stop or change things make their own."""
    local = start_stack(tmp_path_factory.mktemp("stack") / "state", enforcers=2)
    os.environ["BUS_CONFIG"] = str(local.layout.settings)
    yield local
    os.environ.pop("BUS_CONFIG", None)
    local.down(lambda _: None, purge=True)


@pytest.fixture
def own_stack(tmp_path):
    """A factory of stacks that this test alone uses."""
    made = []

    def make(**changes) -> Stack:
        local = start_stack(tmp_path / f"state{len(made)}", **changes)
        made.append(local)
        return local

    yield make
    for local in made:
        local.down(lambda _: None, purge=True)


@pytest.fixture
def raw(stack):
    """A raw client past the SDK, with the administrator's credential."""
    return RawClient(stack)
