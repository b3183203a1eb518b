"""FHE: a credit model is trained in the clear and scores encrypted applicants; the scores are those of the clear.

python -m examples.fhe

The lender holds the secret key. The analyst owns the model, sees ciphertexts alone, and learns no applicant; broker,
enforcer and ledger learn neither applicants nor scores.
"""

import math
import tempfile
from pathlib import Path

import numpy as np

from bus import Bus
from bus.tiers.fhe import LOGISTIC
from demo.computing import site

NAMES = ("income", "debt", "age", "delays")


def applicants(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features within ±1, and whether each paid back (a made-up rule with noise)."""
    made = np.random.default_rng(seed)
    features = made.uniform(-1, 1, size=(rows, len(NAMES)))
    paid = 1.8 * features[:, 0] - 1.4 * features[:, 1] + 0.3 * features[:, 2] - 1.1 * features[:, 3] + 0.2
    return features, (made.uniform(size=rows) < 1 / (1 + np.exp(-2.5 * paid))).astype(float)


def trained(features: np.ndarray, paid: np.ndarray, steps: int = 400) -> tuple[np.ndarray, float]:
    """Logistic regression by gradient descent, with weights small enough that scores stay within ±5."""
    weights, bias = np.zeros(features.shape[1]), 0.0
    for _ in range(steps):
        error = 1 / (1 + np.exp(-(features @ weights + bias))) - paid
        weights -= 0.5 * (features.T @ error / len(paid) + 0.05 * weights)
        bias -= 0.5 * float(error.mean())
    return weights, bias


def main() -> None:
    weights, bias = trained(*applicants(4000, seed=1))
    features, paid = applicants(1024, seed=2)
    model = dict(zip(NAMES, map(float, weights), strict=True))
    with tempfile.TemporaryDirectory() as home, site(Path(home)) as stack:
        settings = stack.settings
        with Bus("lender-1", settings=settings) as lender, Bus("analyst-1", settings=settings) as analyst:
            theirs, mine = analyst.subscribe("credit"), lender.subscribe("credit")
            columns = {name: features[:, place].tolist() for place, name in enumerate(NAMES)}
            sent = lender.publish("credit", columns, purpose="credit")

            batch = analyst.fhe.open(next(each for each in theirs if each.id == sent.id))
            scored = analyst.publish("credit", batch.logistic(model, bias=bias), purpose="credit")

            result = lender.fhe.open(next(each for each in mine if each.id == scored.id))
            scores = np.array(lender.fhe.decrypt(result, digits=6)["probability"])
    clear = features @ weights + bias
    polynomial = sum(each * clear**power for power, each in enumerate(LOGISTIC))
    exact = 1 / (1 + np.exp(-clear))
    error = float(np.abs(scores - polynomial).max())
    print(f"{len(scores)} applicants scored without being seen")
    print(f"within {error:.0e} of the same polynomial in the clear, {np.abs(scores - exact).max():.3f} of the logistic")
    print(f"right in {((scores > 0.5) == paid).mean():.1%}, the clear model in {((exact > 0.5) == paid).mean():.1%}")
    if not error < 1e-4 or not math.isfinite(error):
        raise SystemExit("encrypted scores differ from those in the clear")


if __name__ == "__main__":
    main()
