"""docs/policy.md is true: its reference is what the models say, its commands print what it shows, its snippets hold."""

from __future__ import annotations

import copy
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from bus.policy.casefile import CASES_FILE
from bus.policy.decide import RULES
from bus.policy.masking import KEPT, NEVER_KEPT
from bus.policy.yamldoc import parse, read
from tests.unit.law_files import POLICIES
from tools import policy_reference

ROOT = POLICIES.parent
PAGE = (ROOT / "docs" / "policy.md").read_text()
BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```", re.M | re.S)
FILES = ("mesh.yaml", "agents.yaml", "cases.yaml")


@dataclass
class Section:
    """A heading's files and its commands, each with its exit code and what it prints."""

    files: dict[str, str] = field(default_factory=dict)
    commands: list[tuple[str, int, str]] = field(default_factory=list)


def sections() -> dict[str, Section]:
    found = {}
    for part in re.split(r"^##+ ", PAGE.partition(policy_reference.BEGIN)[0], flags=re.M)[1:]:
        section = found[part.partition("\n")[0]] = Section()
        for language, title, text in BLOCK.findall(part):
            if title:
                assert title not in section.files
                section.files[title] = text
            elif language == "console":
                for each in re.split(r"^\$ ", text, flags=re.M)[1:]:
                    command, _, printed = each.partition("\n")
                    command, _, code = command.partition("  # exit ")
                    section.commands.append((command, int(code or 0), printed))
    return found


SECTIONS = sections()
COMMANDS = [each for section in SECTIONS.values() for each in section.commands]


def test_the_reference_is_what_the_models_say_now():
    assert policy_reference.page(PAGE) == PAGE, "run `python -m tools.policy_reference`"
    assert len(policy_reference.reference()) > 5000


def test_every_command_of_bus_policy_that_needs_no_broker_is_shown():
    assert {command.split()[2] for command, _, _ in COMMANDS} == {"check", "explain", "graph", "test", "who"}
    assert len(COMMANDS) == len(re.findall(r"^\$ ", PAGE, re.M))


@pytest.mark.parametrize(("command", "code", "printed"), COMMANDS, ids=[command for command, _, _ in COMMANDS])
def test_a_command_prints_what_the_page_shows(run, command, code, printed):
    """An ellipsis stands for what differs from build to build, one on a line of its own for lines."""
    Path("policies").symlink_to(POLICIES)
    name, *arguments = shlex.split(command)
    assert name == "bus"
    ran = run(*arguments)
    assert ran.code == code
    assert all(line.startswith("bus: warning: ") for line in ran.err.splitlines())
    lines = [re.escape(line).replace("…", ".+") + "\n" if line != "…" else "(?:.*\n)+" for line in printed.splitlines()]
    assert re.fullmatch("".join(lines), ran.out)


def merged(base: Any, change: Any) -> Any:
    """``base`` with ``change`` in it: mappings by key, lists of named things by name."""
    if isinstance(base, dict) and isinstance(change, dict):
        return {**base, **{key: merged(base.get(key), value) for key, value in change.items()}}
    if isinstance(base, list) and change and isinstance(change[0], dict):
        changes = {each["name"]: each for each in change}
        assert set(changes) <= {each["name"] for each in base}
        return [merged(each, changes.get(each["name"], {})) for each in base]
    return copy.deepcopy(change)


HOW_TO = {title: section for title, section in SECTIONS.items() if CASES_FILE in section.files}


def test_each_part_of_the_language_has_a_snippet():
    assert [title.split()[-1] for title in HOW_TO] == ["document", "apart", "flow", "others", "guardrails"]
    assert all(set(section.files) <= set(FILES) for section in SECTIONS.values())


@pytest.mark.parametrize("title", HOW_TO)
def test_a_how_to_on_top_of_the_bundled_policy_holds_and_not_without(run, tmp_path, title):
    files = HOW_TO[title].files
    for name in ("mesh.yaml", "agents.yaml"):
        value = read(POLICIES / name).value
        if name in files:
            value = merged(value, parse(files[name].encode(), name).value)
        (tmp_path / name).write_text(yaml.safe_dump(value))
    (tmp_path / CASES_FILE).write_text(files[CASES_FILE])
    ran = run("policy", "test", tmp_path)
    assert (ran.code, ran.err) == (0, "")
    assert " 0 failed" in ran.out
    for name in ("mesh.yaml", "agents.yaml"):
        (tmp_path / name).write_bytes((POLICIES / name).read_bytes())
    assert run("policy", "test", tmp_path).code == 1


def test_what_the_page_counts_up_is_what_the_code_has():
    """Lists that stand in the text by hand."""
    order = PAGE.partition("## Order of rules")[2].partition("## Obligations")[0]
    assert (
        len(re.findall(r"^\d+\. ", order, re.M)) == len(RULES) + 3
    )  # who and what exists before; guardrails and rates behind
    masked = next(line for line in PAGE.splitlines() if line.startswith("| `masked` |"))
    assert set(re.findall(r"`(\w+)`", masked)) == {"masked", "keep"} | KEPT | NEVER_KEPT
