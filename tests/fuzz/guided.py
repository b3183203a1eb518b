"""Coverage-guided fuzzing of one target with atheris: `python -m tests.fuzz.guided TARGET FOLDER [libFuzzer options]`.

Only the product's modules are instrumented. Half of the mutations are libFuzzer's, half those of ``mutate``. Inputs
that reach something new are left in FOLDER. A fault does not end the run: one line of JSON, its signature and its input
in hexadecimal, tells of the first of each kind. Without atheris the exit code is 2.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import sys
from pathlib import Path
from random import Random

NO_ATHERIS = 2


def available() -> bool:
    """Whether atheris is installed (group `fuzz`; there are wheels for Linux only)."""
    return importlib.util.find_spec("atheris") is not None


def main(name: str, folder: Path, options: list[str]) -> None:
    """Fuzz until the runs of ``options`` are done; libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["bus", "consumers"]):
        from tests.fuzz.target import signature
        from tests.fuzz.targets import TARGETS
    from tests.fuzz.mutate import edited

    logging.disable(logging.CRITICAL)
    target = TARGETS[name]
    samples = target.samples()
    seen: set[str] = set()
    folder.mkdir(exist_ok=True)
    for number, sample in enumerate(samples):
        (folder / f"sample-{number}").write_bytes(sample)

    def mutate(data: bytes, size: int, seed: int) -> bytes:
        random = Random(seed)
        if random.randrange(2):
            return bytes(atheris.Mutate(data, size))
        return edited(random, data, samples, target.tokens, min(size, target.limit))

    def once(data: bytes) -> None:
        try:
            target.check(data)
        except Exception as error:
            told = signature(error)
            if told not in seen:
                seen.add(told)
                print(json.dumps({"fault": told, "input": data.hex()}), flush=True)

    atheris.Setup([sys.argv[0], str(folder), f"-max_len={target.limit}", *options], once, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    if not available():
        sys.exit(NO_ATHERIS)
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
