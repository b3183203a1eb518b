"""COMPUTATION by mpc: banks publish, two parties add up shares, an analyst has the totals and nobody a single row.

python -m examples.mpc

Both parties are of one deployment here; in different clouds each has a broker of its own, which the others name in
`peers` of bus.toml (docs/tiers.md).
"""

import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bus import Bus
from demo.computing import site


def party(name: str, environ: dict[str, str]) -> subprocess.Popen[bytes]:
    """What an operator runs for each party: `bus run party fraud_stats --as NAME`."""
    command = ["run", "party", "fraud_stats", "--as", name]
    return subprocess.Popen([sys.executable, "-m", "bus.cli.main", *command], env=environ)


def main() -> None:
    made = random.Random(7)
    with tempfile.TemporaryDirectory() as home, site(Path(home)) as stack:
        environ = {**os.environ, "BUS_CONFIG": str(stack.layout.settings)}
        parties = [party(name, environ) for name in ("party-a", "party-b")]
        try:
            with Bus("bank-1", settings=stack.settings) as bank, Bus("analyst-1", settings=stack.settings) as analyst:
                amounts: list[float] = []
                for _ in range(4):
                    batch = [min(made.expovariate(1 / 150), 1000) for _ in range(500)]
                    countries = made.choices(["de", "fr", "us"], [5, 3, 2], k=len(batch))
                    bank.publish("fraud_stats", {"amount": batch, "country": countries}, purpose="fraud")
                    amounts += batch
                totals = analyst.mpc.aggregate("fraud_stats", timeout=60)
        finally:
            for each in parties:
                each.terminate()
                each.wait(30)
    amount = totals.fields["amount"]
    print(f"rows      {totals.rows}")
    print(f"mean      {amount.mean:.3f}   in the clear {statistics.fmean(amounts):.3f}")
    print(f"variance  {amount.variance:.1f}   in the clear {statistics.pvariance(amounts):.1f}")
    print(f"histogram {amount.counts}")
    print(f"countries {dict(totals.groups['country'])}")


if __name__ == "__main__":
    main()
