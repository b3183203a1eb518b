"""How an agent stands: what `bus agent list` and `show` say, and whom `bus doctor` names for want of attestation."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from bus.authority.attested import Attestations, Attested
from bus.authority.ca import CERTIFICATE_MS
from bus.authority.database import Sqlite
from bus.authority.local import ensure_authority, now_ms
from bus.authority.register import Register
from bus.authority.standing import standings
from bus.errors import PolicyError, Refused
from bus.files import make_folder
from bus.settings import Issuing, Settings
from bus.stack.attested import attestation
from bus.stack.local import Stack
from bus.wire.measurement import EvidenceKind
from bus.wire.names import AgentId
from tests.unit.law_files import POLICIES
from tests.unit.ledger_build import DEPLOYMENT
from tests.unit.test_policy_measurements import CODE, TPM, law

ANA, WIM = AgentId("ana"), AgentId("wim")
NOON = 1_772_445_600_000
HOUR = 3_600_000


@pytest.fixture
def register(tmp_path) -> Register:
    return Register(Sqlite(tmp_path / "register.db"))


def enrolled(register: Register, agent: AgentId = ANA, now: int = NOON, serial: str = "5e") -> None:
    counter = register.enrol(register.invite(agent, now), b"request", now)[1]
    register.certified(agent, counter, serial, now + CERTIFICATE_MS)


def attested(register: Register, agent: AgentId = ANA, now: int = NOON, **changes) -> None:
    fields = {"serial": "5e", "kind": EvidenceKind.SOFTWARE, "measurement": CODE, "device": bytes(32)} | changes
    row = Attested(agent=agent, nonce=hashlib.sha256(b"%d" % now).digest(), since=now, until=now + 600_000, **fields)
    Attestations(register).put(row)


def lacks(register: Register, policy=None, now: int = NOON) -> dict[str, str]:
    return {each.name: each.lacks for each in standings(register, policy or law(CODE, CODE), now)}


def test_an_agent_lacks_attestation_until_it_attested_what_is_accepted(register):
    enrolled(register)
    assert lacks(register, law("", CODE)) == {ANA: "no measurement of it is accepted", WIM: "it never attested"}
    attested(register)
    assert lacks(register) == {ANA: "", WIM: "it never attested"}
    assert lacks(register, now=NOON + HOUR)[ANA] == "", "it ended: the agent may be at rest"
    assert lacks(register, law(TPM, CODE))[ANA] == f"{CODE}, which it attested last, is not accepted"


def test_a_result_is_in_force_for_the_certificate_in_force_until_it_ends(register):
    enrolled(register)
    attested(register)

    def in_force(now: int) -> bool:
        return next(each.in_force for each in standings(register, law(CODE), now) if each.name == ANA)

    assert [in_force(NOON), in_force(NOON + 600_000)] == [True, False]
    enrolled(register, serial="5f")
    assert not in_force(NOON)


def test_who_is_not_in_the_policy_and_who_never_enrolled_are_told_too(register):
    enrolled(register, AgentId("gone-1"))
    found = {each.name: each for each in standings(register, law(CODE), NOON + HOUR)}
    assert sorted(found) == ["ana", "gone-1", "wim"]
    assert (found["gone-1"].law, found["gone-1"].certificate_ms, found["ana"].certificate_ms) == (None, HOUR, 0)
    assert [each.name for each in standings(register, None, NOON)] == ["gone-1"]


# On a state folder.
@dataclass
class Here:
    """A stack's state folder without a stack: trust and register."""

    stack: Stack
    register: Register


@pytest.fixture
def here(tmp_path, monkeypatch) -> Here:
    folder = tmp_path / "law"
    shutil.copytree(POLICIES, folder)
    text, wanted = (folder / "mesh.yaml").read_text(), 'allowed_roles: ["RETRIEVER", "ORCHESTRATOR"]\n'
    assert wanted in text
    (folder / "mesh.yaml").write_text(text.replace(wanted, wanted + "      attestation_required: true\n"))
    settings = Settings(
        deployment=DEPLOYMENT.hex(), state=tmp_path / "state", policies=folder, issuing=Issuing.AUTHORITY
    )
    stack = Stack(settings)
    ensure_authority(stack.layout, DEPLOYMENT)
    home = make_folder(settings.state / "authority")
    for key in ("deployment", "state", "policies", "issuing"):
        monkeypatch.setenv(f"BUS_{key.upper()}", str(getattr(settings, key)))
    return Here(stack, Register(Sqlite(home / "register.db")))


def accept(here: Here) -> None:
    path = here.stack.settings.policies / "agents.yaml"
    text = path.read_text()
    for name in ("retriever-1", "orchestrator-1"):
        role = name.split("-")[0].upper()
        before = f"{name}: {{role: {role}}}"
        assert before in text, text
        text = text.replace(before, f"{name}: {{role: {role}, measurements: ['{CODE}']}}")
    path.write_text(text)


def test_doctor_names_the_agent_that_lacks_it_and_one_line_that_mends_it(here):
    with pytest.raises(Refused, match="orchestrator-1 needs attestation for agent_memory: no measurement") as error:
        attestation(here.stack)
    assert "agents.yaml: orchestrator-1: {measurements" in error.value.hint
    accept(here)
    with pytest.raises(Refused, match="orchestrator-1 needs attestation for agent_memory: it never") as error:
        attestation(here.stack)
    assert "set attester in bus.toml where orchestrator-1 runs" in error.value.hint
    now = now_ms()
    for name in ("orchestrator-1", "retriever-1"):
        enrolled(here.register, AgentId(name), now, name)
        attested(here.register, AgentId(name), now, serial=name)
    assert attestation(here.stack) == (
        "2 agents need it, 2 have a result in force; "
        "nobody has keys of pii_inference, which requires it: no measurement is accepted"
    )


def test_doctor_names_who_lacks_it_of_a_published_domain_once_anybody_there_is_accepted(here):
    path = here.stack.settings.policies / "agents.yaml"
    path.write_text(path.read_text().replace("{role: EXECUTOR}", f"{{role: EXECUTOR, measurements: ['{CODE}']}}"))
    accept(here)
    now = now_ms()
    for name in ("orchestrator-1", "retriever-1"):
        enrolled(here.register, AgentId(name), now, name)
        attested(here.register, AgentId(name), now, serial=name)
    with pytest.raises(Refused, match="analyst-1 needs attestation for pii_inference: no measurement"):
        attestation(here.stack)


def bundled(folder: Path, *changes: tuple[str, str], issuing: Issuing = Issuing.FILES) -> Stack:
    """A stack of the bundled law with ``changes`` in mesh.yaml, as far as the check looks at one."""
    shutil.copytree(POLICIES, folder / "law")
    path = folder / "law" / "mesh.yaml"
    for before, after in changes:
        text = path.read_text()
        assert before in text
        path.write_text(text.replace(before, after))
    make_folder(folder / "state" / "authority")
    return Stack(
        Settings(deployment=DEPLOYMENT.hex(), state=folder / "state", policies=folder / "law", issuing=issuing)
    )


REQUIRED = "      attestation_required: true\n"
COMPUTES = '      tier: "COMPUTATION"\n'


@pytest.mark.parametrize("issuing", list(Issuing))
def test_doctor_has_nothing_to_say_of_a_policy_that_requires_none(tmp_path, issuing):
    assert attestation(bundled(tmp_path, (REQUIRED, ""), issuing=issuing)) == "no domain requires it"


@pytest.mark.parametrize(
    ("issuing", "why"),
    [
        (Issuing.FILES, 'keys are written into files (issuing = "authority" in bus.toml)'),
        (Issuing.AUTHORITY, "no measurement is accepted"),
    ],
)
def test_doctor_tells_of_a_published_domain_whose_keys_nobody_can_have_yet(tmp_path, issuing, why):
    found = attestation(bundled(tmp_path, issuing=issuing))
    assert found == f"nobody has keys of pii_inference, which requires it: {why}"


def test_doctor_refuses_a_domain_that_was_told_to_protect_at_its_source(tmp_path):
    told = (COMPUTES, f"{COMPUTES}      protect_at: source\n")
    with pytest.raises(PolicyError, match='pii_inference: expected issuing = "authority"'):
        attestation(bundled(tmp_path / "files", told))
    with pytest.raises(Refused, match="analyst-1 needs attestation for pii_inference: no measurement"):
        attestation(bundled(tmp_path / "served", told, issuing=Issuing.AUTHORITY))


def test_show_and_list_say_how_an_agent_stands(here, run):
    now = now_ms()
    enrolled(here.register, AgentId("retriever-1"), now - HOUR)
    attested(here.register, AgentId("retriever-1"), now - HOUR)
    told = json.loads(run("agent", "show", "retriever-1", "--json").out)
    assert (told["format"], told["enrolled"]["serial"], told["enrolled"]["state"]) == ("bus.agent/1", "5e", "active")
    assert told["certificate_age"] in range(3600, 3700)
    last = told["attestation"]
    assert (last["kind"], last["measurement"], last["in_force"]) == ("software", CODE, False)
    assert last["age"] in range(3600, 3700)
    shown = run("agent", "show", "retriever-1")
    assert (shown.code, "attested by software 60 min ago, which ended" in shown.out) == (0, True)
    (row,) = json.loads(run("agent", "list", "--json").out)["agents"]
    assert (row["name"], row["attestation"]["measurement"]) == ("retriever-1", CODE)
    assert "active   retriever-1" in run("agent", "list").out
    here.register.revoke(AgentId("retriever-1"), "it [left]")
    assert "revoked: it [left]" in run("agent", "show", "retriever-1").out
    nobody = run("agent", "show", "nobody-1")
    assert (nobody.code, "never enrolled" in nobody.err) == (1, True)


def test_measure_prints_what_agents_yaml_takes(here, run):
    told = json.loads(run("agent", "measure", "--json").out)
    assert told["software"].startswith("software:sha256:")
    digest = bytes.fromhex(told["software"].split(":")[2])
    assert told["tpm"] == f"tpm:pcr14:{hashlib.sha256(bytes(32) + digest).hexdigest()}"
    assert run("agent", "measure").out.split() == [told["software"], told["tpm"]]


def test_who_has_no_attester_cannot_enrol_by_one(here, run):
    make_folder(here.stack.layout.ca.parent)
    here.stack.layout.ca.write_bytes(b"")
    ran = run("agent", "join", "retriever-1", "--attest")
    assert (ran.code, "attester: expected one to enrol by" in ran.err) == (2, True)
