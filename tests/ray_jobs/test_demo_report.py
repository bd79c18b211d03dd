"""The demo's page, about a model that has learnt nothing: what it shows is checked, not how good it is."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch

from ray_jobs.demo_report import write_demo_report
from sharding.build.run import build
from sharding.common.runners import LocalRunner
from sharding.demo.scenes import make_scene
from sharding.demo.sounds import SOUNDS
from sharding.demo.waves import RATE
from sharding.settings import BuildSettings
from sharding.shards.manifest import Manifest
from training.config.loading import load_recipe
from training.config.resolved import dump
from training.data.sources import training_captions
from training.engine import checkpoint
from training.engine.distributed import LocalGroup
from training.evaluation.encoding import side_encoder
from training.evaluation.run import EvaluationSettings, evaluate
from training.models import hub
from training.models.build import TOKENIZER
from training.search.store import SoundIndex
from training.search.text_tower import LIBRARIES
from training.tasks.retrieval import assemble

SMALL = ("data.train=[{split: mine/train}]", "validation.split=null", "audio.depth=1", "text.depth=1")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo_report")
    rows = []
    for number, name in enumerate(list(SOUNDS)[:8]):
        scene = make_scene(np.random.default_rng(number), (name,), 4.0)
        sf.write(root / f"{name}.wav", scene.wave, RATE, subtype="PCM_16")
        split = "test" if number % 2 else "train"
        rows.append({"path": f"{name}.wav", "captions": [f"This is {name}.", f"Hear {name}!"], "split": split})
    (root / "clips.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    build(BuildSettings(sources={"mine": str(root)}), str(root / "out"), LocalRunner(1))
    return root / "out"


def untrained(run: Path, manifest: Manifest) -> None:
    """A finished run of no steps."""
    recipe = load_recipe("demo", SMALL)
    model, _ = assemble(recipe, training_captions(manifest.table, recipe.data))
    run.mkdir()
    (run / "recipe.yaml").write_text(dump(recipe))
    model.text.tokenizer.save_pretrained(run / TOKENIZER)
    values = dict(model.named_parameters())
    folder = checkpoint.save(run / "checkpoints", 0, values, {}, {})
    hub.save(checkpoint.load(folder), run / "export")
    lines = [{"step": step, "loss": 3.0 - step / 10, "lr": 1e-3, "clips_per_s": 9.0} for step in range(12)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_page_shows_metrics_queries_and_masks_and_links_the_build(shards: Path, tmp_path: Path) -> None:
    manifest = Manifest.open(shards)
    untrained(tmp_path / "run", manifest)
    retriever = hub.load(tmp_path / "run/export")
    evaluation = evaluate(
        side_encoder(retriever.model, retriever.recipe.data, torch.device("cpu")),
        manifest,
        EvaluationSettings("mine/test"),
        LocalGroup(),
    )
    page = write_demo_report(tmp_path, shards, tmp_path / "run", evaluation)
    answers_at_once = all(map(importlib.util.find_spec, LIBRARIES))
    assert ("tower" in SoundIndex.open(tmp_path / "index").about) == answers_at_once
    assert page == tmp_path / "report/index.html"
    text = page.read_text()
    metrics = json.loads((tmp_path / "report/metrics.json").read_text())
    for direction in ("text_to_audio", "audio_to_text"):
        assert metrics[direction]["chance_mAP@10"] > 0
        assert f"{100 * metrics[direction]['mAP@10']:.1f} %" in text
    assert "<h3>learning rate</h3>" in text and "last 1.9" in text  # of the loss
    assert text.count("This is") >= 4 and "right</span>" in text
    assert len(re.findall(r'<img [^>]*src="data:image/png', text)) == 2
    pictures = re.findall(r'<img [^>]*src="([^"]+)', text)
    assert pictures[0] != pictures[1]
    link = re.search(r'<a href="([^"]+)">The build', text)
    assert link and (page.parent / link.group(1)).resolve() == (shards / "report/index.html").resolve()
