"""How `bus agent list` and `bus agent show` say how an agent stands. Text and documents, no I/O."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

from bus.authority.register import Enrolled
from bus.authority.standing import Standing


def told(each: Standing) -> dict[str, Any]:
    """What a document says beside the enrolment: times in ms since 1970, ages in s."""
    last = each.attested
    return {
        "roles": sorted(each.law.roles) if each.law is not None else [],
        "certificate_age": each.certificate_ms // 1000,
        "needs_attestation": list(each.needs),
        "attestation": None
        if last is None
        else {
            "kind": last.kind,
            "measurement": last.measurement,
            "device": last.device.hex(),
            "age": (each.now_ms - last.since) // 1000,
            "until": last.until,
            "in_force": each.in_force,
            "accepted": each.accepted,
        },
    }


def line(held: Enrolled, each: Standing) -> str:
    """One line of a list, behind the state."""
    until = dt.datetime.fromtimestamp(held.until / 1000, dt.UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    hours = (each.now_ms - held.since) // 3_600_000
    why = f"  {held.why}" if held.why else ""
    text = f"{each.name:24} certificate {held.counter} until {until}, enrolled {hours} h ago"
    return f"{text}, {_attested(each)}{why}"


def lines(each: Standing) -> Iterator[tuple[str, str]]:
    """What is said of one agent, by its name."""
    held, last = each.enrolled, each.attested
    state = "not enrolled" if held is None else held.state.value
    yield "state", state + (f": {held.why}" if held is not None and held.why else "")
    yield "roles", ", ".join(sorted(each.law.roles)) if each.law is not None else "none: it is not in the policy"
    if held is not None and held.serial:
        yield "certificate", f"{held.serial}, number {held.counter}, {_age(each.certificate_ms)} old"
    if each.needs:
        yield "needs", f"attestation for {', '.join(each.needs)}"
    if last is not None or each.needs:
        yield "attested", _attested(each) + (f": {each.lacks}" if each.lacks else "")
    if last is not None:
        yield "measurement", last.measurement
        yield "device", last.device.hex()


def _attested(each: Standing) -> str:
    if each.attested is None:
        return "never attested"
    age = f"{each.attested.kind} {_age(each.now_ms - each.attested.since)} ago"
    return f"attested by {age}{'' if each.in_force else ', which ended'}"


def _age(age_ms: int) -> str:
    seconds = max(age_ms, 0) // 1000
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
