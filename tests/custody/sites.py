"""Key providers to test against: the real thing on this machine, or the reason why it is not there."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from bus.authority.custody import Custodian
from bus.authority.providers.base import KeyProvider, OwnKeys
from bus.authority.providers.file import FileProvider
from bus.authority.providers.pkcs11 import Pkcs11Provider
from bus.errors import BusError, RetryLater, Unverified
from bus.files import Layout, make_folder, write_secret
from bus.settings import Custody, Settings
from tests.custody.build_vault import binary

SOFTHSM = [Path("/usr/lib/softhsm/libsofthsm2.so"), Path("/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so")]
PIN = "538201"
TIMEOUT_MS = 300


@dataclass(frozen=True, slots=True)
class Site:
    """A provider that answers. ``away``: settings under which it does not, by what is wrong; ``rotate`` gives it a new
    version of its key, ``destroy_earlier`` takes those before the newest away for good, where that can be tried."""

    settings: Settings
    other_key: Settings
    away: dict[str, Settings]
    rotate: Callable[[], object]
    destroy_earlier: Callable[[], object] | None
    other_key_refused: type[BusError] = Unverified
    process: subprocess.Popen[bytes] | None = None
    """The provider's own, where it is one that can be stopped."""

    def provider(self, settings: Settings | None = None) -> KeyProvider:
        settings = settings or self.settings
        return Custodian(settings, Layout(settings.state))


def need(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        pytest.skip(f"{module} is not installed: make test-custody, or pip install 'sealbus[{extra}]'")


@contextlib.contextmanager
def unanswering() -> Iterator[tuple[str, str]]:
    """Addresses (host:port) of a port that is closed and of one that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.create_server(("127.0.0.1", 0)) as closed:
        addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in (closed, silent)]
        closed.close()
        yield addresses[0], addresses[1]


def _destroy_superseded(provider: OwnKeys) -> None:
    for kek in provider.superseded():
        provider.destroy(kek)


@contextlib.contextmanager
def file(folder: Path) -> Iterator[Site]:
    settings = Settings(state=folder / "state")
    for each in ("state", "other"):
        write_secret(make_folder(folder / each / "keys") / "kek", os.urandom(32))
    away = {"no file": replace(settings, state=folder / "gone")}
    provider = FileProvider(Layout(settings.state).kek)
    yield Site(
        settings,
        replace(settings, state=folder / "other"),
        away,
        provider.rotate,
        lambda: _destroy_superseded(provider),
    )


def _trim(root: Any, name: str) -> None:
    """What docs/operations/keys.md tells an administrator to do."""
    newest = root.secrets.transit.read_key(name)["data"]["latest_version"]
    lowest = {"min_decryption_version": newest, "min_encryption_version": newest}
    root.adapter.post(f"/v1/transit/keys/{name}/config", json=lowest)  # hvac itself refuses that the two be equal
    root.adapter.post(f"/v1/transit/keys/{name}/trim", json={"min_available_version": newest})


@contextlib.contextmanager
def running_vault() -> Iterator[dict[str, Any]]:
    """Vault's own server core, as a process of its own (``vault/main.go``): address, token of root, process."""
    if not binary().is_file():
        pytest.skip("no Vault was built: make test-custody")
    process = subprocess.Popen([binary()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        yield {**json.loads(process.stdout.readline()), "process": process}
    finally:
        process.stdin.close()
        process.wait(10)


@contextlib.contextmanager
def vault(folder: Path) -> Iterator[Site]:
    """Its transit engine."""
    hvac = need("hvac", "vault")
    with running_vault() as told:
        root = hvac.Client(url=told["address"], token=told["token"])
        root.sys.enable_secrets_engine("transit")
        for name in ("sealbus", "other", "gone"):
            root.secrets.transit.create_key(name)
        # What docs/operations/keys.md tells an operator to give the services.
        paths = [f"transit/{verb}/{name}" for verb in ("encrypt", "decrypt") for name in ("sealbus", "other")]
        rules = "\n".join(f'path "{path}" {{ capabilities = ["update"] }}' for path in paths)
        root.sys.create_or_update_policy("sealbus", rules)
        token = root.auth.token.create(policies=["sealbus"], no_default_policy=True)["auth"]["client_token"]
        for name, text in (("token", token + "\n"), ("refused", "hvs.unknown")):
            write_secret(folder / name, text.encode())
        settings = Settings(
            state=folder,
            key_provider=Custody.VAULT,
            key_timeout_ms=5000,
            vault_address=told["address"],
            vault_token_file=folder / "token",
        )
        with unanswering() as (closed, silent):
            away = {
                "closed port": replace(settings, vault_address=f"http://{closed}"),
                "silent port": replace(settings, vault_address=f"http://{silent}", key_timeout_ms=TIMEOUT_MS),
                "token refused": replace(settings, vault_token_file=folder / "refused"),
                "no token": replace(settings, vault_token_file=folder / "none"),
                "not permitted": replace(settings, vault_key="transit/gone"),
            }
            yield Site(
                settings,
                replace(settings, vault_key="transit/other"),
                away,
                lambda: root.secrets.transit.rotate_key("sealbus"),
                lambda: _trim(root, "sealbus"),
                process=told["process"],
            )


@contextlib.contextmanager
def aws(folder: Path) -> Iterator[Site]:
    """moto's server: KMS's protocol with encryption contexts; not AWS, and no permissions."""
    boto3, moto = need("boto3", "aws"), need("moto.server", "custody-tests")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    environ = {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(folder / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "none"),
    }
    with pytest.MonkeyPatch.context() as patch, unanswering() as (closed, silent):
        for name, value in environ.items():
            patch.setenv(name, value)
        server.start()
        try:
            host, port = server.get_host_and_port()
            endpoint = f"http://{host}:{port}"
            client = boto3.client("kms", region_name="eu-west-1", endpoint_url=endpoint)
            arns = [client.create_key()["KeyMetadata"]["Arn"] for _ in range(2)]
            settings = Settings(
                state=folder,
                key_provider=Custody.AWS_KMS,
                aws_key=arns[0],
                aws_region="eu-west-1",
                aws_endpoint=endpoint,
            )
            away = {
                "closed port": replace(settings, aws_endpoint=f"http://{closed}"),
                "silent port": replace(settings, aws_endpoint=f"http://{silent}", key_timeout_ms=TIMEOUT_MS),
                "no such key": replace(settings, aws_key=arns[0][:-12] + "0" * 12),
            }
            yield Site(
                settings,
                replace(settings, aws_key=arns[1]),
                away,
                lambda: client.rotate_key_on_demand(KeyId=arns[0]),
                None,  # moto goes on to decrypt under a key that is to be deleted
                RetryLater,  # KMS says IncorrectKeyException, moto AccessDeniedException
            )
        finally:
            server.stop()


@cache
def _token() -> Path:
    """SoftHSM2's configuration, with a token: one a process, as the library reads it once."""
    folder = Path(_temporary().name)
    tokens, config = make_folder(folder / "tokens"), folder / "softhsm2.conf"
    config.write_text(f"directories.tokendir = {tokens}\nobjectstore.backend = file\n")
    command = ["softhsm2-util", "--init-token", "--free", "--label", "sealbus", "--so-pin", PIN, "--pin", PIN]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "SOFTHSM2_CONF": str(config)})
    return config


@cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="sealbus-custody-")


@contextlib.contextmanager
def pkcs11(folder: Path) -> Iterator[Site]:
    """SoftHSM2: the PKCS#11 interface with a token in files."""
    need("pkcs11", "pkcs11")
    module = next((each.resolve() for each in SOFTHSM if each.is_file()), None)
    if module is None or shutil.which("softhsm2-util") is None:
        pytest.skip("no SoftHSM2: make test-custody, or apt-get install softhsm2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTHSM2_CONF", str(_token()))
        write_secret(folder / "pin", PIN.encode())
        write_secret(folder / "wrong", b"000000")
        settings = Settings(
            state=folder,
            key_provider=Custody.PKCS11,
            pkcs11_module=module,
            pkcs11_token="sealbus",
            pkcs11_pin_file=folder / "pin",
        )
        other = replace(settings, pkcs11_key="other")
        for each in (settings, other):
            Pkcs11Provider(each).rotate()
        away = {
            "no such token": replace(settings, pkcs11_token="gone"),
            "no such key": replace(settings, pkcs11_key="gone"),
            "no pin": replace(settings, pkcs11_pin_file=folder / "none"),
        }
        provider = Pkcs11Provider(settings)
        yield Site(settings, other, away, provider.rotate, lambda: _destroy_superseded(provider))


SITES: dict[Custody, Callable[[Path], contextlib.AbstractContextManager[Site]]] = {
    Custody.FILE: file,
    Custody.VAULT: vault,
    Custody.AWS_KMS: aws,
    Custody.PKCS11: pkcs11,
}
