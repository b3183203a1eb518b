"""A labelled set that is made: per type some hundreds of values in sentences, and of texts that only look like them.

The same seed gives the same set. Values are made up, many of ranges that are reserved for that, and their checksums are
computed here: nothing of the product says what is right. No rule was written against these texts.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from typing import Final

from tests.pii.measure import Sample

SEED: Final = 20260302
SENTENCES: Final = 240
"""Per type, with a value; and as many without one."""
TYPES: Final = ("EMAIL", "PHONE", "IBAN", "SSN", "IP_ADDRESS", "CREDIT_CARD")

Rng = random.Random


def _digits(rng: Rng, count: int) -> str:
    return "".join(rng.choice("0123456789") for _ in range(count))


def _letters(rng: Rng, count: int) -> str:
    return "".join(rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(count))


def _in_groups(text: str, sizes: tuple[int, ...], between: str) -> str:
    pieces, at = [], 0
    for size in sizes:
        pieces.append(text[at : at + size])
        at += size
    return between.join(piece for piece in [*pieces, text[at:]] if piece)


# Values.
WORDS = (
    "desk",
    "ops",
    "billing",
    "claims",
    "intake",
    "night.shift",
    "lab_results",
    "q3-report",
    "hello",
    "x",
    "team42",
)
HOSTS = (
    "example.org",
    "mail.example.com",
    "example.co.uk",
    "eu-west.example.net",
    "xn--bcher-kva.example",
    "a.b.example",
)


def email(rng: Rng) -> str:
    """Local parts with dots, tags, digits and hyphens."""
    local = rng.choice(WORDS) + rng.choice(
        ["", "", "." + rng.choice(WORDS), "+" + _digits(rng, 3), "-" + _digits(rng, 2)]
    )
    address = f"{local}@{rng.choice(HOSTS)}"
    return address.upper() if rng.random() < 0.1 else address


def phone(rng: Rng) -> str:
    """Numbers as they are written in six countries, national and international."""
    d = _digits
    exchange = f"{rng.randint(2, 9)}{d(rng, 2)}"
    area = rng.choice(("212", "415", "312", "617", "206"))
    forms: list[Callable[[], str]] = [
        lambda: f"({area}) {exchange}-{d(rng, 4)}",
        lambda: f"{area}-{exchange}-{d(rng, 4)}",
        lambda: f"{area}.{exchange}.{d(rng, 4)}",
        lambda: f"+1 {area} {exchange} {d(rng, 4)}",
        lambda: f"+1{area}{exchange}{d(rng, 4)}",
        lambda: f"{area}-{exchange}-{d(rng, 4)} ext. {d(rng, 3)}",
        lambda: f"+44 20 7946 0{d(rng, 3)}",
        lambda: f"020 7946 0{d(rng, 3)}",
        lambda: f"07700 900{d(rng, 3)}",
        lambda: f"+49 30 {rng.randint(2, 9)}{d(rng, 6)}",
        lambda: f"030 {rng.randint(2, 9)}{d(rng, 6)}",
        lambda: f"+33 1 99 00 {d(rng, 2)} {d(rng, 2)}",
        lambda: f"01 99 00 {d(rng, 2)} {d(rng, 2)}",
        lambda: f"0039 06 {rng.randint(2, 9)}{d(rng, 7)}",
        lambda: f"+91 98765 {d(rng, 5)}",
    ]
    return rng.choice(forms)()


BANKS: Final[dict[str, Callable[[Rng], str]]] = {
    "DE": lambda rng: _digits(rng, 18),
    "GB": lambda rng: _letters(rng, 4) + _digits(rng, 14),
    "FR": lambda rng: _digits(rng, 10) + _letters(rng, 1) + _digits(rng, 12),
    "NL": lambda rng: _letters(rng, 4) + _digits(rng, 10),
    "BE": lambda rng: _digits(rng, 12),
    "NO": lambda rng: _digits(rng, 11),
    "ES": lambda rng: _digits(rng, 20),
    "MT": lambda rng: _letters(rng, 4) + _digits(rng, 5) + _letters(rng, 9) + _digits(rng, 9),
}


def iban(rng: Rng, wrong: int = 0) -> str:
    """With right check digits, or ``wrong`` added to them."""
    country = rng.choice(sorted(BANKS))
    account = BANKS[country](rng)
    rest = int("".join(str(int(each, 36)) for each in f"{account}{country}00")) % 97
    check = 98 - rest + wrong
    text = f"{country}{check if check < 99 else check - 97:02d}{account}"
    return rng.choice([text, text, _in_groups(text, (4,) * 8, " "), text.lower()])


def ssn(rng: Rng) -> str:
    """Of the ranges that are given out; grouped, or bare."""
    area = rng.choice([number for number in range(1, 900) if number != 666])
    pieces = (f"{area:03d}", f"{rng.randint(1, 99):02d}", f"{rng.randint(1, 9999):04d}")
    return rng.choice(["-", "-", "-", " "]).join(pieces)


def ip(rng: Rng) -> str:
    """Version 4 from the ranges for examples and private networks; version 6 whole and shortened."""
    h = "0123456789abcdef"
    group = lambda: rng.choice(h[1:]) + "".join(rng.choice(h) for _ in range(rng.randint(1, 3)))  # noqa: E731
    forms: list[Callable[[], str]] = [
        lambda: f"192.0.2.{rng.randint(0, 255)}",
        lambda: f"10.{rng.randint(0, 255)}.{rng.randint(0, 255)}.{rng.randint(1, 254)}",
        lambda: f"172.16.{rng.randint(0, 255)}.{rng.randint(1, 254)}",
        lambda: f"203.0.113.{rng.randint(0, 255)}",
        lambda: f"2001:db8::{group()}",
        lambda: "2001:db8:" + ":".join(group() for _ in range(6)),
        lambda: f"2001:db8:{group()}::{group()}:{group()}",
        lambda: f"fe80::{group()}:{group()}:{group()}:{group()}",
    ]
    return rng.choice(forms)()


ISSUERS = (
    ("4", 16),
    ("4", 16),
    ("51", 16),
    ("55", 16),
    ("2221", 16),
    ("37", 15),
    ("34", 15),
    ("6011", 16),
    ("3530", 16),
)


def _luhn(digits: str) -> str:
    doubled = [int(each) * 2 if place % 2 == 0 else int(each) for place, each in enumerate(reversed(digits))]
    return str(-sum(value - 9 if value > 9 else value for value in doubled) % 10)


def card(rng: Rng, wrong: int = 0) -> str:
    """A number of five issuers, bare or grouped, with a right check digit, or ``wrong`` added to it."""
    start, length = rng.choice(ISSUERS)
    digits = start + _digits(rng, length - len(start) - 1)
    digits += str((int(_luhn(digits)) + wrong) % 10)
    sizes = (4, 6, 5) if length == 15 else (4, 4, 4, 4)
    return rng.choice([digits, _in_groups(digits, sizes, " "), _in_groups(digits, sizes, "-")])


VALUES: Final[dict[str, Callable[[Rng], str]]] = {
    "EMAIL": email,
    "PHONE": phone,
    "IBAN": iban,
    "SSN": ssn,
    "IP_ADDRESS": ip,
    "CREDIT_CARD": card,
}

# Sentences around a value.
WORDING: Final[dict[str, tuple[str, ...]]] = {
    "EMAIL": (
        "Forward the scan to {} before noon.",
        "{} bounced twice yesterday",
        "cc: {}, legal",
        "The account is registered to <{}>.",
        "user={};role=viewer",
        'Replies go to "{}" only.',
        "We wrote to {}; nobody answered.",
        "mailto:{}?subject=hello",
    ),
    "PHONE": (
        "Please call {} after five.",
        "Phone: {}",
        "The clinic can be reached at {}.",
        "tel={}; fax=none",
        "{} is the number of the front desk.",
        "Text {} when the parcel is there",
        "If nobody answers, try {} instead.",
        "Mobile {} (evenings only)",
    ),
    "IBAN": (
        "Refund to {} please.",
        "IBAN: {}",
        "The salary goes to account {}, not to the old one.",
        "beneficiary={};amount=12.50",
        "Is {} still valid?",
        "{}\nBank of Example",
        "Direct debit from {} was returned.",
        "Payee Example Ltd ({})",
    ),
    "SSN": (
        "SSN: {}",
        "My social security number is {}.",
        "The form lists {} for the applicant.",
        "Employee {} was enrolled on Monday.",
        "ssn={}&state=NY",
        "Please correct {} in the tax file.",
        "Dependent's SSN ({}) is missing a page.",
        "{} appears twice in the batch",
    ),
    "IP_ADDRESS": (
        "Login from {} at night.",
        "Blocked {} after five attempts.",
        "host={} status=up",
        "The gateway {} does not answer.",
        "ping {}",
        "Requests came from {}, all of them failed.",
        "peer [{}] closed",
        "{} - - GET /index.html",
    ),
    "CREDIT_CARD": (
        "Charge {} for the renewal.",
        "Card: {}",
        "My card {} was declined.",
        "pan={};currency=EUR",
        "He read out {} over the line.",
        "Paid with {}, expires 11/29.",
        "Is {} the one on file?",
        "{} valid until 04/28",
    ),
}

# Texts without any value of any type.
LIKE: Final[dict[str, tuple[Callable[[Rng], str], ...]]] = {
    "EMAIL": (
        lambda rng: f"Ask @{rng.choice(WORDS)} on the channel.",
        lambda rng: f"Two tickets @ {rng.randint(5, 90)} each",
        lambda rng: f"{rng.choice(WORDS)} at example dot org",
        lambda rng: f"@app.route('/{rng.choice(WORDS)}')",
        lambda rng: f"image@sha256:{hashlib.sha256(_digits(rng, 8).encode()).hexdigest()}",
        lambda rng: f"pinned left-pad@{rng.randint(1, 20)}.{rng.randint(0, 9)}.{rng.randint(0, 9)}",
        lambda rng: f"user {rng.choice(WORDS)}@localhost may log in",
    ),
    "PHONE": (
        lambda rng: f"Order {_digits(rng, 10)} has shipped.",
        lambda rng: f"Invoice 20{_digits(rng, 2)}-{_digits(rng, 6)} is due.",
        lambda rng: f"Due on 20{rng.randint(10, 29)}-0{rng.randint(1, 9)}-1{rng.randint(0, 9)}.",
        lambda rng: f"Received 1{rng.randint(0, 9)}.0{rng.randint(1, 9)}.20{rng.randint(10, 29)} at 10:15",
        lambda rng: f"Version {rng.randint(1, 20)}.{rng.randint(0, 20)}.{rng.randint(0, 999)} is out",
        lambda rng: f"Ticket {_digits(rng, 3)}-{_digits(rng, 3)}-{_digits(rng, 4)} was closed.",
        lambda rng: f"ISBN 978-3-16-{_digits(rng, 6)}-{_digits(rng, 1)}",
        lambda rng: f"It cost {rng.randint(1, 9)},{_digits(rng, 3)},{_digits(rng, 3)}.{_digits(rng, 2)} in all.",
        lambda rng: f"At {rng.randint(10, 80)}.{_digits(rng, 4)}, {rng.randint(10, 80)}.{_digits(rng, 4)} on the map",
    ),
    "IBAN": (
        lambda rng: f"IBAN {iban(rng, rng.randint(1, 9))} was rejected.",
        lambda rng: f"Licence {_letters(rng, 2)}{_digits(rng, 2)}-{_letters(rng, 4)}-{_digits(rng, 4)}",
        lambda rng: f"sha1 {hashlib.sha1(_digits(rng, 8).encode(), usedforsecurity=False).hexdigest()}",
        lambda rng: f"Part {_letters(rng, 2)}{_digits(rng, 16)} is out of stock.",
        lambda rng: f"Flight {_letters(rng, 2)}{_digits(rng, 4)} departs at 10:15.",
    ),
    "SSN": (
        lambda rng: f"Case {rng.choice(['000', '666', '9' + _digits(rng, 2)])}-{_digits(rng, 2)}-{_digits(rng, 4)}",
        lambda rng: f"Lot {_digits(rng, 3)}-00-{_digits(rng, 4)} was recalled.",
        lambda rng: f"Item {_digits(rng, 9)} is back.",
        lambda rng: f"Springfield, IL {_digits(rng, 5)}-{_digits(rng, 4)}",
        lambda rng: f"Build {_digits(rng, 4)}-{_digits(rng, 2)}-{_digits(rng, 4)} failed.",
        lambda rng: f"On {rng.randint(10, 28)}-0{rng.randint(1, 9)}-20{rng.randint(10, 29)} it rained.",
    ),
    "IP_ADDRESS": (
        lambda rng: f"Release {rng.randint(1, 20)}.{rng.randint(0, 20)}.{rng.randint(0, 99)} fixes it.",
        lambda rng: f"Build 10.0.{rng.randint(10000, 29999)}.{rng.randint(100, 9999)}",
        lambda rng: f"Started at {rng.randint(10, 23)}:{rng.randint(10, 59)}:{rng.randint(10, 59)} sharp",
        lambda rng: f"octets {rng.randint(256, 999)}.{rng.randint(0, 255)}.{rng.randint(0, 255)}.{rng.randint(0, 255)}",
        lambda rng: f"std::{rng.choice(['vector', 'array', 'deque', 'move'])} in module {rng.choice(WORDS)}",
        lambda rng: f"ratio {rng.randint(1, 9)}:{rng.randint(1, 9)}:{rng.randint(1, 9)}",
        lambda rng: f"md5 {hashlib.md5(_digits(rng, 8).encode(), usedforsecurity=False).hexdigest()}",
    ),
    "CREDIT_CARD": (
        lambda rng: f"Card {card(rng, rng.randint(1, 9))} has a typing error.",
        lambda rng: f"Order {rng.choice('789')}{_digits(rng, 15)} is on its way.",
        lambda rng: f"Tracking {_letters(rng, 2)}{_digits(rng, 12)}{_letters(rng, 2)}",
        lambda rng: f"sha256 {hashlib.sha256(_digits(rng, 8).encode()).hexdigest()}",
        lambda rng: f"id {hashlib.md5(_digits(rng, 8).encode(), usedforsecurity=False).hexdigest()[:16]}",
        lambda rng: f"at {rng.choice('0')}{_digits(rng, 12)} ms since the start",
        lambda rng: f"Batch 20{rng.randint(10, 29)}{_digits(rng, 4)}-{_digits(rng, 4)} was counted.",
    ),
}


def generated(seed: int = SEED) -> list[Sample]:
    """The set, in a fixed order."""
    rng = Rng(seed)
    samples = []
    for kind in TYPES:
        for number in range(SENTENCES):
            before, _, after = WORDING[kind][number % len(WORDING[kind])].partition("{}")
            value = VALUES[kind](rng)
            samples.append(Sample(before + value + after, ((len(before), len(before) + len(value), kind),)))
            samples.append(Sample(LIKE[kind][number % len(LIKE[kind])](rng)))
    return samples
