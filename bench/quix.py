"""Quix Streams doing its nearest equivalent: exactly once to another topic, each record opened and sealed.

A program of its own, for a Python that has `quixstreams` and `cryptography`: their pins do not go with this project's.
Reads its task as JSON on stdin, prints one JSON line. `bus bench quix --quix PYTHON`.
"""

import json
import os
import resource
import sys
import time
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from quixstreams import Application  # type: ignore[import-not-found,unused-ignore]
from quixstreams.kafka import ConnectionConfig  # type: ignore[import-not-found,unused-ignore]


def main() -> None:
    """Relay ``records`` records and measure from the first to the last commit."""
    task: dict[str, Any] = json.load(sys.stdin)
    begun: list[tuple[float, float]] = []
    done = 0
    cipher, nonce = AESGCM(os.urandom(32)), bytes(12)

    def reseal(value: bytes) -> bytes:
        if not begun:
            begun.append((time.time(), _cpu()))
        return cipher.decrypt(nonce, cipher.encrypt(nonce, value, None), None)

    def processed(*_: object) -> None:
        nonlocal done
        done += 1
        if done == task["records"]:
            app.stop()

    app = Application(
        broker_address=ConnectionConfig(
            bootstrap_servers=task["bootstrap"],
            security_protocol="sasl_ssl",
            ssl_ca_location=task["ca"],
            sasl_mechanism="SCRAM-SHA-512",
            sasl_username=task["username"],
            sasl_password=task["password"],
        ),
        consumer_group=f"bench-quix-{os.getpid()}",
        auto_offset_reset="earliest",
        processing_guarantee="exactly-once",
        commit_interval=1.0,
        commit_every=6000,
        auto_create_topics=False,
        on_message_processed=processed,
        consumer_extra_config={"fetch.wait.max.ms": 20, "queued.min.messages": 100_000},
        producer_extra_config={"linger.ms": 1, "batch.size": 1 << 20},
        loglevel="ERROR",
    )
    source = app.topic(task["source"], value_deserializer="bytes", key_deserializer="bytes")
    target = app.topic(task["target"], value_serializer="bytes", key_serializer="bytes")
    app.dataframe(source).apply(reseal).to_topic(target)
    app.run()
    seconds, used = time.time() - begun[0][0], _cpu() - begun[0][1]
    print(json.dumps({"records": done, "records_s": done / seconds, "cpu_us": used / done * 1e6}))


def _cpu() -> float:
    told = resource.getrusage(resource.RUSAGE_SELF)
    return told.ru_utime + told.ru_stime


if __name__ == "__main__":
    main()
