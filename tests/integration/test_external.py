"""A broker that someone else runs: used with what its operator gave, never started, stopped or cleaned."""

import dataclasses
import json
import shutil
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from bus.settings import Settings
from bus.stack.local import Stack, prepare
from bus.stack.pki import ensure_pki
from tests.integration.commands import bus
from tests.integration.conftest import POLICIES

pytestmark = pytest.mark.broker

ADMIN = "bus-admin"


@pytest.fixture(scope="module")
def operator(tmp_path_factory):
    """Whose broker it is: a broker without any policy, started from a folder of its own."""
    settings = dataclasses.replace(Settings(), state=tmp_path_factory.mktemp("operator") / "state", policies=POLICIES)
    local = Stack(prepare(settings))
    local.start_broker(local.load_policy(), lambda _: None)
    yield local
    local.down(lambda _: None, purge=True)


def given(home: Path, operator: Stack) -> Path:
    """A user's folder with policies and the two files that the operator hands out."""
    (home / "policies").symlink_to(POLICIES)
    state = home / ".sealbus"
    (state / "pki").mkdir(parents=True)
    (state / "services" / ADMIN).mkdir(parents=True)
    shutil.copy(operator.layout.ca, state / "pki" / "ca.pem")
    shutil.copy(operator.layout.service(ADMIN) / "scram", state / "services" / ADMIN / "scram")
    return home


def state_files(home: Path) -> set[str]:
    return {str(path.relative_to(home)) for path in (home / ".sealbus").rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def user(tmp_path_factory, operator):
    """A second folder whose stack runs on the operator's broker."""
    home = given(tmp_path_factory.mktemp("user"), operator)
    address = operator.settings.bootstrap
    told = bus(home, "stack", "up", "--json", BUS_BOOTSTRAP=address, BUS_SASL_MECHANISM="SCRAM-SHA-512")
    yield SimpleNamespace(home=home, told=told, address=address)
    bus(home, "stack", "down", "--purge", check=False)


def test_up_starts_the_services_and_no_broker(user, operator):
    assert json.loads(user.told.stdout)["bootstrap"] == user.address
    assert f"broker  {user.address} is external: used as bus-admin" in user.told.stderr
    rows = json.loads(bus(user.home, "stack", "status", "--json").stdout)["services"]
    assert [row["name"] for row in rows] == ["issuer", "bus-enforcer-1", "audit"]
    assert all(row["pid"] for row in rows)
    assert not (user.home / ".sealbus" / "kafka").exists()
    assert not (user.home / ".sealbus" / "run" / "broker.json").exists()


def test_a_record_is_enforced_and_audited_there_and_a_forbidden_one_refused(user):
    published = bus(user.home, "publish", "agent_memory", '{"text": "on your broker"}', "--as", "retriever-1")
    assert published.stdout.startswith("ALLOW")
    denied = bus(user.home, "publish", "agent_memory", '{"text": "no"}', "--as", "executor-1", check=False)
    assert denied.returncode in (1, 5)
    key = bus(user.home, "audit", "key").stdout.strip()
    report = json.loads(bus(user.home, "audit", "verify", "--key", key, "--json").stdout)
    assert report["problems"] == []
    assert report["leaves"] >= 1


def test_the_recorded_address_holds_for_later_commands_and_the_variable_only_overrides_it(user):
    assert "no changes" in bus(user.home, "policy", "plan").stdout
    away = json.loads(bus(user.home, "doctor", "--json", check=False, BUS_BOOTSTRAP=closed()).stdout)["checks"]
    assert "start the external broker" in next(each["mend"] for each in away if each["name"] == "tls")
    again = bus(user.home, "stack", "up")
    assert "is external" in again.stderr


def test_doctor_asks_for_no_java_and_names_the_operator_where_the_ca_is_wrong(user):
    checks = json.loads(bus(user.home, "doctor", "--json").stdout)["checks"]
    assert all(each["ok"] for each in checks), checks
    assert "external" in next(each["found"] for each in checks if each["name"] == "tools")
    ca = user.home / ".sealbus/pki/ca.pem"
    right = ca.read_bytes()
    ca.write_bytes(ensure_pki(user.home / "strange").read_bytes())
    try:
        broken = {
            each["name"]: each for each in json.loads(bus(user.home, "doctor", "--json", check=False).stdout)["checks"]
        }
    finally:
        ca.write_bytes(right)
    assert not broken["tls"]["ok"]
    assert "operator" in broken["tls"]["mend"]


def test_a_stack_on_an_external_broker_does_not_become_one_with_its_own(user):
    before = state_files(user.home)
    refused = bus(user.home, "stack", "up", check=False, BUS_BROKER="jars")
    assert refused.returncode == 1
    assert "is of a stack with an external broker" in refused.stderr
    assert state_files(user.home) == before


def test_a_stack_with_its_own_broker_does_not_become_one_on_an_external(operator):
    refused = bus(
        operator.layout.state.parent,
        "stack",
        "up",
        check=False,
        BUS_CONFIG=str(operator.layout.settings),
        BUS_BOOTSTRAP=closed(),
    )
    assert refused.returncode == 1
    assert "is of a stack with its own broker" in refused.stderr
    assert all(row.pid for row in operator.status() if row.name == "broker")


def closed() -> str:
    """An address where nobody listens."""
    with socket.socket() as each:
        each.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{each.getsockname()[1]}"


def no_ca(home: Path) -> None:
    (home / ".sealbus/pki/ca.pem").unlink()


def other_ca(home: Path) -> None:
    (home / ".sealbus/pki/ca.pem").write_bytes(ensure_pki(home / "strange").read_bytes())


def not_a_ca(home: Path) -> None:
    (home / ".sealbus/pki/ca.pem").write_text("hello")


def no_credential(home: Path) -> None:
    (home / ".sealbus/services/bus-admin/scram").unlink()


def open_credential(home: Path) -> None:
    (home / ".sealbus/services/bus-admin/scram").chmod(0o644)


def wrong_credential(home: Path) -> None:
    (home / ".sealbus/services/bus-admin/scram").write_text('{"username": "bus-admin", "password": "not this"}')


@pytest.mark.parametrize(
    ("breaks", "more", "code", "words", "hint"),
    [
        (no_ca, {}, 2, "external broker: no CA certificate: ", "operator"),
        (other_ca, {}, 1, "does not prove itself: ", "operator"),
        (not_a_ca, {}, 1, "does not prove itself: ", "ca.pem"),
        (no_credential, {}, 5, "external broker: no administrator's credential: ", '"username"'),
        (open_credential, {}, 5, "expected mode 0600, found 0644", "chmod 600"),
        (wrong_credential, {}, 5, "the broker refused the credential of bus-admin", "operator"),
        (lambda _: None, {"BUS_BOOTSTRAP": "closed"}, 4, "does not answer: ", "address"),
        (lambda _: None, {"BUS_BOOTSTRAP": "nothing"}, 2, "expected HOST:PORT, found 'nothing'", ""),
        (lambda _: None, {"BUS_BOOTSTRAP": "", "BUS_BROKER": "external"}, 2, "bootstrap: expected ", ""),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_is_missing_or_wrong_is_one_line_with_its_exit_code(tmp_path, operator, breaks, more, code, words, hint):
    home = given(tmp_path, operator)
    breaks(home)
    environ = {"BUS_BOOTSTRAP": operator.settings.bootstrap, **more}
    if environ["BUS_BOOTSTRAP"] == "closed":
        environ["BUS_BOOTSTRAP"] = closed()
    refused = bus(home, "stack", "up", check=False, **environ)
    assert refused.returncode == code, refused.stderr
    first, *rest = refused.stderr.splitlines()
    assert first.startswith("bus: error: ")
    assert words in first
    assert len(rest) <= 1
    assert hint in "".join(rest)
    assert refused.stdout == ""
    assert not list((home / ".sealbus").glob("run/*.json")), "nothing was started"


def test_a_port_cannot_be_asked_of_an_external_broker(tmp_path, operator):
    home = given(tmp_path, operator)
    refused = bus(home, "stack", "up", "--port", "9092", check=False, BUS_BOOTSTRAP=operator.settings.bootstrap)
    assert refused.returncode == 2
    assert "a port can be given to the stack's own broker only" in refused.stderr


def test_without_the_address_an_operators_ca_is_not_replaced_by_a_stack_of_its_own(tmp_path, operator):
    home = given(tmp_path, operator)
    right = (home / ".sealbus/pki/ca.pem").read_bytes()
    refused = bus(home, "stack", "up", check=False)
    assert refused.returncode == 1
    assert "BUS_BOOTSTRAP" in refused.stderr
    assert (home / ".sealbus/pki/ca.pem").read_bytes() == right


def test_down_leaves_the_broker_running_and_purge_the_operators_files(user, operator):
    done = bus(user.home, "stack", "down", "--purge")
    assert "left " in done.stderr
    assert "broker  stopped" not in done.stderr
    assert state_files(user.home) == {".sealbus/pki/ca.pem", ".sealbus/services/bus-admin/scram"}
    assert [row.name for row in operator.status() if row.pid] == ["broker"]
