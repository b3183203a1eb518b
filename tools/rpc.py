"""Make the messages of ``bus.authority.rpc`` from ``schemas/authority_v1.proto``: `python -m tools.rpc [FOLDER]`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parents[1]
PROTO: Final = HERE / "schemas" / "authority_v1.proto"
MADE: Final = HERE / "bus" / "authority" / "rpc"


def make(folder: Path) -> None:
    """Write the module and its types into ``folder``."""
    from grpc_tools import protoc

    told = ["protoc", f"-I{PROTO.parent}", f"--python_out={folder}", f"--pyi_out={folder}", str(PROTO)]
    if protoc.main(told):
        raise SystemExit(1)


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else MADE)
