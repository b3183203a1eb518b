"""trust.json: what a deployment's members believe: anchor, policy signer, ledger key, enforcer certificates.

Public, but its integrity is the reader's own business: it lies in a folder that only the operator may write.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from bus.codes import Code
from bus.crypto.signing import Trust, open_object
from bus.errors import Refused, WireError
from bus.files import write_file
from bus.policy.compiling import compile_policy
from bus.policy.model import Policy
from bus.wire.objects import SignedSnapshot

FORMAT: Final = "sealbus.trust/1"


@dataclass(frozen=True, slots=True)
class TrustFile:
    """Public keys (32 bytes each) and certificates of a deployment."""

    deployment: bytes
    anchor: bytes
    policy_signer: bytes
    ledger: bytes
    certificates: tuple[bytes, ...] = ()

    def trust(self) -> Trust:
        """The verified trust store."""
        return Trust(self.deployment, self.anchor, self.certificates)

    def write(self, path: Path) -> None:
        """Replace ``path``."""
        document = {
            "format": FORMAT,
            "deployment": self.deployment.hex(),
            "anchor": self.anchor.hex(),
            "policy_signer": self.policy_signer.hex(),
            "ledger": self.ledger.hex(),
            "certificates": [each.hex() for each in self.certificates],
        }
        write_file(path, json.dumps(document, indent=1).encode())

    def with_certificate(self, certificate: bytes) -> TrustFile:
        """This file with one more certificate."""
        return replace(self, certificates=(*self.certificates, certificate))


def read_trust(path: Path) -> TrustFile:
    """The trust file at ``path``. Raises WireError(decode) for other bytes, OSError where it cannot be read."""
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise Refused(f"no trust file at {path}", code=Code.SETTINGS, hint="start a stack: bus stack up") from None
    except (ValueError, RecursionError) as error:
        raise WireError(f"{path}: not a trust file: {type(error).__name__}", code=Code.DECODE) from None
    try:
        if document["format"] != FORMAT:
            raise WireError(f"{path}: expected format {FORMAT}", code=Code.VERSION)
        return TrustFile(
            deployment=bytes.fromhex(document["deployment"]),
            anchor=bytes.fromhex(document["anchor"]),
            policy_signer=bytes.fromhex(document["policy_signer"]),
            ledger=bytes.fromhex(document["ledger"]),
            certificates=tuple(bytes.fromhex(each) for each in document["certificates"]),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise WireError(f"{path}: not a trust file: {type(error).__name__}", code=Code.DECODE) from None


@dataclass(frozen=True, slots=True)
class LiveSnapshot:
    """A verified snapshot and the policy in it."""

    signed: SignedSnapshot
    policy: Policy

    def check_validity(self, now_ms: int, skew_ms: int) -> None:
        """Raise Refused(policy) outside the snapshot's validity: readers and enforcers stop, they do not guess."""
        if not self.signed.valid_from - skew_ms <= now_ms <= self.signed.valid_until + skew_ms:
            raise Refused(
                f"policy snapshot {self.signed.number} is not valid now", code=Code.POLICY, hint="bus policy apply"
            )


def open_snapshot(data: bytes, trust: TrustFile, held: LiveSnapshot | None = None) -> LiveSnapshot:
    """The verified snapshot in ``data``. Raises Unverified, WireError, or Refused for a lower number than ``held``."""
    signed = open_object(SignedSnapshot, data, trust.policy_signer, trust.deployment)
    if held is not None and signed.number < held.signed.number:
        raise Refused(
            f"policy snapshot {signed.number}: expected at least {held.signed.number} (rollback)", code=Code.POLICY
        )
    policy = compile_policy(signed.document)
    if policy.digest != signed.digest:
        raise WireError("policy snapshot: digest does not match its document", code=Code.DECODE)
    return LiveSnapshot(signed, policy)
