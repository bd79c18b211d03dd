"""Captions in other words: what is kept, where each comes from, and that training reads them where it asks for them."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.command import main as job
from sharding.common.errors import InputError
from sharding.common.runners import LocalRunner
from sharding.shards.manifest import Manifest
from tests.training.models.multimodal.families import CAPTIONS
from tests.training.models.multimodal.test_multimodal import TINY
from tests.training.small_runs import small_recipe, write_sounds
from training import cli
from training.curation.annotations import Annotation, to_table
from training.curation.rewrites import KIND, REASONS, REWRITES, answer, joined, kept_share, sifted, words
from training.curation.rewriting import TABLE, Rewriting, rewrite
from training.data.sampling.order import Order
from training.data.sources import open_clips
from training.tasks.retrieval import assemble

SPLIT, DOG = "clotho/evaluation", "A dog barks while rain falls."


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Rain falls and a dog is barking.", None),
        ("Sure! Here is one:\n\n1. \u201cA dog is barking in the rain.\u201d\n2. Another.", None),
        ("  ...  ", "empty"),
        ("Here is the sentence:", "empty"),
        ("I'm sorry, I cannot hear a dog.", "refusal"),
        ("a dog barks, WHILE rain falls", "equal"),
        ("The dog barks in the rain.", "same"),
        ("A cat sleeps on a warm sofa.", "lost_words"),
        ("The dog " + "barks and rain falls on every roof of the town " * 3, "too_long"),
    ],
)
def test_what_is_left_out_has_a_reason(text: str, reason: str | None) -> None:
    known = {tuple(words(each)) for each in (DOG, "The dog barks in the rain!")}
    kept, reasons = sifted(DOG, [text], known)
    assert dict(reasons) == ({reason: 1} if reason else {}) and len(kept) == (reason is None)
    assert set(reasons) <= set(REASONS)


@settings(max_examples=40)
@given(st.text(max_size=60), st.lists(st.text(max_size=90), max_size=6))
def test_every_answer_is_kept_or_counted_and_no_two_are_one(original: str, texts: list[str]) -> None:
    kept, reasons = sifted(original, texts, set())
    assert len(kept) + sum(reasons.values()) == len(texts)
    assert len({tuple(words(text)) for text in kept}) == len(kept)
    assert all("\n" not in text and words(text) != words(original) for text in kept)


def test_an_answer_is_the_first_line_that_introduces_nothing() -> None:
    assert answer('Of course:\n - "A dog barks."\nI hope this helps!') == "A dog barks."
    assert kept_share("Dogs barking", "a dog barked") == 1.0 and kept_share("It is", "a dog") == 1.0


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("build")
    write_sounds(root, clips=6, held_out=5, labels=True)
    return root


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random language model, as a folder of transformers."""
    folder = tmp_path_factory.mktemp("models") / "llama"
    text = assemble(small_recipe(TINY), CAPTIONS)[0].text
    text.net.save_pretrained(folder)
    text.tokenizer.save_pretrained(folder)
    return folder


def test_a_killed_run_continues_and_shards_do_not_change(shards: Path, model: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in shards.rglob("*") if path.is_file()}
    out = tmp_path / "out"
    work = Rewriting(str(shards), SPLIT, str(model), str(out), count=2, batch=2, tokens=6)
    result = rewrite(work, LocalRunner(1))
    assert result["captions"] == 10, "two captions of each clip, and no labels"
    assert result["kept"] + sum(result["removed"].values()) == 2 * 10
    part = out / "part-000001.parquet"
    stamps = {path: path.stat().st_mtime_ns for path in out.glob("part-*.parquet")}
    texts = pq.read_table(part).drop_columns("written")
    part.unlink()
    (out / TABLE).unlink()
    assert rewrite(work, LocalRunner(1)) == result
    assert {path for path in stamps if path.stat().st_mtime_ns != stamps[path]} == {part}
    assert pq.read_table(part).drop_columns("written") == texts, "what is drawn does not depend on the process"
    assert {path: path.read_bytes() for path in shards.rglob("*") if path.is_file()} == before
    with pytest.raises(InputError, match="other alternatives"):
        rewrite(Rewriting(str(shards), SPLIT, str(model), str(out), prompt="Say it: {}", batch=2), LocalRunner(1))


def test_training_reads_alternatives_where_an_item_asks_for_them(shards: Path, tmp_path: Path) -> None:
    manifest = Manifest.open(shards)
    split = "clotho/development"
    clip = manifest.table["clip_id"].to_pylist()[manifest.table["split"].to_pylist().index("development")]
    row = {"clip_id": clip, "text": "Something hums.", "of": "x", "model": "m", "prompt": "p", "written": "w"}
    table = REWRITES.empty_table().from_pylist([row, row | {"clip_id": "no/such/clip"}], schema=REWRITES)
    pq.write_table(table, tmp_path / "more.parquet")
    added = [each for each in joined(manifest.table, table)["captions"].to_pylist() if each[-1]["kind"] == KIND]
    assert [each[-1]["source"] for each in added] == ["annotation"], "evaluation does not read it"
    asks = [f"data.annotations={tmp_path}/more.parquet", "data.batch_size=2"]
    recipe = small_recipe([*asks, f"data.train=[{{split: {split}, captions: [human, rewritten]}}]"])
    opened = open_clips(recipe, str(shards))
    assert opened.dataset["plan"] != manifest.dataset["plan"]
    order = Order(opened.table, recipe.data, 0)
    texts = {text for epoch in range(12) for step in range(3) for text in order.batch(epoch, step).texts}
    assert "something hums" in texts
    pq.write_table(to_table([Annotation(clip, "A long text.", None, ())]), tmp_path / "notes.parquet")
    both = f"data.annotations=[{tmp_path}/notes.parquet, {tmp_path}/more.parquet]"
    recipe = small_recipe([both, f"data.train=[{{split: {split}, captions: [human, rewritten]}}]"])
    kinds = {
        each["text"]: each["kind"] for row in open_clips(recipe, str(shards)).table["captions"] for each in row.as_py()
    }
    assert (kinds["A long text."], kinds["Something hums."]) == ("machine", KIND)
    with pytest.raises(InputError, match="no item of data"):
        open_clips(small_recipe(asks), str(shards))
    with pytest.raises(InputError, match="and there are none"):
        open_clips(small_recipe([f"data.train=[{{split: {split}, captions: [human, rewritten]}}]"]), str(shards))


def test_the_command_and_the_job(shards: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["rewrite", "--shards", str(shards), "--split", SPLIT, "--model", str(model), "--out", str(tmp_path / "o")]
    assert cli.main([*words, "--prompt", "no place for a caption"]) == 2
    assert "must have {} once" in capsys.readouterr().err
    assert cli.main([*words, "--count", "0"]) == 2
    assert cli.main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["captions"] == 10
    assert cli.main(words) == 0
    assert "5 labels were skipped" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        job(["rewrite", "--help"])
    assert "--address" in capsys.readouterr().out
