"""Kafka's own protocol, by hand: TLS, SCRAM-SHA-512 and OAUTHBEARER, requests without a client library, any batch.

A library refuses to send what an attacker sends: a producer id that is another agent's, a transactional batch without a
transaction, half a request. Versions are the last ones before the flexible encodings, so that a body is plain fields.
"""

import base64
import hashlib
import hmac
import os
import socket
import ssl
import struct

from bus.kafka.identity import TokenFile

PRODUCE, FETCH, OFFSET_COMMIT, JOIN_GROUP, LEAVE_GROUP = (0, 7), (1, 4), (8, 2), (11, 2), (13, 0)
SASL_HANDSHAKE, SASL_AUTHENTICATE, INIT_PRODUCER_ID = (17, 1), (36, 1), (22, 0)
ADD_PARTITIONS, ADD_OFFSETS, END_TXN, TXN_OFFSET_COMMIT = (24, 0), (25, 0), (26, 0), (28, 0)
CLIENT_QUOTAS = (49, 0)

NONE = -1, -1, -1
"""Producer id, epoch and first sequence of a batch that is not idempotent."""
TRANSACTIONAL, CONTROL = 0x10, 0x20


def text(value):
    """A string, or None."""
    return struct.pack(">h", -1) if value is None else struct.pack(">h", len(value.encode())) + value.encode()


def array(items):
    return struct.pack(">i", len(items)) + b"".join(items)


def blob(data):
    return struct.pack(">i", len(data)) + data


class Answer:
    """Reads the fields of an answer in order."""

    def __init__(self, data):
        self._data = data
        self._at = 0

    def take(self, form):
        """One number in ``struct``'s notation."""
        (value,) = struct.unpack_from(">" + form, self._data, self._at)
        self._at += struct.calcsize(">" + form)
        return value

    def text(self):
        size = self.take("h")
        self._at += max(size, 0)
        return None if size < 0 else self._data[self._at - size : self._at].decode()

    def blob(self):
        size = self.take("i")
        self._at += max(size, 0)
        return b"" if size < 0 else self._data[self._at - size : self._at]


def connect(bootstrap, timeout=30):
    """A TCP connection to the agents' listener."""
    host, _, port = bootstrap.rpartition(":")
    return socket.create_connection((host, int(port)), timeout)


class Raw:
    """One connection, authenticated by identity or ``token``; ``call`` sends a request and returns its answer."""

    def __init__(self, connection, client="raw", token=""):
        context = ssl.create_default_context(cafile=str(connection.ca))
        if connection.certificate is not None:
            context.load_cert_chain(connection.certificate.path)
        plain = connect(connection.bootstrap)
        self.socket = context.wrap_socket(plain, server_hostname=connection.bootstrap.rpartition(":")[0])
        self._client = client
        self._correlation = 0
        if token or isinstance(connection.identity, TokenFile):
            self._show(token or connection.identity.read()[0])
        else:
            self._authenticate(connection.identity.principal, connection.password.reveal())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def frame(self, api, body):
        """A request's bytes behind their length."""
        self._correlation += 1
        return blob(struct.pack(">hhi", *api, self._correlation) + text(self._client) + body)

    def call(self, api, body):
        self.socket.sendall(self.frame(api, body))
        return self.answer()

    def answer(self):
        (size,) = struct.unpack(">i", self._exactly(4))
        answer = Answer(self._exactly(size))
        answer.take("i")
        return answer

    def _exactly(self, size):
        data = b""
        while len(data) < size:
            more = self.socket.recv(size - len(data))
            if not more:
                raise ConnectionError("the broker closed the connection")
            data += more
        return data

    def _sasl(self, data):
        answer = self.call(SASL_AUTHENTICATE, blob(data))
        error, why = answer.take("h"), answer.text()
        if error:
            raise ConnectionError(f"SASL: {error} {why}")
        return answer.blob().decode()

    def _show(self, token):
        error = self.call(SASL_HANDSHAKE, text("OAUTHBEARER")).take("h")
        if error:
            raise ConnectionError(f"SASL handshake: {error}")
        if told := self._sasl(f"n,,\1auth=Bearer {token}\1\1".encode()):
            raise ConnectionError(f"SASL: {told}")

    def _authenticate(self, user, password):
        error = self.call(SASL_HANDSHAKE, text("SCRAM-SHA-512")).take("h")
        if error:
            raise ConnectionError(f"SASL handshake: {error}")
        bare = f"n={user},r={base64.b64encode(os.urandom(18)).decode()}"
        first = self._sasl(f"n,,{bare}".encode())
        told = dict(part.split("=", 1) for part in first.split(","))
        salted = hashlib.pbkdf2_hmac("sha512", password, base64.b64decode(told["s"]), int(told["i"]))
        without = f"c=biws,r={told['r']}"
        key = hmac.digest(salted, b"Client Key", "sha512")
        signed = hmac.digest(hashlib.sha512(key).digest(), f"{bare},{first},{without}".encode(), "sha512")
        proof = base64.b64encode(bytes(a ^ b for a, b in zip(key, signed, strict=True))).decode()
        self._sasl(f"{without},p={proof}".encode())

    def produce(self, topic, partition, batch, transactional_id=None, acks=-1):
        """(error code, base offset) of one record batch."""
        body = text(transactional_id) + struct.pack(">hi", acks, 10_000)
        answer = self.call(PRODUCE, body + array([text(topic) + array([struct.pack(">i", partition) + blob(batch)])]))
        answer.take("i"), answer.text(), answer.take("i"), answer.take("i")
        return answer.take("h"), answer.take("q")

    def fetch(self, topic, partition=0, offset=0):
        """(error code, records) of a partition."""
        place = struct.pack(">iqi", partition, offset, 1 << 20)
        answer = self.call(FETCH, struct.pack(">iiiib", -1, 100, 1, 1 << 20, 1) + array([text(topic) + array([place])]))
        answer.take("i"), answer.take("i"), answer.text(), answer.take("i"), answer.take("i")
        error = answer.take("h")
        answer.take("q"), answer.take("q")
        for _ in range(answer.take("i")):
            answer.take("q"), answer.take("q")
        return error, answer.blob()

    def producer_id(self, transactional_id=None):
        """(error code, producer id, epoch) of a new producer."""
        answer = self.call(INIT_PRODUCER_ID, text(transactional_id) + struct.pack(">i", 10_000))
        answer.take("i")
        return answer.take("h"), answer.take("q"), answer.take("h")

    def join(self, group):
        """The error code of joining a consumer group."""
        body = text(group) + struct.pack(">ii", 8000, 8000) + text("") + text("consumer")
        answer = self.call(JOIN_GROUP, body + array([text("range") + blob(b"")]))
        answer.take("i")
        return answer.take("h")

    def leave(self, group, member):
        return self.call(LEAVE_GROUP, text(group) + text(member)).take("h")

    def commit(self, group, topic, offset):
        """The error code of moving a group's place without being its member."""
        place = struct.pack(">iq", 0, offset) + text("")
        body = text(group) + struct.pack(">i", -1) + text("") + struct.pack(">q", -1)
        answer = self.call(OFFSET_COMMIT, body + array([text(topic) + array([place])]))
        answer.take("i"), answer.text(), answer.take("i"), answer.take("i")
        return answer.take("h")

    def add_partitions(self, transactional_id, producer, epoch, topic):
        body = text(transactional_id) + struct.pack(">qh", producer, epoch)
        answer = self.call(ADD_PARTITIONS, body + array([text(topic) + array([struct.pack(">i", 0)])]))
        answer.take("i"), answer.take("i"), answer.text(), answer.take("i"), answer.take("i")
        return answer.take("h")

    def add_offsets(self, transactional_id, producer, epoch, group):
        answer = self.call(ADD_OFFSETS, text(transactional_id) + struct.pack(">qh", producer, epoch) + text(group))
        answer.take("i")
        return answer.take("h")

    def end_transaction(self, transactional_id, producer, epoch):
        answer = self.call(END_TXN, text(transactional_id) + struct.pack(">qhb", producer, epoch, 1))
        answer.take("i")
        return answer.take("h")

    def commit_in_transaction(self, transactional_id, group, producer, epoch, topic):
        place = struct.pack(">iq", 0, 0) + text("")
        body = text(transactional_id) + text(group) + struct.pack(">qh", producer, epoch)
        answer = self.call(TXN_OFFSET_COMMIT, body + array([text(topic) + array([place])]))
        answer.take("i"), answer.take("i"), answer.text(), answer.take("i"), answer.take("i")
        return answer.take("h")

    def set_quotas(self, user, **quotas):
        """The error code of setting a user's quotas (None: of every user without its own)."""
        entity = array([text("user") + text(user)])
        operations = [text(key) + struct.pack(">db", value, 0) for key, value in quotas.items()]
        answer = self.call(CLIENT_QUOTAS, array([entity + array(operations)]) + b"\0")
        answer.take("i"), answer.take("i")
        return answer.take("h")


def varint(value):
    """Zig-zag, as in a record."""
    value = (value << 1) ^ (value >> 63)
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def record(delta, value):
    """One record without key and headers."""
    body = b"\0" + varint(0) + varint(delta) + varint(-1) + varint(len(value)) + value + varint(0)
    return varint(len(body)) + body


def batch(records, *, count=0, producer=NONE, attributes=0):
    """A record batch (magic 2) of encoded ``records``: a list, or with ``count`` the (compressed) bytes of so many."""
    data = records if isinstance(records, bytes) else b"".join(records)
    count = count or len(records)
    covered = struct.pack(">hiqqqhii", attributes, count - 1, 0, 0, *producer, count) + data
    return struct.pack(">qiibI", 0, 9 + len(covered), -1, 2, crc32c(covered)) + covered


def _table():
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        yield value


_CRC = tuple(_table())


def crc32c(data):
    value = 0xFFFFFFFF
    for byte in data:
        value = _CRC[(value ^ byte) & 0xFF] ^ value >> 8
    return value ^ 0xFFFFFFFF
