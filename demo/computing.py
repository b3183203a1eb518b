"""A stack whose law has a domain of every tier that computes, and one scene a tier on it.

The parties' keys and the context of homomorphic encryption are made before the law is applied: the law names them.
"""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bus.client.bus import Bus
from bus.client.fhe import create
from bus.client.party import PartyOf, create_key
from bus.files import Layout, make_folder
from bus.settings import Mechanism, Settings
from bus.stack.local import Stack, prepare
from bus.tiers.fheframe import Scheme
from bus.workload.runner import Workload

WAIT_S: Final = 60.0
ROWS: Final = 512
SECRET: Final = "account 4711-0815"
AGENTS: Final = """agents:
  bank-1: {role: SOURCE}
  reader-1: {role: READER}
  worker-1: {role: WORKER}
  analyst-1: {role: ANALYST}
  lender-1: {role: LENDER}
  party-a: {role: PARTY}
  party-b: {role: PARTY}
"""
LAW: Final = """security_mesh:
  global: {{tls_min_version: "1.3", credential_rotation_interval_ms: 600000, audit_scope: FULL_MESH}}
  topics: {{partitions: 2}}
  domains:
    - name: memory
      tier: RETRIEVAL
      allowed_roles: [SOURCE, READER]
      metadata_masking: true
      audit_level: FULL_MESH
      blind_index: [value.customer]
    - name: inference
      tier: COMPUTATION
      protect_at: source
      allowed_roles: [SOURCE, WORKER]
      metadata_masking: true
      audit_level: FULL_MESH
    - name: fraud_stats
      tier: COMPUTATION
      computation: mpc
      protect_at: source
      allowed_roles: [SOURCE, PARTY, ANALYST]
      metadata_masking: true
      audit_level: FULL_MESH
      mpc:
        parties:
          party-a: {{key: "{first}"}}
          party-b: {{key: "{second}"}}
        fields: {{amount: {{min: 0, max: 1000, bins: 4}}}}
        groups: {{country: [de, fr, us]}}
        minimum_cohort: 100
        release_to: [ANALYST]
    - name: credit
      tier: FHE
      protect_at: source
      fhe_context: {context}
      allowed_roles: [LENDER, ANALYST]
      metadata_masking: true
      audit_level: FULL_MESH
"""


@contextmanager
def site(home: Path) -> Iterator[Stack]:
    """The stack, in ``home``; removed at the end. lender-1 holds the secret of the encryption."""
    law = make_folder(home / "law")
    # Passwords: a client with a token takes a second more to open, and there are a dozen.
    settings = Settings(state=home / "state", policies=law, sasl_mechanism=Mechanism.SCRAM)
    (law / "agents.yaml").write_text(AGENTS)
    settings = prepare(settings)
    layout = Layout(settings.state)
    context = create(layout, "lender-1", Scheme.CKKS).hex()
    first, second = (create_key(layout, name) for name in ("party-a", "party-b"))
    (law / "mesh.yaml").write_text(LAW.format(first=first, second=second, context=context))
    stack = Stack(settings)
    try:
        stack.up(lambda _: None)
        yield stack
    finally:
        stack.down(lambda _: None, purge=True)


def remembered(settings: Settings) -> tuple[bool, str]:
    """RETRIEVAL: one agent puts, another one gets, and finds it by a value that the broker knows as a token only."""
    with Bus("bank-1", settings=settings) as bank, Bus("reader-1", settings=settings) as reader:
        bank.memory("memory").put("note/1", {"customer": "c-17", "text": SECRET}, purpose="care")
        got = reader.memory("memory").get("note/1", timeout=WAIT_S)
        found = reader.search("memory", timeout=WAIT_S, **{"value.customer": "c-17"})
    return got == {"customer": "c-17", "text": SECRET} and len(found) == 1, f"{len(found)} found by value.customer"


def confined(settings: Settings, code: Path) -> tuple[bool, str]:
    """COMPUTATION by tee: a function that reaches neither files nor network answers; the enforcer sees neither side."""
    settings = dataclasses.replace(settings, attester_code=code)
    stop = threading.Event()
    with Bus("worker-1", settings=settings) as worker, Bus("bank-1", settings=settings) as bank:
        served = Workload(worker, settings, "scoring:score", "inference", "", WAIT_S)
        thread = threading.Thread(target=served.run, args=(stop,), daemon=True)
        thread.start()
        inbox = bank.subscribe("inference")
        sent = bank.publish("inference", {"income": 4200.0, "debt": 1000.0, "secret": SECRET}, purpose="credit")
        got = next((each for each in iter(lambda: inbox.get(WAIT_S), None) if sent.id in each.causation), None)
        stop.set()
        thread.join(WAIT_S)
    told = got.value() if got is not None else {}
    return told == {
        "score": 3.2,
        "opened": "PermissionError",
    }, f"score {told.get('score')}, a file: {told.get('opened')}"


def together(settings: Settings) -> tuple[bool, str]:
    """COMPUTATION by mpc: totals of two parties, each with a share that says nothing."""
    stop = threading.Event()
    amounts = [float(number * 37 % 1000) for number in range(ROWS)]
    countries = [("de", "fr", "us")[number % 3] for number in range(ROWS)]
    with (
        Bus("party-a", settings=settings) as first,
        Bus("party-b", settings=settings) as second,
        Bus("bank-1", settings=settings) as bank,
        Bus("analyst-1", settings=settings) as analyst,
    ):
        served = [PartyOf(each, Layout(settings.state), "fraud_stats") for each in (first, second)]
        threads = [threading.Thread(target=each.run, args=(stop,), daemon=True) for each in served]
        for thread in threads:
            thread.start()
        bank.publish("fraud_stats", {"amount": amounts, "country": countries}, purpose="fraud")
        found = analyst.mpc.aggregate("fraud_stats", timeout=WAIT_S)
        stop.set()
        for thread in threads:
            thread.join(WAIT_S)
    mean = math.fsum(amounts) / ROWS
    right = abs(found.fields["amount"].mean - mean) < 1e-2 and found.groups["country"]["de"] == countries.count("de")
    return right and found.rows == ROWS, f"mean {found.fields['amount'].mean:.2f} of {found.rows} rows"


def encrypted(settings: Settings) -> tuple[bool, str]:
    """FHE: an analyst without the secret scores columns that it cannot read; their owner decrypts."""
    columns = {
        "income": [math.sin(number) for number in range(ROWS)],
        "debt": [math.cos(number) for number in range(ROWS)],
    }
    weights, bias = {"income": 0.7, "debt": -1.1}, 0.1
    with Bus("lender-1", settings=settings) as lender, Bus("analyst-1", settings=settings) as analyst:
        theirs, mine = analyst.subscribe("credit"), lender.subscribe("credit")
        sent = lender.publish("credit", columns, purpose="credit")
        got = next((each for each in iter(lambda: theirs.get(WAIT_S), None) if each.id == sent.id), None)
        if got is None:
            return False, "no batch came"
        scored = analyst.publish("credit", analyst.fhe.open(got).linear(weights, bias), causation=[got])
        back = next((each for each in iter(lambda: mine.get(WAIT_S), None) if each.id == scored.id), None)
        scores = lender.fhe.decrypt(lender.fhe.open(back), digits=6)["score"] if back is not None else []
    expected = [bias + sum(weights[name] * columns[name][row] for name in weights) for row in range(ROWS)]
    if len(scores) != ROWS:
        return False, f"{len(scores)} scores"
    error = max(abs(one - other) for one, other in zip(scores, expected, strict=True))
    return error < 1e-4, f"{ROWS} scores within {error:.0e} of those in the clear"
