"""Policy files: the published document loads as it stands, and whatever is wrong is refused at its place.

Refusals are a table over copies with one change each; every row says line, column, the whole message and the nearest
known name. The base copies stand here and not in ``policies/``, so that a comment added there moves no line.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from bus.codes import Code
from bus.errors import PolicyError, WireError
from bus.policy import yamldoc
from bus.policy.compiling import canonical, compile_policy
from bus.policy.loader import load_policy
from bus.policy.model import Policy
from bus.wire.names import AgentId, DomainName, Tier
from tests.unit.refusal_row import Row

POLICIES = Path(__file__).parents[2] / "policies"

PUBLISHED: dict[str, Any] = {
    "global": {
        "tls_min_version": "1.3",
        "credential_rotation_interval_ms": 600000,
        "audit_scope": "FULL_MESH",
    },
    "domains": [
        {
            "name": "agent_memory",
            "tier": "RETRIEVAL",
            "allowed_roles": ["RETRIEVER", "ORCHESTRATOR"],
            "metadata_masking": True,
            "audit_level": "FULL_MESH",
        },
        {
            "name": "pii_inference",
            "tier": "COMPUTATION",
            "allowed_roles": ["EXECUTOR", "ANALYST"],
            "metadata_masking": True,
            "audit_level": "FULL_MESH",
            "attestation_required": True,
        },
        {
            "name": "financial_models",
            "tier": "FHE",
            "allowed_roles": ["ANALYST"],
            "metadata_masking": True,
            "audit_level": "FULL_MESH",
            "attestation_required": True,
        },
        {
            "name": "coordination",
            "tier": "RETRIEVAL",
            "allowed_roles": ["ORCHESTRATOR", "EXECUTOR"],
            "metadata_masking": False,
            "audit_level": "OUTPUT_ONLY",
        },
    ],
}

MESH = """\
security_mesh:
  global:
    tls_min_version: "1.3"
    credential_rotation_interval_ms: 600000
    audit_scope: "FULL_MESH"
  domains:
    - name: "agent_memory"
      tier: "RETRIEVAL"
      allowed_roles: ["RETRIEVER", "ORCHESTRATOR"]
      metadata_masking: true
      audit_level: "FULL_MESH"
    - name: "pii_inference"
      tier: "COMPUTATION"
      allowed_roles: ["EXECUTOR", "ANALYST"]
      metadata_masking: true
      audit_level: "FULL_MESH"
      attestation_required: true
    - name: "financial_models"
      tier: "FHE"
      allowed_roles: ["ANALYST"]
      metadata_masking: true
      audit_level: "FULL_MESH"
      attestation_required: true
    - name: "coordination"
      tier: "RETRIEVAL"
      allowed_roles: ["ORCHESTRATOR", "EXECUTOR"]
      metadata_masking: false
      audit_level: "OUTPUT_ONLY"
"""

AGENTS = """\
agents:
  orchestrator-1: {role: ORCHESTRATOR}
  retriever-1: {role: RETRIEVER}
  executor-1: {role: EXECUTOR}
  analyst-1: {roles: [ANALYST, EXECUTOR]}
"""

LOWER = "a lower-case letter, then up to 62 of a-z, 0-9, _ or -; `bus` is reserved"
UPPER = "an upper-case letter, then up to 62 of A-Z, 0-9 or _"
DOMAIN_KEYS = (
    "allowed_roles, attestation_required, audit_level, audit_payload, blind_index, circuit_breaker, computation, "
    "constant_size, consume, delegates, fhe_context, guardrails, kinds, label, masks, max_token_age_ms, "
    "metadata_masking, mpc, name, padding, produce, protect_at, rate_limit, sealed_fields, tier, tools, user_required, "
    "when"
)
KNOWN_ROLES = "ANALYST, EXECUTOR, ORCHESTRATOR, RETRIEVER"


def changed(base: str, old: str, new: str) -> str:
    """``base`` with the first ``old`` made ``new``."""
    assert old in base
    return base.replace(old, new, 1)


def load(folder: Path, mesh: str | bytes = MESH, agents: str | bytes = AGENTS, *, development: bool = True) -> Policy:
    for name, content in (("mesh.yaml", mesh), ("agents.yaml", agents)):
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return load_policy(folder, development=development)


def refusal(
    folder: Path, mesh: str | bytes = MESH, agents: str | bytes = AGENTS, *, development: bool = True
) -> PolicyError:
    with pytest.raises(PolicyError) as refused:
        load(folder, mesh, agents, development=development)
    assert refused.value.code is Code.POLICY
    return refused.value


# What loads.


def test_the_repository_holds_the_published_document_word_for_word() -> None:
    law = yaml.safe_load((POLICIES / "mesh.yaml").read_text(encoding="utf-8"))["security_mesh"]
    assert law["global"] == PUBLISHED["global"]
    assert law["domains"] == PUBLISHED["domains"]
    assert yaml.safe_load(MESH)["security_mesh"] == PUBLISHED


@pytest.mark.parametrize("development", [True, False])
def test_the_published_document_loads_as_it_stands(development: bool) -> None:
    policy = load_policy(POLICIES, development=development)
    assert policy.rotation_interval_ms == 600_000
    found = {
        name: (each.tier, each.produce, each.consume, each.metadata_masking, each.audit_full, each.attestation_required)
        for name, each in policy.domains.items()
    }
    memory, coordination = {"RETRIEVER", "ORCHESTRATOR"}, {"ORCHESTRATOR", "EXECUTOR"}
    inference, models = {"EXECUTOR", "ANALYST"}, {"ANALYST"}
    assert found == {
        "agent_memory": (Tier.RETRIEVAL, memory, memory, True, True, False),
        "pii_inference": (Tier.COMPUTATION, inference, inference, True, True, True),
        "financial_models": (Tier.FHE, models, models, True, True, True),
        "coordination": (Tier.RETRIEVAL, coordination, coordination, False, False, False),
    }


def test_defaults_and_places_of_rules(tmp_path: Path) -> None:
    policy = load(tmp_path, changed(MESH, '["ANALYST"]\n', '["ANALYST"]\n      produce: []\n'))
    assert (policy.replication, policy.backlog_horizon_ms) == (1, 24 * 3_600_000)
    models = policy.domains[DomainName("financial_models")]
    assert (models.partitions, models.retention_ms) == (4, 7 * 24 * 3_600_000)
    assert models.locations == {
        "name": "mesh.yaml:18",
        "tier": "mesh.yaml:19",
        "produce": "mesh.yaml:21",
        "consume": "mesh.yaml:20",
        "attestation_required": "mesh.yaml:24",
    }
    assert (models.produce, models.consume) == (frozenset(), {"ANALYST"})
    assert policy.agents[AgentId("analyst-1")].roles == {"ANALYST", "EXECUTOR"}


def test_the_most_generous_quota_of_an_agents_roles_holds(tmp_path: Path) -> None:
    given = "default: {produce: 1MiB/s, requests: 20%}, EXECUTOR: {produce: 4MiB/s, consume: 2KiB/s}, RETRIEVER: {}"
    policy = load(tmp_path, changed(MESH, "  domains:\n", quotas(given)))
    assert {name: policy.broker_quotas(AgentId(name)) for name in policy.agents} == {
        "orchestrator-1": {"producer_byte_rate": 1 << 20, "request_percentage": 20},
        "retriever-1": {},
        "executor-1": {"producer_byte_rate": 4 << 20, "consumer_byte_rate": 2048},
        "analyst-1": {"producer_byte_rate": 4 << 20},  # its other role has the default, which limits no reading
    }
    assert load(tmp_path, MESH).broker_quotas(AgentId("executor-1")) == {}


def test_topics_and_narrowing_are_taken(tmp_path: Path) -> None:
    topics = "  topics: {partitions: 8, replication: 3, retention: 48h, backlog_horizon: 2d}\n  domains:\n"
    mesh = changed(MESH, "  domains:\n", topics)
    mesh = changed(mesh, '"ORCHESTRATOR"]\n', '"ORCHESTRATOR"]\n      produce: ["RETRIEVER"]\n')
    policy = load(tmp_path, mesh)
    memory = policy.domains[DomainName("agent_memory")]
    assert (memory.partitions, memory.retention_ms, policy.replication) == (8, 172_800_000, 3)
    assert policy.backlog_horizon_ms == 172_800_000  # equal to the retention: the least that is accepted
    assert (memory.produce, memory.consume) == ({"RETRIEVER"}, {"RETRIEVER", "ORCHESTRATOR"})
    assert [each.name for each in policy.may_produce(AgentId("retriever-1"))] == ["agent_memory"]
    assert [each.name for each in policy.may_produce(AgentId("orchestrator-1"))] == ["coordination"]
    assert [each.name for each in policy.may_consume(AgentId("orchestrator-1"))] == ["agent_memory", "coordination"]
    assert policy.may_produce(AgentId("nobody")) == policy.may_consume(AgentId("nobody")) == []


def test_the_digest_is_that_of_the_canonical_document(tmp_path: Path) -> None:
    policy = load(tmp_path)
    assert policy.digest == hashlib.sha256(policy.document).digest()
    assert canonical(json.loads(policy.document)) == policy.document
    assert compile_policy(policy.document) == policy
    turned = "agents:\n" + "".join(sorted(AGENTS.splitlines(keepends=True)[1:]))
    assert turned != AGENTS
    assert load(tmp_path, agents=turned).digest == policy.digest
    narrowed = changed(MESH, "600000", "600001")
    assert load(tmp_path, narrowed).digest != policy.digest


def test_plaintext_is_for_development(tmp_path: Path) -> None:
    mesh = changed(MESH, '"RETRIEVAL"', '"PLAINTEXT"')
    assert load(tmp_path, mesh).domains[DomainName("agent_memory")].tier is Tier.PLAINTEXT
    error = refusal(tmp_path, mesh, development=False)
    assert str(error) == "mesh.yaml:8:13: tier: PLAINTEXT is for development mode only"
    assert (error.line, error.column, error.parsed) == (8, 13, True)


@pytest.mark.parametrize(
    ("text", "ms"), [("1ms", 1), ("90s", 90_000), ("15m", 900_000), ("24h", 86_400_000), ("7d", 604_800_000)]
)
def test_durations(tmp_path: Path, text: str, ms: int) -> None:
    topics = f"  topics: {{retention: 7d, backlog_horizon: {text}}}\n  domains:\n"
    assert load(tmp_path, changed(MESH, "  domains:\n", topics)).backlog_horizon_ms == ms


# What is refused after it was parsed (exit 1).


DURATION = 'expected a duration, as in "90s", 24h or 7d'


def topics(text: str) -> str:
    return f"  topics: {{{text}}}\n  domains:\n"


def quotas(text: str) -> str:
    return f"  broker_quotas: {{{text}}}\n  domains:\n"


ROWS = [
    # unknown keys, at every depth
    Row("root", "security_mesh:", "security_mash:", (1, 1),
        "unknown key 'security_mash'; expected one of security_mesh", "security_mesh"),
    Row("law", "  domains:\n", "  domans:\n", (6, 3),
        "unknown key 'domans'; expected one of broker_quotas, circuit_breakers, conditions, domains, flows, "
        "global, guardrails, labels, masks, rate_limits, roles, tenants, topics, version, zones", "domains"),
    Row("global", "audit_scope", "audit_scop", (5, 5), "unknown key 'audit_scop'; expected one of audit_scope, "
        "credential_rotation_interval_ms, tls_min_version", "audit_scope"),
    Row("topics", "  domains:\n", topics("partition: 4"), (6, 12), "unknown key 'partition'; expected one of "
        "backlog_horizon, partitions, replication, retention", "partitions"),
    Row("domain", "metadata_masking", "metadata_maskin", (10, 7),
        f"unknown key 'metadata_maskin'; expected one of {DOMAIN_KEYS}", "metadata_masking"),
    Row("stranger", "tier:", "zzz: 1\n      tier:", (8, 7), f"unknown key 'zzz'; expected one of {DOMAIN_KEYS}"),
    Row("agent", "{role: ORCHESTRATOR}", "{rule: ORCHESTRATOR}", (2, 20),
        "unknown key 'rule'; expected one of measurements, role, roles, tenant, zone", "role", "agents.yaml"),
    Row("agents", "agents:", "agent:", (1, 1),
        "unknown key 'agent'; expected one of agents", "agents", "agents.yaml"),
    # missing keys: at the mapping that lacks them
    Row("no tier", '      tier: "FHE"\n', "", (18, 7), "expected key 'tier', found none"),
    Row("no roles", '      allowed_roles: ["ANALYST"]\n', "", (18, 7), "expected key 'allowed_roles', found none"),
    Row("no masking", "      metadata_masking: false\n", "", (24, 7), "expected key 'metadata_masking', found none"),
    Row("no audit level", '      audit_level: "OUTPUT_ONLY"\n', "", (24, 7), "expected key 'audit_level', found none"),
    Row("no tls", '    tls_min_version: "1.3"\n', "", (3, 5), "expected key 'tls_min_version', found none"),
    Row("no interval", "    credential_rotation_interval_ms: 600000\n", "", (3, 5),
        "expected key 'credential_rotation_interval_ms', found none"),
    Row("no scope", '    audit_scope: "FULL_MESH"\n', "", (3, 5), "expected key 'audit_scope', found none"),
    # wrong types
    Row("tls as a number", '"1.3"', "1.3", (3, 22), "tls_min_version: expected '1.3', found 1.3"),
    Row("interval as text", "600000", '"600000"', (4, 38),
        "credential_rotation_interval_ms: expected a whole number, found '600000'"),
    Row("interval as a fraction", "600000", "600000.0", (4, 38),
        "credential_rotation_interval_ms: expected a whole number, found 600000.0"),
    Row("interval as a truth", "600000", "true", (4, 38),
        "credential_rotation_interval_ms: expected a whole number, found True"),
    Row("interval as a date", "600000", "2026-01-01", (4, 38),
        "credential_rotation_interval_ms: expected a whole number, found 'date'"),
    Row("masking as text", "metadata_masking: true", 'metadata_masking: "true"', (10, 25),
        "metadata_masking: expected true or false, found 'true'"),
    Row("masking as a number", "metadata_masking: true", "metadata_masking: 1", (10, 25),
        "metadata_masking: expected true or false, found 1"),
    Row("roles as text", '["ANALYST"]', '"ANALYST"', (20, 22),
        "allowed_roles: expected a list, found 'ANALYST'"),
    Row("role as a number", '["ANALYST"]', "[7]", (20, 23),
        "0: expected text (in quotes where YAML would read something else), found 7"),
    Row("name as nothing", '"coordination"', "", (24, 12),
        "name: expected text (in quotes where YAML would read something else), found None"),
    Row("name as a truth", '"coordination"', "true", (24, 13),
        "name: expected text (in quotes where YAML would read something else), found True"),
    Row("global as a list", "  global:\n", "  global: []\n  extra:\n", (2, 11),
        "global: expected a mapping, found 'list'"),
    Row("topics as text", "  domains:\n", "  topics: none\n  domains:\n", (6, 11),
        "topics: expected a mapping, found 'none'"),
    Row("duration as a number", "  domains:\n", topics("retention: 7"), (6, 23),
        f"retention: {DURATION}, found 7"),
    Row("duration without a unit", "  domains:\n", topics('backlog_horizon: "24"'), (6, 29),
        f"backlog_horizon: {DURATION}, found '24'"),
    Row("duration of nothing", "  domains:\n", topics("backlog_horizon: 0h"), (6, 29),
        f"backlog_horizon: {DURATION}, found '0h'"),
    Row("agent as text", "{role: RETRIEVER}", "RETRIEVER", (3, 16),
        "retriever-1: expected a mapping, found 'RETRIEVER'", file="agents.yaml"),
    Row("agent as nothing", "{role: RETRIEVER}", "", (3, 15),
        "retriever-1: expected a mapping, found None", file="agents.yaml"),
    Row("roles of an agent as text", "[ANALYST, EXECUTOR]", "ANALYST", (5, 22),
        "roles: expected a list, found 'ANALYST'", file="agents.yaml"),
    # keys that are not text, keys given twice
    Row("number as a key", "tier:", "7: x\n      tier:", (8, 7), "expected a text key, found 7"),
    Row("truth as a key", "tier:", "true: x\n      tier:", (8, 7), "expected a text key, found True"),
    Row("list as a key", "tier:", "? [a]\n      : b\n      tier:", (8, 9), "expected a text key, found None"),
    Row("key twice", 'tier: "FHE"\n', 'tier: "FHE"\n      tier: "RETRIEVAL"\n', (20, 7), "key 'tier' is given twice"),
    Row("section twice", "  domains:\n", "  global: {}\n  domains:\n", (6, 3), "key 'global' is given twice"),
    Row("agent twice", "executor-1:", "retriever-1:", (4, 3), "key 'retriever-1' is given twice", file="agents.yaml"),
    # names
    Row("domain twice", '"coordination"', '"agent_memory"', (24, 13), "domain 'agent_memory' is given twice"),
    Row("domain after folding", '"coordination"', '"agent-memory"', (24, 13),
        "domain 'agent-memory' collides with 'agent_memory': Kafka folds '.', '-' and '_'"),
    Row("domain with a dot", '"coordination"', '"agent.memory"', (24, 13),
        f"name: expected {LOWER}, found 'agent.memory'"),
    Row("domain in capitals", '"coordination"', '"Coordination"', (24, 13),
        f"name: expected {LOWER}, found 'Coordination'"),
    Row("domain too long", '"coordination"', f'"{"c" * 64}"', (24, 13),
        f"name: expected {LOWER}, found '{'c' * 64}'"),
    Row("domain is bus", '"coordination"', '"bus"', (24, 13), f"name: expected {LOWER}, found 'bus'"),
    Row("domain begins as bus", '"coordination"', '"bus_x"', (24, 13), f"name: expected {LOWER}, found 'bus_x'"),
    Row("role twice", '["ANALYST"]', '["ANALYST", "ANALYST"]', (20, 34),
        "allowed_roles: role 'ANALYST' is given twice"),
    Row("role in lower case", '["ANALYST"]', '["analyst"]', (20, 23), f"0: expected {UPPER}, found 'analyst'"),
    Row("agent after folding", "executor-1:", "retriever_1:", (4, 3),
        "agent 'retriever_1' collides with 'retriever-1' after folding", file="agents.yaml"),
    Row("agent in capitals", "executor-1:", "Executor-1:", (4, 3),
        f"Executor-1: expected {LOWER}, found 'Executor-1'", file="agents.yaml"),
    Row("agent of the bus", "executor-1:", "bus-enforcer:", (4, 3),
        f"agent: expected {LOWER}, found 'bus-enforcer'", file="agents.yaml"),
    # unsafe values
    Row("tls 1.2", '"1.3"', '"1.2"', (3, 22), "tls_min_version: expected '1.3', found '1.2'", "1.3"),
    Row("interval over its limit", "600000", "900001", (4, 38),
        "credential_rotation_interval_ms: expected at most 900000, found 900001"),
    Row("interval under its limit", "600000", "999", (4, 38),
        "credential_rotation_interval_ms: expected at least 1000, found 999"),
    Row("less audit", '"FULL_MESH"', '"OUTPUT_ONLY"', (5, 18),
        "audit_scope: expected 'FULL_MESH', found 'OUTPUT_ONLY'"),
    Row("other audit level", '"OUTPUT_ONLY"', '"NONE"', (28, 20),
        "audit_level: expected 'FULL_MESH' or 'OUTPUT_ONLY', found 'NONE'"),
    Row("misspelt tier", '"COMPUTATION"', '"COMPUTATON"', (13, 13),
        "tier: expected 'PLAINTEXT', 'RETRIEVAL', 'COMPUTATION' or 'FHE', found 'COMPUTATON'", "COMPUTATION"),
    Row("plaintext with attestation", '"COMPUTATION"', '"PLAINTEXT"', (13, 13),
        "tier: a domain that requires attestation cannot be PLAINTEXT"),
    Row("another version", "  global:", "  version: 2\n  global:", (2, 12), "version: expected 1, found 2"),
    Row("no partition", "  domains:\n", topics("partitions: 0"), (6, 24), "partitions: expected at least 1, found 0"),
    Row("many partitions", "  domains:\n", topics("partitions: 257"), (6, 24),
        "partitions: expected at most 256, found 257"),
    Row("many replicas", "  domains:\n", topics("replication: 8"), (6, 25),
        "replication: expected at most 7, found 8"),
    Row("retention under the backlog", "  domains:\n", topics("retention: 23h, backlog_horizon: 24h"), (6, 23),
        "retention: expected at least backlog_horizon (86400000 ms), found 82800000 ms"),
    Row("retention under the default backlog", "  domains:\n", topics("retention: 1h"), (6, 23),
        "retention: expected at least backlog_horizon (86400000 ms), found 3600000 ms"),
    Row("backlog over the default retention", "  domains:\n", topics("backlog_horizon: 8d"), (6, 11),
        "retention: expected at least backlog_horizon (691200000 ms), found 604800000 ms"),
    # produce and consume only narrow; roles of agents are known
    Row("produce widens", '["ANALYST"]\n', '["ANALYST"]\n      produce: ["ANALYST", "RETRIEVER"]\n', (21, 28),
        "produce: expected one of allowed_roles ['ANALYST'], found 'RETRIEVER'"),
    Row("consume widens", '["ANALYST"]\n', '["ANALYST"]\n      consume: ["ANALYSTS"]\n', (21, 17),
        "consume: expected one of allowed_roles ['ANALYST'], found 'ANALYSTS'", "ANALYST"),
    Row("produce twice", '["ANALYST"]\n', '["ANALYST"]\n      produce: ["ANALYST", "ANALYST"]\n', (21, 28),
        "produce: role 'ANALYST' is given twice"),
    Row("quota without a unit", "  domains:\n", quotas("default: {produce: 100}"), (6, 38),
        "produce: expected bytes a second, as in 256KiB/s or 4MiB/s, found 100"),
    Row("quota of next to nothing", "  domains:\n", quotas("default: {consume: 10B/s}"), (6, 38),
        "consume: expected at least 1024, found '10B/s'"),
    Row("quota as a fraction", "  domains:\n", quotas("default: {requests: 0.2}"), (6, 39),
        "requests: expected a share of one of the broker's threads, as in 20%, found 0.2"),
    Row("quota of an unknown role", "  domains:\n", quotas("ANALYSTS: {requests: 20%}"), (6, 19),
        "broker_quotas: expected one of ANALYST, EXECUTOR, ORCHESTRATOR, RETRIEVER, default, found 'ANALYSTS'",
        "ANALYST"),
    Row("unknown role", "role: RETRIEVER", "role: RETREIVER", (3, 23),
        f"role: expected one that a domain allows ({KNOWN_ROLES}), found 'RETREIVER'", "RETRIEVER", "agents.yaml"),
    Row("unknown role far from any", "role: RETRIEVER", "role: KING", (3, 23),
        f"role: expected one that a domain allows ({KNOWN_ROLES}), found 'KING'", "", "agents.yaml"),
    Row("unknown role in a list", "[ANALYST, EXECUTOR]", "[ANALYST, EXECUTER]", (5, 22),
        f"role: expected one that a domain allows ({KNOWN_ROLES}), found 'EXECUTER'", "EXECUTOR", "agents.yaml"),
    Row("no role", "{role: RETRIEVER}", "{}", (3, 16), "expected one of `role` and `roles`", "", "agents.yaml"),
    Row("role and roles", "{role: RETRIEVER}", "{role: RETRIEVER, roles: [ANALYST]}", (3, 16),
        "expected one of `role` and `roles`", "", "agents.yaml"),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_refused_at_its_place(tmp_path: Path, row: Row) -> None:
    mesh, agents = (
        (changed(MESH, row.old, row.new), AGENTS)
        if row.file == "mesh.yaml"
        else (MESH, changed(AGENTS, row.old, row.new))
    )
    error = refusal(tmp_path, mesh, agents)
    assert str(error) == row.text
    row.check_place(error)


@pytest.mark.parametrize(
    ("old", "new", "at"),
    [
        ('["ANALYST"]', "[]", (20, 22)),
        ("{role: RETRIEVER}", "{roles: []}", (3, 24)),
        (AGENTS.partition("\n")[2], "  {}\n", (2, 3)),
        (MESH.partition("  domains:\n")[2], "    []\n", (7, 5)),
    ],
    ids=["allowed_roles", "roles", "agents", "domains"],
)
def test_empty_lists_are_refused(tmp_path: Path, old: str, new: str, at: tuple[int, int]) -> None:
    if old in MESH:
        error = refusal(tmp_path, changed(MESH, old, new))
    else:
        error = refusal(tmp_path, MESH, changed(AGENTS, old, new))
    assert (error.line, error.column, error.parsed) == (*at, True)
    assert re.search(r": expected at least 1\b", str(error))


def test_the_interval_at_its_limits_loads(tmp_path: Path) -> None:
    for limit in (1000, 900_000):
        assert load(tmp_path, changed(MESH, "600000", str(limit))).rotation_interval_ms == limit


def test_all_refusals_are_told_in_file_order(tmp_path: Path) -> None:
    mesh = changed(changed(MESH, "600000", "900001"), '"1.3"', '"1.2"')
    error = refusal(tmp_path, changed(mesh, '"FHE"', '"FEH"'))
    assert str(error).startswith("mesh.yaml:3:22: tls_min_version")
    assert [note.partition(" ")[0] for note in error.__notes__] == ["mesh.yaml:4:38:", "mesh.yaml:19:13:"]
    mesh = changed(MESH, '"coordination"', '"agent-memory"')
    agents = changed(AGENTS, "role: EXECUTOR", "role: EXECUTER")
    error = refusal(tmp_path, mesh, agents)
    assert (error.file, error.line) == ("agents.yaml", 4)
    assert [note.partition(" ")[0] for note in error.__notes__] == ["mesh.yaml:24:13:"]


# What cannot be read or parsed at all (exit 2).

NOT_PARSED = [
    ("anchor", changed(MESH, '["ANALYST"]', '&a ["ANALYST"]'), (20, 22), "anchors and aliases are not allowed"),
    ("alias", changed(MESH, '["ANALYST"]', "*a"), (20, 22), "anchors and aliases are not allowed"),
    ("anchor on a key", changed(MESH, "tier:", "&k tier:"), (8, 7), "anchors and aliases are not allowed"),
    ("tag", changed(MESH, "600000", "!!int 600000"), (4, 38), "tag tag:yaml.org,2002:int is not allowed"),
    ("tag of a type", changed(MESH, "600000", "!!python/name:os.system x"), (4, 38),
     "tag tag:yaml.org,2002:python/name:os.system is not allowed"),
    ("own tag", changed(MESH, "600000", "!own 600000"), (4, 38), "tag !own is not allowed"),
    ("bare tag", changed(MESH, "600000", "! 600000"), (4, 38), "tag ! is not allowed"),
    ("tag on a mapping", changed(MESH, "  global:\n", "  global: !!map\n"), (2, 11),
     "tag tag:yaml.org,2002:map is not allowed"),
    ("empty", "", (0, 0), "expected a mapping, found an empty file"),
    ("only a comment", "# nothing yet\n", (0, 0), "expected a mapping, found an empty file"),
    ("not UTF-8", MESH.encode() + b"# \xff\n", (0, 0), f"expected UTF-8, found byte {len(MESH) + 2} that is not"),
    ("UTF-16", MESH.encode("utf-16"), (0, 0), "expected UTF-8, found byte 0 that is not"),
    ("over 1 MiB", MESH + "#" * (1024 * 1024 + 1 - len(MESH)), (0, 0), "expected at most 1048576 bytes, found 1048577"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "at", "message"), [row[1:] for row in NOT_PARSED], ids=[r[0] for r in NOT_PARSED])
def test_not_parsed(tmp_path: Path, content: str | bytes, at: tuple[int, int], message: str) -> None:
    error = refusal(tmp_path, content)
    where = f":{at[0]}:{at[1]}" if at[0] else ""
    assert str(error) == f"mesh.yaml{where}: {message}"
    assert (error.file, error.line, error.column) == ("mesh.yaml", *at)
    assert not error.parsed


@pytest.mark.parametrize(
    ("content", "at"),
    [
        (MESH + "---\nmore: 1\n", (29, 1)),
        (MESH + "---\n" + MESH, (29, 1)),
        (changed(MESH, '["ANALYST"]', '["ANALYST"'), (21, 7)),
        (changed(MESH, '"FHE"', '"FHE'), (20, 24)),
        (changed(MESH, "      tier:", "\ttier:"), (8, 1)),
        (changed(MESH, "tier:", "<<: {tier: FHE}\n      tier:"), (8, 7)),
        (MESH + "\0", (0, 0)),
    ],
    ids=["two documents", "document twice", "open list", "open quote", "tab", "merge key", "NUL"],
)
def test_not_parsed_where_the_parser_says_why(tmp_path: Path, content: str, at: tuple[int, int]) -> None:
    error = refusal(tmp_path, content)
    if at[0]:
        assert (error.line, error.column) == at
    assert (error.file, error.parsed) == ("mesh.yaml", False)
    assert re.match(r"mesh\.yaml(:\d+:\d+)?: cannot be parsed: \S", str(error))


@pytest.mark.parametrize("content", ["[" * 600, "[" * 600 + "]" * 600, "{a: " * 600 + "}" * 600])
def test_deep_nesting_is_not_parsed(tmp_path: Path, content: str) -> None:
    error = refusal(tmp_path, content)
    assert (error.file, error.parsed) == ("mesh.yaml", False)


def test_exactly_1_mib_is_read(tmp_path: Path) -> None:
    # A long comment costs the parser nothing; the size alone is at the limit.
    content = MESH + "#" * (1024 * 1024 - len(MESH))
    assert load(tmp_path, content).digest == load(tmp_path).digest
    assert len(content) == yamldoc.MAX_BYTES


@pytest.mark.parametrize("missing", ["mesh.yaml", "agents.yaml"])
def test_a_file_that_is_not_there(tmp_path: Path, missing: str) -> None:
    load(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(PolicyError, match="cannot be read: No such file") as refused:
        load_policy(tmp_path)
    assert not refused.value.parsed
    assert refused.value.file == str(tmp_path / missing)


def test_every_cut_of_the_files_loads_or_is_refused(tmp_path: Path) -> None:
    cuts = [("mesh", MESH[:end]) for end in range(MESH.index(":") + 1, len(MESH) - 1, 13)]
    cuts += [("agents", AGENTS[:end]) for end in range(AGENTS.index(":") + 1, len(AGENTS) - 1, 7)]
    refused = []
    for name, content in cuts:
        try:
            load(tmp_path, **{name: content})  # type: ignore[arg-type]
        except PolicyError as error:
            refused.append(error.file)
    assert len(cuts) > len(refused) >= 70
    assert set(refused) == {"mesh.yaml", "agents.yaml"}


ODD = {
    "text": ("hello\n", (1, 1)),
    "list": ("- a\n", (1, 1)),
    "impossible date": (changed(MESH, "600000", "2026-13-45"), (4, 38)),
    "impossible time": (changed(MESH, "600000", "2026-01-01 00:00:61"), (4, 38)),
    "number without digits": (changed(MESH, "600000", "0x_"), (4, 38)),
    "number of 5,000 digits": (changed(MESH, "600000", "9" * 5000), (4, 38)),
    "endless retention": (changed(MESH, "  domains:\n", topics("retention: 999999999d")), (6, 23)),
    "version as a truth": (changed(MESH, "  global:", "  version: true\n  global:"), (2, 12)),
}


@pytest.mark.parametrize(("content", "at"), ODD.values(), ids=ODD)
def test_refused_too(tmp_path: Path, content: str, at: tuple[int, int]) -> None:
    error = refusal(tmp_path, content)
    assert (error.file, error.line, error.column) == ("mesh.yaml", *at)


# The compiled form.


@pytest.mark.parametrize(
    ("document", "code"),
    [
        (b"", Code.DECODE),
        (b"[]", Code.DECODE),
        (b"{}", Code.DECODE),
        (b"\xff", Code.DECODE),
        (b'{"format":"sealbus.policy/1"}', Code.DECODE),
        (b'{"format":"sealbus.policy/2"}', Code.VERSION),
    ],
)
def test_other_bytes_are_no_policy(document: bytes, code: Code) -> None:
    with pytest.raises(WireError) as refused:
        compile_policy(document)
    assert refused.value.code is code


@pytest.mark.parametrize("key", ["format", "global", "topics", "domains", "agents"])
def test_a_document_without_a_key_is_no_policy(tmp_path: Path, key: str) -> None:
    document = json.loads(load(tmp_path).document)
    del document[key]
    with pytest.raises(WireError) as refused:
        compile_policy(canonical(document))
    assert refused.value.code is Code.DECODE
