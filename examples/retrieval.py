"""RETRIEVAL: memory that agents share, by key; found by a value in it; closed to who may not read.

python -m examples.retrieval
"""

import tempfile
from pathlib import Path

from bus import Bus, Denied
from demo.computing import site


def main() -> None:
    with tempfile.TemporaryDirectory() as home, site(Path(home)) as stack:
        settings = stack.settings  # an application has them from bus.toml, and writes Bus("bank-1")
        with Bus("bank-1", settings=settings) as bank, Bus("reader-1", settings=settings) as reader:
            memory = bank.memory("memory")
            memory.put("customer/c-17", {"customer": "c-17", "text": "prefers mail"}, purpose="care")
            memory.put("customer/c-18", {"customer": "c-18", "text": "prefers calls"}, purpose="care")
            memory.put("customer/c-17", {"customer": "c-17", "text": "prefers letters"}, purpose="care")
            memory.delete("customer/c-18", purpose="care")

            print("keys  ", reader.memory("memory").list("customer/"))
            print("value ", reader.memory("memory").get("customer/c-17"))
            # By the blind index: the broker has a token of the value, and only readers can make it.
            found = reader.search("memory", **{"value.customer": "C-17"})
            print("found ", [each.value()["value"]["text"] for each in found])
        with Bus("worker-1", settings=settings) as stranger:
            try:
                stranger.memory("memory")
            except Denied as no:
                print("denied", no.rule)


if __name__ == "__main__":
    main()
