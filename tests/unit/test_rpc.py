"""The messages of the authority are those of the published schema."""

from __future__ import annotations

import pytest

from tools import rpc


@pytest.mark.parametrize("name", ["authority_v1_pb2.py", "authority_v1_pb2.pyi"])
def test_the_committed_module_is_what_the_schema_gives(tmp_path, name):
    rpc.make(tmp_path)
    assert (tmp_path / name).read_text() == (rpc.MADE / name).read_text()
