"""Curation: annotations beside the shards, filters, clusters of tags, hard negatives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sharding.common.errors import InputError
from sharding.common.runners import LocalRunner
from sharding.shards.manifest import Manifest
from tests.training.models.multimodal.families import CAPTIONS, write
from tests.training.models.multimodal.test_multimodal import TINY
from tests.training.small_runs import small_recipe, write_sounds
from training import cli
from training.commands import mine
from training.curation.annotations import (
    REASONS,
    Annotation,
    filtered,
    joined,
    problem,
    read_annotations,
    to_table,
)
from training.curation.annotators import KnownClip, Model
from training.curation.audioverse import read_audioverse
from training.curation.clusters import cluster_tags
from training.curation.mining import Vectors, nearest_wrong
from training.curation.run import Work, annotate, convert
from training.data.negatives import Negatives
from training.data.sampling.order import Order
from training.data.sources import open_clips
from training.tasks.retrieval import assemble


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("build")
    write_sounds(root, labels=True)
    return root


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("A dog barks.", None),
        ("  ", "empty"),
        ("1234 !", "empty"),
        ("I'm sorry, I cannot hear it.", "refusal"),
        ("word " * 40, "too_long"),
        ("the dog barks and the dog barks and the dog barks and the dog barks", "repetition"),
    ],
)
def test_what_is_not_worth_keeping_has_a_reason(text: str, reason: str | None) -> None:
    assert problem(text, 30) == reason
    assert reason is None or reason in REASONS


@given(
    st.builds(Annotation, st.just("c"), st.none() | st.text(), st.none() | st.text(), st.lists(st.text()).map(tuple))
)
def test_everything_that_is_left_out_is_counted(annotation: Annotation) -> None:
    kept, reasons = filtered(annotation)
    given_texts = sum(text is not None for text in (annotation.long, annotation.short)) + len(annotation.tags)
    kept_texts = sum(text is not None for text in (kept.long, kept.short)) + len(kept.tags)
    assert given_texts == kept_texts + sum(reasons.values())
    assert set(reasons) <= set(REASONS) and filtered(kept) == (kept, {})


def test_annotations_join_a_build_and_change_its_order_alone_where_they_should(shards: Path, tmp_path: Path) -> None:
    manifest = Manifest.open(shards)
    clip = manifest.table["clip_id"][0].as_py()
    table = to_table(
        [Annotation(clip, "A long text.", "Short.", ("hum", "low")), Annotation("no/such/clip", "x", None, ())]
    )
    more = joined(manifest.table, table)
    assert more.schema == manifest.table.schema
    added = more["captions"][0].as_py()[len(manifest.table["captions"][0]) :]
    assert [(each["text"], each["kind"]) for each in added] == [
        ("A long text.", "machine"),
        ("Short.", "machine"),
        ("hum", "label"),
        ("low", "label"),
    ]
    assert more["captions"][1].as_py() == manifest.table["captions"][1].as_py()
    pq.write_table(table, tmp_path / "annotations.parquet")
    recipe = small_recipe([f"data.annotations={tmp_path}/annotations.parquet"])
    opened = open_clips(recipe, str(shards))
    assert opened.dataset["plan"] != manifest.dataset["plan"], "a resumed run would see other captions"
    order = Order(opened.table, recipe.data, 0)
    texts = {text for epoch in range(12) for step in range(4) for text in order.batch(epoch, step).texts}
    assert "a long text" in texts


def test_several_tables_of_annotations_are_joined_one_after_the_other(shards: Path, tmp_path: Path) -> None:
    manifest = Manifest.open(shards)
    one, two = (manifest.table["clip_id"][row].as_py() for row in (0, 1))
    tables = {
        "a": [Annotation(one, "A long text.", None, ("hum",))],
        "b": [Annotation(two, None, "Short.", ()), Annotation(one, "Another text.", None, ("hum",))],
        "elsewhere": [Annotation("no/such/clip", "x", None, ())],
    }
    files = {name: str(tmp_path / f"{name}.parquet") for name in tables}
    for name, rows in tables.items():
        pq.write_table(to_table(rows), files[name])

    def opened(*names: str) -> Manifest:
        return open_clips(small_recipe([f"data.annotations=[{', '.join(files[name] for name in names)}]"]), str(shards))

    both = opened("a", "b")
    added = [
        [each["text"] for each in captions if each["source"] == "annotation"]
        for captions in both.table["captions"].slice(0, 3).to_pylist()
    ]
    assert added == [["A long text.", "hum", "Another text."], ["Short."], []], "a tag that both have is there once"
    plans = {manifest.dataset["plan"], *(opened(*names).dataset["plan"] for names in (("a",), ("b",), ("a", "b")))}
    assert len(plans) == 4
    alone = open_clips(small_recipe([f"data.annotations={files['a']}"]), str(shards))
    assert alone.dataset["plan"] == opened("a").dataset["plan"] and alone.table == opened("a").table
    with pytest.raises(InputError, match=r"elsewhere\.parquet: none of its 1 rows is about a clip of the build"):
        opened("a", "elsewhere")
    with pytest.raises(InputError, match="names a file twice"):
        opened("a", "a")
    with pytest.raises(InputError, match=r"data\.annotations must be text or a list of text or null"):
        small_recipe(["data.annotations={a: 1}"])


def test_a_file_of_something_else_is_refused(shards: Path, tmp_path: Path) -> None:
    twice = to_table([Annotation("a", None, "b", ()), Annotation("a", None, "c", ())])
    pq.write_table(twice, tmp_path / "twice.parquet")
    with pytest.raises(InputError, match="two rows"):
        read_annotations(str(tmp_path / "twice.parquet"))
    pq.write_table(Manifest.open(shards).table, tmp_path / "manifest.parquet")
    with pytest.raises(InputError, match="a column is missing"):
        read_annotations(str(tmp_path / "manifest.parquet"))


@pytest.mark.parametrize("trains", [False, True])
def test_a_folder_in_place_of_a_table_is_refused_with_the_tables_name(
    trains: bool, shards: Path, tmp_path: Path
) -> None:
    def read(place: Path) -> Any:
        recipe = small_recipe([f"data.annotations={place}"])
        return open_clips(recipe, str(shards)) if trains else read_annotations(str(place))

    pq.write_table(to_table([Annotation("a", None, "b", ())]), tmp_path / "annotations.parquet")
    with pytest.raises(InputError, match=f"name the table in it, such as {tmp_path}/annotations.parquet"):
        read(tmp_path)
    with pytest.raises(InputError, match="there is no such table"):
        read(tmp_path / "nosuch.parquet")


@pytest.mark.parametrize("workers", [1, 2])
def test_rules_annotate_every_clip_and_a_killed_run_continues(
    shards: Path, tmp_path: Path, workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    work = Work(str(shards), "clotho/development", "rules", str(tmp_path / "out"), 5)
    result = annotate(work, LocalRunner(workers))
    table = read_annotations(result["out"])
    assert result["clips"] == result["tagged"] == len(table) == 24
    assert "annotate: 24/24 clips" in capsys.readouterr().err
    first = table.to_pylist()[0]
    assert first["short"] and first["long"].startswith("A low hum is heard") and first["tags"]
    whole = (tmp_path / "out/annotations.parquet").read_bytes()
    for name in ("annotations.parquet", "part-000002.parquet"):
        (tmp_path / "out" / name).unlink()
    kept = (tmp_path / "out/part-000001.parquet").stat().st_mtime_ns
    annotate(work, LocalRunner(1))
    assert (tmp_path / "out/part-000001.parquet").stat().st_mtime_ns == kept
    assert (tmp_path / "out/annotations.parquet").read_bytes() == whole
    with pytest.raises(InputError, match="other annotations"):
        annotate(Work(str(shards), "clotho/evaluation", "rules", str(tmp_path / "out"), 5), LocalRunner(1))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/scores.json").write_text("{}")
    with pytest.raises(InputError, match="something else"):
        annotate(Work(str(shards), "clotho/evaluation", "rules", str(tmp_path / "mine"), 5), LocalRunner(1))


def test_a_published_file_is_converted_into_a_folder_of_its_own(shards: Path, tmp_path: Path) -> None:
    work = Work(str(shards), "clotho/evaluation", "audioverse", str(tmp_path / "out"), 5)
    clip = Manifest.open(shards).table.filter(pc.field("split") == "evaluation")["clip_id"][0].as_py()
    items = [{"id": clip, "caption": "A hum."}, {"id": "nobody's", "caption": "x"}]
    for _ in range(2):
        assert convert(work, published(items, tmp_path))["clips"] == 1
    with pytest.raises(InputError, match="none of 1 items"):
        convert(work, published(items[1:], tmp_path))
    with pytest.raises(InputError, match="other annotations"):
        annotate(Work(str(shards), "clotho/evaluation", "rules", str(tmp_path / "out"), 5), LocalRunner(1))
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="cannot be read"):
        convert(work, tmp_path / "deep.json")


def published(items: Any, folder: Path) -> Path:
    file = folder / "audioverse.json"
    file.write_text(json.dumps(items))
    return file


def test_the_published_form_is_read(tmp_path: Path) -> None:
    items = [
        {"id": "folder/one.wav", "caption_long": "A long one.", "caption_short": "One.", "caption_tag": "dog, bark,"},
        {"video_id": "two", "caption": ["First.", "Second."]},
        {"image": "three.flac", "caption": "Third."},
        {"image_id": "unknown", "caption": "Nobody's."},
    ]
    clips = ["set/train/one", "set/train/two.mp3", "set/train/three"]
    found, unknown = read_audioverse(published(items, tmp_path), clips)
    assert unknown == 1
    assert found[0] == Annotation("set/train/one", "A long one.", "One.", ("dog", " bark"))
    assert found[1] == Annotation("set/train/two.mp3", "Second.", "First.", ())
    assert found[2].short == "Third."


@pytest.mark.parametrize(
    ("items", "row"),
    [
        ({}, None),
        ([{"caption": "x"}], 1),
        ([{"id": "one", "caption": 3}], 1),
        ([{"id": "one"}], 1),
        ([{"id": "one", "caption": "x"}] * 2, 2),
    ],
)
def test_another_form_is_refused_with_its_row(items: Any, row: int | None, tmp_path: Path) -> None:
    with pytest.raises(InputError) as refusal:
        read_audioverse(published(items, tmp_path), ["set/train/one"])
    assert refusal.value.row == row


def test_tags_that_are_near_are_one_cluster() -> None:
    pytest.importorskip("sklearn")
    centres = torch.eye(3).repeat_interleave(4, 0) + 0.01 * torch.randn(
        12, 3, generator=torch.Generator().manual_seed(0)
    )
    found = cluster_tags([f"tag {n}" for n in range(12)], centres.numpy(), 3)
    numbers = [found[f"tag {n}"]["cluster_index"] for n in range(12)]
    assert numbers == [0] * 4 + [1] * 4 + [2] * 4
    assert cluster_tags(["a", "b"], centres[:2].numpy(), 500).keys() == {"a", "b"}


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 30), st.integers(1, 8), st.sampled_from([0.5, 0.9, 2.0])
)
def test_hard_negatives_are_the_nearest_that_cannot_be_true(
    seed: int, clips: int, captions: int, top: int, threshold: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    sounds, texts = torch.nn.functional.normalize(torch.randn(clips + captions, 3, generator=generator), dim=1).split(
        (clips, captions)
    )
    owner = torch.randint(0, clips, (captions,), generator=generator)
    group, kin = torch.randint(0, clips, (2, clips), generator=generator)
    vectors = Vectors(sounds, texts, owner, group, kin)
    half = clips // 2
    parts = [nearest_wrong(vectors, rows, top, threshold) for rows in (slice(0, half), slice(half, clips))]
    found, scores = (torch.cat(columns).tolist() for columns in zip(*parts, strict=True))
    for clip in range(clips):
        own = [n for n in range(captions) if int(owner[n]) == clip]
        allowed = [
            n
            for n in range(captions)
            if int(owner[n]) != clip
            and group[owner[n]] != group[clip]
            and kin[owner[n]] != kin[clip]
            and all(float(texts[n] @ texts[mine]) < threshold for mine in own)
        ]
        best = sorted((float(sounds[clip] @ texts[n]) for n in allowed), reverse=True)[:top]
        assert [score for n, score in zip(found[clip], scores[clip], strict=True) if n >= 0] == pytest.approx(
            best, abs=1e-5
        )
        assert set(found[clip]) - {-1} <= set(allowed)


def test_a_threshold_that_leaves_no_hard_negative_is_named() -> None:
    result = {"negatives": 0, "clips": 32, "out": "hard.parquet"}
    assert "a higher --threshold" in mine.show(result) and "--threshold" not in mine.show(result | {"negatives": 1})


def test_wrong_captions_of_a_clip_are_never_of_its_kin(shards: Path) -> None:
    table = Manifest.open(shards).table
    recipe = small_recipe()
    negatives = Negatives.of(table, recipe.data, None)
    order = Order(table, recipe.data, 0)
    batch = order.batch(0, 0)
    for row in range(len(batch)):
        for seed in range(20):
            ids = int(batch.clip[row]), int(batch.group[row]), int(batch.kin[row])
            found = negatives.draw(*ids, batch.texts[row], seed)
            assert found and found != batch.texts[row]
            assert found == negatives.draw(*ids, batch.texts[row], seed)


def test_annotate_cluster_mine_train_and_re_rank(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole chain as a user runs it, on small random models."""
    pytest.importorskip("sklearn")

    def command(*words: str) -> dict[str, Any]:
        assert cli.main([*words, "--json"]) == 0, capsys.readouterr().err
        return dict(json.loads(capsys.readouterr().out.splitlines()[-1]))

    build, out = str(shards), str(tmp_path)
    split = ("--shards", build, "--split", "clotho/development")
    command("annotate", *split, "--rules", "--out", f"{out}/annotated")
    small = [
        "audio={encoder: multimodal, source: random, segment_s: 1, max_s: 3, width: 8, depth: 1, heads: 2}",
        "text={encoder: multimodal, source: random, width: 16, depth: 1, heads: 2, vocabulary: 300}",
        *("data.train=[{split: clotho/development}]", "data.workers=0", "data.batch_size=6", "data.max_tokens=32"),
        *("optimizer.steps=2", "validation.split=null", "log.tensorboard=false", "engine={zero: 1}", "lora={}"),
        f"data.annotations={out}/annotated/annotations.parquet",
    ]

    def fit(recipe: str, run: str, *more: str) -> None:
        words = [word for override in (*small, *more) for word in ("--set", override)]
        assert command("fit", recipe, "--shards", build, "--run", f"{out}/{run}", *words)["steps"] == 2

    fit("aurola", "first", "data.tags=labels")
    clusters = command(
        "clusters", f"{out}/first", "--annotations", f"{out}/annotated/annotations.parquet", "--count", "3",
        "--out", f"{out}/clusters.json",
    )  # fmt: skip
    assert clusters["clusters"] == 3
    mined = command("mine", f"{out}/first", *split, "--top", "4", "--threshold", "2", "--out", f"{out}/hard.parquet")
    assert mined["negatives"] > 24
    fit("aurola", "second", f"data.tags={out}/clusters.json", f"init_from={{model: {out}/first}}")
    fit("aurola_rerank", "third", f"task.negatives={out}/hard.parquet", f"init_from={{model: {out}/second}}")
    for name in ("development", "evaluation"):
        command("scores", f"{out}/second", "--shards", build, "--split", f"clotho/{name}", "--out", f"{out}/{name}")
    words = ("--scores", f"{out}/evaluation", "--tune", f"{out}/development", "--top", "5", "--out", f"{out}/judged")
    result = command("rerank", f"{out}/third", "--shards", build, *words)
    for direction in ("text_to_audio", "audio_to_text"):
        found = result[direction]
        assert found["candidates"] == 5
        assert found["first"]["R@5"] == pytest.approx(found["oracle"]["R@5"])
        assert found["oracle"]["R@1"] >= max(found["first"]["R@1"], found["reranked"]["R@1"])
    part = tmp_path / "judged/measured/text_to_audio-000000.safetensors"
    whole = part.read_bytes()
    part.write_bytes(whole[:-5])
    assert cli.main(["rerank", f"{out}/third", "--shards", build, *words]) == 2
    assert "remove this file" in capsys.readouterr().err
    part.write_bytes(whole)
    again = command("rerank", f"{out}/third", "--shards", build, *words)
    assert again == result, "what is judged already is not judged again"
    assert cli.main(["rerank", f"{out}/third", "--shards", build, *words[:-3], "3", *words[-2:]]) != 0
    assert "other judgements" in capsys.readouterr().err
    command("scores", f"{out}/first", "--shards", build, "--split", "clotho/development", "--out", f"{out}/other")
    assert cli.main(["rerank", f"{out}/third", "--shards", build, *words[:3], f"{out}/other", *words[4:]]) == 2
    assert "of another model" in capsys.readouterr().err
    assert cli.main(["mine", f"{out}/first", *split, "--out", f"{out}/other"]) == 2
    assert "it is a folder" in capsys.readouterr().err


def test_a_language_model_annotates_with_and_without_hearing(shards: Path, tmp_path: Path) -> None:
    """Random models write nonsense, which must arrive whole, by clip, and counted where it is left out."""
    write("qwen2.5-omni", tmp_path / "hears")
    text = assemble(small_recipe(TINY), CAPTIONS)[0].text
    text.net.save_pretrained(tmp_path / "reads")
    text.tokenizer.save_pretrained(tmp_path / "reads")
    for source, hears in (("hears", True), ("reads", False)):
        model = Model(str(tmp_path / source), tokens=4)
        assert (model.hears is not None) == hears
        features, frames = (torch.randn(2, 1, 128, 400), torch.tensor([[400], [90]])) if hears else (None, None)
        known = [KnownClip("a", ["A dog."], ["dog"], ["park"]), KnownClip("b", [], [], [])]
        together = model.annotate(known, features, frames)
        alone = [
            model.annotate([clip], *((features[n : n + 1], frames[n : n + 1]) if hears else (None, None)))[0]
            for n, clip in enumerate(known)
        ]
        assert together == alone, "padding beside a longer prompt changes no answer"
        work = Work(str(shards), "clotho/evaluation", str(tmp_path / source), str(tmp_path / f"{source}-out"), 4)
        result = annotate(work, LocalRunner(1))
        assert result["clips"] == 9
