"""The example that the language was designed with: it loads, passes its own cases, and has every key of a domain."""

from __future__ import annotations

from pathlib import Path

from bus.policy.document import Domain
from bus.policy.loader import load_policy

FOLDER = Path(__file__).parent / "published"
UNUSED = {"kinds", "consume", "delegates", "user_required", "max_token_age_ms", "protect_at", "fhe_context", "mpc"} | {
    "sealed_fields",
    "constant_size",
}
"""Keys that it has no need of."""


def test_it_passes_its_own_cases(run):
    told = run("policy", "test", str(FOLDER))
    assert (told.code, told.out.splitlines()[-1]) == (0, "9 cases, 0 failed")


def test_no_key_of_a_domain_is_missing_from_it_but_those_named_here():
    text = (FOLDER / "mesh.yaml").read_text()
    assert {name for name in Domain.model_fields if f"{name}:" not in text} == UNUSED


def test_its_domains_are_what_it_says():
    policy = load_policy(FOLDER, development=True)
    memory = policy.domains["agent_memory"]
    assert (memory.blind_index, memory.padding, memory.payload_kept) == (("customer_id",), 4352, True)
