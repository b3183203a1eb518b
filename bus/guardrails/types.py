"""The types that a guardrail can look for: a linear-time pattern (RE2) each, and a check of what it found.

Patterns propose, checks dispose: checksums, ranges, a library for telephone numbers, words before the match.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import phonenumbers

CONTEXT: Final = 48
"""Characters before a match in which its words are looked for."""


@dataclass(frozen=True, slots=True)
class Detector:
    """One pattern of a type; ``accepts(found, before)`` decides. ``group`` is what is redacted of the match."""

    type: str
    pattern: str
    accepts: Callable[[str, str], bool]
    group: int = 0
    groups: bool = False
    """Whether a part of what matched, some of its groups, may be what is looked for."""
    least: int = 0
    """Characters, without what parts groups, that such a part has at least: a match has up to 171 parts."""


_DOUBLED: Final = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)


def luhn(digits: str) -> bool:
    """Whether a card number's last digit checks (ISO/IEC 7812-1)."""
    return (sum(map(int, digits[::-2])) + sum(_DOUBLED[int(each)] for each in digits[-2::-2])) % 10 == 0


def _any(_found: str, _before: str) -> bool:
    return True


def _card(found: str, before: str) -> bool:
    digits = found.replace(" ", "").replace("-", "")
    return (
        not before.endswith("+")
        and 12 <= len(digits) <= 19
        and digits[0] in "123456"
        and len(set(digits)) > 1
        and luhn(digits)
    )


_IBAN = re.compile(r"[A-Z]{2}\d{2}[A-Z0-9]{11,30}")


def _iban(found: str, _before: str) -> bool:
    """ISO 13616: the number moved behind the country, letters as 10 to 35, is 1 modulo 97."""
    text = found.replace(" ", "").upper()
    if not _IBAN.fullmatch(text):
        return False
    return int("".join(str(int(each, 36)) for each in text[4:] + text[:4])) % 97 == 1


_SSN_WORDS = re.compile(r"(?i)\bssn\b|social security|\bss#")


def _ssn(found: str, before: str) -> bool:
    """Ranges that the Social Security Administration gives out: no area 000, 666 or 900 up, no group or serial of 0."""
    digits = re.sub(r"\D", "", found)
    if digits[:3] in ("000", "666") or digits[0] == "9" or digits[3:5] == "00" or digits[5:] == "0000":
        return False
    return not found.isdigit() or _SSN_WORDS.search(before) is not None


def _address(found: str, _before: str) -> bool:
    try:
        ipaddress.ip_address(found)
    except ValueError:
        return False
    return True


_PHONE_WORDS = re.compile(
    r"(?i)\b(phone|tel|telephone|mobile|cell|fax|desk|office|home|work|line|hotline|call|called|calling|text|texts|"
    r"dial|reach|ring|sms|whatsapp|contact|answer|answering|messages?|voicemail|number)\b[^.!?]*$"
)
_NO_PHONE_WORDS = re.compile(
    r"(?i)\b(account|acct|order|invoice|card|iban|ssn|zip|postal|licen[cs]e|id|isbn|serial|version|ticket|ref|case)\b"
    r"[^.!?\n]{0,24}$"
)
_DATE = re.compile(r"\d{4}[-./]\d{1,2}[-./]\d{1,2}\b.*|\d{1,2}[-./]\d{1,2}[-./](?:\d{2}|\d{4})")
_GROUPS: Final = frozenset({"3-3-4", "1-3-3-4", "3-4-4", "4-3-3", "4-3-4", "2-2-2-2", "2-2-2-2-2", "3-3-3"})
_EXTENSION = re.compile(r"\s?(?:x|ext\.?)\s?\d+\Z")
_SPACED = re.compile(r"[(]?\d{2,5}[)]?(?: \d{2,4})+")
_REGIONS: Final = ("US", "GB", "DE", "FR", "IT", "ES", "IN", "AU", "BR", "CA")


def _phone(found: str, before: str) -> bool:
    digits = re.sub(r"\D", "", found)
    if not 7 <= len(digits) <= 20 or _DATE.fullmatch(found):
        return False
    if found.startswith("+"):
        return _possible(found, None)
    if found.startswith("00") and _valid("+" + found.removeprefix("00")):
        return True
    if _NO_PHONE_WORDS.search(before):
        return False
    if _PHONE_WORDS.search(before):
        return True
    # Without a word for it, only what is grouped as telephone numbers are, and is as long as one somewhere. Versions,
    # lots and social security numbers are grouped otherwise.
    groups = "-".join(str(len(each)) for each in re.findall(r"\d+", _EXTENSION.sub("", found)))
    grouped = groups in _GROUPS or (_SPACED.fullmatch(found) is not None and groups.count("-") >= 2)
    return grouped and len(digits) >= 8 and any(_possible(found, region) for region in _REGIONS)


def _valid(text: str) -> bool:
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(text, None))
    except phonenumbers.NumberParseException:
        return False


def _possible(text: str, region: str | None) -> bool:
    try:
        return phonenumbers.is_possible_number(phonenumbers.parse(text, region))
    except phonenumbers.NumberParseException:
        return False


def _key(found: str, _before: str) -> bool:
    return len(set(found)) >= 10 and any(each.isdigit() for each in found) and any(each.isalpha() for each in found)


_NAME = r"\p{Lu}[\p{L}'’-]*\p{L}(?:[ \t]+(?:(?:van|von|de|da|di|del|la|le|bin|al)[ \t]+)?(?:\p{Lu}[\p{L}'’-]*\p{L}|\p{Lu}\.?)){0,3}"

DETECTORS: Final = (
    Detector("PRIVATE_KEY", r"(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.+?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\z)", _any),
    Detector("API_KEY", r"\b(?:sk|pk|rk)[-_](?:live|test|proj|ant)[-_][A-Za-z0-9_-]{16,}", _any),
    Detector("API_KEY", r"\bsk-[A-Za-z0-9]{20,}", _any),
    Detector("API_KEY", r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{22,}|glpat-[A-Za-z0-9_-]{20,})", _any),
    Detector("API_KEY", r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b", _any),
    Detector("API_KEY", r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}", _any),
    Detector("API_KEY", r"\bAIza[A-Za-z0-9_-]{35}", _any),
    Detector("API_KEY", r"\beyJ[A-Za-z0-9_-]+\.eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", _any),
    Detector("API_KEY", r"(?i)\b(?:api[_ -]?key|secret|access[_ -]?token|auth[_ -]?token|password|passwd)\b[\"']?\s{0,3}(?:[:=]|is)\s{0,3}[\"']?([A-Za-z0-9_+/=.-]{16,})", _key, 1),
    Detector("EMAIL", r"[\p{L}0-9._%+-]+@(?:[\p{L}0-9-]+\.)+(?:xn--[A-Za-z0-9-]+|\p{L}{2,})", _any),
    Detector("URL", r"(?i)\bhttps?://[^\s\"'<>|]+", _any),
    Detector("IBAN", r"(?i)\b[A-Z]{2}\d{2}[A-Z0-9]{11,30}\b", _iban),
    Detector("IBAN", r"\b[A-Z]{2}\d{2}(?: [A-Z0-9]{4}){2,7}(?: [A-Z0-9]{1,3})?\b", _iban, groups=True, least=15),
    Detector("CREDIT_CARD", r"\b\d(?:[ -]?\d){11,18}\b", _card, groups=True, least=12),
    Detector("SSN", r"\b\d{3}(?:-\d{2}-| \d{2} |\d{2})\d{4}\b", _ssn),
    Detector("IP_ADDRESS", r"\b(?:\d{1,3}\.){3}\d{1,3}\b", _address),
    Detector("IP_ADDRESS", r"(?i)\b[0-9a-f]{1,4}:[0-9a-f:.]*[0-9a-f:]", _address),
    Detector("MAC_ADDRESS", r"(?i)\b[0-9a-f]{2}(?:[:-][0-9a-f]{2}){5}\b", _any),
    Detector("PHONE", r"(?:\+|\b00|\(|\b)\d[\d \t().-]{4,20}\d(?:\s?(?:x|ext\.?)\s?\d{1,5})?\b", _phone),
    Detector("PERSON", rf"\b(?:Mr|Mrs|Ms|Miss|Dr|Prof)\.?[ \t]+({_NAME})", _any, 1),
    Detector("PERSON", rf"(?:\b[Mm]y name is|\b[Nn]ame:|\bI am called|\b[Pp]atient:?|\b[Cc]ustomer:?|\b[Ss]igned,?)[ \t]+({_NAME})", _any, 1),
)  # fmt: skip
"""In order of precedence: where two find the same place, the first has it."""

TYPES: Final = frozenset(each.type for each in DETECTORS)
MODEL_TYPES: Final = frozenset({"DATE_TIME", "LOCATION", "NRP", "ORGANIZATION", "PERSON"})
"""What a language model looks for (``presidio``): dates, places, nationality, religion or politics, bodies, names."""
