"""Checkpoints: the C2SP form byte for byte, one key, one log; a changed note is never taken for another content."""

from __future__ import annotations

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.crypto.signing import Signer
from bus.errors import Unverified
from bus.ledger.checkpoint import Checkpoint, open_checkpoint, origin, sign_checkpoint
from tests.unit.ledger_build import DEPLOYMENT, LEDGER_SIGNER, STRANGER

NAME = origin(DEPLOYMENT, 3)
HEAD = Checkpoint(NAME, 1234, hashlib.sha256(b"root").digest())
NOTE = sign_checkpoint(HEAD, LEDGER_SIGNER)
KEY = LEDGER_SIGNER.public_key


def signed(body: str, *, signer: Signer = LEDGER_SIGNER, name: str = NAME) -> str:
    """A note over any body, signed as the specification says: what the key's holder could write."""
    key_hash = hashlib.sha256(name.encode() + b"\n" + b"\x01" + signer.public_key).digest()[:4]
    return f"{body}\n— {name} {base64.b64encode(key_hash + signer.sign(body.encode())).decode()}\n"


def test_a_checkpoint_comes_back_from_its_note():
    assert open_checkpoint(NOTE, KEY) == HEAD


@pytest.mark.parametrize("size", [0, 1, 2**32, 2**63])
def test_sizes_come_back(size):
    head = Checkpoint(NAME, size, bytes(32))
    assert open_checkpoint(sign_checkpoint(head, LEDGER_SIGNER), KEY) == head


def test_the_note_has_the_c2sp_form():
    text, _, signatures = NOTE.partition("\n\n")
    text += "\n"
    assert text == f"sealbus/{DEPLOYMENT.hex()}/3\n1234\n{base64.b64encode(HEAD.root).decode()}\n"
    dash, name, data = signatures.rstrip("\n").split(" ")
    assert (dash, name, NOTE[-1]) == ("\u2014", NAME, "\n")
    decoded = base64.b64decode(data, validate=True)
    # signed-note: the key hash of Ed25519 is SHA-256(name | 0A | 01 | public key), its first four bytes.
    assert decoded[:4] == hashlib.sha256(name.encode() + b"\x0a\x01" + KEY).digest()[:4]
    Ed25519PublicKey.from_public_bytes(KEY).verify(decoded[4:], text.encode())
    assert signed(text) == NOTE


def test_logs_have_names_of_their_own():
    names = {origin(deployment, partition) for deployment in (DEPLOYMENT, bytes(16)) for partition in range(4)}
    assert len(names) == 8


def test_another_key_is_refused():
    with pytest.raises(Unverified, match="no signature by this key") as refused:
        open_checkpoint(NOTE, STRANGER.public_key)
    assert refused.value.step == "checkpoint"


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(32), bytes(33)])
def test_a_key_that_is_none_is_refused(key):
    with pytest.raises(Unverified):
        open_checkpoint(NOTE, key)


def test_a_signature_under_the_right_key_hash_must_hold():
    key_hash = base64.b64decode(NOTE.rstrip("\n").split(" ")[-1])[:4]
    data = base64.b64encode(key_hash + STRANGER.sign(HEAD.body().encode())).decode()
    with pytest.raises(Unverified) as refused:
        open_checkpoint(f"{HEAD.body()}\n— {NAME} {data}\n", KEY)
    assert refused.value.step == "signature"


def test_a_note_that_others_signed_too_is_accepted_by_the_logs_own_signature():
    own, other = NOTE.splitlines()[-1], signed(HEAD.body(), signer=STRANGER).splitlines()[-1]
    witness = signed(HEAD.body(), signer=STRANGER, name="witness.example").splitlines()[-1]
    assert open_checkpoint(f"{HEAD.body()}\n{other}\n{witness}\n{own}\n", KEY) == HEAD
    for lines in ([other], [witness], [other, witness]):
        with pytest.raises(Unverified, match="no signature by this key"):
            open_checkpoint("\n".join([HEAD.body(), *lines, ""]), KEY)


@pytest.mark.parametrize(
    "body",
    [
        f"{NAME}\n01234\n{base64.b64encode(HEAD.root).decode()}\n",
        f"{NAME}\n+1234\n{base64.b64encode(HEAD.root).decode()}\n",
        f"{NAME}\n1_234\n{base64.b64encode(HEAD.root).decode()}\n",
        f"{NAME}\n 1234\n{base64.b64encode(HEAD.root).decode()}\n",
        f"{NAME}\n\u0661\u0662\n{base64.b64encode(HEAD.root).decode()}\n",
        f"{NAME}\n1234\n{base64.b64encode(HEAD.root[:-1]).decode()}\n",
        f"{NAME}\n1234\n{base64.b64encode(HEAD.root + bytes(1)).decode()}\n",
        f"{NAME}\n1234\n{base64.b64encode(HEAD.root).decode().rstrip('=')}\n",
        f"{NAME}\n1234\n{base64.urlsafe_b64encode(bytes([255]) * 32).decode()}\n",
        f"{NAME}\n1234\n{base64.b64encode(HEAD.root).decode()}\nextension\n",
        f"{NAME}\r\n1234\r\n{base64.b64encode(HEAD.root).decode()}\r\n",
        f"{NAME}\n1234\n",
        f"{NAME}\n{base64.b64encode(HEAD.root).decode()}\n1234\n",
        "\n",
    ],
)
def test_a_form_that_is_not_canonical_is_refused_though_it_is_signed(body):
    with pytest.raises(Unverified):
        open_checkpoint(signed(body), KEY)


@pytest.mark.parametrize(
    ("held", "shown"),
    [
        ("\n\n", "\nan extension\n\n"),
        ("\n1234\n", "\n01234\n"),
        ("\n1234\n", "\n1_234\n"),
        (f"— {NAME} ", "— another.log "),
        ("—", "-"),
    ],
)
def test_what_the_signature_does_not_cover_may_not_stand_beside_it(held, shown):
    assert held in NOTE
    with pytest.raises(Unverified) as refused:
        open_checkpoint(NOTE.replace(held, shown), KEY)
    assert refused.value.step == "checkpoint"


def test_a_root_has_one_spelling():
    root = base64.b64encode(HEAD.root).decode()
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = root[:-2] + digits[digits.index(root[-2]) + 1] + "="
    assert base64.b64decode(other) == HEAD.root
    with pytest.raises(Unverified, match="not in canonical form"):
        open_checkpoint(NOTE.replace(root, other), KEY)


@pytest.mark.parametrize(
    "note", ["", "\n\n", NOTE[:-100], NOTE.replace("\n\n", "\n"), HEAD.body(), "\ud800\n1\n\n\n", "x" * 9999]
)
def test_what_is_no_signed_note_is_refused(note):
    with pytest.raises(Unverified) as refused:
        open_checkpoint(note, KEY)
    assert refused.value.step == "checkpoint"


def accepted_as_itself_or_refused(note: str) -> None:
    try:
        opened = open_checkpoint(note, KEY)
    except Unverified:
        return
    assert opened == HEAD


@settings(deadline=None)
@given(st.integers(0, len(NOTE) - 1), st.characters())
def test_one_changed_character_is_never_another_content(at, character):
    accepted_as_itself_or_refused(NOTE[:at] + character + NOTE[at + 1 :])


@settings(deadline=None)
@given(st.integers(0, len(NOTE)), st.integers(0, len(NOTE)), st.text("\n 0123456789Ab+/=—", max_size=8))
def test_a_replaced_run_is_never_another_content(start, end, text):
    accepted_as_itself_or_refused(NOTE[:start] + text + NOTE[end:])


@settings(deadline=None)
@given(st.text())
def test_any_text_is_refused(text):
    with pytest.raises(Unverified):
        open_checkpoint(text, KEY)


@pytest.mark.parametrize("line", [0, 1, 2])
def test_no_character_of_the_body_may_change(line):
    lines = NOTE.split("\n")
    for at in range(len(lines[line])):
        changed = list(lines)
        changed[line] = changed[line][:at] + ("a" if changed[line][at] != "a" else "b") + changed[line][at + 1 :]
        with pytest.raises(Unverified):
            open_checkpoint("\n".join(changed), KEY)
