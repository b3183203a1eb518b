"""A realm, and a stack whose agents come with tickets of it; skipped with the reason where something lacks."""

import os

import pytest

from bus.files import make_folder
from bus.settings import Mechanism
from bus.stack.server import LOOPBACK
from tests.integration.conftest import start_stack
from tests.kerberos.build_client import folder
from tests.kerberos.realm import REALM, Realm, missing
from tests.rotation.load import SHORT, short_policies

LIFE_S = 20
AGENTS = ("retriever-1", "orchestrator-1", "executor-1")


@pytest.fixture(scope="session")
def realm(tmp_path_factory):
    if "KERBEROS" not in os.environ:
        pytest.skip("takes five minutes: make test-kerberos")
    if lacking := missing():
        pytest.skip(f"no {', '.join(lacking)}: apt-get install krb5-kdc krb5-admin-server krb5-user")
    if not folder().is_dir():
        pytest.skip("no Kafka client that speaks GSSAPI: python -m tests.kerberos.build_client")
    made = Realm(tmp_path_factory.mktemp("kerberos") / "realm", LIFE_S)
    yield made
    made.stop()


@pytest.fixture(scope="session")
def stack(realm, tmp_path_factory):
    """Its services have passwords, its agents keytabs; the broker asks them for their ticket every eight seconds."""
    home = tmp_path_factory.mktemp("stack")
    keytab = realm.keytab(f"kafka/{LOOPBACK}", home / "broker.keytab")
    law = {**SHORT, "policies": short_policies(home / "law")}
    kerberos = {"sasl_mechanism": Mechanism.KERBEROS, "kerberos_realm": REALM, "kerberos_keytab": keytab}
    before = os.environ.get("KRB5_CONFIG")
    os.environ["KRB5_CONFIG"] = realm.config  # the broker's Java is told of it
    local = start_stack(home / "state", **{**law, **kerberos})
    for agent in AGENTS:
        make_folder(local.layout.agent(agent))
        realm.keytab(f"agent/{agent}", local.layout.keytab(agent))
    yield local
    local.down(lambda _: None, purge=True)
    os.environ.pop("KRB5_CONFIG")
    if before is not None:
        os.environ["KRB5_CONFIG"] = before
