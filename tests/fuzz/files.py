"""Targets: files of a deployment and payloads: trust, key bundles, roots, credentials, policy, settings.

Readers that take a path read a file in a folder of the process, which is removed when it ends.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bus import settings
from bus.authority.bundle import Bundle, make_bundle, read_bundle
from bus.authority.documents import Folder
from bus.authority.providers.base import Wrapped
from bus.authority.providers.file import FileProvider
from bus.authority.roots import RootStore, StoredEpoch
from bus.authority.tombstones import StoneFolder, Tombstones
from bus.authority.trust import TrustFile, read_trust
from bus.client import payload
from bus.crypto.keys import KEY_LENGTH, AgentKeys, Secret
from bus.crypto.signing import sign_object
from bus.files import write_secret
from bus.kafka.identity import Identity, read_identity
from bus.policy import loader
from bus.policy.compiling import canonical, compile_policy
from bus.policy.model import Policy
from tests.fuzz.target import Fault, Target
from tests.fuzz.tokens import JSON_TOKENS, TOML_TOKENS, YAML_TOKENS
from tests.fuzz.world import (
    ANCHOR,
    CERTIFICATE,
    DEPLOYMENT,
    ENFORCER,
    EPOCH,
    OTHER_EPOCH,
    OTHER_ROOT,
    POLICY,
    POLICY_SIGNER,
    ROOT,
    WRITER,
    raw,
)
from tests.vectors import generate

KEK = bytes(range(0xC0, 0xE0))
ROOT_NAME = f"{generate.ZONE}.{generate.DOMAIN}"


@cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="sealbus-fuzz-")


def folder() -> Path:
    """This process's own folder."""
    return Path(_temporary().name)


def stored(name: str, data: bytes) -> Path:
    """A secret file with ``data``."""
    path = folder() / name
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        write_secret(path, b"")
    path.write_bytes(data)
    return path


# Trust, bundles, roots, credentials.
class FixedProvider(FileProvider):
    """Wraps with a nonce of zeros, so that samples are the same in every run."""

    def wrap(self, key: Secret, context: bytes) -> Wrapped:
        kek = super().wrap(key, context).kek
        return Wrapped(kek, bytes(12) + AESGCM(KEK).encrypt(bytes(12), key.reveal(), context))


def root_store() -> RootStore:
    provider = FixedProvider(stored("kek", KEK))
    tombstones = Tombstones(StoneFolder(folder() / "tombstones"), DEPLOYMENT, ANCHOR.public_key)
    roots, audit = Folder(folder() / "roots"), Folder(folder() / "audit")
    return RootStore(roots, audit, tombstones, provider, DEPLOYMENT, ANCHOR.public_key)


def read_trust_file(data: bytes) -> TrustFile:
    """A trust file whose certificates hold; written again it says the same."""
    trust = read_trust(stored("trust.json", data))
    trust.trust()
    trust.write(folder() / "again.json")
    if read_trust(folder() / "again.json") != trust:
        raise Fault("a trust file that is written again says something else")
    return trust


def read_keys(data: bytes) -> Bundle:
    """A bundle; every key in it is one."""
    bundle = read_bundle(stored("bundle", data), WRITER, ANCHOR.public_key, DEPLOYMENT)
    for each in bundle.values():
        secrets = [reader.kek for reader in each.reading]
        if each.own is not None:
            if not isinstance(each.own, AgentKeys):
                raise Fault("a bundle whose sending keys are none")
            secrets += [each.own.mac, each.own.seal, each.own.notice]
        if any(len(secret.reveal()) != KEY_LENGTH for secret in secrets):
            raise Fault("a bundle with a key of another length")
    return bundle


def read_root(data: bytes) -> StoredEpoch:
    root = stores().open(EPOCH, stored(f"roots/{EPOCH}/{ROOT_NAME}", data).name)
    if root.root != ROOT:
        raise Fault("another root than the epoch's")
    return root


@cache
def stores() -> RootStore:
    for name in ("roots", "audit", "tombstones"):
        (folder() / name).mkdir(exist_ok=True)
    return root_store()


def read_credential(data: bytes) -> Identity:
    """A credential; name and password are text that can be sent."""
    identity = read_identity(stored("scram", data).parent, "ret-1")
    try:
        identity.principal.encode()
        identity.password.reveal().decode()
    except (AttributeError, UnicodeError) as error:
        raise Fault("a credential that cannot be sent") from error
    return identity


# Policy and settings.
MESH = """\
security_mesh:
  version: 1
  global:
    tls_min_version: "1.3"
    credential_rotation_interval_ms: 600000
    audit_scope: "FULL_MESH"
  topics: {partitions: 4, replication: 1, retention: 7d, backlog_horizon: "24h"}
  domains:
    - name: "agent_memory"
      tier: "RETRIEVAL"
      allowed_roles: ["RETRIEVER", "ORCHESTRATOR"]
      produce: [RETRIEVER]
      metadata_masking: true
      audit_level: "FULL_MESH"
    - name: 'models'
      tier: "FHE"
      allowed_roles:
        - ANALYST
      metadata_masking: false
      audit_level: "OUTPUT_ONLY"
      attestation_required: true
"""
AGENTS = "# who is who\nagents:\n  ret-1: {role: RETRIEVER}\n  both-1:\n    roles: [ANALYST, ORCHESTRATOR]\n"


def load(mesh: bytes, agents: bytes) -> Policy:
    """A policy; its document is canonical and says the same when it is compiled again."""
    stored("policy/mesh.yaml", mesh)
    stored("policy/agents.yaml", agents)
    policy = loader.load_policy(folder() / "policy")
    if canonical(json.loads(policy.document)) != policy.document or compile_policy(policy.document) != policy:
        raise Fault("a policy whose document is not the canonical one")
    return policy


SETTINGS = """\
# a deployment
deployment = "00112233445566778899aabbccddeeff"
mode = "development"
bootstrap = "127.0.0.1:9092"
state = "state"
grace_ms = 120_000
transaction_bytes = 0x80_0000
owners = {ret-1 = 1001, "both-1" = 1002}
"""
VARIABLES = b"MODE=production\nGRACE_MS=90000\nSTATE=/var/lib/bus\nBOOTSTRAP=broker:9092\nENFORCERS=2\nINSTANCE=bus-2"


def read_settings(data: bytes) -> settings.Settings:
    """bus.toml; what is accepted can be lived with."""
    found = settings.load({"BUS_CONFIG": str(stored("bus.toml", data))}, folder())
    found.check_interval(1000)
    return found


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def read_variables(data: bytes) -> settings.Settings:
    """Lines KEY=VALUE as BUS_* variables. The system has none with a zero byte in it."""
    pairs = [line.partition(b"=") for line in data.replace(b"\0", b"").split(b"\n") if line]
    environ = {f"BUS_{_text(key)}": _text(value) for key, _, value in pairs}
    environ.pop("BUS_CONFIG", None)
    return settings.load(environ, folder() / "empty")


# Payloads.
@dataclass(frozen=True)
class Note:
    """What an application asks for."""

    title: str
    ranks: list[int]
    rest: dict[str, float] | None = None


def read_payload(kind: Any) -> Callable[[bytes], Any]:
    return lambda data: payload.decode_payload(data, payload.JSON, kind)


def targets() -> list[Target]:
    trust = TrustFile(DEPLOYMENT, ANCHOR.public_key, POLICY_SIGNER.public_key, ENFORCER.public_key)
    trust.with_certificate(CERTIFICATE).write(folder() / "trust.json")
    one = (folder() / "trust.json").read_bytes()
    epochs = [
        StoredEpoch(generate.EPOCH_OBJECT, raw("epoch.value"), ROOT, bytes(32)),
        StoredEpoch(OTHER_EPOCH, sign_object(ANCHOR, OTHER_EPOCH), OTHER_ROOT, bytes(32)),
    ]
    bundles = tuple(make_bundle(WRITER, POLICY, epochs, sending=each) or b"" for each in (True, False))
    stores().claim(epochs[:1])
    root = (folder() / "roots" / str(EPOCH) / ROOT_NAME).read_bytes()
    note = json.dumps({"title": "a", "ranks": [1, 2], "rest": {"b": 0.5}}).encode()
    mesh, agents = MESH.encode(), AGENTS.encode()
    json_, yaml_ = {"tokens": JSON_TOKENS}, {"tokens": YAML_TOKENS, "limit": 2048, "share": 2}
    return [
        Target("trust", read_trust_file, (one,), **json_, share=5),
        Target("bundle", read_keys, bundles, **json_, limit=8192, share=5),
        Target("root", read_root, (root,), **json_, share=5),
        Target("credential", read_credential, (b'{"username": "ret-1", "password": "x"}',), **json_, share=5),
        Target("mesh", lambda data: load(data, agents), (mesh,), **yaml_),
        Target("agents", lambda data: load(mesh, data), (agents,), **yaml_),
        Target("settings", read_settings, (SETTINGS.encode(),), tokens=TOML_TOKENS, share=5),
        Target("variables", read_variables, (VARIABLES,), tokens=TOML_TOKENS, limit=1024, share=5),
        Target("payload", read_payload(None), (note,), **json_),
        Target("typed_payload", read_payload(Note), (note,), **json_),
    ]


TARGETS = tuple(targets())
