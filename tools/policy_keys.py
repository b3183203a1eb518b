"""What each key of the policy files means: told once here, read by the published schemas and by docs/policy.md.

By model and key as it stands in the file; a key that a model inherits is told under the model that has it first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, get_args

from pydantic import BaseModel

MEANING: Final = {
    # mesh.yaml
    "MeshFile.security_mesh": "The law.",
    "SecurityMesh.version": "Of this language.",
    "SecurityMesh.global": "As published: what holds for the whole mesh.",
    "SecurityMesh.topics": "How a domain's topics are made.",
    "SecurityMesh.broker_quotas": "Kafka client quotas by role; `default` for roles that are not named.",
    "SecurityMesh.roles": "What roles inherit and are cleared for; a role that needs neither need not stand here.",
    "SecurityMesh.tenants": "Vertical isolation: no record crosses. With this list every agent needs a tenant.",
    "SecurityMesh.zones": "Horizontal isolation: only `flows` cross. With this mapping every agent needs a zone.",
    "SecurityMesh.flows": "The ways between zones; whatever none of them names stays where it is.",
    "SecurityMesh.labels": "Levels and categories of what records say.",
    "SecurityMesh.conditions": "Named CEL expressions for `when`.",
    "SecurityMesh.masks": "Named masks for a domain's `masks`.",
    "SecurityMesh.guardrails": "Named guardrails for a domain's `guardrails`.",
    "SecurityMesh.rate_limits": "Named token buckets for a domain's `rate_limit`.",
    "SecurityMesh.circuit_breakers": "Named breakers for a domain's `circuit_breaker`.",
    "SecurityMesh.domains": "As published: the data domains; each becomes topics of its own.",
    "Global.tls_min_version": "Of every connection to the broker; in quotes, since YAML would read a number.",
    "Global.credential_rotation_interval_ms": "Length of an epoch: keys are renewed that often.",
    "Global.audit_scope": "Every record has a hop in the ledger.",
    "Topics.partitions": "Of every topic of a domain; fixed when it is created.",
    "Topics.replication": "Copies of each partition; fixed when it is created.",
    "Topics.retention": "How long the broker keeps records; at least `backlog_horizon`.",
    "Topics.backlog_horizon": "How old an input may be and still be enforced; roots of keys are kept as long.",
    "BrokerQuota.produce": "What an agent may send.",
    "BrokerQuota.consume": "What an agent may receive.",
    "BrokerQuota.requests": "Of the broker's time; 100% is one thread.",
    "RateLimit.per": "Whom a bucket is for; `role` is the first of an agent's roles that may produce, by name.",
    "RateLimit.rate": "How fast it fills; divided by the partitions of the domain.",
    "RateLimit.burst": "How many records it holds; divided likewise, at least one.",
    "RateLimit.max_bytes": "The largest record, as it is sent; `too-large` beyond it.",
    "CircuitBreaker.per": "Whom it is for, as with a rate.",
    "CircuitBreaker.open_after": "Refusals, by whatever rule, that open it; counted per partition.",
    "CircuitBreaker.half_open_after": "After so long one record may try; where it passes the breaker closes.",
    "Role.inherits": "Roles that its holders have with it.",
    "Role.clearance": "The highest level that its holders may read; without it the lowest.",
    "Role.categories": "The categories that its holders may read.",
    "Zone.residency": "Where its data lives.",
    "Zone.regulations": "What holds there.",
    "Flow.id": "Its name; `ID.forbid` and `ID.max_label` are its rules.",
    "Flow.from": "The zone that records leave.",
    "Flow.to": "The zone that they go to.",
    "Flow.domains": "The domains whose records may go.",
    "Flow.max_label": "The highest level that may go.",
    "Flow.forbid": "Categories that may not go.",
    "Labels.levels": "Lowest first.",
    "Labels.categories": "What a record may speak of, beside its level.",
    "Labels.propagate": "`session`: labels follow the data; where nothing proves what a record builds on, it has the "
    "highest label that its agent could have read. `tickets`: it has the label of what its agent was given in its "
    "session, as tickets prove it, and without tickets the highest. `none`: its domain's label and what it says of "
    "itself. With the last two a policy in which a role or an agent could read above and write below is refused.",
    "Labels.declassify": "Who may lower a label.",
    "Declassify.id": "Its name.",
    "Declassify.role": "Whose holders may.",
    "Declassify.from": "The highest level that they may lower.",
    "Declassify.to": "What it becomes, where it is higher.",
    "Declassify.drop": "Categories that it loses.",
    "Declassify.after": "Guardrails that the domain must have for it.",
    "Mask.keep": "The metadata keys that stay, in place of the default allowlist.",
    "Mask.drop": "What goes.",
    "Mask.hash": "What becomes an HMAC under the epoch's key: equal stays equal within an epoch.",
    "Mask.last4": "What loses all but its last four characters; all of it where it has at most eight.",
    "Mask.generalise": "What becomes a date's month, an address' network or a number's first digit; `*` else.",
    "Guardrail.detect": "Types of what is looked for.",
    "Guardrail.on": "Where.",
    "Guardrail.then": "`redact` puts `[TYPE]` in its place, `deny` refuses the record, `flag` counts it in the hop.",
    "Domain.name": "Its name and the stem of its topics.",
    "Domain.tier": "How its payload is protected.",
    "Domain.allowed_roles": "The outer bound of who may write and read.",
    "Domain.metadata_masking": "Whether metadata goes but for an allowlist.",
    "Domain.audit_level": "`OUTPUT_ONLY` leaves purpose, causes, labels and facts out of the hops of what is allowed.",
    "Domain.audit_payload": "`sealed` keeps each record with its hop, sealed as it was sent; needs `audit_level: "
    "FULL_MESH`. `digest` keeps its SHA-256 alone.",
    "Domain.attestation_required": "Keys go only to agents whose attestation result is in force; needs "
    '`issuing = "authority"` in bus.toml.',
    "Domain.produce": "Who may write.",
    "Domain.consume": "Who may read.",
    "Domain.delegates": "Who may write under a delegation alone, from an agent that may produce (docs/delegation.md). "
    "Without the key `produce` these are left out of it.",
    "Domain.kinds": "The kinds of message that may be written.",
    "Domain.tools": "Tools that may be called, and by whom; any where this is not given.",
    "Domain.label": "A floor: each of its records has at least this label.",
    "Domain.when": "Conditions that must all hold.",
    "Domain.masks": "Masks, all of them together.",
    "Domain.guardrails": "Guardrails, all of them together.",
    "Domain.rate_limit": "The rate that holds, by name; asked behind the guardrails.",
    "Domain.circuit_breaker": "The breaker that holds, by name; asked last.",
    "Domain.max_token_age_ms": "How long keys of this domain live; at most the interval of the whole mesh.",
    "Domain.padding": "Records are filled to a multiple of so many bytes, so that sizes tell no more than their cells.",
    "Domain.computation": "How a domain of tier COMPUTATION computes; `tee` unless told.",
    "Domain.protect_at": "Where payloads are protected: with `source` by who writes, and no enforcer sees them. Unless "
    "told `source` in tiers COMPUTATION and FHE, else `enforcer`.",
    "Domain.fhe_context": "SHA-256 of the context that a domain of tier FHE encrypts under: `bus fhe init`.",
    "Domain.mpc": "What a domain of tier COMPUTATION by mpc adds up, and by whom (docs/tiers.md).",
    "Mpc.parties": "Who holds shares: agents that may consume and produce, in a zone each; fewer than all of them open "
    "nothing.",
    "Mpc.fields": "Numbers: sum, mean, variance, histogram.",
    "Mpc.groups": "Texts that are counted, with every value that they may have.",
    "Mpc.minimum_cohort": "Rows that totals are over at least.",
    "Mpc.minimum_sources": "Of how many agents rows must be; then there must be a cohort without the largest, too.",
    "Mpc.release_to": "Roles whose holders may have totals, and may add nothing to them.",
    "SharedParty.key": "Its X25519 public key: `bus mpc init`.",
    "SharedParty.peer": "Where the party is of another deployment: the name that `peers` in bus.toml gives that.",
    "SharedNumber.min": "The least that it may be.",
    "SharedNumber.max": "The most that it may be.",
    "SharedNumber.bins": "Of its histogram; 16 unless told.",
    "Domain.sealed_fields": "Fields of payloads, keys with dots between them, that only readers of another domain find "
    "open: one with `protect_at: source`, whose session key they are sealed with (docs/tiers.md).",
    "Domain.constant_size": "Every record fills one cell of `padding` bytes; what is larger goes in parts, all or "
    "nothing.",
    "Domain.user_required": "Records must be on behalf of a user whose token holds (docs/delegation.md).",
    "Domain.blind_index": "Fields of payloads by whose values readers find records without opening them; "
    "whoever reads the topic learns which records of an epoch have equal values there.",
    # agents.yaml
    "AgentsFile.agents": "By name; each has an identity of its own.",
    "Agent.role": "This or `roles`.",
    "Agent.roles": "This or `role`.",
    "Agent.tenant": "One of the policy's; needed where it has any.",
    "Agent.zone": "One of the policy's; needed where it has any.",
    "Agent.measurements": "What attestation may find of it, any one of them; without any it gets no keys of domains "
    "that require attestation. A measurement more widens.",
    # cases.yaml
    "CasesFile.agents": "Doubles by name; cases may also speak of the agents of agents.yaml.",
    "CasesFile.base": "What every case and cell starts from.",
    "CasesFile.cases": "One question each.",
    "CasesFile.matrix": "One question for many.",
    "CasesFile.never": "What is searched for and must not be found.",
    "Double.role": "This, `roles` or both.",
    "Double.roles": "This, `role` or both.",
    "Double.tenant": "Its tenant.",
    "Double.zone": "Its zone.",
    "Double.attested": "Read and without effect: attestation gates keys, no decision looks at it.",
    "Facts.who": "The agent that asks.",
    "Facts.tenant": "Where the record goes, where that is not the agent's own tenant.",
    "Facts.zone": "The agent's zone, in place of its own.",
    "Facts.to": "The zone that the record goes to, where that is not the agent's.",
    "Facts.delegated_by": "Who passed on the right to write; the first of them has it by itself.",
    "Facts.kind": "MESSAGE where it is not told.",
    "Facts.target": "The agent that the record is for; RPC and TOOL kinds need one.",
    "Facts.tool": "The tool that is called.",
    "Facts.task_type": "What kind of task it belongs to.",
    "Facts.purpose": "What it is for.",
    "Facts.user": "On whose behalf, as hex.",
    "Facts.labels": "What the record builds on, beside the domain's own label.",
    "Facts.time": "ISO 8601, in quotes; UTC where it names no zone; 1970 where it is not given.",
    "Facts.load": "The enforcer's; 1 is all its cores.",
    "Facts.size": "Bytes.",
    "Facts.payload": "JSON for guardrails to look at.",
    "Facts.metadata": "Metadata for guardrails to look at.",
    "Case.name": "A sentence that says what holds.",
    "Case.do": "The question.",
    "Case.expect": "The decision.",
    "Case.rule": "The rule that must have decided.",
    "Case.obligations": "Words that must stand among the obligations.",
    "Case.redacts": "Types that guardrails must find in the payload.",
    "Case.label": "The label that the record must have.",
    "Matrix.name": "A sentence that says what holds.",
    "Matrix.who": "`all` is every double, or every agent where there are no doubles.",
    "Matrix.except": "Who is left out.",
    "Matrix.do": "The questions.",
    "Matrix.expect": "The decision in every cell.",
    "Matrix.rule": "The rule that must have decided in every cell.",
    "Never.name": "A sentence that says what never happens.",
    "Never.who": "Agents; else every double, or every agent where there are no doubles.",
    "Never.do": "Questions; else writing to every domain.",
    "Never.labels": "What the record builds on.",
    "Never.crosses": "Without it the action itself must never be allowed; with it none that leaves a zone or a tenant.",
}


def key_of(model: type[BaseModel], name: str) -> str:
    """A field's key in the file."""
    return model.model_fields[name].alias or name


def meaning(model: type[BaseModel], key: str) -> str:
    """What ``key`` of ``model`` means. Raises KeyError for one that nobody told."""
    for each in model.__mro__:
        if (found := MEANING.get(f"{each.__name__}.{key}")) is not None:
            return found
    raise KeyError(f"{model.__name__}.{key}: tools/policy_keys.py does not say what it means")


def models(root: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """``root`` and every model that stands in it, in the order of the file, each once."""
    seen: list[type[BaseModel]] = []

    def walk(annotation: Any) -> None:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            if annotation not in seen:
                seen.append(annotation)
                for field in annotation.model_fields.values():
                    walk(field.annotation)
        else:
            for each in get_args(annotation):
                walk(each)

    walk(root)
    yield from seen
