"""Headers and padding are those that any tar reader expects."""

from __future__ import annotations

import io
import tarfile

from hypothesis import given
from hypothesis import strategies as st

from sharding.shards.tar import END, header, header_size, padded, padding

NAMES = st.text("abcXYZ019_-.=+~@/é", min_size=1, max_size=240).filter(lambda name: not name.endswith("/"))


@given(name=NAMES, size=st.integers(0, 2**40))
def test_the_size_of_a_header_is_known_without_making_it(name: str, size: int) -> None:
    assert header_size(name, size) == len(header(name, size))
    assert len(header(name, size)) % 512 == 0


@given(size=st.integers(0, 5000))
def test_contents_and_padding_fill_whole_blocks(size: int) -> None:
    assert padded(size) == size + len(padding(size))
    assert padded(size) % 512 == 0
    assert len(padding(size)) < 512


@given(members=st.lists(st.tuples(NAMES, st.binary(max_size=1500)), max_size=5))
def test_python_reads_back_what_was_written(members: list[tuple[str, bytes]]) -> None:
    written = b"".join(header(name, len(data)) + data + padding(len(data)) for name, data in members) + END
    with tarfile.open(fileobj=io.BytesIO(written)) as archive:
        read = [(member.name, archive.extractfile(member).read(), member.mtime, member.uid) for member in archive]  # type: ignore[union-attr]
    assert read == [(name, data, 0, 0) for name, data in members]
