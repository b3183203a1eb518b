"""The TPM's side of an attestation, by tpm2-tools: endorsement key, attestation key, activation, quote.

Keys are made anew under the TPM's own seeds and lie, wrapped by it, in a folder that only its owner reads. Objects are
flushed after each step, so that a TPM without a resource manager does. The endorsement certificate is read from the
TPM, the certificates between it and its maker's root are the operator's to give.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

from bus.attestation.evidence import Question, pack
from bus.attestation.tpm import split_certificates
from bus.attester.base import Sign
from bus.errors import Refused, Unavailable
from bus.wire.measurement import EvidenceKind, Measurement

EK_CERTIFICATE: Final = "0x1c00002"
"""NV index of the RSA 2048 endorsement certificate (TCG EK Credential Profile)."""
_TIMEOUT: Final = 60.0
_MAX_TOOL_ERROR: Final = 200
_CREDENTIAL_HEADER: Final = bytes.fromhex("badcc0de00000001")
"""What tpm2_activatecredential wants before a credential."""


class TpmAttester:
    """One TPM. ``tcti`` is how tpm2-tools reach it, ``folder`` (0700) where its files lie; one user at a time."""

    def __init__(self, folder: Path, tcti: str, intermediates: bytes = b"", pcr: int = 14) -> None:
        self._folder = folder
        self._environment = {**os.environ, "TPM2TOOLS_TCTI": tcti}
        self._intermediates = intermediates
        self._pcr = pcr

    def extend(self, measured: Measurement) -> None:
        """Extend the PCR with a software measurement. Once, before the measured code runs."""
        self._run("tpm2_pcrextend", f"{self._pcr}:sha256={measured.digest.hex()}")

    def offer(self) -> bytes:
        """Make the keys; the offer that the verifier makes a challenge for.

        Raises Refused where a tool fails, Unavailable where the TPM does not answer.
        """
        self._run("tpm2_createek", "-c", "ek.ctx", "-G", "rsa", "-u", "ek.pub")
        self._run(
            *("tpm2_createak", "-C", "ek.ctx", "-c", "ak.ctx", "-u", "ak.pub", "-n", "ak.name"),
            *("-G", "ecc256", "-g", "sha256", "-s", "ecdsa"),
        )
        self._run("tpm2_nvread", EK_CERTIFICATE, "-o", "ek.der")
        return pack(EvidenceKind.TPM, self._chain(), self._public())

    def answer(self, challenge: bytes, question: Question, confirmation: bytes, sign: Sign) -> bytes:  # noqa: ARG002
        """Evidence: open the challenge, quote the PCR over the question and the agent's key. Raises as ``offer``.

        The agent's key signs nothing: it is shown by TLS.
        """
        self._write("credential", _CREDENTIAL_HEADER + challenge)
        self._run("tpm2_startauthsession", "--policy-session", "-S", "session.ctx", flush=False)
        self._run("tpm2_policysecret", "-S", "session.ctx", "-c", "e", flush=False)
        self._run(
            *("tpm2_activatecredential", "-c", "ak.ctx", "-C", "ek.ctx", "-i", "credential", "-o", "secret"),
            *("-P", "session:session.ctx"),
        )
        self._run("tpm2_flushcontext", "session.ctx")
        binding = question.binding(confirmation).hex()
        self._run(
            *("tpm2_quote", "-c", "ak.ctx", "-l", f"sha256:{self._pcr}", "-q", binding, "-g", "sha256"),
            *("-m", "quote", "-s", "signature"),
        )
        parts = (self._read("secret"), self._read("quote"), self._read("signature"))
        for name in ("secret", "credential"):
            (self._folder / name).unlink()
        return pack(EvidenceKind.TPM, self._chain(), self._public(), *parts, confirmation)

    def _chain(self) -> bytes:
        """The NV index may be larger than the certificate in it."""
        stored = self._read("ek.der")
        length = 4 + int.from_bytes(stored[2:4], "big")
        return split_certificates(stored[:length])[0] + self._intermediates

    def _public(self) -> bytes:
        return self._read("ak.pub")[2:]  # TPM2B_PUBLIC to TPMT_PUBLIC

    def _read(self, name: str) -> bytes:
        return (self._folder / name).read_bytes()

    def _write(self, name: str, data: bytes) -> None:
        path = self._folder / name
        path.touch(mode=0o600)
        path.write_bytes(data)

    def _run(self, *command: str, flush: bool = True) -> None:
        self._call(command)
        if flush:
            self._call(("tpm2_flushcontext", "--transient-object"))

    def _call(self, command: tuple[str, ...]) -> None:
        try:
            done = subprocess.run(
                command,
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_TIMEOUT,
                check=False,
            )
        except FileNotFoundError:
            raise Refused(f"{command[0]} is not installed", hint="apt-get install tpm2-tools") from None
        except subprocess.TimeoutExpired:
            raise Unavailable(f"{command[0]}: the TPM did not answer within {_TIMEOUT:.0f} s") from None
        if done.returncode:
            told = done.stderr.decode(errors="replace").strip()[:_MAX_TOOL_ERROR]
            raise Refused(f"{command[0]} ended with {done.returncode}: {told}")
