"""Tables of sentence pairs: what is read, and what is refused with its row."""

from __future__ import annotations

from pathlib import Path

import pytest

from sharding.common.errors import InputError
from training.data.pairs import SentencePairs


def test_tables_as_spreadsheets_write_them_are_read(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_bytes(
        b'\xef\xbb\xbfsent1,more,sent0,hard_neg\r\n"A  dog,\r\nfar",x,Bark,\r\n\r\nRain,y,Drops,Snow\r\n'
    )
    pairs = SentencePairs.open({"nli": str(tmp_path / "p.csv")})
    assert pairs.matches == ["A dog, far", "Rain"] and pairs.negatives == ["", "Snow"]
    assert pairs.sentences() == ["A dog, far", "Bark", "Drops", "Rain", "Snow"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"sent0,sent1\n", "has no pair"),
        (b"sent0\na\n", "lacks the column sent1"),
        (b"sent0,sent0,sent1\na,b,c\n", "sent0 twice"),
        (b"sent0,sent1\na,b\nRain falls, far away,drops\n", "row 3: the row has 3 cells"),
        (b"sent0,sent1\na, \n", "row 2: the sentence sent1 is empty"),
        (b"sent0,sent1\na,b\0\n", "zero bytes"),
        (b'sent0,sent1\n"a,b\n', "quotation mark"),
        (b"sent0,sent1\n\xff,b\n", "not UTF-8"),
    ],
)
def test_what_is_no_table_of_pairs_is_refused(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_bytes(data)
    with pytest.raises(InputError, match=message):
        SentencePairs.open({"nli": str(tmp_path / "p.csv")})
    with pytest.raises(InputError, match="cannot be read"):
        SentencePairs.open({"nli": str(tmp_path)})
