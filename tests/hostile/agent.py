"""One hostile agent: its SCRAM file and its key bundles, nothing of the administrator's."""

import os
import time

from confluent_kafka import Producer
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bus.authority.trust import read_trust
from bus.client.keystore import KeyStore
from bus.crypto.keys import instance_key
from bus.crypto.seal import Sealer, mac_state
from bus.kafka.config import connect
from bus.wire import codec, envelope, preimage, sealed
from bus.wire.names import AgentId, DomainName
from tests.hostile.wire import Raw

DOMAIN = "agent_memory"
TOPIC = f"{DOMAIN}.in"
TTL_MS = 3_600_000


class HostileAgent:
    """What a process with the files of ``name`` can do."""

    def __init__(self, stack, name="retriever-1"):
        self.name = name
        self.deployment = stack.settings.deployment_id
        folder = stack.layout.agent(name)
        self.connection = connect(stack.settings, name)
        anchor = read_trust(stack.layout.trust).anchor
        self._keys = KeyStore(folder / "keys", AgentId(name), anchor, self.deployment)

    def bundle(self):
        """The keys of the present epoch."""
        return self._keys.sending(DomainName(DOMAIN), time.time_ns() // 1_000_000)

    def sealer(self, **changes):
        """A fresh sending process; ``instance`` or ``deployment`` may be chosen."""
        return Sealer(self.bundle().own, **{"deployment": self.deployment, "topic": TOPIC, **changes})

    def seal_at(self, sequence, partition, plaintext, instance):
        """A valid Sealed under any sequence: the product's sealer counts, and stops at 2^32."""
        keys = self.bundle().own
        header = sealed.header(keys.key_id, instance, sequence)
        aad = preimage.sealed_aad(self.deployment, TOPIC, partition) + header
        aead = AESGCM(instance_key(keys.seal, "seal", instance).reveal())
        tail = codec.prefixed(aead.encrypt(partition.to_bytes(4, "big") + header[44:], plaintext, aad))
        mac = mac_state(keys.mac, preimage.sealed_mac(self.deployment, TOPIC, partition))
        mac.update(header + tail)
        return header + mac.finalize() + tail

    def plain(self, payload=b'{"n": 1}', *, profile=None, **changes):
        """A plaintext: this agent's profile (or ``profile`` bytes), a message with ``changes``, ``payload``."""
        now = time.time_ns() // 1_000_000
        fields = {"message_id": os.urandom(16), "created_at": now, "expires_at": now + TTL_MS}
        message = envelope.encode_message(envelope.Message(**{**fields, **changes}))
        return envelope.encode_plaintext(self.profile() if profile is None else profile, message, payload)

    def profile(self, **fields):
        """The bytes of an honest profile, or with ``fields``."""
        return envelope.encode_profile(envelope.Profile(AgentId(self.name), DomainName(DOMAIN), **fields))

    def raw(self):
        """A connection without a client library."""
        return Raw(self.connection)

    def producer(self, **changes):
        """A librdkafka producer of this agent."""
        return Producer(
            self.connection.config(
                **{
                    "acks": "all",
                    "linger_ms": 5,
                    "batch_size": 1 << 20,
                    "queue_buffering_max_messages": 2_000_000,
                    "queue_buffering_max_kbytes": 2_000_000,
                    **changes,
                }
            )
        )
