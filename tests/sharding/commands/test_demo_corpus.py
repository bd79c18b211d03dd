"""The command that synthesises a corpus."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from sharding.cli import main
from sharding.commands import demo_corpus


def test_the_result_counts_clips_overlaps_and_defects() -> None:
    result = {"out": "corpus", "clips": {"clotho/evaluation": 4, "tacos/test": 2}, "overlaps": 3, "defects": 1}
    shown = demo_corpus.show(result)
    assert "6 clips in corpus, with 3 planted overlaps and 1 broken clip (truth.json)" in shown
    assert "clotho/evaluation" in shown and "tacos/test" in shown


def test_an_object_store_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["demo-corpus", "s3://bucket/corpus"])
    assert "must be a path on this machine" in capsys.readouterr().err


def test_size_and_seed_have_defaults(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    demo_corpus.add_arguments(parser)
    args = parser.parse_args([str(tmp_path)])
    assert (args.out, args.seed, args.clips) == (tmp_path, 0, 600)
