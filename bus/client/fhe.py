"""Homomorphic encryption of one agent: contexts from the deployment's store, batches in and out of deliveries.

A context is found by its SHA-256, which the policy names; its public part lies in `contexts/` of the state folder, the
secret one in the folder of the agent that decrypts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bus.client.delivery import Delivery
from bus.codes import Code
from bus.errors import Refused
from bus.files import Layout, make_folder, read_secret, write_file, write_secret
from bus.policy.model import DomainPolicy
from bus.tiers.fhe import Batch, Context, digest_of, make_contexts
from bus.tiers.fheframe import CONTENT_TYPE, Scheme

Columns = Mapping[str, Sequence[float]]


def secret_path(layout: Layout, agent: str, digest: bytes) -> Path:
    """Where an agent keeps the secret context of this digest."""
    return layout.agent(agent) / "fhe" / digest.hex()


def create(layout: Layout, agent: str, scheme: Scheme, owner: int | None = None) -> bytes:
    """A fresh key whose holder is ``agent``; returns the digest that the policy is to name. Raises SettingsError."""
    public, secret = make_contexts(scheme)
    digest = digest_of(public)
    write_file(make_folder(layout.contexts, 0o711) / digest.hex(), public)
    path = secret_path(layout, agent, digest)
    make_folder(layout.agent(agent), owner=owner)
    make_folder(path.parent, owner=owner)
    write_secret(path, secret, owner)
    return digest


class Encryption:
    """What `Bus.fhe` gives: encrypt, compute, decrypt."""

    def __init__(self, layout: Layout, agent: str) -> None:
        self._layout = layout
        self._agent = agent
        self._public: dict[bytes, Context] = {}

    def context(self, digest: bytes) -> Context:
        """The public context of this digest. Raises Refused (settings) where the store does not have it."""
        found = self._public.get(digest)
        if found is None:
            path = self._layout.contexts / digest.hex()
            try:
                data = path.read_bytes()
            except OSError:
                raise _lacks(path, "copy it from where it was made: it is public") from None
            if digest_of(data) != digest:
                raise Refused(f"{path}: not the context of its name", code=Code.SETTINGS)
            found = self._public[digest] = Context(data, digest)
        return found

    def encoded(self, domain: DomainPolicy, payload: object) -> tuple[bytes, str]:
        """Bytes and content type of what is published to ``domain``: a batch, or columns that become one."""
        batch = payload
        if not isinstance(batch, Batch):
            if not isinstance(payload, Mapping):
                name = type(payload).__name__
                raise Refused(f"{domain.name}: expected columns of numbers or a batch, found {name}", code=Code.SCHEMA)
            batch = self.context(domain.fhe_context).encrypt(payload)
        if batch.context.digest != domain.fhe_context:
            raise Refused(f"{domain.name}: expected a batch of its own context", code=Code.SCHEMA)
        return batch.encode(), CONTENT_TYPE

    def encrypt(self, context: bytes, columns: Columns, *, bound: float = 1.0, small: bool = False) -> Batch:
        """A batch under the context of this digest, with values up to ``bound`` (see ``Context.encrypt``)."""
        return self.context(context).encrypt(columns, bound=bound, small=small)

    def open(self, delivery: Delivery) -> Batch:
        """The batch that was delivered, to compute on. Raises Refused (schema) for a delivery that is none."""
        if delivery.content_type != CONTENT_TYPE:
            raise Refused(f"expected {CONTENT_TYPE}, found {delivery.content_type}", code=Code.SCHEMA)
        return self.context(delivery.payload[5:37]).load(delivery.payload)

    def decrypt(self, batch: Batch, *, digits: int = 4, fold: bool = False) -> dict[str, list[float]]:
        """Columns in the clear, rounded; ``fold`` gives their sums alone. Raises Refused where this agent does not hold
        the secret."""
        path = secret_path(self._layout, self._agent, batch.context.digest)
        try:
            data = read_secret(path)
        except OSError:
            raise _lacks(path, f"{self._agent} does not hold this key") from None
        return Context(data, batch.context.digest).decrypt(batch, digits=digits, fold=fold)


def _lacks(path: Path, hint: str) -> Refused:
    return Refused(f"no context {path}", code=Code.SETTINGS, hint=hint)
