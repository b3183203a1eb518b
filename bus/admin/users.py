"""SCRAM users and their credential files: one identity per agent and service, no shared accounts."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, cast

from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialAlteration,
    UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)

from bus.files import make_folder, write_secret
from bus.kafka.identity import CHANGING

ITERATIONS = 8192
TIMEOUT = 30.0


def list_users(client: AdminClient) -> set[str]:
    """Users that have a SCRAM-SHA-512 credential."""
    answer = client.describe_user_scram_credentials(request_timeout=TIMEOUT)
    described = cast("Future[dict[str, Any]]", answer).result(TIMEOUT)
    return {
        name
        for name, told in described.items()
        if any(each.mechanism == ScramMechanism.SCRAM_SHA_512 for each in told.scram_credential_infos)
    }


def set_password(client: AdminClient, folder: Path, principal: str, owner: int | None = None) -> None:
    """Give ``principal`` a fresh random password; its file is replaced once the broker has it."""
    set_passwords(client, {principal: folder}, {} if owner is None else {principal: owner})


def set_passwords(
    client: AdminClient, folders: Mapping[str, Path], owners: Mapping[str, int], *, announce: bool = False
) -> None:
    """Fresh random passwords for several principals in one request.

    The broker has a password first, then its file. With ``announce`` a file beside it says before that it is being
    replaced, so that whoever is refused in between waits for it. What stands in an agent's folder is not read: it may
    be of the agent's making.
    """
    if announce:
        for name, folder in folders.items():
            write_secret(make_folder(folder, owner=owners.get(name)) / CHANGING, b"", owners.get(name))
    fresh = {principal: secrets.token_urlsafe(32) for principal in folders}
    info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, ITERATIONS)
    changes: list[UserScramCredentialAlteration] = [
        UserScramCredentialUpsertion(name, info, word.encode()) for name, word in fresh.items()
    ]
    for name, future in client.alter_user_scram_credentials(changes, request_timeout=TIMEOUT).items():
        future.result(TIMEOUT)
        owner = owners.get(name)
        document = {"username": name, "password": fresh[name]}
        write_secret(make_folder(folders[name], owner=owner) / "scram", json.dumps(document).encode(), owner)
        (folders[name] / CHANGING).unlink(missing_ok=True)


def delete_users(client: AdminClient, principals: list[str]) -> None:
    """Remove the credentials of ``principals``."""
    changes: list[UserScramCredentialAlteration] = [
        UserScramCredentialDeletion(name, ScramMechanism.SCRAM_SHA_512) for name in principals
    ]
    for future in client.alter_user_scram_credentials(changes, request_timeout=TIMEOUT).values():
        future.result(TIMEOUT)
