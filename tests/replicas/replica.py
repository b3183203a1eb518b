"""A replica as a process of its own: makes the epochs that are due at each time that a line on stdin names.

For each line it prints, as JSON, every epoch that it holds (domain, begin, end, digest of its root), and how often
another process had claimed a number first.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from bus.authority.issuer import Issuer
from bus.authority.local import ensure_roots, load_signer, open_roots
from bus.authority.roots import StoredEpoch
from bus.authority.trust import read_trust
from bus.files import Layout
from bus.settings import Issuing, load
from tests.unit.ledger_build import make_policy


def main(state: str, database: str) -> None:
    """Until stdin ends."""
    issuing = Issuing(database) if database in set(Issuing) else Issuing.AUTHORITY
    settings = dataclasses.replace(
        load({"BUS_CONFIG": str(Path(state) / "bus.toml")}),
        issuing=issuing,
        authority_database="" if database in set(Issuing) else database,
    )
    layout = Layout(settings.state)
    ensure_roots(settings, layout)
    store = open_roots(settings, layout, read_trust(layout.trust))
    lost, claim = 0, store.claim

    def counted(new: Sequence[StoredEpoch]) -> bool:
        nonlocal lost
        done = claim(new)
        lost += not done
        return done

    store.claim = counted
    issuer = Issuer(layout, store, load_signer(layout.signer("issuer")), settings, {}, files=False)
    policy = make_policy()
    for line in sys.stdin:
        issuer.step(policy, int(line))
        held = {
            number: [
                [each.epoch.domain, each.epoch.not_before, each.epoch.not_after, each.epoch.root_digest.hex()]
                for each in epochs
            ]
            for number, epochs in issuer.held().items()
        }
        print(json.dumps([held, lost]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
