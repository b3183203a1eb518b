"""Shares of two and three parties, in batches of 500 rows: what a source and a party take a row, without a broker."""

from __future__ import annotations

import random
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from bench.fhe import cpu_us
from bus.client.sharing import shares
from bus.policy.sharing import SharingRule, compile_sharing
from bus.tiers.mpc import add, encode_rows, split, totals, vector_of
from bus.tiers.mpcframe import ShareFrame

ROWS: Final = 500
BATCHES: Final = 200


def measure() -> dict[str, dict[str, float]]:
    """By number of parties: CPU us a row to share (encoded, split, sealed to every party), and to open and add up at
    each party and combine; bytes a row of all shares."""
    return {str(parties): _of(parties) for parties in (2, 3)}


def _of(parties: int) -> dict[str, float]:
    keys = {f"party-{number}": X25519PrivateKey.generate() for number in range(parties)}
    rule = compile_sharing({
        "parties": {name: {"key": key.public_key().public_bytes_raw().hex()} for name, key in keys.items()},
        "fields": {"amount": {"min": 0.0, "max": 1000.0}},
        "groups": {"country": ["de", "fr", "us"]},
        "minimum_cohort": 2,
        "release_to": ["ANALYST"],
    })  # fmt: skip
    made = random.Random(1)
    columns = {
        "amount": [made.uniform(0, 1000) for _ in range(ROWS)],
        "country": made.choices(["de", "fr", "us"], k=ROWS),
    }
    encoded = [each.data for each in shares(rule, "stats", "bank-1", columns)]
    opened = [_opened(rule, data, keys[party.name]) for data, party in zip(encoded, rule.parties, strict=True)]
    share = cpu_us(lambda: shares(rule, "stats", "bank-1", columns)) / ROWS
    split_us = cpu_us(lambda: split(encode_rows(rule, columns)[1], parties)) / ROWS
    party = cpu_us(lambda: _opened(rule, encoded[0], keys[rule.parties[0].name])) / ROWS
    sums = [add([each] * BATCHES, rule.width) for each in opened]
    combined = (
        cpu_us(lambda: [add([each] * BATCHES, rule.width) for each in opened])
        + cpu_us(lambda: totals(rule, sums, ROWS * BATCHES))
    ) / (ROWS * BATCHES)
    return {
        "share_us": share,
        "split_us": split_us,
        "party_us": party,
        "combine_us": combined,
        "all_us": share + parties * party + combined,
        "bytes": sum(map(len, encoded)) / ROWS,
    }


def _opened(rule: SharingRule, data: bytes, key: X25519PrivateKey) -> bytes:
    return vector_of(ShareFrame.parse(data).open(key, "stats", "bank-1"), rule.width)
