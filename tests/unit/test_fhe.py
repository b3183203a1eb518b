"""Encrypted columns: what is computed on them is what plain arithmetic gives, and what would be garbage is refused."""

import contextlib
import math
import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.errors import Refused, WireError
from bus.tiers import fhe
from bus.tiers.fhe import MAX_ROWS, MIN_ROWS, MODULUS, Context, capacity, digest_of, make_contexts
from bus.tiers.fheframe import Column, Frame, Scheme

pytest.importorskip("tenseal", reason="tenseal is not installed: pip install 'sealbus[fhe]'")
ROWS = 512
WEIGHTS = {"income": 0.7, "debt": -1.1, "age": 0.25}


def key(scheme):
    public, secret = make_contexts(scheme)
    digest = digest_of(public)
    return Context(public, digest), Context(secret, digest)


@pytest.fixture(scope="module")
def ckks():
    return key(Scheme.CKKS)


@pytest.fixture(scope="module")
def bfv():
    return key(Scheme.BFV)


@pytest.fixture(scope="module")
def data():
    made = random.Random(7)
    return {name: [made.uniform(-1, 1) for _ in range(ROWS)] for name in WEIGHTS}


def scores(data, bias):
    return [bias + sum(weight * data[name][row] for name, weight in WEIGHTS.items()) for row in range(ROWS)]


def worst(found, expected):
    return max(abs(one - other) for one, other in zip(found, expected, strict=True))


def test_an_analyst_without_the_secret_scores_and_the_holder_reads_it(ckks, data):
    public, secret = ckks
    received = public.load(public.encrypt(data).encode())
    handed = secret.load(received.linear(WEIGHTS, 0.1).encode())
    assert worst(secret.decrypt(handed, digits=6)["score"], scores(data, 0.1)) < 1e-4
    odds = [sum(c * z**n for n, c in enumerate(fhe.LOGISTIC)) for z in scores(data, 0.1)]
    handed = secret.load(received.logistic(WEIGHTS, 0.1).encode())
    found = secret.decrypt(handed, digits=6)["probability"]
    assert worst(found, odds) < 1e-4
    assert worst(found, [1 / (1 + math.exp(-z)) for z in scores(data, 0.1)]) < 0.06
    with pytest.raises(Refused, match="expected the secret context"):
        public.decrypt(received)


def test_polynomials_and_sums_over_batches(ckks, data):
    public, secret = ckks
    one = public.encrypt(data)
    squares = secret.decrypt(one.polynomial("age", [0.5, 0, 2.0]), digits=6)["value"]
    assert worst(squares, [0.5 + 2 * x * x for x in data["age"]]) < 1e-4
    total = secret.decrypt(one.add([public.encrypt(data), one]), fold=True, digits=3)
    assert worst([total[name][0] for name in data], [3 * sum(values) for values in data.values()]) < 1e-2


def test_integers_are_exact(bfv):
    public, secret = bfv
    values = {"a": [n - 200 for n in range(ROWS)], "b": [7] * ROWS}
    made = public.load(public.encrypt(values, bound=400).encode()).linear({"a": 3, "b": -2}, 5)
    assert secret.decrypt(secret.load(made.encode()))["score"] == [3 * n - 2 * 7 + 5 for n in values["a"]]


def test_what_is_released_is_rounded(ckks, data):
    found = ckks[1].decrypt(ckks[0].encrypt(data), digits=2)["age"]
    assert found == [round(each, 2) for each in found]
    found = ckks[1].decrypt(ckks[0].encrypt(data))["age"]
    assert worst(found, data["age"]) < 1e-4
    assert found == [round(each, 4) for each in found]


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({}, "columns of one length"),
        ({"a": [0.0] * ROWS, "b": [0.0]}, "columns of one length"),
        ({"a": [0.0] * (MIN_ROWS - 1)}, f"expected {MIN_ROWS} to {MAX_ROWS} rows, found {MIN_ROWS - 1}"),
        ({"a": [0.0] * (MAX_ROWS + 1)}, f"found {MAX_ROWS + 1}"),
        ({"a": [math.nan] * ROWS}, "a: expected finite numbers"),
        ({"a": [math.inf] * ROWS}, "a: expected finite numbers"),
        ({"a": ["1"] * ROWS}, "a: expected finite numbers"),
        ({"a": [True] * ROWS}, "a: expected finite numbers"),
        ({"a": [1.5] * ROWS}, "a: expected values within 1"),
        ({"a": [10**400] * ROWS}, "a: expected values within 1"),
        ({"a": 5}, "expected columns of numbers"),
        ({1: [1.0] * ROWS}, "names of columns"),
        ({"\ud800": [1.0] * ROWS}, "names of columns"),
        ({f"c{number}": [1.0] * ROWS for number in range(65)}, "up to 64 columns"),
        ({"": [1.0] * ROWS}, "names of columns"),
        ({"x" * 65: [1.0] * ROWS}, "names of columns"),
    ],
)
def test_what_cannot_be_encrypted_is_refused(ckks, columns, why):
    with pytest.raises(Refused, match=why):
        ckks[0].encrypt(columns)


def test_few_rows_are_taken_on_purpose(ckks):
    batch = ckks[0].encrypt({"a": [0.25]}, small=True)
    assert ckks[1].decrypt(batch) == {"a": [0.25]}


def test_what_might_overflow_is_refused_before_it_is_computed(ckks, bfv, data):
    public, _ = ckks
    large = public.encrypt({"a": [100.0] * ROWS}, bound=100)
    with pytest.raises(Refused, match=r"value: might reach 970299 after 3 multiplications, where 128 is the most"):
        large.polynomial("a", [0, 0.99]).polynomial("value", [0, 0, 0, 1.0])
    batch = public.encrypt(data)
    for _ in range(3):
        batch = batch.linear(dict.fromkeys(batch.columns, 1.0), name="a")
    with pytest.raises(Refused, match="where 0 is the most"):
        batch.linear({"a": 1.0})
    with pytest.raises(Refused, match="expected scores within 5, found up to 300"):
        large.logistic({"a": 3.0})
    integers = bfv[0].encrypt({"a": [500] * ROWS}, bound=500)
    with pytest.raises(Refused, match="score: might reach 573000 after 1 multiplications, where 516096 is the most"):
        integers.linear({"a": MODULUS // 900})
    assert [capacity(Scheme.CKKS, depth) for depth in range(5)] == [2.0**127, 2.0**87, 2.0**47, 128.0, 0.0]


@pytest.mark.parametrize(
    "compute",
    [
        lambda batch: batch.linear({"gone": 1.0}),
        lambda batch: batch.linear({}),
        lambda batch: batch.linear({"age": math.nan}),
        lambda batch: batch.polynomial("age", [1.0]),
        lambda batch: batch.polynomial("age", [1.0] * 5),
        lambda batch: batch.polynomial("age", [1.0, 0.0]),
        lambda batch: batch.add([batch.linear({"age": 1.0})]),
    ],
)
def test_what_cannot_be_computed_is_refused(ckks, data, compute):
    with pytest.raises(Refused, match="FHE: "):
        compute(ckks[0].encrypt(data))


def test_bfv_takes_integers_alone(bfv):
    with pytest.raises(Refused, match="expected integers"):
        bfv[0].encrypt({"a": [0.5] * ROWS})
    batch = bfv[0].encrypt({"a": [1] * ROWS})
    with pytest.raises(Refused, match="expected integers"):
        batch.linear({"a": 0.5})
    with pytest.raises(Refused, match="expected CKKS"):
        batch.polynomial("a", [0, 1.0])


def test_batches_of_another_context_are_refused(ckks, bfv, data):
    other, _ = key(Scheme.CKKS)
    foreign = other.encrypt(data)
    with pytest.raises(Refused, match="expected context"):
        ckks[0].load(foreign.encode())
    with pytest.raises(Refused, match="expected context"):
        ckks[1].decrypt(foreign)
    with pytest.raises(Refused, match="one context"):
        ckks[0].encrypt(data).add([foreign])


@pytest.mark.parametrize("bad", [b"", b"\x01", b"\x03" + bytes(50), b"\x01" + b"x" * 50])
def test_what_is_no_context_is_refused(bad):
    with pytest.raises(Refused, match="not a context"):
        Context(bad, bytes(32))


FRAMES = st.builds(
    Frame,
    st.sampled_from(list(Scheme)),
    st.binary(min_size=32, max_size=32),
    st.integers(1, 4096),
    st.dictionaries(
        st.text(min_size=1, max_size=10),
        st.builds(Column, st.binary(max_size=40), st.floats(0, 1e300, allow_nan=False), st.integers(0, 8)),
        min_size=1,
        max_size=4,
    ),
)


@given(frame=FRAMES)
def test_a_frame_has_one_encoding(frame):
    data = frame.encode()
    assert Frame.parse(data) == frame
    assert Frame.parse(data).encode() == data


@given(frame=FRAMES, at=st.integers(0, 10**6), change=st.integers(1, 255))
def test_a_changed_frame_is_another_or_refused(frame, at, change):
    data = bytearray(frame.encode())
    data[at % len(data)] ^= change
    with contextlib.suppress(WireError):
        assert Frame.parse(bytes(data)).encode() == bytes(data)


@pytest.mark.parametrize("data", [b"", b"SBF1", b"SBF1\x01" + bytes(35), b"x" * 100])
def test_what_is_no_frame_is_refused(data):
    with pytest.raises(WireError, match="expected a batch of encrypted columns"):
        Frame.parse(data)


def test_ciphertexts_of_another_length_or_none_are_refused(ckks, data):
    public, _ = ckks
    frame = Frame.parse(public.encrypt(data).encode())
    for rows, cipher in ((ROWS - 1, frame.columns["age"].cipher), (ROWS, frame.columns["age"].cipher[:-7])):
        changed = Frame(frame.scheme, frame.context, rows, {"age": Column(cipher, 1.0, 0)})
        with pytest.raises(Refused, match=r"age: (expected 511 slots, found 512|not a ciphertext)"):
            public.load(changed.encode())
    assert struct.unpack(">H", public.encrypt(data).encode()[37:39]) == (ROWS,)


@pytest.mark.parametrize("bound", [0, -1, math.nan, math.inf])
def test_a_bound_is_a_positive_number(ckks, bound):
    with pytest.raises(Refused, match="bound: expected a positive number"):
        ckks[0].encrypt({"a": [0.0] * ROWS}, bound=bound)


def vector(sizes, *ciphers):
    """TenSEAL's message of a CKKS vector, as a hostile agent may write it."""

    def varint(number):
        low, rest = number & 0x7F, number >> 7
        return bytes((low | 0x80,)) + varint(rest) if rest else bytes((low,))

    packed = b"".join(map(varint, sizes))
    made = b"\x0a" + varint(len(packed)) + packed
    made += b"".join(b"\x12" + varint(len(each)) + each for each in ciphers)
    return made + b"\x19" + struct.pack("<d", 2.0**40)


def test_a_frame_that_says_what_is_not_so_is_refused_before_the_library_computes(ckks, data):
    public, _ = ckks
    honest = public.encrypt(data)
    for sizes, inner in (([ROWS], []), ([ROWS // 2, ROWS // 2], [b""]), ([], [])):
        frame = Frame(Scheme.CKKS, public.digest, ROWS, {"age": Column(vector(sizes, *inner), 1.0, 0)})
        with pytest.raises(Refused, match="age: "):
            public.load(frame.encode())
    # Another depth than its own: more multiplications would be permitted than it has levels.
    assert honest.polynomial("age", [0, 0, 1.0]).columns["value"].depth == 1
    deep = honest.polynomial("age", [0.5, 0.3, 0.7])
    told = Frame.parse(deep.encode())
    for depth in (0, 1, 3, 8):
        column = Column(told.columns["value"].cipher, 1.0, depth)
        with pytest.raises(Refused, match=f"value: expected one ciphertext after {depth} multiplications"):
            public.load(Frame(Scheme.CKKS, public.digest, ROWS, {"value": column}).encode())
    assert public.load(deep.encode()).columns["value"].depth == 2
