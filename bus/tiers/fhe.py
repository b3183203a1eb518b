"""FHE: columns of numbers that are computed on while they are encrypted (CKKS and BFV by TenSEAL / Microsoft SEAL).

Who holds the secret context decrypts; everybody else has the public one, with which an analyst computes and learns
nothing. Packing is by columns: one ciphertext a column, one slot a row, so that no rotation keys are needed. A batch
says how large its values may be and how often it was multiplied, and what would leave the range that its level holds is
refused before it is computed: a ciphertext that overflowed would decrypt to garbage without a word. The library takes
mutated ciphertexts, so that a batch is only as good as who handed it over: it travels sealed (``bus.crypto.session``).
"""

from __future__ import annotations

import hashlib
import importlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from bus.codes import Code
from bus.errors import Refused, SettingsError
from bus.tiers.fheframe import MAX_COLUMNS, Column, Frame, Scheme

MAX_ROWS: Final = 4096
MIN_ROWS: Final = 256
"""Fewer rows cost as much as ``MAX_ROWS``: a ciphertext of some 400 kB for each column."""
LEVELS: Final = (48, 40, 40, 40)
"""Bits of the moduli of CKKS (N = 8192); the fifth, of 50 bits, is the keys' own. 218 bits: 128-bit security."""
SCALE_BITS: Final = 40
MAX_NAME: Final = 64
MODULUS: Final = 1_032_193
"""Of BFV's integers (N = 4096): they hold up to half of it."""
LOGISTIC: Final = (0.5, 0.197, 0.0, -0.004)
"""Least squares of the logistic function on [-5, 5] (Kim et al. 2018, JMIR Med Inform 6(2), degree 3)."""
LOGISTIC_RANGE: Final = 5.0


def _library() -> Any:
    try:
        return importlib.import_module("tenseal")
    except ModuleNotFoundError:
        raise SettingsError("tier FHE: tenseal is not installed", hint="pip install 'sealbus[fhe]'") from None


def _refuse(message: str, hint: str = "") -> Refused:
    return Refused(f"FHE: {message}", code=Code.SCHEMA, hint=hint)


@contextmanager
def _computing(what: str) -> Iterator[None]:
    """What the library raises as a refusal."""
    try:
        yield
    except (ValueError, RuntimeError, TypeError, IndexError) as error:
        raise _refuse(f"{what}: the library does not take it: {type(error).__name__}") from None


def make_contexts(scheme: Scheme) -> tuple[bytes, bytes]:
    """A fresh key: the public context, and the secret one of whoever decrypts."""
    ts = _library()
    if scheme is Scheme.CKKS:
        made = ts.context(ts.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=[*LEVELS, 50], n_threads=1)
        made.global_scale = 2**SCALE_BITS
    else:
        made = ts.context(ts.SCHEME_TYPE.BFV, 4096, plain_modulus=MODULUS, n_threads=1)
    common = {"save_public_key": True, "save_galois_keys": False, "save_relin_keys": True}
    kind = bytes((scheme,))
    secret = kind + made.serialize(save_secret_key=True, **common)
    return kind + made.serialize(save_secret_key=False, **common), secret


def digest_of(public: bytes) -> bytes:
    """What names a context (SHA-256 of its public bytes)."""
    return hashlib.sha256(public).digest()


class Context:
    """A context that is loaded. ``digest`` names its public part, also where it has the secret."""

    def __init__(self, data: bytes, digest: bytes) -> None:
        """Raises Refused (schema) for what is no context."""
        ts = _library()
        try:
            self.scheme = Scheme(data[0])
            self.raw = ts.context_from(data[1:], n_threads=1)
            self.secret = bool(self.raw.is_private())
        except IndexError:
            raise _refuse("not a context: empty") from None
        except (ValueError, RuntimeError, TypeError) as error:
            raise _refuse(f"not a context: {type(error).__name__}") from None
        self.digest = digest

    def encrypt(self, columns: Mapping[str, Sequence[float]], *, bound: float = 1.0, small: bool = False) -> Batch:
        """One batch of 256 to 4,096 rows; no value may be beyond ``bound``. ``small`` permits fewer rows.

        Raises Refused (schema) for columns of different length, other counts, NaN, infinities and what is beyond the
        bound, or for BFV no integer.
        """
        if not 0 < bound < math.inf:
            raise _refuse(f"bound: expected a positive number, found {bound!r}")
        if not all(isinstance(values, Sequence) or hasattr(values, "tolist") for values in columns.values()):
            raise _refuse("expected columns of numbers")
        sizes = {len(values) for values in columns.values()}
        if len(sizes) != 1 or len(columns) > MAX_COLUMNS:
            raise _refuse(f"expected up to {MAX_COLUMNS} columns of one length, found {sorted(sizes)}")
        (rows,) = sizes
        if not 1 <= rows <= MAX_ROWS or (rows < MIN_ROWS and not small):
            raise _refuse(
                f"expected {MIN_ROWS} to {MAX_ROWS} rows, found {rows}",
                "gather rows before they are published: a batch costs the same whatever is in it",
            )
        made = {}
        for name, values in columns.items():
            _check_name(name)
            checked = [self._number(name, value, bound) for value in values]
            with _computing("encrypt"):
                made[name] = Column(self._vector(checked), float(bound), 0)
        return Batch(self, rows, made)

    def _number(self, name: str, value: float, bound: float) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise _refuse(f"{name}: expected finite numbers")
        if isinstance(value, float) and not math.isfinite(value):
            raise _refuse(f"{name}: expected finite numbers")
        if abs(value) > bound:
            raise _refuse(f"{name}: expected values within {bound:g}", "say a larger bound, or scale what is sent")
        if self.scheme is Scheme.BFV and int(value) != value:
            raise _refuse(f"{name}: expected integers for BFV")
        return value

    def _vector(self, values: list[float]) -> Any:
        ts = _library()
        if self.scheme is Scheme.BFV:
            return ts.bfv_vector(self.raw, [int(each) for each in values])
        return ts.ckks_vector(self.raw, values)

    def load(self, data: bytes) -> Batch:
        """A batch from its bytes. Raises WireError(decode) for what is no frame, Refused for another context, or
        ciphertexts of another kind or length."""
        ts, frame = _library(), Frame.parse(data)
        if frame.context != self.digest or frame.scheme is not self.scheme:
            raise _refuse(f"expected context {self.digest.hex()[:12]}, found {frame.context.hex()[:12]}")
        made = {}
        for name, column in frame.columns.items():
            try:
                vector = (ts.bfv_vector_from if self.scheme is Scheme.BFV else ts.ckks_vector_from)(
                    self.raw, column.cipher
                )
                slots, inner = vector.size(), vector.ciphertext()
            except (ValueError, RuntimeError, TypeError) as error:
                raise _refuse(f"{name}: not a ciphertext: {type(error).__name__}") from None
            if slots != frame.rows:
                raise _refuse(f"{name}: expected {frame.rows} slots, found {slots}")
            # The library believes what is told of a ciphertext, and crashes where it is not so.
            shape = vector.shape if self.scheme is Scheme.CKKS else [slots]
            if shape != [frame.rows] or len(inner) != 1 or not self._fits(inner[0], column.depth):
                raise _refuse(f"{name}: expected one ciphertext after {column.depth} multiplications")
            made[name] = Column(vector, column.bound, column.depth)
        return Batch(self, frame.rows, made)

    def _fits(self, cipher: Any, depth: int) -> bool:
        """Whether a ciphertext has the size, level and scale of its depth."""
        if cipher.is_transparent() or cipher.size() != 2:
            return False
        if self.scheme is Scheme.BFV:
            return bool(cipher.poly_modulus_degree() == 4096 and depth <= 1)
        levels = bool(cipher.coeff_modulus_size() == len(LEVELS) - depth)
        return levels and cipher.poly_modulus_degree() == 8192 and cipher.scale == 2.0**SCALE_BITS

    def decrypt(self, batch: Batch, *, digits: int = 4, fold: bool = False) -> dict[str, list[float]]:
        """Columns in the clear, rounded to ``digits``: an exact CKKS value would tell of the key (Li and Micciancio,
        EUROCRYPT 2021). ``fold`` gives the sum of each column alone. Raises Refused without the secret."""
        if not self.secret:
            raise _refuse("decrypt: expected the secret context, found the public one")
        if batch.context.digest != self.digest:
            raise _refuse(f"decrypt: expected context {self.digest.hex()[:12]}")
        found = {}
        for name, column in batch.columns.items():
            with _computing("decrypt"):
                values = column.cipher.decrypt(self.raw.secret_key())[: batch.rows]
            if len(values) != batch.rows:
                raise _refuse(f"{name}: expected {batch.rows} values, found {len(values)}")
            if fold:
                values = [sum(values)]
            found[name] = [round(each, digits) for each in values]
        return found


@dataclass(frozen=True, slots=True)
class Batch:
    """Encrypted columns. Whoever computes holds no secret; every step returns a new batch.

    Raises Refused (schema) where columns are not there, or a result might not fit its level.
    """

    context: Context = field(repr=False)
    rows: int
    columns: Mapping[str, Column] = field(repr=False)

    def linear(self, weights: Mapping[str, float], bias: float = 0.0, *, name: str = "score") -> Batch:
        """bias + the sum of weight x column, for each row."""
        held = {column: self._column(column) for column in weights}
        if not held:
            raise _refuse("linear: expected at least one weight")
        told = {column: self.context._number(column, weight, math.inf) for column, weight in weights.items()}
        bound = abs(bias) + sum(abs(told[column]) * each.bound for column, each in held.items())
        depth = 1 + max(each.depth for each in held.values())
        self._check(name, bound, depth)
        whole = self.context.scheme is Scheme.BFV
        total: Any = [int(bias) if whole else bias] * self.rows
        with _computing("linear"):
            for column, each in held.items():
                total = each.cipher * ([int(told[column])] * self.rows if whole else told[column]) + total
        return self._one(name, total, bound, depth)

    def polynomial(self, column: str, coefficients: Sequence[float], *, name: str = "value") -> Batch:
        """The polynomial c0 + c1 x + c2 x^2 + … of one column, of degree 1 to 3. CKKS alone."""
        if self.context.scheme is Scheme.BFV:
            raise _refuse("polynomial: expected CKKS, found BFV")
        if not 2 <= len(coefficients) <= 4 or not coefficients[-1]:
            raise _refuse(f"polynomial: expected 2 to 4 coefficients, the last not 0, found {len(coefficients)}")
        held = self._column(column)
        bound = sum(abs(each) * held.bound**power for power, each in enumerate(coefficients))
        depth = held.depth + (1 if len(coefficients) == 2 else 2)
        self._check(name, bound, depth)
        with _computing("polynomial"):
            return self._one(name, held.cipher.polyval(list(coefficients)), bound, depth)

    def logistic(self, weights: Mapping[str, float], bias: float = 0.0, *, name: str = "probability") -> Batch:
        """The logistic function of ``linear``, by a polynomial that is within 0.06 of it where scores are within 5."""
        score = self.linear(weights, bias, name=name)
        bound = score.columns[name].bound
        if bound > LOGISTIC_RANGE:
            raise _refuse(
                f"logistic: expected scores within {LOGISTIC_RANGE:g}, found up to {bound:g}",
                "scale columns and weights: beyond it the polynomial is not the logistic function",
            )
        return score.polynomial(name, LOGISTIC, name=name)

    def add(self, others: Iterable[Batch]) -> Batch:
        """Row by row with batches of the same columns: whoever decrypts with ``fold`` gets the sums of all of them."""
        columns = dict(self.columns)
        for other in others:
            if other.context.digest != self.context.digest or set(other.columns) != set(columns):
                raise _refuse("add: expected batches of one context with the same columns")
            if other.rows != self.rows:
                raise _refuse(f"add: expected {self.rows} rows, found {other.rows}")
            for name, held in columns.items():
                more = other.columns[name]
                bound, depth = held.bound + more.bound, max(held.depth, more.depth)
                self._check(name, bound, depth)
                with _computing("add"):
                    columns[name] = Column(held.cipher + more.cipher, bound, depth)
        return Batch(self.context, self.rows, columns)

    def encode(self) -> bytes:
        """Its bytes: a frame that ``Context.load`` reads."""
        columns = {name: Column(each.cipher.serialize(), each.bound, each.depth) for name, each in self.columns.items()}
        return Frame(self.context.scheme, self.context.digest, self.rows, columns).encode()

    def _column(self, name: str) -> Column:
        found = self.columns.get(name)
        if found is None:
            raise _refuse(f"no column {name!r}: there are {', '.join(sorted(self.columns))}")
        return found

    def _one(self, name: str, cipher: Any, bound: float, depth: int) -> Batch:
        _check_name(name)
        self._check(name, bound, depth)
        if self.context.scheme is Scheme.CKKS:  # the library spares multiplications by 0 and 1
            depth = len(LEVELS) - cipher.ciphertext()[0].coeff_modulus_size()
        return Batch(self.context, self.rows, {name: Column(cipher, bound, depth)})

    def _check(self, name: str, bound: float, depth: int) -> None:
        most = capacity(self.context.scheme, depth)
        if not bound < most:
            raise _refuse(f"{name}: might reach {bound:g} after {depth} multiplications, where {most:g} is the most")


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not 0 < len(name.encode(errors="replace")) <= MAX_NAME or not name.isprintable():
        raise _refuse(f"expected names of columns of 1 to {MAX_NAME} bytes")


def capacity(scheme: Scheme, depth: int) -> float:
    """The magnitude that values may have after ``depth`` multiplications; 0 where no more are possible."""
    if scheme is Scheme.BFV:
        return MODULUS // 2 if depth <= 1 else 0.0
    left = LEVELS[: len(LEVELS) - depth] if depth < len(LEVELS) else ()
    return float(2 ** (sum(left) - SCALE_BITS - 1)) if left else 0.0
