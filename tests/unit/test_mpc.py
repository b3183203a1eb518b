"""Shares: what rows come to, how they are split and added up, what is refused, and what one share tells."""

import math
import random
import statistics

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from bus.codes import Code
from bus.errors import Refused, Unverified, WireError
from bus.policy.sharing import compile_sharing
from bus.tiers import mpc
from bus.tiers.mpcframe import ShareFrame

KEYS = [X25519PrivateKey.generate() for _ in range(3)]


def rule(**changes):
    names = ("party-eu", "party-us", "party-ap")
    return compile_sharing(
        {
            "parties": {
                name: {"key": key.public_key().public_bytes_raw().hex()} for name, key in zip(names, KEYS, strict=True)
            },
            "fields": {"amount": {"min": -100.0, "max": 900.0, "bins": 10}, "age": {"min": 0.0, "max": 120.0}},
            "groups": {"country": ["de", "fr", "us"]},
            "minimum_cohort": 20,
            "release_to": ["ANALYST"],
            **changes,
        }
    )


RULE = rule()
PLACE = ("stats", "bank-1")


def rows(count, seed=1):
    made = random.Random(seed)
    return {
        "amount": [made.uniform(-100, 900) for _ in range(count)],
        "age": [made.uniform(0, 120) for _ in range(count)],
        "country": [made.choice(["de", "fr", "us"]) for _ in range(count)],
    }


def combined(vectors, count):
    shares = [mpc.split(each, 3) for each in vectors]
    sums = [mpc.add([mpc.vector_of(each[party], RULE.width) for each in shares], RULE.width) for party in range(3)]
    return mpc.totals(RULE, sums, count)


def test_totals_are_those_of_the_rows():
    batches = [rows(500, seed) for seed in range(4)]
    found = combined([mpc.encode_rows(RULE, each)[1] for each in batches], 2000)
    assert found.rows == 2000
    for name, low, high, bins in (("amount", -100, 900, 10), ("age", 0, 120, 16)):
        values = [value for each in batches for value in each[name]]
        told = found.fields[name]
        assert math.isclose(told.mean, statistics.fmean(values), abs_tol=1e-5 * (high - low))
        assert math.isclose(told.sum, math.fsum(values), rel_tol=1e-6)
        assert math.isclose(told.variance, statistics.pvariance(values), rel_tol=1e-5)
        counts = [0] * bins
        for value in values:
            counts[min(int((value - low) / (high - low) * bins), bins - 1)] += 1
        assert list(told.counts) == counts
        assert (told.edges[0], told.edges[-1], len(told.edges)) == (low, high, bins + 1)
    countries = [value for each in batches for value in each["country"]]
    assert found.groups["country"] == {value: countries.count(value) for value in ("de", "fr", "us")}


def test_columns_may_be_arrays_and_one_row_a_batch():
    numpy = pytest.importorskip("numpy")
    assert mpc.encode_rows(RULE, {"amount": numpy.float64(3.0), "age": numpy.array(40), "country": "de"})[0] == 1
    arrays = {name: numpy.array(each) for name, each in rows(20).items()}
    assert mpc.encode_rows(RULE, arrays) == mpc.encode_rows(RULE, rows(20))
    assert mpc.encode_rows(RULE, {"amount": 3.0, "age": 40, "country": "de"})[0] == 1


@given(st.lists(st.integers(-(2**62), 2**62), min_size=2, max_size=40), st.integers(2, 5))
def test_any_vector_is_the_sum_of_its_shares_and_of_no_fewer(vector, parties):
    vectors = [mpc.vector_of(each, len(vector)) for each in mpc.split(vector, parties)]
    expected = b"".join((each % 2**64).to_bytes(8, "little") for each in vector)
    assert mpc.add(vectors, len(vector)) == expected
    for left_out in range(parties):
        assert mpc.add(vectors[:left_out] + vectors[left_out + 1 :], len(vector)) != expected


def test_no_two_batches_have_a_share_alike():
    vector = mpc.encode_rows(RULE, rows(10))[1]
    made = [share for _ in range(50) for share in mpc.split(vector, 3)]
    assert len(set(made)) == len(made)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"amount": [math.nan] * 4}, "amount: expected finite numbers"),
        ({"amount": [math.inf] * 4}, "amount: expected finite numbers"),
        ({"amount": [10**400] * 4}, "amount: expected values within -100 and 900"),
        ({"amount": [901.0] * 4}, "amount: expected values within -100 and 900"),
        ({"amount": [-100.1] * 4}, "amount: expected values within -100 and 900"),
        ({"amount": [True] * 4}, "amount: expected finite numbers"),
        ({"amount": ["7"] * 4}, "amount: expected finite numbers"),
        ({"amount": [1.0] * 3}, r"expected columns of one length, 1 to 4194304, found \[3, 4\]"),
        ({"country": ["de", "fr", "us", "uk"]}, "country: expected one of de, fr, us"),
        ({"country": [["de"]] * 4}, "country: expected one of de, fr, us"),
        ({"more": [1.0] * 4}, "expected columns age, amount, country, found"),
    ],
)
def test_what_cannot_be_added_up_is_refused_by_name(change, why):
    with pytest.raises(Refused, match=why) as refused:
        mpc.encode_rows(RULE, {**rows(4), **change})
    assert refused.value.code is Code.SCHEMA


def test_empty_columns_are_refused():
    with pytest.raises(Refused, match="expected columns of one length"):
        mpc.encode_rows(RULE, {"amount": [], "age": [], "country": []})


def test_a_party_that_adds_up_another_set_is_found():
    vectors = [mpc.encode_rows(RULE, rows(50, seed))[1] for seed in range(3)]
    shares = [mpc.split(each, 3) for each in vectors]
    sums = [
        mpc.add([mpc.vector_of(each[party], RULE.width) for each in (shares[:2] if party == 1 else shares)], RULE.width)
        for party in range(3)
    ]
    with pytest.raises(Unverified, match="did not add up what it said") as refused:
        mpc.totals(RULE, sums, 150)
    assert refused.value.code is Code.PARTIES


def test_sums_of_the_most_rows_stay_in_the_ring():
    largest = (1 << mpc.SCALE_BITS) ** 2 * mpc.MAX_ROWS
    assert largest < 2**63


def test_a_share_opens_with_its_party_s_key_alone():
    head = (RULE.digest, bytes(16), 5, 1, 3)
    frame = ShareFrame.seal(head, b"S" + bytes(32), RULE.parties[1].key, *PLACE)
    again = ShareFrame.parse(frame.encode())
    assert again == frame
    holder = {key.public_key().public_bytes_raw(): key for key in KEYS}
    assert again.open(holder[RULE.parties[1].key], *PLACE) == b"S" + bytes(32)
    for other in (0, 2):
        with pytest.raises(Unverified, match="not sealed to this party's key"):
            again.open(holder[RULE.parties[other].key], *PLACE)


@pytest.mark.parametrize("place", [("other", "bank-1"), ("stats", "bank-2"), ("statsb", "ank-1")])
def test_a_share_is_of_one_domain_and_source(place):
    frame = ShareFrame.seal((RULE.digest, bytes(16), 5, 1, 3), b"S" + bytes(32), RULE.parties[1].key, *PLACE)
    key = next(key for key in KEYS if key.public_key().public_bytes_raw() == RULE.parties[1].key)
    assert frame.open(key, *PLACE) == b"S" + bytes(32)
    with pytest.raises(Unverified):
        frame.open(key, *place)


def test_every_bit_of_a_share_is_authenticated():
    frame = ShareFrame.seal((RULE.digest, bytes(16), 5, 1, 3), b"S" + bytes(32), RULE.parties[1].key, *PLACE)
    key = next(key for key in KEYS if key.public_key().public_bytes_raw() == RULE.parties[1].key)
    data = frame.encode()
    for bit in range(0, len(data) * 8, 3):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises((Unverified, WireError)):
            ShareFrame.parse(bytes(changed)).open(key, *PLACE)


@pytest.mark.parametrize("data", [b"", b"SBM1", b"SBF1" + bytes(60), b"SBM1" + bytes(55)])
def test_other_bytes_are_no_share(data):
    with pytest.raises(WireError):
        ShareFrame.parse(data)


@pytest.mark.parametrize("share", [b"", b"S", b"S" + bytes(31), b"V" + bytes(8), b"X" + bytes(32)])
def test_a_share_of_another_length_is_refused(share):
    with pytest.raises(Unverified, match="expected 33 numbers"):
        mpc.vector_of(share, 33)


def test_the_rule_s_digest_covers_all_but_the_peers():
    document = {
        "parties": {"a": {"key": "11" * 32}, "b": {"key": "22" * 32, "peer": "us"}},
        "groups": {"g": ["x", "y"]},
        "minimum_cohort": 20,
        "release_to": ["ANALYST"],
    }
    there = {**document, "parties": {"a": {"key": "11" * 32, "peer": "eu"}, "b": {"key": "22" * 32}}}
    assert compile_sharing(document).digest == compile_sharing(there).digest
    for change in ({"minimum_cohort": 21}, {"groups": {"g": ["x", "z"]}}, {"release_to": ["X"]}):
        assert compile_sharing({**document, **change}).digest != compile_sharing(document).digest
