"""Credentials replaced under load: `python -m tests.rotation [--mechanism OAUTHBEARER] [--rotations 100]`.

Ends with 1 when one publish or read too many failed. Tickets of Kerberos need a realm: `make test-kerberos`.
Nothing may fail: no publish, no delivery, nothing published that is not read.
"""

import argparse
import dataclasses
import sys
import tempfile
from pathlib import Path

from tests.integration.conftest import start_stack
from tests.rotation.load import SCRAM, SHORT, rotate_under_load, short_policies


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.rotation", description=__doc__)
    parser.add_argument("--mechanism", choices=["OAUTHBEARER", "SCRAM-SHA-512"], default="OAUTHBEARER")
    parser.add_argument("--rotations", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=0)
    options = parser.parse_args()
    short = SHORT if options.mechanism == "OAUTHBEARER" else SCRAM
    with tempfile.TemporaryDirectory(prefix="rotation") as home:
        stack = start_stack(Path(home) / "state", policies=short_policies(Path(home) / "law"), **short)
        try:
            told = rotate_under_load(stack, options.rotations, options.minutes)
        finally:
            stack.down(lambda _: None, purge=True)
    print(dataclasses.asdict(told))
    return int(bool(told.failed or told.refused or told.missed))


if __name__ == "__main__":
    sys.exit(main())
