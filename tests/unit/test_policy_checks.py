"""What must hold between the values of the policy files, each refusal at its place; a large policy.

Refusals are a table over one law that uses the whole language, with one change a row. The law loads as it stands.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from bus.codes import Code
from bus.errors import PolicyError, WireError
from bus.guardrails.types import TYPES
from bus.policy.compiling import canonical, compile_policy
from bus.policy.conditions import MAX_MACROS, SAMPLE, compile_condition
from bus.policy.masking import NEVER_KEPT
from bus.policy.values import MAX_EXPRESSION
from bus.wire.envelope import Kind
from bus.wire.names import AgentId, DomainName
from tests.unit.law_build import allows, asked, changed, denies, from_text, refusal
from tests.unit.refusal_row import Row

MESH = """\
security_mesh:
  global: {tls_min_version: "1.3", credential_rotation_interval_ms: 600000, audit_scope: FULL_MESH}
  roles:
    CLERK: {clearance: internal}
    DOCTOR: {clearance: secret, categories: [pii]}
    CHIEF: {inherits: [DOCTOR]}
  tenants: [north, south]
  zones:
    eu: {residency: EU, regulations: [GDPR]}
    us: {}
  flows:
    - {id: out, from: eu, to: us, domains: [notes], max_label: internal, forbid: [pii]}
  labels:
    levels: [public, internal, secret]
    categories: [pii, pci]
    propagate: session
    declassify:
      - {id: redacted, role: DOCTOR, from: secret, to: internal, drop: [pii], after: [no-pii]}
  conditions:
    stated: context.purpose != ""
    early: context.time.getHours() < 12
  masks:
    few: {keep: [locale], drop: [note]}
  guardrails:
    no-pii: {detect: [EMAIL], then: redact}
  domains:
    - name: notes
      tier: RETRIEVAL
      allowed_roles: [CLERK, DOCTOR]
      metadata_masking: true
      audit_level: FULL_MESH
      produce: [CHIEF]
      tools: {sql.read: [DOCTOR]}
      label: [internal]
      when: [stated]
      masks: [few]
      guardrails: [no-pii]
"""

AGENTS = """\
agents:
  ann: {role: CLERK, tenant: north, zone: eu}
  cho: {role: CHIEF, tenant: north, zone: us}
"""

LEVELS, ZONES, ROLES = "public, internal, secret", "eu, us", "CHIEF, CLERK, DOCTOR"
DETECTED = ", ".join(sorted(TYPES))
NAMES = "expected names of principal, action, resource and context, found "
STATED = 'context.purpose != ""\n'


def test_the_law_loads_as_it_stands():
    policy = from_text(MESH, AGENTS)
    assert allows(policy, "cho", "produce notes", purpose="care")
    assert denies(policy, "ann", "produce notes", purpose="care") == (Code.PRODUCE, "notes.produce")


ROWS = [
    # roles
    Row("role inherits itself", "[DOCTOR]}\n  tenants", "[CHIEF]}\n  tenants", (6, 23),
        "inherits: CHIEF inherits itself"),
    Row("two roles inherit each other", "categories: [pii]}\n    CHIEF", "inherits: [CHIEF]}\n    CHIEF", (5, 43),
        "inherits: DOCTOR inherits itself"),
    Row("role inherits an unknown one", "inherits: [DOCTOR]", "inherits: [DOKTOR]", (6, 24),
        f"inherits: expected one of {ROLES}, found 'DOKTOR'", "DOCTOR"),
    Row("role inherits one twice", "inherits: [DOCTOR]", "inherits: [DOCTOR, DOCTOR]", (6, 32),
        "inherits: 'DOCTOR' is given twice"),
    Row("clearance is no level", "{clearance: internal}", "{clearance: intern}", (4, 24),
        f"clearance: expected one of {LEVELS}, found 'intern'", "internal"),
    Row("clearance is a category", "{clearance: internal}", "{clearance: pii}", (4, 24),
        f"clearance: expected one of {LEVELS}, found 'pii'"),
    Row("unknown category of a role", "secret, categories: [pii]", "secret, categories: [pii, phi]", (5, 51),
        "categories: expected one of pii, pci, found 'phi'", "pii"),
    # tenants, zones and flows
    Row("tenant twice", "[north, south]", "[north, north]", (7, 20), "tenants: 'north' is given twice"),
    Row("flow from an unknown zone", "from: eu", "from: e", (12, 23),
        f"from: expected one of {ZONES}, found 'e'", "eu"),
    Row("flow to an unknown zone", "to: us", "to: asia", (12, 31), f"to: expected one of {ZONES}, found 'asia'"),
    Row("flow to where it comes from", "to: us", "to: eu", (12, 31),
        "to: expected another zone than eu, found the same"),
    Row("flow of an unknown domain", "domains: [notes]", "domains: [note]", (12, 45),
        "domains: expected one of notes, found 'note'", "notes"),
    Row("flow of a domain twice", "domains: [notes]", "domains: [notes, notes]", (12, 52),
        "domains: 'notes' is given twice"),
    Row("flow up to no level", "max_label: internal", "max_label: internals", (12, 64),
        f"max_label: expected one of {LEVELS}, found 'internals'", "internal"),
    Row("flow forbids a level", "forbid: [pii]", "forbid: [secret]", (12, 83),
        "forbid: expected one of pii, pci, found 'secret'"),
    Row("flow id twice", "  labels:\n", "    - {id: out, from: us, to: eu, domains: [notes]}\n  labels:\n", (13, 12),
        "flow 'out' is given twice"),
    # labels
    Row("level twice", "[public, internal, secret]", "[public, internal, secret, public]", (14, 40),
        "levels: 'public' is given twice"),
    Row("category named as a level", "[pii, pci]", "[pii, secret]", (15, 23), "categories: 'secret' is given twice"),
    Row("labels follow something else", "propagate: session", "propagate: sesion", (16, 16),
        "propagate: expected 'session', 'tickets' or 'none', found 'sesion'", "session"),
    Row("unknown key of labels", "propagate: session", "propogate: session", (16, 5),
        "unknown key 'propogate'; expected one of categories, declassify, levels, propagate", "propagate"),
    Row("unknown key of a declassifier", "drop: [pii]", "dorp: [pii]", (18, 66),
        "unknown key 'dorp'; expected one of after, drop, from, id, role, to", "drop"),
    Row("declassifier of an unknown role", "role: DOCTOR,", "role: DOCTORS,", (18, 30),
        f"role: expected one of {ROLES}, found 'DOCTORS'", "DOCTOR"),
    Row("declassifier from no level", "from: secret", "from: secrets", (18, 44),
        f"from: expected one of {LEVELS}, found 'secrets'", "secret"),
    Row("declassifier to no level", "to: internal", "to: pci", (18, 56),
        f"to: expected one of {LEVELS}, found 'pci'"),
    Row("declassifier drops a level", "drop: [pii]", "drop: [public]", (18, 73),
        "drop: expected one of pii, pci, found 'public'"),
    Row("declassifier after no guardrail", "after: [no-pii]", "after: [no-pi]", (18, 87),
        "after: expected one of no-pii, found 'no-pi'", "no-pii"),
    # masks and guardrails
    Row("mask keeps a payload's field", "keep: [locale]", "keep: [payload.note]", (23, 18),
        "keep: expected a key of the metadata, found 'payload.note'"),
    Row("mask twice over a key", "drop: [note]", "drop: [locale]", (23, 34), "drop: 'locale' is given twice"),
    Row("guardrail for no type", "[EMAIL]", "[EMAILS]", (25, 23),
        f"detect: expected one of {DETECTED}, found 'EMAILS'", "EMAIL"),
    Row("guardrail for a type twice", "[EMAIL]", "[EMAIL, EMAIL]", (25, 30), "detect: 'EMAIL' is given twice"),
    Row("guardrail does nothing", "then: redact", "then: redacts", (25, 37),
        "then: expected 'redact', 'deny' or 'flag', found 'redacts'", "redact"),
    # domains
    Row("unknown label", "label: [internal]", "label: [internal, phi]", (34, 25),
        f"label: expected one of {LEVELS}, pii, pci, found 'phi'", "pii"),
    Row("label twice", "label: [internal]", "label: [internal, internal]", (34, 25),
        "label: 'internal' is given twice"),
    Row("unknown condition", "when: [stated]", "when: [state]", (35, 14),
        "when: expected one of stated, early, found 'state'", "stated"),
    Row("unknown mask", "masks: [few]", "masks: [new]", (36, 15), "masks: expected one of few, found 'new'", "few"),
    Row("unknown guardrail", "guardrails: [no-pii]", "guardrails: [nopii]", (37, 20),
        "guardrails: expected one of no-pii, found 'nopii'", "no-pii"),
    Row("tool of an unknown role", "{sql.read: [DOCTOR]}", "{sql.read: [DOCTER]}", (33, 26),
        f"sql.read: expected one of {ROLES}, found 'DOCTER'", "DOCTOR"),
    Row("tool of a role that has no part", "{sql.read: [DOCTOR]}\n", "{sql.read: [PORTER]}\n", (33, 26),
        f"sql.read: expected one of {ROLES}, found 'PORTER'"),
    Row("tool of a role twice", "{sql.read: [DOCTOR]}", "{sql.read: [DOCTOR, DOCTOR]}", (33, 34),
        "sql.read: 'DOCTOR' is given twice"),
    Row("unknown kind", "label: [internal]", "kinds: [MEMRY]", (34, 15),
        "0: expected 'MESSAGE', 'RPC_REQUEST', 'RPC_REPLY', 'TOOL_CALL', 'TOOL_RESULT', 'REASONING', 'MEMORY' or "
        "'ARTIFACT', found 'MEMRY'", "MEMORY"),
    Row("no kind", "label: [internal]", "kinds: []", (34, 14), "kinds: expected at least 1, found 'list'"),
    Row("heir of a role that is not allowed", "allowed_roles: [CLERK, DOCTOR]", "allowed_roles: [CLERK]", (32, 17),
        "produce: expected one of allowed_roles ['CLERK'], found 'CHIEF'"),
    # agents
    Row("agent in no tenant", "tenant: north, zone: eu", "zone: eu", (2, 8),
        "expected key 'tenant', found none: the policy has tenants", "", "agents.yaml"),
    Row("agent in no zone", "tenant: north, zone: eu", "tenant: north", (2, 8),
        "expected key 'zone', found none: the policy has zones", "", "agents.yaml"),
    Row("agent in an unknown tenant", "tenant: north, zone: eu", "tenant: nord, zone: eu", (2, 30),
        "tenant: expected one of north, south, found 'nord'", "north", "agents.yaml"),
    Row("agent in an unknown zone", "tenant: north, zone: eu", "tenant: north, zone: ue", (2, 43),
        f"zone: expected one of {ZONES}, found 'ue'", "", "agents.yaml"),
    # conditions
    Row("not CEL", STATED, "'context.purpose !='\n", (20, 13),
        "stated: expected a CEL expression, found Failed to parse expression"),
    Row("not boolean", STATED, "context.purpose\n", (20, 13), "stated: expected true or false, found str"),
    Row("a number", STATED, '"1"\n', (20, 13), "stated: expected true or false, found int"),
    Row("unknown name", STATED, 'user.purpose != ""\n', (20, 13), f"stated: {NAMES}"),
    Row("unknown part of a name", STATED, 'context.purposes != ""\n', (20, 13), f"stated: {NAMES}"),
    Row("unknown function", STATED, "context.purpose.isCare()\n", (20, 13), f"stated: {NAMES}"),
    Row("text and number", STATED, "context.purpose < 3\n", (20, 13), f"stated: {NAMES}"),
    Row("condition without text", STATED, '""\n', (20, 13), "stated: expected"),
    Row("condition that is no text", STATED, "true\n", (20, 13),
        "stated: expected text (in quotes where YAML would read something else), found True"),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_refused_at_its_place(row: Row) -> None:
    mesh = changed(MESH, row.old, row.new) if row.file == "mesh.yaml" else MESH
    agents = AGENTS if row.file == "mesh.yaml" else changed(AGENTS, row.old, row.new)
    error = refusal(mesh, agents)
    assert str(error).startswith(row.text)
    if not row.message.startswith("stated: "):  # behind these stand words of the CEL library
        assert str(error) == row.text
    row.check_place(error)


def test_flows_need_zones() -> None:
    mesh = changed(MESH, "  zones:\n    eu: {residency: EU, regulations: [GDPR]}\n    us: {}\n", "")
    agents = AGENTS.replace(", zone: eu", "").replace(", zone: us", "")
    error = refusal(mesh, agents)
    assert str(error) == "mesh.yaml:9:23: from: expected one of (none is given), found 'eu'"
    assert error.__notes__ == ["mesh.yaml:9:31: to: expected one of (none is given), found 'us'"]
    flows = next(line for line in mesh.splitlines(keepends=True) if "id: out" in line)
    assert from_text(changed(mesh, f"  flows:\n{flows}", ""), agents).zones == frozenset()


def test_an_agent_has_no_place_in_a_policy_without_places() -> None:
    plain = "".join(
        line for line in MESH.splitlines(keepends=True) if not any(word in line for word in ("tenants", "id: out"))
    )
    plain = changed(plain, "  zones:\n    eu: {residency: EU, regulations: [GDPR]}\n    us: {}\n  flows:\n", "")
    bare = "agents:\n  ann: {role: CLERK}\n"
    assert from_text(plain, bare).tenants == frozenset()
    for key in ("tenant", "zone"):
        error = refusal(plain, changed(bare, "CLERK", f"CLERK, {key}: north"))
        column = len(f"  ann: {{role: CLERK, {key}: ") + 1
        assert str(error) == f"agents.yaml:2:{column}: {key}: expected one of (none is given), found 'north'"


def test_refusals_of_several_sections_are_told_together_in_file_order() -> None:
    mesh = changed(changed(changed(MESH, "when: [stated]", "when: [sated]"), "to: us", "to: su"), "[DOCTOR]}", "[X]}")
    error = refusal(mesh, changed(AGENTS, "zone: us", "zone: u"))
    places = [str(each).split(" ")[0] for each in (error, *error.__notes__)]
    assert places == [
        "agents.yaml:3:43:",
        "mesh.yaml:6:24:",
        "mesh.yaml:12:31:",
        "mesh.yaml:32:17:",
        "mesh.yaml:35:14:",
    ]


def test_text_that_is_not_unicode_is_refused_at_its_place() -> None:
    """YAML's escapes can write half of a surrogate pair, which canonical JSON cannot."""
    assert from_text(changed(MESH, "residency: EU", 'residency: "\\u00e9"'), AGENTS).zones == {"eu", "us"}
    for old in ("residency: EU", "regulations: [GDPR]"):
        key, _, value = old.partition(": ")
        new = f"{key}: " + value.replace("EU", '"\\ud800"').replace("GDPR", '"\\ud800"')
        assert refusal(changed(MESH, old, new), AGENTS).line == 9


# Masks.


@pytest.mark.parametrize("key", sorted(NEVER_KEPT))
@pytest.mark.parametrize("prefix", ["", "metadata."])
def test_what_tells_topology_may_be_dropped_and_nothing_else(key: str, prefix: str) -> None:
    assert len(NEVER_KEPT) == 4
    policy = from_text(changed(MESH, "drop: [note]", f"drop: [{prefix}{key}]"), AGENTS)
    assert policy.domains[DomainName("notes")].masks[0].drop == {key}
    for what in ("keep", "hash", "last4", "generalise"):
        mesh = changed(MESH, "few: {keep: [locale], drop: [note]}", f"few: {{{what}: [{prefix}{key}]}}")
        error = refusal(mesh, AGENTS)
        assert str(error) == (
            f"mesh.yaml:23:{len(what) + 14}: {what}: {prefix}{key} tells topology and can never be kept"
        )


def test_a_field_of_the_payload_is_not_topology_by_its_name() -> None:
    policy = from_text(changed(MESH, "drop: [note]", "hash: [payload.sender_ip]"), AGENTS)
    assert policy.domains[DomainName("notes")].masks[0].payload == {("sender_ip",): "hash"}


def test_keys_and_tools_are_refused_in_words_of_their_own() -> None:
    """What a mask's key or a tool may look like is neither what a role nor what a domain may."""
    error = refusal(changed(MESH, "[locale]", '["lo cale"]'), AGENTS)
    assert (error.line, error.column) == (23, 18)
    assert "upper-case" not in str(error)
    error = refusal(changed(MESH, "sql.read:", "Sql.read:"), AGENTS)
    assert (error.line, error.column) == (33, 15)
    assert "`bus` is reserved" not in str(error)


# Conditions.


def leaves(value: Any, path: str = "") -> list[str]:
    if not isinstance(value, dict):
        return [path]
    return [leaf for name, each in value.items() for leaf in leaves(each, f"{path}.{name}" if path else name)]


@pytest.mark.parametrize("name", leaves(SAMPLE))
def test_every_name_of_the_sample_may_be_used_and_no_other_near_it(name: str) -> None:
    assert compile_condition("c", f"{name} == {name}").holds(dict(SAMPLE)) is True
    with pytest.raises(ValueError, match="expected names of principal, action, resource and context"):
        compile_condition("c", f"{name}x == {name}")


def test_a_condition_is_tried_on_every_kind() -> None:
    for kind in Kind:
        assert compile_condition("c", f'context.kind == "{kind}" ? false : true').name == "c"
        with pytest.raises(ValueError, match="expected names"):
            compile_condition("c", f'context.kind == "{kind}" ? context.nothing : true')
        with pytest.raises(ValueError, match="expected true or false, found int"):
            compile_condition("c", f'context.kind == "{kind}" ? 1 : true')


MACRO = "context.labels.{}({})"
CALLS = [
    MACRO.format("all", 'x, x != ""'),
    MACRO.format("exists", 'x, x != ""'),
    MACRO.format("exists_one", 'x, x != ""'),
    MACRO.format("existsOne", 'x, x != ""'),
    MACRO.format("map", "x, x") + " != []",
    MACRO.format("filter", "x, true") + " != []",
    MACRO.format("all // between the name and its bracket\n", 'x, x != ""'),
    MACRO.format("all\n  ", 'x, x != ""'),
]


@pytest.mark.parametrize("call", CALLS)
def test_loops_of_a_condition_are_counted_however_they_are_written(call: str) -> None:
    assert compile_condition("c", " && ".join([call] * MAX_MACROS)).holds(dict(SAMPLE)) is True
    with pytest.raises(ValueError, match=f"expected at most {MAX_MACROS} of all, exists, .*, found {MAX_MACROS + 1}"):
        compile_condition("c", " && ".join([call] * (MAX_MACROS + 1)))


def test_loops_are_told_at_their_place() -> None:
    loops = " && ".join(["context.labels.all(x, true)"] * 3)
    error = refusal(changed(MESH, STATED, f"{loops}\n"), AGENTS)
    told = "stated: expected at most 2 of all, exists, exists_one, map and filter, found 3"
    assert str(error) == f"mesh.yaml:20:13: {told}"


def test_a_condition_has_at_most_1000_characters() -> None:
    for length, fits in ((MAX_EXPRESSION, True), (MAX_EXPRESSION + 1, False)):
        text = f"true{' ' * (length - 11)}&& true"
        assert len(text) == length
        mesh = changed(MESH, STATED, f"'{text}'\n")
        if fits:
            assert from_text(mesh, AGENTS).domains[DomainName("notes")].when[0].text == text
        else:
            error = refusal(mesh, AGENTS)
            assert (error.line, error.column) == (20, 13)
            assert str(MAX_EXPRESSION) in str(error)


@pytest.mark.parametrize("text", ["(" * 498, "(" * 498 + "true" + ")" * 498, "!" * 996 + "true", "size(" * 199])
def test_deep_conditions_load_or_are_refused(text: str) -> None:
    mesh = changed(MESH, STATED, f"'{text}'\n")
    try:
        policy = from_text(mesh, AGENTS)
    except PolicyError as error:
        assert (error.line, error.column) == (20, 13)
    else:
        assert allows(policy, "cho", "produce notes")


# YAML's truths are those of YAML 1.2.


def test_on_and_no_are_names() -> None:
    mesh = MESH.replace("north", "on").replace("south", "off").replace("eu", "no").replace("us", "yes")
    mesh = changed(mesh, "then: redact", "on: [payload], then: redact")
    policy = from_text(mesh, AGENTS.replace("north", "on").replace("eu", "no").replace("us", "yes"))
    assert (policy.tenants, policy.zones) == ({"on", "off"}, {"no", "yes"})
    assert policy.agents[AgentId("cho")].zone == "yes"
    assert asked(policy, "cho", "produce notes", purpose="care").obligations.roles == ("CLERK@on/yes", "DOCTOR@on/yes")
    for word in ("yes", "on", "Yes", "y"):
        error = refusal(changed(MESH, "metadata_masking: true", f"metadata_masking: {word}"), AGENTS)
        assert str(error) == f"mesh.yaml:30:25: metadata_masking: expected true or false, found {word!r}"


def test_true_is_no_name() -> None:
    error = refusal(changed(MESH, "[north, south]", "[north, true]"), AGENTS)
    told = "1: expected text (in quotes where YAML would read something else), found True"
    assert str(error) == f"mesh.yaml:7:20: {told}"
    assert "true" in from_text(changed(MESH, "[north, south]", '[north, "true"]'), AGENTS).tenants


# The compiled form refuses what the files cannot say.


def test_a_document_whose_parts_do_not_fit_is_no_policy() -> None:
    document = from_text(MESH, AGENTS).document
    assert compile_policy(document).document == document
    for change in (
        lambda value: value["conditions"].update(stated="context.purpose !="),
        lambda value: value["conditions"].pop("stated"),
        lambda value: value["masks"].pop("few"),
        lambda value: value["guardrails"].pop("no-pii"),
        lambda value: value["domains"]["notes"].update(label=["phi"]),
        lambda value: value["domains"]["notes"].update(kinds=["LETTER"]),
        lambda value: value["domains"]["notes"].update(tier="SECRET"),
        lambda value: value["clearances"].update(CLERK=["phi"]),
        lambda value: value["flows"][0].update(max_label="phi"),
        lambda value: value["labels"]["declassify"][0].update(to="phi"),
    ):
        value = json.loads(document)
        change(value)
        with pytest.raises(WireError) as refused:
            compile_policy(canonical(value))
        assert refused.value.code is Code.DECODE


# A large policy.

DOMAINS, EACH, CLEARED = 100, 10, 256


def large() -> tuple[str, str]:
    """100 domains, each with ten roles, tools and conditions of its own; an agent a role."""
    lines = [
        *MESH.splitlines()[:2],
        "  labels: {levels: [low, high], propagate: none}",
        "  roles:",
        *(f"    ROLE{number}: {{clearance: high}}" for number in range(CLEARED)),
        "  conditions:",
        *(f'    not-{number}: context.purpose != "p{number}"' for number in range(DOMAINS * EACH)),
        "  domains:",
    ]
    for place in range(DOMAINS):
        own = range(place * EACH, (place + 1) * EACH)
        lines += [
            f"    - name: domain{place}",
            "      tier: RETRIEVAL",
            f"      allowed_roles: [{', '.join(f'ROLE{number}' for number in own)}]",
            "      metadata_masking: true",
            "      audit_level: FULL_MESH",
            f"      label: [{'high' if own[-1] < CLEARED else 'low'}]",
            f"      when: [{', '.join(f'not-{number}' for number in own)}]",
            f"      tools: {{{', '.join(f'tool.t{number}: [ROLE{number}]' for number in own)}}}",
        ]
    agents = "".join(f"  agent{number}: {{role: ROLE{number}}}\n" for number in range(DOMAINS * EACH))
    return "\n".join(lines) + "\n", f"agents:\n{agents}"


def test_a_thousand_of_everything_loads_and_is_decided() -> None:
    policy = from_text(*large())
    assert (len(policy.domains), len(policy.agents)) == (100, 1000)
    assert len({each.name for domain in policy.domains.values() for each in domain.when}) == 1000
    assert len({tool for domain in policy.domains.values() for tool in domain.tools or {}}) == 1000
    for number in range(0, DOMAINS * EACH, 7):
        who, name = f"agent{number}", f"domain{number // EACH}"
        decision = asked(policy, who, f"produce {name}", purpose="care", tool=f"tool.t{number}")
        assert decision.obligations is not None
        assert len(decision.obligations.roles) == EACH
        assert decision.obligations.label == ("high" if number < CLEARED - CLEARED % EACH else "low",)
        assert allows(policy, who, f"consume {name}")
        other = number ^ 1
        told = denies(policy, who, f"produce {name}", tool=f"tool.t{other}")
        assert told == (Code.TOOLS, f"{name}.tools")
        told = denies(policy, who, f"produce {name}", purpose=f"p{other}")
        assert told == (Code.CONDITION, f"not-{other}")
        away = f"domain{(number // EACH + 1) % DOMAINS}"
        assert denies(policy, who, f"consume {away}") == (Code.CONSUME, f"{away}.consume")


@pytest.mark.parametrize(
    ("section", "row", "held", "most"),
    [
        ("roles", "ROLE{}: {{clearance: secret}}", 3, 256),
        ("conditions", 'not-{}: context.purpose != "p{}"', 2, 1024),
        ("masks", "mask-{}: {{drop: [key-{}]}}", 1, 256),
    ],
)
def test_a_section_over_its_bound_is_refused(section: str, row: str, held: int, most: int) -> None:
    rows = [f"    {row.format(number, number)}\n" for number in range(most - held + 1)]
    head = f"  {section}:\n"
    assert from_text(changed(MESH, head, head + "".join(rows[1:])), AGENTS).domains
    error = refusal(changed(MESH, head, head + "".join(rows)), AGENTS)
    line = MESH[: MESH.index(head)].count("\n") + 2
    assert str(error) == f"mesh.yaml:{line}:5: {section}: expected at most {most}, found 'dict'"
