"""Reading and hashing a file's bytes."""

from __future__ import annotations

import hashlib
import io
from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharding.audio import Source

DATA = bytes(range(256)) * 40


def sources() -> list[Source]:
    return [Source(DATA, len(DATA)), Source(io.BytesIO(DATA), len(DATA))]


@given(st.lists(st.tuples(st.integers(0, len(DATA) + 9), st.integers(0, 3000)), max_size=8))
def test_reads_in_any_order_give_the_bytes_and_the_hash_of_the_whole(reads: list[tuple[int, int]]) -> None:
    for source in sources():
        for offset, size in reads:
            assert source.read(offset, size) == DATA[offset : offset + size]
        assert source.sha256() == hashlib.sha256(DATA).hexdigest()


def test_a_view_is_a_part_with_another_beginning() -> None:
    for source in sources():
        view = source.view(10, 500, b"head")
        assert view.read() == b"head" + DATA[14:500]
        view.seek(2)
        assert view.read(4) == b"ad" + DATA[14:16]
        assert view.seek(0, io.SEEK_END) == 490


class Failing(io.BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        raise OSError("the network is gone")


def test_an_error_of_a_read_is_kept_where_a_decoder_hides_it() -> None:
    file: BinaryIO = Failing(DATA)
    source = Source(file, len(DATA))
    assert source.view().read() == b""
    assert isinstance(source.error, OSError)
    with pytest.raises(OSError, match="network"):
        source.read(0, 10)
