"""COMPUTATION by tee: a workload scores personal data; broker, enforcer and ledger read neither side of it.

python -m examples.tee

Here the workload attests nothing, so that the example runs anywhere; with `attestation_required: true` in its domain it
gets the session key when its measurement is accepted (docs/operations/attestation.md).
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bus import Bus
from demo.computing import site

CODE = Path(__file__).parents[1] / "demo" / "workload"


def main() -> None:
    with tempfile.TemporaryDirectory() as home, site(Path(home)) as stack:
        # What an operator runs beside the code: `bus run workload scoring:score --as worker-1 --from inference`
        environ = {**os.environ, "BUS_CONFIG": str(stack.layout.settings), "BUS_ATTESTER_CODE": str(CODE)}
        command = ["run", "workload", "scoring:score", "--as", "worker-1", "--from", "inference"]
        workload = subprocess.Popen([sys.executable, "-m", "bus.cli.main", *command], env=environ)
        try:
            with Bus("bank-1", settings=stack.settings) as bank:
                inbox = bank.subscribe("inference")
                for income, debt in ((4200.0, 1000.0), (2100.0, 1900.0)):
                    sent = bank.publish("inference", {"income": income, "debt": debt}, purpose="credit")
                    answer = next(each for each in inbox if sent.id in each.causation)
                    print(f"income {income:.0f}, debt {debt:.0f}: {answer.value()} by {answer.source}")
        finally:
            workload.terminate()
            workload.wait(30)


if __name__ == "__main__":
    main()
