"""The transactor over a producer in memory: a step that never returns costs a thread, not the process."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from bus.kafka import transaction
from bus.kafka.transaction import Staged, TransactionFailed, Transactor


class MemoryProducer:
    """Notes what is committed; ``held`` keeps a commit until it is set."""

    made: list[MemoryProducer]

    def __init__(self, _config):
        self.committed = 0
        self.held = threading.Event()
        self.held.set()
        self.made.append(self)

    def nothing(self, *_, **__):
        pass

    init_transactions = begin_transaction = send_offsets_to_transaction = nothing

    def commit_transaction(self, _timeout):
        self.held.wait()
        self.committed += 1


@pytest.fixture
def made(monkeypatch):
    MemoryProducer.made = []
    monkeypatch.setattr(transaction, "Producer", MemoryProducer)
    monkeypatch.setattr(transaction, "FENCED_S", 0.01)
    yield MemoryProducer.made
    for each in MemoryProducer.made:
        each.held.set()


@pytest.fixture
def transactor(made):
    transactor = Transactor(SimpleNamespace(config=lambda **_: {}, check=lambda: None), "one")
    yield transactor
    transactor.close()


def test_a_step_that_never_returns_is_left_behind_and_the_next_transaction_commits(transactor, made):
    made[0].held.clear()
    transactor.submit(Staged())
    with pytest.raises(TransactionFailed, match="deadline"):
        transactor.wait(0.01)
    stuck = transactor._thread
    transactor.renew()
    transactor.submit(Staged())
    transactor.wait()
    assert [each.committed for each in made] == [0, 1]
    made[0].held.set()
    stuck.join(10)
    assert not stuck.is_alive()
    transactor.wait()
    transactor.submit(Staged())
    transactor.wait()
    assert [each.committed for each in made] == [1, 2]


def test_a_step_that_ends_once_it_is_fenced_keeps_its_thread(transactor, made, monkeypatch):
    monkeypatch.setattr(transaction, "FENCED_S", 30)
    made[0].held.clear()
    transactor.submit(Staged())
    threading.Timer(0.05, made[0].held.set).start()
    thread = transactor._thread
    transactor.renew()
    assert transactor._thread is thread
    assert transactor.idle
    transactor.submit(Staged())
    transactor.wait()
    assert made[1].committed == 1
