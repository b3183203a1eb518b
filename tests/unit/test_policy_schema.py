"""The published JSON Schemas of the policy files: up to date, true of every file here, and as strict as the models.

No dependency validates JSON Schema: ``json_schema`` beside this file knows the keywords in use.
"""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from pydantic import BeforeValidator, ValidationError

from bus.policy.yamldoc import read
from bus.wire.schemas import SCHEMA_DIRECTORY
from tests.unit.json_schema import is_json_schema, refusals
from tests.unit.law_files import EXAMPLE, POLICIES
from tools import policy_schema
from tools.policy_keys import MEANING, key_of, meaning, models

NAMES = list(policy_schema.FILES)
PUBLISHED = {name: json.loads((SCHEMA_DIRECTORY / f"{name}.schema.json").read_text()) for name in NAMES}
FILES = [(name, folder / f"{name}.yaml") for folder in (POLICIES, EXAMPLE) for name in NAMES]
FILES = [(name, file) for name, file in FILES if file.exists()]


def refused(name: str, value: Any) -> list[str]:
    return list(refusals(value, PUBLISHED[name], PUBLISHED[name]))


def accepted_by_the_model(name: str, value: Any) -> bool:
    try:
        policy_schema.FILES[name].model_validate(value)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_is_what_the_models_say_now(name):
    assert (SCHEMA_DIRECTORY / f"{name}.schema.json").read_text() == policy_schema.text(name), (
        "run `python -m tools.policy_schema`"
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_has_no_keyword_that_nobody_checks_and_names_itself_by_its_file(name):
    is_json_schema(PUBLISHED[name], PUBLISHED[name])
    assert PUBLISHED[name]["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert PUBLISHED[name]["$id"] == f"{name}.schema.json"


def test_every_key_is_told_and_nothing_is_told_of_a_key_that_is_not_there():
    fields = {
        f"{model.__name__}.{key_of(model, field)}": meaning(model, key_of(model, field))
        for root in policy_schema.FILES.values()
        for model in models(root)
        for field in model.model_fields
    }
    assert all(fields.values())
    bases = {each.__name__ for root in policy_schema.FILES.values() for model in models(root) for each in model.__mro__}
    assert {each.partition(".")[0] for each in MEANING} <= bases
    assert set(MEANING) <= set(fields)


def test_what_the_file_has_as_text_and_the_model_as_a_number_is_text_in_the_schema():
    found = set()
    for root in policy_schema.FILES.values():
        for model in models(root):
            for name, field in model.model_fields.items():
                made = json.dumps(model.model_json_schema(by_alias=True)["properties"][key_of(model, name)])
                if BeforeValidator.__name__ in repr(field) and name != "version":
                    found.add(f"{model.__name__}.{name}")
                    assert '"pattern"' in made, (
                        f"{model.__name__}.{name} needs a WithJsonSchema in bus/policy/values.py"
                    )
                    assert "integer" not in made
    assert {"Topics.retention", "BrokerQuota.produce", "BrokerQuota.requests"} <= found


@pytest.mark.parametrize(("name", "file"), FILES, ids=[str(file.relative_to(POLICIES.parent)) for _, file in FILES])
def test_a_policy_file_is_what_its_schema_says(name, file):
    value = read(file).value
    assert refused(name, value) == []
    assert accepted_by_the_model(name, value)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_the_example_names_its_schema_for_editors(name):
    first = (EXAMPLE / f"{name}.yaml").read_text().splitlines()[0]
    comment, _, path = first.partition("$schema=")
    assert comment == "# yaml-language-server: "
    assert (EXAMPLE / path).resolve() == (SCHEMA_DIRECTORY / f"{name}.schema.json").resolve()


# Refusals: a copy of the example with one change is refused by the schema and by the model, at the same place.

NO_KEY = object()
CHANGES: dict[str, tuple[str, str, Any]] = {
    "an unknown key at the top": ("mesh", "mesh", 1),
    "an unknown key of the law": ("mesh", "security_mesh/tenant", ["hr"]),
    "an unknown key of a domain": ("mesh", "security_mesh/domains/0/teir", "RETRIEVAL"),
    "an unknown key of a flow": ("mesh", "security_mesh/flows/0/form", "eu"),
    "a model's name for a key": ("mesh", "security_mesh/flows/0/from_", "eu"),
    "an unknown tier": ("mesh", "security_mesh/domains/0/tier", "RETRIVAL"),
    "a truth as text": ("mesh", "security_mesh/domains/0/metadata_masking", "yes"),
    "a truth as a number": ("mesh", "security_mesh/domains/0/metadata_masking", 1),
    "a number for text": ("mesh", "security_mesh/global/tls_min_version", 1.3),
    "text for a number": ("mesh", "security_mesh/global/credential_rotation_interval_ms", "600000"),
    "a truth for a number": ("mesh", "security_mesh/global/credential_rotation_interval_ms", True),
    "too long an interval": ("mesh", "security_mesh/global/credential_rotation_interval_ms", 900_001),
    "too short an interval": ("mesh", "security_mesh/global/credential_rotation_interval_ms", 999),
    "a number for a duration": ("mesh", "security_mesh/topics/retention", 604_800_000),
    "a duration without a unit": ("mesh", "security_mesh/topics/retention", "7"),
    "a duration of another unit": ("mesh", "security_mesh/topics/retention", "7w"),
    "a duration of nothing": ("mesh", "security_mesh/topics/retention", "0d"),
    "a duration and more": ("mesh", "security_mesh/topics/retention", "7d\n"),
    "a number for a byte rate": ("mesh", "security_mesh/broker_quotas", {"default": {"produce": 4096}}),
    "a byte rate of no time": ("mesh", "security_mesh/broker_quotas", {"default": {"produce": "4MiB"}}),
    "a share without its sign": ("mesh", "security_mesh/broker_quotas", {"default": {"requests": "20"}}),
    "a quota of what is no role": ("mesh", "security_mesh/broker_quotas", {"retriever": {"requests": "20%"}}),
    "another version": ("mesh", "security_mesh/version", 2),
    "a version as text": ("mesh", "security_mesh/version", "1"),
    "a version as a truth": ("mesh", "security_mesh/version", True),
    "a role in lower case": ("mesh", "security_mesh/domains/0/allowed_roles/0", "retriever"),
    "a role's name in lower case": ("mesh", "security_mesh/roles/analyst", {}),
    "a zone in upper case": ("mesh", "security_mesh/zones/EU", {}),
    "a tenant that is no text": ("mesh", "security_mesh/tenants/0", 7),
    "a tenant that ends a line": ("mesh", "security_mesh/tenants/0", "hr\n"),
    "a tool with a space": ("mesh", "security_mesh/domains/1/tools/sql read", []),
    "nobody is allowed": ("mesh", "security_mesh/domains/0/allowed_roles", []),
    "no domains": ("mesh", "security_mesh/domains", []),
    "no name": ("mesh", "security_mesh/domains/0/name", NO_KEY),
    "no global": ("mesh", "security_mesh/global", NO_KEY),
    "no law": ("mesh", "security_mesh", NO_KEY),
    "a mapping for a list": ("mesh", "security_mesh/domains", {}),
    "a list for a mapping": ("mesh", "security_mesh/roles", []),
    "an empty condition": ("mesh", "security_mesh/conditions/stated-purpose", ""),
    "too long a condition": ("mesh", "security_mesh/conditions/stated-purpose", "1" * 1001),
    "a condition that is a truth": ("mesh", "security_mesh/conditions/stated-purpose", True),
    "what a guardrail cannot do": ("mesh", "security_mesh/guardrails/no-pii/then", "refuse"),
    "where a guardrail cannot look": ("mesh", "security_mesh/guardrails/no-pii/on", ["headers"]),
    "an unknown kind": ("mesh", "security_mesh/domains/0/kinds", ["LETTER"]),
    "too many partitions": ("mesh", "security_mesh/topics/partitions", 257),
    "an unknown key of an agent": ("agents", "agents/executor-1/rol", "EXECUTOR"),
    "an agent in upper case": ("agents", "agents/Executor-1", {"role": "EXECUTOR"}),
    "an agent that is no mapping": ("agents", "agents/executor-1", "EXECUTOR"),
    "a role that is a list": ("agents", "agents/executor-1/role", ["EXECUTOR"]),
    "roles that are none": ("agents", "agents/executor-1/roles", []),
    "no agents": ("agents", "agents", {}),
    "agents without their key": ("agents", "agents", NO_KEY),
    "an unknown key of a case": ("cases", "cases/0/rul", "tenants"),
    "an unknown key of a matrix": ("cases", "matrix/0/excepts", ["ana"]),
    "an unknown key of the base": ("cases", "base/wo", "exe"),
    "an unknown list": ("cases", "case", []),
    "a question of another verb": ("cases", "cases/0/do", "write agent_memory"),
    "a question of nothing": ("cases", "cases/0/do", "produce"),
    "an unknown decision": ("cases", "cases/0/expect", "MAYBE"),
    "no question": ("cases", "cases/0/do", NO_KEY),
    "no questions": ("cases", "matrix/0/do", []),
    "one agent where many are": ("cases", "matrix/0/who", "exe"),
    "many agents where one is": ("cases", "cases/0/who", ["exe"]),
    "a size that is text": ("cases", "cases/0/size", "1KiB"),
    "a load that is text": ("cases", "cases/0/load", "high"),
    "metadata that is no text": ("cases", "cases/0/metadata", {"a": 1}),
    "an unknown border": ("cases", "never/0/crosses", "seas"),
    "a measurement of zeros": ("agents", "agents/executor-1/measurements", ["snp:" + "0" * 96]),
    "a measurement of a PCR that can be reset": ("agents", "agents/executor-1/measurements", ["tpm:pcr16:" + "1" * 64]),
    "no measurements": ("agents", "agents/executor-1/measurements", []),
    "a truth that is none": ("cases", "agents/exe/attested", "true"),
}


def with_change(name: str, path: str, value: Any) -> Any:
    changed = copy.deepcopy(read(EXAMPLE / f"{name}.yaml").value)
    *above, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    at = changed
    for part in above:
        at = at[part]
    if value is NO_KEY:
        del at[last]
    else:
        at[last] = value
    return changed


@pytest.mark.parametrize(("name", "path", "value"), CHANGES.values(), ids=CHANGES)
def test_what_the_model_refuses_the_schema_refuses(name, path, value):
    changed = with_change(name, path, value)
    assert not accepted_by_the_model(name, changed)
    places = {told.partition(":")[0] for told in refused(name, changed)}
    assert len(places) == 1
    # The very place, one below it, or one above where only a whole can be refused.
    (place,) = places
    assert place.startswith(f"/{path}") or f"/{path}/".startswith(f"{place}/")


KEPT: dict[str, tuple[str, str, Any]] = {
    "quotas of a role": (
        "mesh",
        "security_mesh/broker_quotas",
        {"default": {"requests": "20%"}, "ANALYST": {"produce": "4MiB/s"}},
    ),
    "the shortest duration": ("mesh", "security_mesh/topics/retention", "1ms"),
    "another duration": ("mesh", "security_mesh/topics/backlog_horizon", "90s"),
    "the longest interval": ("mesh", "security_mesh/global/credential_rotation_interval_ms", 900_000),
    "no version": ("mesh", "security_mesh/version", NO_KEY),
    "no masks": ("mesh", "security_mesh/domains/0/masks", []),
    "nothing for a list": ("mesh", "security_mesh/domains/0/produce", None),
    "nobody may call": ("mesh", "security_mesh/domains/1/tools/mail.send", []),
    "a tool of four words": ("mesh", "security_mesh/domains/1/tools/a.b.c.d", ["ANALYST"]),
    "several roles": ("agents", "agents/executor-1", {"roles": ["EXECUTOR", "ANALYST"], "tenant": "hr", "zone": "us"}),
    "measurements": (
        "agents",
        "agents/executor-1/measurements",
        ["software:sha256:" + "a" * 64, "tpm:pcr14:" + "b" * 64, "snp:" + "c" * 96, "nitro:pcr0:" + "d" * 96],
    ),
    "any payload": ("cases", "cases/0/payload", [1, "a", {"b": None}, [True]]),
    "a whole load": ("cases", "cases/0/load", 1),
    "everyone": ("cases", "matrix/0/who", "all"),
    "some": ("cases", "matrix/0/who", ["exe", "ret"]),
}


@pytest.mark.parametrize(("name", "path", "value"), KEPT.values(), ids=KEPT)
def test_what_the_model_takes_the_schema_takes(name, path, value):
    changed = with_change(name, path, value)
    assert accepted_by_the_model(name, changed)
    assert refused(name, changed) == []


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "integer"}, 1, True),
        ({"type": "number"}, 1.5, "1.5"),
        ({"type": "boolean"}, False, 0),
        ({"type": "null"}, None, 0),
        ({"const": 1}, 1, True),
        ({"enum": ["a"]}, "a", "b"),
        ({"pattern": "^a$"}, "a", "a\n"),
        ({"minLength": 1}, "a", ""),
        ({"maxLength": 1}, "a", "ab"),
        ({"minItems": 1}, [1], []),
        ({"maxItems": 1}, [1], [1, 2]),
        ({"minProperties": 1}, {"a": 1}, {}),
        ({"maxProperties": 1}, {"a": 1}, {"a": 1, "b": 2}),
        ({"minimum": 1}, 1, 0),
        ({"maximum": 1}, 1, 2),
        ({"required": ["a"]}, {"a": 1}, {"b": 1}),
        ({"items": {"type": "string"}}, ["a"], ["a", 1]),
        ({"properties": {"a": {"type": "string"}}}, {"a": "b"}, {"a": 1}),
        ({"properties": {"a": {}}, "additionalProperties": False}, {"a": 1}, {"b": 1}),
        ({"additionalProperties": {"type": "string"}}, {"a": "b"}, {"a": 1}),
        ({"propertyNames": {"pattern": "^a"}}, {"ab": 1}, {"ba": 1}),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, None, 1),
        ({"$ref": "#/$defs/x", "$defs": {"x": {"type": "string"}}}, "a", 1),
    ],
    ids=lambda each: str(each) if isinstance(each, dict) else None,
)
def test_the_validator_of_these_tests_can_refuse(schema, good, bad):
    is_json_schema(schema, schema)
    assert list(refusals(good, schema, schema)) == []
    assert list(refusals(bad, schema, schema)) != []
