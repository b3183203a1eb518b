"""Builds the Vault that the custody tests talk to, from Go modules: `python -m tests.custody.build_vault`.

HashiCorp publishes Vault as a Go module whose parts in folders of its own (`sdk`, `api`) stand in other modules. The
published ``sdk`` that this Vault names is older than its sources: three calls of functions that these tests do not
use (restore of a backup, deduplication of identities) are fitted to it. Some minutes and 4 GB of module cache, once.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

VERSION = "v1.21.4"
MODULE = "github.com/hashicorp/vault"
FITTED = (
    (
        "builtin/logical/transit/path_restore.go",
        "restoredKeyName, err := b.lm.RestorePolicy(",
        "restoredKeyName := keyName\n\terr := b.lm.RestorePolicy(",
    ),
    (
        "vault/identity_store.go",
        "ActivationFunc: iStore.activateDeduplication,",
        (
            "ActivationFunc: func(ctx context.Context, req *logical.Request, _ string) error "
            "{ return iStore.activateDeduplication(ctx, req) },"
        ),
    ),
    (
        "vault/logical_system_activation_flags.go",
        "b.idStoreBackend.ActivationFunc(ctx, nil)",
        'b.idStoreBackend.ActivationFunc(ctx, nil, "")',
    ),
)
GO_MOD = f"""module sealbus.test/vault

go 1.25.0

replace {MODULE} => ./source

replace github.com/99designs/keyring => github.com/Jeffail/keyring v1.2.3

replace github.com/ma314smith/signedxml v1.1.1 => github.com/moov-io/signedxml v1.1.1

require {MODULE} {VERSION}
"""


def binary() -> Path:
    """Where it is kept: $XDG_CACHE_HOME/sealbus or ~/.cache/sealbus."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "sealbus" / f"vault-{VERSION}" / "vault"


def build(go: str) -> None:
    """Fetch, fit, build, put in place."""
    with tempfile.TemporaryDirectory(prefix="sealbus-vault-") as name:
        folder = Path(name)
        told = subprocess.run(
            [go, "mod", "download", "-json", f"{MODULE}@{VERSION}"], cwd=folder, check=True, capture_output=True
        )
        source = folder / "source"
        shutil.copytree(json.loads(told.stdout)["Dir"], source, ignore=shutil.ignore_patterns("ui", "*_test.go"))
        for path in (source, *source.rglob("*")):
            path.chmod(path.stat().st_mode | 0o200)
        for place, old, new in FITTED:
            text = (source / place).read_text(encoding="utf-8")
            if text.count(old) != 1:
                raise SystemExit(f"{place}: expected once: {old}")
            (source / place).write_text(text.replace(old, new), encoding="utf-8")
        (folder / "go.mod").write_text(GO_MOD)
        shutil.copy(Path(__file__).parent / "vault" / "main.go", folder)
        subprocess.run([go, "build", "-mod=mod", "-o", "vault", "."], cwd=folder, check=True)
        binary().parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "vault", binary().with_suffix(".new"))
        binary().with_suffix(".new").replace(binary())


def main() -> None:
    """Say where it is, or why it cannot be had."""
    if binary().is_file():
        print(f"Vault {VERSION}: {binary()}")
        return
    go = shutil.which("go") or shutil.which("/usr/local/go/bin/go")
    if go is None:
        print(f"no Go compiler found: the tests of the vault provider are skipped (Vault {VERSION} is built with Go)")
        return
    print(f"building Vault {VERSION} from Go modules: some minutes and 4 GB of module cache, once", flush=True)
    try:
        build(go)
    except subprocess.CalledProcessError as error:
        print(f"Vault {VERSION} cannot be built, its tests are skipped: {(error.stderr or b'').decode()[-500:]}")
        sys.exit(bool(os.environ.get("CI")))
    print(f"Vault {VERSION}: {binary()}")


if __name__ == "__main__":
    main()
