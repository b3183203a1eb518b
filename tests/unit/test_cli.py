"""The command: help everywhere, documented exit codes, errors on stderr with their hint, JSON that is JSON.

Runs in this process but for one test; nothing here reaches a broker.
"""

from __future__ import annotations

import errno
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import pytest

import bus
from bus import settings as settings_module
from bus.cli import audit
from bus.cli.main import cli
from bus.cli.output import exit_code
from bus.codes import Code
from bus.crypto.signing import Signer
from bus.errors import (
    AccessRefused,
    BusError,
    CircuitOpen,
    Denied,
    PolicyError,
    Refused,
    RetryLater,
    SettingsError,
    StackError,
    Throttled,
    TooLarge,
    Unavailable,
    Unverified,
    WireError,
)
from bus.files import Layout
from bus.ledger.query import LedgerQuery
from bus.ledger.store import Ledger
from tests.unit.ledger_build import (
    DEPLOYMENT,
    LEDGER_SIGNER,
    STRANGER,
    keys_of,
    make_authority,
    make_block,
    make_hop,
    make_ledger,
    name_of,
    record,
)
from tests.unit.running import Ran, Run

POLICIES = Path(__file__).parents[2] / "policies"
KEY = LEDGER_SIGNER.public_key.hex()


def commands(group: click.Group = cli, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every command and group, by its words."""
    told, context = [path], click.Context(group)
    for name in group.list_commands(context):
        each = group.get_command(context, name)
        told += commands(each, (*path, name)) if isinstance(each, click.Group) else [(*path, name)]
    return told


@pytest.mark.parametrize("words", commands(), ids=" ".join)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_every_command_has_help(run, words, option):
    ran = run(*words, option)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"Usage: {' '.join(('bus', *words))}")


def test_the_groups_are_those_that_the_documentation_names():
    groups = {words[0] for words in commands() if words}
    services = {"bench", "demo", "doctor", "probe", "run", "stack"}
    assert groups == services | {"agent", "audit", "fhe", "keys", "map", "mpc", "policy", "publish", "secrets", "tail"}
    of_policy = {words[1] for words in commands() if len(words) == 2 and words[0] == "policy"}
    asked = {"check", "test", "explain", "who", "graph", "replay"}
    assert of_policy == asked | {"plan", "apply", "history", "rollback"}


def test_options_of_a_probe_do_not_get_lost_before_the_attacks(run):
    ran = run("probe", "--json", "attacks")
    assert (ran.code, ran.out) == (2, "")
    assert "options of attacks stand behind its name" in ran.err


def test_the_version_is_the_packages(run):
    ran = run("--version")
    assert (ran.code, ran.out) == (0, f"bus, version {bus.__version__}\n")


@pytest.mark.parametrize(
    "arguments", [("nothing",), ("--nothing",), ("run",), ("run", "x"), ("audit", "verify"), ("tail", "d")]
)
def test_wrong_usage_ends_with_2_and_says_nothing_on_stdout(run, arguments):
    ran = run(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert "Usage: bus" in ran.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Refused("m"), 1),
        (Denied("m", rule="r"), 1),
        (Unverified("m", step="s"), 1),
        (WireError("m"), 1),
        (TooLarge("m", limit=1), 1),
        (StackError("m"), 1),
        (PolicyError("m"), 1),
        (PolicyError("m", parsed=False), 2),
        (SettingsError("m"), 2),
        (RetryLater("m"), 4),
        (Unavailable("m"), 4),
        (Throttled("m", rule="r", after=1), 4),
        (CircuitOpen("m", rule="r", after=1), 4),
        (AccessRefused("m", principal="p", operation="o", resource="r"), 5),
        (AccessRefused("m", principal="p", operation="o", resource="r", code=Code.CREDENTIAL), 5),
        (Refused("m", code=Code.CREDENTIAL), 5),
        (BusError("m"), 1),
    ],
)
def test_each_kind_of_error_has_its_exit_code(run, monkeypatch, error, code):
    def raising() -> None:
        raise error

    assert exit_code(error) == code
    monkeypatch.setattr(settings_module, "load", raising)
    ran = run("policy", "check")
    assert (ran.code, ran.out, ran.err) == (code, "", "bus: error: m\n")


def test_an_error_is_told_with_its_notes_and_its_hint_as_plain_text(run, monkeypatch):
    error = Refused("first [bold]not markup[/]", hint="do [this]")
    error.add_note("second [/]")

    def raising() -> None:
        raise error

    monkeypatch.setattr(settings_module, "load", raising)
    ran = run("policy", "check")
    assert ran.err == "bus: error: first [bold]not markup[/]\nbus: error: second [/]\nbus: hint: do [this]\n"


@pytest.mark.parametrize(
    ("raised", "code", "told"),
    [
        (ZeroDivisionError("x [/] y"), 70, "bus: bug: ZeroDivisionError: x [/] y\n"),
        (KeyboardInterrupt(), 130, None),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 0, ""),
    ],
    ids=lambda each: type(each).__name__,
)
def test_a_bug_an_interrupt_and_a_closed_pipe_have_their_own_exit_codes(run, monkeypatch, raised, code, told):
    def raising() -> None:
        raise raised

    monkeypatch.setattr(settings_module, "load", raising)
    ran = run("policy", "check")
    assert (ran.code, ran.out) == (code, "")
    assert told is None or ran.err == told


def test_an_unknown_setting_is_told_on_stderr_with_the_nearest_one(run):
    ran = run("policy", "check", POLICIES, BUS_ENFORCER="2")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "bus: error: BUS_ENFORCER: unknown setting\nbus: hint: did you mean enforcers?\n"


def test_a_good_policy_is_told_as_such(run):
    ran = run("policy", "check", POLICIES)
    assert ran.code == 0
    assert [line.partition(": mesh.yaml:")[0] for line in ran.err.splitlines()] == ["bus: warning"] * 2
    assert ran.out.startswith("ok: 4 domains, 4 agents, digest ")
    told = run("policy", "check", POLICIES, "--json").document()
    assert told["format"] == "bus.policy-check/1"
    assert told["agents"] == ["analyst-1", "executor-1", "orchestrator-1", "retriever-1"]
    assert str(told["digest"]).startswith(ran.out.split()[-1])
    assert [f"bus: warning: {each}" for each in told["warnings"]] == ran.err.splitlines()


def broken(folder: Path, change: Callable[[str], str]) -> Path:
    """The example policy with a changed mesh.yaml."""
    folder.mkdir()
    (folder / "agents.yaml").write_text((POLICIES / "agents.yaml").read_text())
    text = (POLICIES / "mesh.yaml").read_text()
    assert change(text) != text
    (folder / "mesh.yaml").write_text(change(text))
    return folder


def place_of(folder: Path, word: str) -> str:
    """``mesh.yaml:line:column`` of the first ``word``."""
    lines = (folder / "mesh.yaml").read_text().splitlines()
    line, text = next((number, text) for number, text in enumerate(lines, 1) if word in text)
    return f"mesh.yaml:{line}:{text.index(word) + 1}"


def test_a_policy_that_is_refused_ends_with_1_and_names_file_line_and_column(run, tmp_path):
    folder = broken(tmp_path / "law", lambda text: text.replace('"RETRIEVAL"', '"RETRIVAL"', 1))
    ran = run("policy", "check", folder)
    assert (ran.code, ran.out) == (1, "")
    first, hint = ran.err.splitlines()
    assert first.startswith(f"bus: error: {place_of(folder, chr(34) + 'RETRIVAL')}: tier: expected ")
    assert hint == "bus: hint: did you mean RETRIEVAL?"


def test_every_refusal_of_a_policy_is_told(run, tmp_path):
    folder = broken(
        tmp_path / "law", lambda text: text.replace("metadata_masking: true", "metadata_masking: yes please")
    )
    ran = run("policy", "check", folder)
    assert ran.code == 1
    assert len([line for line in ran.err.splitlines() if line.startswith("bus: error: mesh.yaml:")]) == 3


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("alerts.yaml", "alerts:\n  - {name: a, when: new_flow, lern: 7d}\n", "alerts.yaml:2:31: unknown key 'lern'"),
        ("holds.yaml", "holds:\n  - {name: a, reason: b, domian: c}\n", "holds.yaml:2:26: unknown key 'domian'"),
    ],
)
def test_files_beside_the_policy_are_checked_with_it(run, tmp_path, name, text, told):
    folder = broken(tmp_path / "law", lambda text: text + "\n")
    assert run("policy", "check", folder).code == 0
    (folder / name).write_text(text)
    ran = run("policy", "check", folder)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"bus: error: {told}")


@pytest.mark.parametrize(
    "change", [lambda t: t + "  - [", lambda t: "a: &x 1\n" + t, lambda t: "\t" + t, lambda t: "{" + t]
)
def test_a_policy_that_cannot_be_parsed_ends_with_2_and_names_its_place(run, tmp_path, change):
    ran = run("policy", "check", broken(tmp_path / "law", change))
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("bus: error: mesh.yaml:")


def test_a_policy_that_is_not_there_ends_with_2(run, tmp_path):
    for arguments in ((), (tmp_path / "absent",)):
        ran = run("policy", "check", *arguments)
        assert (ran.code, ran.out) == (2, "")
        assert "mesh.yaml: cannot be read: No such file or directory" in ran.err


def test_a_payload_that_is_no_json_is_wrong_usage(run):
    ran = run("publish", "agent_memory", "{text: hello}", "--as", "retriever-1")
    assert (ran.code, ran.out) == (2, "")
    assert "bus: error: PAYLOAD: expected JSON" in ran.err
    assert "bus: hint: " in ran.err


@pytest.mark.parametrize(
    "words",
    [
        ("audit", "key"),
        ("audit", "search"),
        ("audit", "trace", "x"),
        ("audit", "prove", "x"),
        ("audit", "verify", "--key", KEY),
        ("policy", "plan", str(POLICIES)),
        ("publish", "agent_memory", "{}", "--as", "retriever-1"),
        ("tail", "agent_memory", "--as", "retriever-1"),
    ],
    ids=" ".join,
)
def test_without_a_deployment_the_user_is_told_so_and_not_of_a_bug(run, words):
    ran = run(*words)
    assert ran.code in (1, 2, 5)
    assert ran.out == ""
    assert ran.err.startswith("bus: error: ")
    assert "bus: hint: " in ran.err


def test_the_state_of_a_stack_that_was_never_started(run):
    ran = run("stack", "status")
    assert (ran.code, ran.err) == (1, "")
    assert ran.out.split() == ["broker", "down", "issuer", "down", "bus-enforcer-1", "down", "audit", "down"]
    told = run("stack", "status", "--json").document()
    assert [each["pid"] for each in told["services"]] == [None] * 4
    assert run("stack", "down").code == 0
    purged = run("stack", "down", "--purge")
    assert (purged.code, purged.out) == (1, "")
    unknown = run("stack", "logs", "x")
    assert (unknown.code, unknown.err.splitlines()[1]) == (
        1,
        "bus: hint: one of broker, issuer, bus-enforcer-1, audit",
    )


@pytest.fixture
def deployed(run, tmp_path) -> Run:
    """`bus` in a deployment with a ledger of twelve hops, signed by LEDGER_SIGNER."""
    authority = make_authority(tmp_path)
    ledger = make_ledger(authority.layout.ledger)
    ledger.close()
    config = tmp_path / "bus.toml"
    config.write_text(f'deployment = "{DEPLOYMENT.hex()}"\nstate = "state"\n')

    def with_config(*arguments: str | Path) -> Ran:
        return run(*arguments, BUS_CONFIG=str(config))

    return with_config


@pytest.fixture
def reading(deployed, monkeypatch) -> Run:
    """The same with the days' keys of the test's ledger in the place of the authority's."""

    def open_query(settings) -> LedgerQuery:
        return LedgerQuery(Ledger(Layout(settings.state).ledger, settings.deployment_id, read_only=True), keys_of)

    monkeypatch.setattr("bus.cli.audit.open_query", open_query)
    return deployed


def test_the_ledgers_key_is_printed_as_hex(deployed, tmp_path):
    ran = deployed("audit", "key")
    seed = Layout(tmp_path / "state").signer("ledger").read_bytes()
    assert (ran.code, ran.out) == (0, Signer(seed).public_key.hex() + "\n")


def test_a_whole_ledger_is_verified_with_a_key_from_outside(deployed, tmp_path):
    ran = deployed("audit", "verify", "--key", KEY)
    assert (ran.code, ran.out) == (0, "12 hops, 4 checkpoints, 4 intervals: all hold\n")
    file = tmp_path / "key"
    file.write_text(KEY + "\n")
    told = deployed("audit", "verify", "--key", file, "--json")
    assert (told.code, told.document()) == (
        0,
        {
            "format": "bus.audit-verify/1",
            "leaves": 12,
            "checkpoints": 4,
            "intervals": 4,
            "payloads": 0,
            "lost": 0,
            "retired": 0,
            "sizes": {"1": 12},
            "problems": [],
            "witnessed": {},
        },
    )


def test_a_copy_of_a_ledger_needs_no_settings(run, tmp_path):
    path = tmp_path / "copy.db"
    make_ledger(path).close()
    ran = run("audit", "verify", "--key", KEY, "--ledger", path, "--deployment", DEPLOYMENT.hex())
    assert (ran.code, ran.out) == (0, "12 hops, 4 checkpoints, 4 intervals: all hold\n")


def test_a_ledger_that_does_not_hold_ends_with_1(deployed, tmp_path):
    ran = deployed("audit", "verify", "--key", STRANGER.public_key.hex())
    assert ran.code == 1
    assert "leaves 0 to 11 are not signed" in ran.out
    ledger = Ledger(Layout(tmp_path / "state").ledger, DEPLOYMENT)
    record(ledger, [make_block([make_hop(12)], 12, 13)])
    ledger.close()
    told = deployed("audit", "verify", "--key", KEY, "--json")
    assert (told.code, told.document()["problems"]) == (1, ["partition 1: leaves 12 to 12 are not signed"])


def test_hops_are_searched_and_printed_as_lines_of_json(reading):
    ran = reading("audit", "search", "--agent", "writer-1", "--json")
    hops = [json.loads(line) for line in ran.out.splitlines()]
    assert ran.code == 0
    assert [hop["decision_id"] for hop in hops] == [name_of(number) for number in range(12)]
    assert {(hop["format"], hop["agent"], hop["decision"]) for hop in hops} == {("bus.hop/1", "writer-1", "ALLOW")}
    assert len(reading("audit", "search", "--limit", "5").out.splitlines()) == 5
    assert len(reading("audit", "trace", name_of(4)).out.splitlines()) == 3
    assert len(reading("audit", "trace", name_of(4), "--as", "list").out.splitlines()) == 3
    assert reading("audit", "trace", name_of(4), "--as", "mermaid").out.startswith("flowchart TD\n")
    kind = hops[0]["kind"]
    assert len(reading("audit", "search", "--kind", kind).out.splitlines()) >= 12
    for narrow in (("--kind", "NO_KIND"), ("--rule", "no-rule"), ("--since", "1ms")):
        assert reading("audit", "search", *narrow).code == 1
    assert len(reading("audit", "search", "--kind", kind, "--limit", "2").out.splitlines()) == 2
    wrong = reading("audit", "search", "--since", "yesterday")
    assert (wrong.code, "--since: expected a duration" in wrong.err) == (2, True)
    nothing = reading("audit", "search", "--agent", "nobody")
    assert (nothing.code, nothing.out) == (1, "")
    unknown = reading("audit", "trace", "x")
    assert (unknown.code, unknown.out) == (1, "")


@pytest.mark.parametrize("terms", [("--agent", "writer-1"), ()])
def test_a_search_says_which_days_it_passed_over(deployed, monkeypatch, terms):
    def gone(_: int):
        raise FileNotFoundError

    def open_query(settings) -> LedgerQuery:
        ledger = Ledger(Layout(settings.state).ledger, settings.deployment_id, read_only=True)
        return LedgerQuery(ledger, gone, audit.passed_over)

    monkeypatch.setattr("bus.cli.audit.open_query", open_query)
    told = "bus: warning: the hops of 2025-07-31 were not searched: the keys of that day are gone\n"
    assert deployed("audit", "search", *terms) == Ran(1, "", told)


def test_a_proof_is_made_and_verified_without_a_database(reading, run, tmp_path):
    file = tmp_path / "proof.json"
    assert reading("audit", "prove", name_of(5), "-o", file) == Ran(0, "", "")
    assert reading("audit", "prove", name_of(5)).out == file.read_text()
    ran = run("audit", "verify", "--key", KEY, "--proof", file)
    assert (ran.code, ran.out) == (
        0,
        f"proven: decision {name_of(5)}: ALLOW notes.produce of writer-1, under 12 leaves\n",
    )
    told = run("audit", "verify", "--key", KEY, "--proof", file, "--json").document()
    assert (told["proven"], told["size"], told["hop"]["agent"]) == (True, 12, "writer-1")
    assert run("audit", "verify", "--key", STRANGER.public_key.hex(), "--proof", file).code == 1
    file.write_text(file.read_text().replace('"leaf": 5', '"leaf": 4'))
    changed = run("audit", "verify", "--key", KEY, "--proof", file)
    assert (changed.code, changed.out) == (1, "")
    assert changed.err == "bus: error: inclusion: leaf 4 does not match the root\n"


@pytest.mark.parametrize("key", ["", "00", "zz" * 32, KEY[:-2], KEY + "00", "x" * 300])
def test_a_public_key_that_is_none_is_wrong_usage(run, key):
    ran = run("audit", "verify", "--key", key)
    assert (ran.code, ran.out) == (2, "")
    assert "--key: expected 64 hex digits" in ran.err


@pytest.mark.parametrize(
    ("data", "option"),
    [(b"\xff\xfe", "--proof"), (b"{}", "--proof"), (b"", "--proof"), (b"\xff\xfe", "--ledger"), (b"", "--ledger")],
)
def test_a_file_that_is_no_proof_or_ledger_is_refused_and_not_told_as_a_bug(run, tmp_path, data, option):
    file = tmp_path / "file"
    file.write_bytes(data)
    ran = run("audit", "verify", "--key", KEY, "--deployment", DEPLOYMENT.hex(), option, file)
    assert ran.code in (1, 2)
    assert ran.out == ""
    assert ran.err.startswith("bus: error: ")


@pytest.mark.parametrize("deployment", ["zz", "00", DEPLOYMENT.hex() + "0"])
def test_a_deployment_id_that_is_none_is_refused_and_not_told_as_a_bug(run, tmp_path, deployment):
    path = tmp_path / "copy.db"
    make_ledger(path).close()
    ran = run("audit", "verify", "--key", KEY, "--ledger", path, "--deployment", deployment)
    assert ran.code in (1, 2)
    assert ran.err.startswith("bus: error: ")


def test_a_public_key_file_that_is_not_text_is_wrong_usage(run, tmp_path):
    file = tmp_path / "key"
    file.write_bytes(b"\xff" * 32)
    ran = run("audit", "verify", "--key", file)
    assert ran.code == 2
    assert "--key: expected 64 hex digits" in ran.err


def test_the_public_names_are_sorted_and_can_be_imported():
    assert bus.__all__ == sorted(bus.__all__)
    for name in bus.__all__:
        assert getattr(bus, name).__name__ == name
        assert getattr(bus, name) is getattr(importlib.import_module(getattr(bus, name).__module__), name)
    with pytest.raises(AttributeError, match="nothing"):
        _ = bus.nothing


def python(code: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BUS_")}
    command: Sequence[str] = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=clean | environ, capture_output=True, text=True, check=False, timeout=60)


def test_the_wire_format_needs_no_kafka_client():
    code = "import sys, bus.wire.derived, bus.crypto.signing; sys.exit('confluent_kafka' in sys.modules)"
    assert python(code).returncode == 0


def test_the_installed_command_is_the_same_entry_point():
    ran = python("from bus.cli.main import main; main()", "policy", "check", str(POLICIES), BUS_NOTHING="1")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("bus: error: BUS_NOTHING: unknown setting")
