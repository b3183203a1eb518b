"""Measurements by name: what the policy accepts and what a verifier finds, written alike.

`software:sha256:HEX64`, `tpm:pcrN:HEX64` (the value of a SHA-256 PCR, N 0 to 15), `snp:HEX96` (the launch measurement),
`nitro:pcrN:HEX96` (N 0 to 15). PCRs 16 and above of a TPM can be reset while it runs and are refused; so are zeros:
nothing was measured there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from bus.codes import Code
from bus.errors import WireError

_REGISTER: Final = "(?:[0-9]|1[0-5])"
PATTERN: Final = (
    rf"^(?!.*:0+$)(?:software:sha256:[0-9a-f]{{64}}|tpm:pcr{_REGISTER}:[0-9a-f]{{64}}"
    rf"|snp:[0-9a-f]{{96}}|nitro:pcr{_REGISTER}:[0-9a-f]{{96}})$"
)
"""Of the text form; holds in Python and in JSON Schema."""


class EvidenceKind(StrEnum):
    """What vouches for a measurement."""

    SOFTWARE = "software"
    TPM = "tpm"
    SNP = "snp"
    NITRO = "nitro"

    @property
    def identifies(self) -> bool:
        """Whether its evidence is of a machine or workload; software says of itself what it likes."""
        return self is not EvidenceKind.SOFTWARE


@dataclass(frozen=True, slots=True, order=True)
class Measurement:
    """One state of an agent. ``register`` is a PCR's number, 0 for kinds without PCRs; ``digest`` 32 or 48 bytes."""

    kind: EvidenceKind
    register: int
    digest: bytes

    @property
    def told(self) -> bool:
        """Whether anything was measured: a register that nobody extended holds zeros."""
        return any(self.digest)

    def __str__(self) -> str:
        if self.kind is EvidenceKind.SNP:
            return f"snp:{self.digest.hex()}"
        middle = "sha256" if self.kind is EvidenceKind.SOFTWARE else f"pcr{self.register}"
        return f"{self.kind}:{middle}:{self.digest.hex()}"


def parse_measurement(text: str) -> Measurement:
    """The measurement in ``text``. Raises WireError(decode) for any other text."""
    if len(text) > 128 or not re.fullmatch(PATTERN, text) or text.endswith("\n"):
        raise WireError(
            "measurement: expected software:, tpm:, snp: or nitro: and a digest that is not zeros", code=Code.DECODE
        )
    kind, *middle, digest = text.split(":")
    register = int(middle[0][3:]) if middle and middle[0].startswith("pcr") else 0
    return Measurement(EvidenceKind(kind), register, bytes.fromhex(digest))
