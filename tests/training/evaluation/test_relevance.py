from __future__ import annotations

from pathlib import Path

import pytest

from sharding.common.errors import InputError
from training.evaluation.relevance import open_queries, read_relevance, relevant_clips


def test_a_table_lists_the_relevant_clips_of_each_query() -> None:
    table = read_relevance("query,audio_filenames\nRain falls,\"['a.wav', 'b &#39;.wav']\"\n")
    assert table == {"Rain falls": {"a.wav": 1.0, "b &#39;.wav": 1.0}}
    found = relevant_clips(["Rain falls"], table, {"a": 0, "c": 1, "b &#39;": 2})
    assert (found.query.tolist(), found.item.tolist()) == ([0, 0], [0, 2])


def test_a_query_in_two_rows_has_the_clips_of_both_once() -> None:
    table = read_relevance("query,audio_filenames\nRain,\"['a', 'b']\"\nRain,\"['b', 'c']\"\n")
    assert table == {"Rain": {"a": 1.0, "b": 1.0, "c": 1.0}}


def test_clips_may_be_relevant_to_a_degree() -> None:
    table = read_relevance("query,audio_filenames,relevances\nRain,\"['a', 'b']\",\"[100, 15.6]\"\n")
    assert table == {"Rain": {"a": 100.0, "b": 15.6}}
    assert relevant_clips(["Rain"], table, {"b": 0, "a": 1}).gain.tolist() == [15.6, 100.0]  # type: ignore[union-attr]


def test_a_clip_that_is_not_in_the_split_is_refused() -> None:
    with pytest.raises(InputError, match="2 clips of the relevance table are not in the split") as refusal:
        relevant_clips(
            ["Rain falls"], {"Rain falls": dict.fromkeys(["b.wav", "a.wav", "c"], 1.0)}, {"a": 0}, "table.csv"
        )
    assert "table.csv" in str(refusal.value) and "b.wav, c" in str(refusal.value)


def test_a_name_may_have_an_extension_or_none() -> None:
    columns = {"rain": 0, "rain.2": 1, "rain.2.b": 2}
    for name, column in (("rain", 0), ("rain.wav", 0), ("rain.2", 1), ("rain.2.flac", 1), ("rain.2.b", 2)):
        assert relevant_clips(["q"], {"q": {name: 1.0}}, columns).item.tolist() == [column], name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("query,audio_filenames\nRain,nothing at all\n", "row 2"),
        ("query,audio_filenames\nRain,[]\n", "row 2"),
        ('query,audio_filenames\nRain,"[1, 2]"\n', "list of names"),
        ('query,audio_filenames,relevances\nRain,"[\'a\']","[1, 2]"\n', "row 2"),
        ("query,audio_filenames,relevances\nRain,\"['a']\",[0]\n", "above 0"),
        ("a,b\n1,2\n", "columns"),
        ("query,audio_filenames\n", "has no query"),
        ("audio_filenames,query\n\"['a']\"\n", "row 2"),
        ("query,audio_filenames\n ,\"['a']\"\n", "the query is empty"),
        ("query,query,audio_filenames\nRain,Wind,\"['a']\"\n", "twice"),
        ("query,audio_filenames\n" + "x" * 200_000 + ",[]\n", "field limit"),
        ("query,audio_filenames,relevances\nRain,\"['a']\",[1" + "0" * 400 + "]\n", "above 0"),
    ],
)
def test_a_malformed_table_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_relevance(text, "table.csv")


def test_the_published_table(shared_data: Path) -> None:
    table = read_relevance((shared_data / "metadata/dcase2025/metadata_eval.csv").read_text())
    assert len(table) == 1037
    assert sum(map(len, table.values())) == 3116
    assert max(map(len, table.values())) == 12


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"\0" * 20, "zero bytes"),
        ("caption\nRain\n".encode("utf-16"), "zero bytes"),
        (b"caption\nRa\xff\n", "not UTF-8"),
        (b"text\nRain\n", "a column caption or query"),
        (b"caption\n", "no query"),
        (b"caption\n \n", "the query is empty"),
        (b"caption\n" + b"x" * 200_000, "field limit"),
    ],
)
def test_a_table_of_queries_that_is_none_is_refused(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_bytes(data)
    with pytest.raises(InputError, match=message):
        open_queries(tmp_path / "q.csv")
    (tmp_path / "q.csv").write_bytes(b'\xef\xbb\xbfcaption\r\nRain\r\n\r\n"Wind, far"\r\n')
    assert open_queries(tmp_path / "q.csv") == ["Rain", "Wind, far"]
