"""What tests of `bus policy test | explain | who | graph` share: the example policy, changed copies, cases as text."""

from __future__ import annotations

import shutil
from pathlib import Path

from bus.policy.casechecks import check_cases
from bus.policy.casefile import CasesFile
from bus.policy.cases import Result, run_cases
from bus.policy.loader import load_policy, raise_first, validate
from bus.policy.model import Policy
from bus.policy.yamldoc import Document, parse

POLICIES = Path(__file__).parents[2] / "policies"
EXAMPLE = POLICIES / "example"
LAW = load_policy(EXAMPLE)
HEAD = """\
agents:
  ret: {role: RETRIEVER, tenant: hr, zone: us}
  exe: {role: EXECUTOR, tenant: hr, zone: us}
  orc: {role: ORCHESTRATOR, tenant: hr, zone: us}
base: {who: exe, tenant: hr, purpose: care, time: "2026-03-02T10:00:00Z", load: 0.2, labels: []}
"""
FIRST = HEAD.count("\n") + 2
"""Line of the first entry of the list that follows HEAD."""


def changed(folder: Path, *changes: tuple[str, str], file: str = "mesh.yaml") -> Path:
    """A copy of the example in ``folder`` whose ``file`` has the first of each ``old`` made ``new``."""
    if not folder.exists():
        shutil.copytree(EXAMPLE, folder)
    text = (folder / file).read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    (folder / file).write_text(text)
    return folder


def with_cases(folder: Path, text: str) -> Path:
    """A copy of the example in ``folder`` with other cases."""
    changed(folder)
    (folder / "cases.yaml").write_text(text)
    return folder


def read(text: str) -> tuple[Document, CasesFile]:
    """Cases as they are read from a file of this text."""
    document = parse(text.encode(), "cases.yaml")
    return document, validate(document, CasesFile)


def results(text: str, policy: Policy = LAW, only: str = "") -> list[Result]:
    """What becomes of the cases in ``text``."""
    document, file = read(text)
    raise_first(check_cases(document, file, policy))
    return run_cases(policy, document, file, only)


def one(case: str, policy: Policy = LAW, head: str = HEAD) -> Result:
    """What becomes of one case, written as the inside of a mapping."""
    (result,) = results(f"{head}cases:\n  - {{name: it, {case}}}\n", policy)
    return result


def line_of(word: str, folder: Path = EXAMPLE, file: str = "mesh.yaml") -> str:
    """``file:line`` of the first line that has ``word``."""
    lines = (folder / file).read_text().splitlines()
    return f"{file}:{next(number for number, text in enumerate(lines, 1) if word in text)}"
