"""One enforcer of one domain and its readers, for tests of what guardrails, masks and conditions of the moment do.

From a sealed record to what a reader opens, what the hop says, what the agent is told and what lies in the dead letter.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from bus.client.delivery import Delivery
from bus.client.opening import Profiles, open_bundle
from bus.crypto.keys import purpose_key
from bus.crypto.seal import open_counted
from bus.policy.model import GuardrailRule, MaskRule
from bus.wire import hopblock, preimage, records
from bus.wire.hop import Hop, Verdict, decode_hop
from consumers.enforcer.derive import Derivation, derive
from consumers.enforcer.inspector import Inspector
from consumers.enforcer.outcome import Outcome, Refused
from tests.unit.build import DEPLOYMENT, MEMORY, NOW, World, domain_policy, enforce, make_policy, plaintext, state

MAIL, CARD, KEY = "ops-desk@example.org", "5105 1051 0510 5100", "AKIA" + "Q7" * 8
SECRETS = (MAIL, CARD, KEY)
WHERE = {"guardrails:no-pii": "mesh.yaml:30", "guardrails:no-keys": "mesh.yaml:31", "masks:fields": "mesh.yaml:40"}


def guardrail(name: str, *detect: str, then: str = "redact", on: str = "payload") -> GuardrailRule:
    return GuardrailRule(name, frozenset(detect), "payload" in on, "metadata" in on, then)


def mask(name: str = "fields", *, keep: tuple[str, ...] | None = None, **changes: Any) -> MaskRule:
    """``payload`` gives paths with dots and what is done to them; the others name keys of metadata."""
    paths = {tuple(path.split(".")): how for path, how in changes.pop("payload", {}).items()}
    keys = {how: frozenset(changes.pop(how, ())) for how in ("drop", "hash", "last4", "generalise")}
    assert not changes
    return MaskRule(name, None if keep is None else frozenset(keep), payload=paths, **keys)


NO_PII = guardrail("no-pii", "EMAIL", "CREDIT_CARD")
META = guardrail("no-pii", "EMAIL", "CREDIT_CARD", on="metadata")
NO_KEYS = guardrail("no-keys", "API_KEY", then="deny", on="payload metadata")


class Site:
    """An enforcer of one domain and its readers; keys are those of ``world``, so that two sites may share them."""

    def __init__(self, world: World | None = None, **domain: Any) -> None:
        policy = replace(make_policy(domain_policy(MEMORY, **domain)), locations=WHERE)
        self.world = world or World(policy)
        self.world.policy = policy
        self.context, self.place = self.world.context(), state()
        self.context.policy = policy
        self.sealer = self.world.sealer()
        self.trust = self.world.trust()
        self.offset = 0

    @property
    def inspector(self) -> Inspector:
        self.place.under(self.context.policy, self.context.keyring.generation)
        assert self.place.inspector is not None
        return self.place.inspector

    def sealed(self, payload: object = None, **changes: object) -> bytes:
        """A record of ``payload``: bytes, or what JSON can hold."""
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        return self.sealer.seal(0, plaintext(payload=data, **changes))[1]

    def run(self, *values: bytes, at: int = NOW) -> tuple[list[Outcome], Derivation]:
        first, self.offset = self.offset, self.offset + len(values)
        outcomes = enforce(self.context, self.place, *values, at=at, first=first)
        return outcomes, derive(outcomes, first, self.offset, self.place, self.context)

    def hops(self, made: Derivation) -> list[Hop]:
        """The hops of a transaction."""
        return [decode_hop(each) for each in self.raw_hops(made)]

    def raw_hops(self, made: Derivation) -> list[bytes]:
        found: list[bytes] = []
        for block in map(hopblock.parse, made.blocks):
            key = purpose_key(self.world.audit_roots[block.day], "block")
            aad = preimage.hop_block_aad(DEPLOYMENT, block.header)
            body = open_counted(key, "audit", block.instance, block.sequence, block.body, aad)
            found.extend(hopblock.split_hops(body, block.count))
        return found

    def read(self, made: Derivation, name: str = "READER", only: Collection[int] | None = None) -> list[Delivery]:
        """What the holders of a role's or an agent's reading key get."""
        found: list[Delivery] = []
        for value in made.bundles:
            opened = open_bundle(
                value,
                domain=MEMORY,
                topic="memory.out",
                partition=0,
                offset=3,
                append_time=NOW,
                trust=self.trust,
                tier=None,
                highest=lambda _: -1,
                reading=lambda epoch: (self.world.reading(name, MEMORY, epoch),),
                profiles=Profiles(),
                only=only,
            )
            assert not opened.refusals
            found.extend(delivery for _, delivery in opened.deliveries)
        return found

    def notices(self, made: Derivation) -> list[records.Verdict]:
        found = []
        for agent, value in made.notices:
            notice, own = records.parse_notice(value), self.world.keys(agent, MEMORY)
            aad = preimage.notice_aad(DEPLOYMENT, notice.header)
            plain = open_counted(own.notice, "notice", notice.instance, notice.sequence, notice.body, aad)
            found.append(records.parse_verdict(plain))
        return found

    def one(self, payload: object = None, **changes: object) -> tuple[Outcome, Hop, Derivation]:
        (outcome,), made = self.run(self.sealed(payload, **changes))
        (hop,) = self.hops(made)
        return outcome, hop, made

    def dead_body(self, value: bytes) -> bytes:
        letter = records.parse_dead_letter(value)
        assert letter.sealed is not None
        key = purpose_key(self.world.root(MEMORY)[1], "dead")
        aad = preimage.dead_aad(DEPLOYMENT, "memory.dead", 0, letter.origin_digest)
        return open_counted(key, "dead", letter.sealed.instance, letter.sealed.sequence, letter.sealed.body, aad)

    def says(self, made: Derivation, *secrets: str) -> list[str]:
        """Those of ``secrets`` that stand in what leaves: values on the wire, hops, notices, payloads and metadata."""
        texts = [*made.bundles, *made.dead, *made.blocks, *(value for _, value in made.notices), *self.raw_hops(made)]
        texts += [repr(notice).encode() for notice in self.notices(made)]
        for each in self.read(made):
            texts += [each.payload, json.dumps(dict(each.metadata)).encode()]
        return [secret for secret in secrets if any(secret.encode() in text for text in texts)]


def refusal(site: Site, outcome: Outcome, hop: Hop, made: Derivation) -> tuple[str, str, str]:
    """(code, rule, location) of a refusal, which outcome, hop, dead letter and notice must agree on."""
    assert isinstance(outcome, Refused)
    decision = outcome.decision
    assert not made.bundles
    assert (hop.tail.decision, hop.tail.code, hop.tail.rule) == (Verdict.DENY, decision.code, decision.rule)
    assert hop.tail.location == decision.location
    assert [records.parse_dead_letter(value).code for value in made.dead] == [decision.code]
    assert [(each.code, each.rule) for each in site.notices(made)] == [(decision.code, decision.rule)]
    return str(decision.code), decision.rule, decision.location
