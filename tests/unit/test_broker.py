"""What of the broker's start needs no broker."""

import base64
import socket
import uuid

from bus.stack import broker


def test_a_cluster_id_never_begins_with_a_dash(monkeypatch):
    """The storage tool would take it for an option: one id in 64 would stop the first start."""
    dashed, plain = uuid.UUID(bytes=b"\xf8" + bytes(15)), uuid.UUID(bytes=bytes(16))
    drawn = iter([dashed, dashed, plain])
    monkeypatch.setattr(broker.uuid, "uuid4", lambda: next(drawn))
    assert base64.urlsafe_b64encode(dashed.bytes).startswith(b"-")
    assert broker.cluster_id() == "A" * 22


def test_a_taken_port_is_not_free_and_free_ports_differ():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert not broker.is_free(taken.getsockname()[1])
    ports = broker.free_ports((0, 0, 0))
    numbers = [number for each in ports for number in (each.agents, each.internal, each.controller)]
    assert len(set(numbers)) == 9
    assert all(broker.is_free(number) for number in numbers)
    assert [each.agents for each in broker.free_ports((1, 0, 3))][::2] == [1, 3]
