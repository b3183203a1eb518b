"""Words of the text formats, by format: what mutation puts in beside odd numbers and odd text."""

from __future__ import annotations

from tests.fuzz.mutate import DIGITS, TEXTS

HEX_WORDS = (b'"00"', b'"0"', b'"zz"', b'" 00 00 "', b'"' + b"00" * 31 + b'"', b'"' + b"00" * 32 + b'"')

JSON_TOKENS = (
    *TEXTS, *DIGITS, *HEX_WORDS,
    b"[", b"]", b"{", b"}", b"[[", b'{"a":', b'{"a":1}', b"[]", b"{}", b'""', b'"', b"\\", b",", b":", b"false",
    b'"\\ud800"', b'"\\u0000"', b'"\\udbff\\udfff"', b'"a":1,"a":2,',
)  # fmt: skip

YAML_TOKENS = (
    *TEXTS, *DIGITS,
    b"[", b"]", b"{", b"}", b"[[[[", b"{a: ", b"- ", b"? ", b": ", b"\n  ", b"\n- ", b"#", b"&a ", b"*a",
    b"&a [*a, *a]", b"<<: *a", b"<<: {a: 1}", b"!!python/object/apply:os.system [a]", b"!!binary aa", b"!a ",
    b"%YAML 1.1\n", b"%TAG ! a\n", b"---\n", b"...\n", b"|\n", b">-\n", b"'", b'"', b'"\\U00110000"', b'"\\uD800"',
    b'"\\x00"', b'"\\N"', b"@", b"`", b"2026-02-30", b"2026-01-01T00:00:00+99:99", b"1:1", b"0b_", b"0o7", b"08",
    b".nan", b"-.inf", b"yes", b"~", b"=", b"<<", b"\n  name: ", b"[key]", b"\n    retention: 9999999999d",
    b"\n  topics: {partitions: 0}",
)  # fmt: skip

TOML_TOKENS = (
    *TEXTS, *DIGITS,
    b"[", b"]", b"[[", b"]]", b"{", b"}", b"= ", b'"', b"'", b'"""', b"'''", b"\\", b"#", b".", b",", b"a.",
    b"{a=", b"[a]\n", b"[[a]]\n", b'"\\u0000"', b'"\\ud800"', b"inf", b"nan", b"0o7", b"0b1", b"0x" + b"f" * 3600,
    b"1979-05-27T07:32:00Z", b"2026-02-30", b"25:61:00", b"owners = {a = 1}\n", b"grace_ms = ", b"mode = ", b"state = ",
    b"enforcers = ",
)  # fmt: skip

NOTE_TOKENS = (*TEXTS, *DIGITS, b"\n\n", "\n— ".encode(), "— a AAAA\n".encode(), b"=", b"==", b"A", b"+", b"-", b"_")
