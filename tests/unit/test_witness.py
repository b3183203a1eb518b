"""Witnesses: keys, cosignatures, which heads are co-signed and which are not, the service, what verification says."""

import base64
import contextlib
import hashlib
import http.client
import struct
import threading

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from bus.cli.main import cli as main
from bus.codes import Code
from bus.crypto import tree
from bus.crypto.signing import Signer
from bus.errors import Refused, RetryLater, SettingsError, Unverified
from bus.ledger import witness
from bus.ledger.checkpoint import Checkpoint, open_checkpoint, origin, sign_checkpoint, sign_note
from bus.ledger.cosignature import WitnessKey, cosign, cosigned_at, cosigners
from bus.ledger.export import export, verify_export
from bus.ledger.proof import verify_proof
from bus.ledger.query import LedgerQuery
from bus.ledger.store import Entry, Ledger
from bus.ledger.verify import Witnesses, verify_ledger
from consumers.audit import witnessed
from consumers.audit.witnessed import Witnessing
from consumers.witness.app import Witness
from tests.unit.ledger_build import LEDGER_SIGNER, keys_of, make_ledger, name_of

DEPLOYMENT = bytes(range(16))
LOG = Signer(b"l" * 32)
OWN = Signer(b"w" * 32)
KEY = WitnessKey("witness.example/w1", OWN.public_key)
LOGS = {f"sealbus/{DEPLOYMENT.hex()}": LOG.public_key}
LEAVES = [hashlib.sha256(bytes([each])).digest() for each in range(40)]


def head(size, leaves=LEAVES, partition=0):
    return Checkpoint(origin(DEPLOYMENT, partition), size, tree.root(leaves[:size]))


def proof(first, second, leaves=LEAVES):
    """By RFC 6962, section 2.1.2, word by word."""

    def sub(first, leaves, whole):
        if first == len(leaves):
            return [] if whole else [tree.root(leaves)]
        half = 1 << (len(leaves) - 1).bit_length() - 1
        if first <= half:
            return [*sub(first, leaves[:half], whole), tree.root(leaves[half:])]
        return [*sub(first - half, leaves[half:], False), tree.root(leaves[:half])]

    return sub(first, leaves[:second], True) if 0 < first < second else []


def ask(old, size, held=None, *, leaves=LEAVES, path=None, note=None):
    note = note if note is not None else sign_checkpoint(head(size, leaves), LOG)
    data = witness.request(old, proof(old, size, leaves) if path is None else path, note)
    return witness.add_checkpoint(data, held, LOGS, KEY.name, OWN, 1_700_000_000)


def test_a_key_is_known_by_its_text():
    assert WitnessKey.parse(str(KEY)) == KEY
    name, hashed, data = str(KEY).split("+", 2)
    told = hashlib.sha256(name.encode() + b"\n\x04" + OWN.public_key).digest()[:4].hex()
    assert (hashed, base64.b64decode(data)) == (told, b"\x04" + OWN.public_key)
    other = base64.b64encode(b"\x01" + OWN.public_key).decode()
    for wrong in ("", name, f"{name}+{hashed}", f"{name}+00000000+{data}", f"{name}+{hashed}+{other}", f"x y+{data}"):
        with pytest.raises(SettingsError, match="expected its verifier key"):
            WitnessKey.parse(wrong)


def test_a_cosignature_is_of_one_witness_one_checkpoint_and_one_time():
    body = head(7).body()
    line = cosign(KEY.name, body, OWN, 1_700_000_000)
    assert cosigned_at(line, body, KEY) == 1_700_000_000
    data = base64.b64decode(line.split(" ")[2])
    later = data[:4] + struct.pack(">Q", 1_700_000_001) + data[12:]
    for wrong in (
        "",
        line.replace("—", "-"),
        line.replace("w1", "w2"),
        line.replace(line.split(" ")[2], base64.b64encode(later).decode()),
        line.replace(line.split(" ")[2], base64.b64encode(data[:-1]).decode()),
        cosign(KEY.name, body, LOG, 1_700_000_000),
    ):
        with pytest.raises(Unverified, match="witness"):
            cosigned_at(wrong, body, KEY)
    with pytest.raises(Unverified, match="does not hold"):
        cosigned_at(line, head(8).body(), KEY)


@given(st.integers(0, 40), st.integers(1, 40))
def test_a_head_is_co_signed_if_it_extends_the_one_that_is_held(old, size):
    held = head(old) if old else None
    told = ask(old, size, held)
    if old > size:
        assert (told.status, told.head) == (400, None)
        return
    assert (told.status, told.head) == (200, head(size))
    assert cosigned_at(told.body, head(size).body(), KEY) == 1_700_000_000


def test_what_does_not_extend_it_is_not():
    forked = [*LEAVES[:9], b"x" * 32, *LEAVES[10:]]
    assert ask(10, 20, head(10), leaves=forked).status == 422
    assert ask(10, 20, head(10), path=[]).status == 422
    assert ask(10, 20, head(10), path=[*proof(10, 20), b"y" * 32]).status == 422
    assert ask(0, 20, None, path=[b"y" * 32]).status == 422
    same = ask(10, 10, head(10), leaves=forked, path=[])
    assert (same.status, same.body, same.kind) == (409, "10\n", "text/x.tlog.size")
    for old in (0, 8, 12):
        stale = ask(old, 20, head(10))
        assert (stale.status, stale.body, stale.head) == (409, "10\n", None)
    assert ask(10, 10, head(10)).status == 200


def test_unknown_logs_and_others_signatures_are_refused():
    other = Signer(b"o" * 32)
    assert ask(0, 5, note=sign_checkpoint(head(5), other)).status == 403
    foreign = Checkpoint(f"sealbus/{bytes(16).hex()}/0", 5, head(5).root)
    assert ask(0, 5, note=sign_checkpoint(foreign, LOG)).status == 404
    for name in ("manifest", "00", "-1", "", "1/2"):
        made = Checkpoint(f"sealbus/{DEPLOYMENT.hex()}/{name}", 5, head(5).root)
        assert ask(0, 5, note=sign_checkpoint(made, LOG)).status == 404
    assert ask(0, 5, note=sign_note(head(5).origin, f"{head(5).origin}\n5\n", LOG)).status == 403


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"old 0\n",
        b"old -1\n\nx",
        b"old 00\n\nx",
        b"old x\n\nx",
        b"new 0\n\nx",
        b"old 0\nAAAA\n\nx",
        b"old 0\nno base64\n\nx",
        b"old 0\n" + b"\n".join([base64.b64encode(bytes(32))] * 64) + b"\n\nx",
    ],
)
def test_what_is_no_request_is_said_to_be_none(data):
    assert witness.add_checkpoint(data, None, LOGS, KEY.name, OWN, 0).status == 400


@given(st.binary(max_size=300))
def test_no_bytes_are_co_signed_by_chance(data):
    assert witness.add_checkpoint(data, None, LOGS, KEY.name, OWN, 0).status in (400, 403, 404)


def entries(first, count):
    day, token = 20000, b"t" * 16
    return [Entry(day, each, 0, b"body", b"disclosure", hashlib.sha256(b"%d" % each).digest(), (token,))
            for each in range(first, first + count)]  # fmt: skip


@pytest.fixture
def served(tmp_path):
    with Witness(tmp_path / "w1", "w1", LOGS, "127.0.0.1:0") as made:
        yield made


def grown(path, *sizes):
    """A ledger that signed checkpoints of ``sizes``."""
    ledger = Ledger(path, DEPLOYMENT)
    at = ledger.state(0)[1]
    for size in sizes:
        ledger.append(0, at, size, entries(at, size - at), [])
        ledger.sign(0, LOG)
        at = size
    return ledger


def shown(path, *served):
    """Once to each."""
    told = Witnessing(lambda: Ledger(path, DEPLOYMENT), LOG.public_key, {str(each.key): each.url for each in served})
    ledger = Ledger(path, DEPLOYMENT)
    for key, url in told._witnesses:
        told._show(ledger, key, url)
    ledger.close()


def problems(ledger, keys, quorum):
    return verify_ledger(ledger, LOG.public_key, Witnesses(tuple(keys), quorum)).problems


def test_a_ledger_is_co_signed_as_it_grows_and_so_is_its_export(tmp_path, served):
    path = tmp_path / "l" / "ledger.db"
    ledger = grown(path, 5)
    shown(path, served)
    assert [size for size, _ in ledger.cosignatures(0, str(served.key))] == [5]
    grown(path, 300, 301).close()
    with Witness(tmp_path / "w2", "w2", LOGS, "127.0.0.1:0") as second:
        shown(path, served, second)
        keys = served.key, second.key
    assert [size for size, _ in ledger.cosignatures(0, str(served.key))] == [301, 5]
    missing = WitnessKey("w3", OWN.public_key)
    for named, quorum in ((keys, 2), ((*keys, missing), 2), (keys[:1], 1)):
        report = verify_ledger(ledger, LOG.public_key, Witnesses(tuple(named), quorum))
        assert report.witnessed == {0: 301}
        assert not [each for each in report.problems if "witness" in each]
    assert "expected cosignatures of 3 of 3 witnesses, found 2" in str(problems(ledger, (*keys, missing), 3))
    export(Ledger(path, DEPLOYMENT), tmp_path / "out", LOG, 0)
    assert verify_export(tmp_path / "out", LOG.public_key, Witnesses(keys, 2)).witnessed == {0: 301}


def test_an_older_copy_or_another_ledger_is_not_co_signed(tmp_path, served, caplog):
    path, other = tmp_path / "a" / "ledger.db", tmp_path / "b" / "ledger.db"
    grown(path, 20).close()
    shown(path, served)
    grown(other, 10).close()
    shown(other, served)
    assert "it co-signed 20 leaves, 10 are here: an older copy?" in caplog.text
    ledger = Ledger(other, DEPLOYMENT)
    ledger.append(0, 10, 31, entries(100, 21), [])
    ledger.sign(0, LOG)
    shown(other, served)
    assert "422: consistency 20 -> 31" in caplog.text
    assert ledger.cosignatures(0, str(served.key)) == []
    ledger.close()


def test_a_witness_that_starts_again_holds_what_it_said(tmp_path):
    path = tmp_path / "ledger.db"
    ledger = grown(path, 9)
    with Witness(tmp_path / "w", "w", LOGS, "127.0.0.1:0") as first:
        shown(path, first)
    with Witness(tmp_path / "w", "w", LOGS, "127.0.0.1:0") as again:
        assert again.key == first.key
        forked = sign_checkpoint(Checkpoint(origin(DEPLOYMENT, 0), 9, b"f" * 32), LOG)
        assert again.answer(witness.request(9, [], forked)).status == 409
        assert again.answer(witness.request(0, [], forked)).status == 409
        grown(path, 12).close()
        shown(path, again)
    assert [size for size, _ in ledger.cosignatures(0, str(first.key))] == [12, 9]


def test_a_ledger_that_lost_its_cosignatures_asks_what_is_held(tmp_path, served):
    path = tmp_path / "ledger.db"
    ledger = grown(path, 9)
    shown(path, served)
    ledger._db.connection.execute("delete from cosignature")
    grown(path, 12).close()
    shown(path, served)
    assert [size for size, _ in ledger.cosignatures(0, str(served.key))] == [12]


def test_a_false_cosignature_is_named(tmp_path, served):
    ledger = grown(tmp_path / "ledger.db", 9)
    ledger.cosign(0, str(served.key), 9, cosign("w1", head(8).body(), OWN, 1))
    ledger.cosign(0, str(served.key), 8, cosign("w1", head(8).body(), OWN, 1))
    told = str(problems(ledger, [served.key], 1))
    assert "over 9 leaves: witness w1: a cosignature of another key" in told
    assert "the checkpoint over 8 leaves is missing" in told
    assert "expected cosignatures of 1 of 1 witnesses, found 0" in told


def test_recording_goes_on_beside_a_witness_that_comes_late(tmp_path, monkeypatch):
    monkeypatch.setattr(witnessed, "EVERY_S", 0.01)
    path = tmp_path / "ledger.db"
    ledger = grown(path, 3)
    with Witness(tmp_path / "w", "w", LOGS, "127.0.0.1:0") as served:
        with Witnessing(lambda: Ledger(path, DEPLOYMENT), LOG.public_key, {str(served.key): served.url}):
            waiter = threading.Event()
            for _ in range(1000):
                if ledger.cosignatures(0, str(served.key)):
                    break
                waiter.wait(0.01)
        assert ledger.cosignatures(0, str(served.key))
    shown(path, served)  # nobody answers: no error


def test_a_ledger_that_is_away_for_a_while_is_shown_to_witnesses_afterwards(tmp_path, monkeypatch):
    monkeypatch.setattr(witnessed, "EVERY_S", 0.01)
    path, done = tmp_path / "ledger.db", threading.Event()
    ledger = grown(path, 3)
    failures = [RetryLater("away", code=Code.RETRY), Refused("changed"), RuntimeError("a bug")]

    class Away(Ledger):
        def partitions(self):
            if len(failures) > 1:
                raise failures.pop()
            return super().partitions()

        def cosign(self, *told):
            super().cosign(*told)
            done.set()

    def opened():
        if len(failures) == 3:
            raise failures.pop()
        return Away(path, DEPLOYMENT)

    with Witness(tmp_path / "w", "w", LOGS, "127.0.0.1:0") as served:
        with Witnessing(opened, LOG.public_key, {str(served.key): served.url}):
            assert done.wait(30)
        assert ledger.cosigned(0, str(served.key)) == 3
    assert len(failures) == 1


def post(served, path, data, **headers):
    with contextlib.closing(http.client.HTTPConnection(served.url.removeprefix("http://"), timeout=5)) as connection:
        connection.request("POST", path, data, headers)
        return connection.getresponse().status


def test_the_service_answers_what_it_knows_and_bounds_what_it_reads(served):
    data = witness.request(0, [], sign_checkpoint(head(5), LOG))
    assert post(served, "/add-checkpoint", data) == 200
    assert post(served, "/", data) == 404
    assert post(served, "/add-checkpoint", b"x") == 400
    assert post(served, "/add-checkpoint", b"x" * (witness.MAX_REQUEST + 1)) == 413
    assert post(served, "/add-checkpoint", b"", **{"Content-Length": "x"}) == 413
    served._heads.close()
    assert post(served, "/add-checkpoint", data) == 503


@pytest.mark.parametrize("url", ["", "file:///etc/passwd", "ftp://x", "http://", "http://x?y"])
def test_a_witness_is_asked_over_http_alone(tmp_path, url):
    with pytest.raises(SettingsError, match="witnesses: expected http"):
        Witnessing(lambda: Ledger(tmp_path / "l", DEPLOYMENT), LOG.public_key, {str(KEY): url})


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--log", "x=y", "--name", "w"], "--log: expected DEPLOYMENT=KEY"),
        (["--log", f"{'0' * 32}={'0' * 64}", "--name", "a b"], "--name: expected letters"),
        (["--log", f"{'0' * 32}={'0' * 64}", "--name", "w", "--listen", "nowhere"], "--listen: expected HOST:PORT"),
    ],
)
def test_a_witness_says_what_it_needs(tmp_path, arguments, expected):
    told = CliRunner().invoke(main, ["run", "witness", "--state", str(tmp_path), *arguments])
    assert told.exit_code != 0
    assert expected in str(told.exception) + told.output


def test_verification_counts_who_co_signed(tmp_path, served):
    path = tmp_path / "l" / "ledger.db"
    grown(path, 5).close()
    shown(path, served)
    export(Ledger(path, DEPLOYMENT), tmp_path / "out", LOG, 0)
    base = ["audit", "verify", "--offline", str(tmp_path / "out"), "--key", LOG.public_key.hex()]
    told = CliRunner().invoke(main, [*base, "--witness", str(served.key), "--witness", str(KEY), "--quorum", "1"])
    assert "co-signed by 1 of 2 witnesses: 5 hops" in told.output
    told = CliRunner().invoke(main, [*base, "--report", str(tmp_path), "--witness", str(KEY)])
    assert "found --report, which has none" in str(told.exception) + told.output
    told = CliRunner().invoke(main, [*base, "--witness", str(KEY), "--quorum", "2"])
    assert "--quorum: expected 1 to the number of witnesses, 1, found 2" in str(told.exception) + told.output


def test_a_proof_is_under_the_checkpoint_that_most_witnesses_co_signed(tmp_path):
    ledger = make_ledger(tmp_path / "ledger.db")  # checkpoints over 3, 6, 9 and 12 leaves
    for size, names in ((3, ("a", "b")), (6, ("a", "b")), (9, ("a",))):
        for name in names:
            witness = Signer(name.encode() * 32)
            body = open_checkpoint(ledger.note(1, size), LEDGER_SIGNER.public_key).body()
            told = str(WitnessKey(name, witness.public_key))
            ledger.cosign(1, told, size, cosign(name, body, witness, 7).strip())
    a, b = (WitnessKey(name, Signer(name.encode() * 32).public_key) for name in "ab")
    query = LedgerQuery(ledger, keys_of)

    def under(number, witnesses):
        proof = query.prove(name_of(number), witnesses=map(str, witnesses))
        assert verify_proof(proof, LEDGER_SIGNER.public_key)[0].offset == number
        return int(proof.checkpoint.split("\n")[1]), cosigners(proof.checkpoint, [a, b, KEY])

    assert under(1, [a, b]) == (6, [a, b])
    assert under(7, [a, b]) == (9, [a])
    assert under(10, [a, b]) == (12, [])
    assert under(1, []) == (12, [])
