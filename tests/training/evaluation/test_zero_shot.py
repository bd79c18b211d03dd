"""Labels of sounds by texts and by probes: figures by hand, on any number of ranks, clean and noisy."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
import soundfile
import soxr
import torch

from sharding.common.errors import InputError
from sharding.shards.manifest import Manifest
from tests.training.data.shards import RATE
from tests.training.small_runs import SOUNDS, small_recipe, write_sounds
from training import cli
from training.data.sampling.order import SequentialOrder
from training.engine.distributed import Group
from training.evaluation.classification import figures
from training.evaluation.encoding import encode_clips
from training.evaluation.hearing import Hearing, Noise
from training.evaluation.zero_shot import ZeroShotSettings, classify, dataset_labels
from training.models.hub import load_any
from training.run.loop import fit

SHORT = ["optimizer.steps=3", "optimizer.warmup_epochs=0", "log.health=0"]
SPLIT = "clotho/evaluation"


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("labelled")
    write_sounds(root, labels=True)
    return root


@pytest.fixture(scope="module")
def export(labelled: Path, group: Group, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small dual encoder; what it has learnt does not matter here."""
    run = tmp_path_factory.mktemp("run")
    fit(small_recipe(SHORT), Manifest.open(labelled), run, group)
    return run / "export"


def waves(manifest: Manifest, rate: int) -> list[np.ndarray]:
    """The recordings of the split, up to the 2.5 s that the recipe reads."""
    found = []
    for row in manifest.table.filter(pc.field("split") == "evaluation").to_pylist():
        data = manifest.storage.read(f"shards/{row['shard']}", row["audio_offset"], row["audio_bytes"])
        wave, _ = soundfile.read(io.BytesIO(data), dtype="float32")
        found.append(soxr.resample(wave[: round(2.5 * RATE)], RATE, rate))
    return found


def test_the_label_of_the_nearest_text_is_a_clips_label(
    export: Path, labelled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["classify", str(export), "--shards", str(labelled), "--split", SPLIT, "--prompt", "A {}, heard."]
    assert cli.main([*words, "--json", "--noise", "0.5"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    clean = found["clean"]
    assert (clean["clips"], clean["labels"], clean["labels_a_clip"]) == (9, len(SOUNDS), 1.0)
    assert clean["chance_accuracy"] == pytest.approx(1 / 6) and found["sigma"] == 0.5
    assert found["noisy"]["mAP"] != clean["mAP"]
    model, labels = load_any(export), sorted(SOUNDS)
    texts = model.encode_texts([f"a {label} heard" for label in labels])
    heard = [model.score(texts, model.encode_wave(wave)) for wave in waves(Manifest.open(labelled), 32000)]
    right = [labels[int(scores.argmax())] == SOUNDS[number % 6] for number, scores in enumerate(heard)]
    assert clean["accuracy"] == pytest.approx(sum(right) / 9)
    assert cli.main(words) == 0
    shown = capsys.readouterr().out
    assert "9 clips with 1.00 of 6 labels each" in shown and "noise" not in shown


def test_a_classifier_gives_its_own_scores(labelled: Path, group: Group, tmp_path: Path) -> None:
    probe = ["task={name: classification}", "text=null", "head=null", "loss=null"]
    fit(small_recipe([*probe, *SHORT]), Manifest.open(labelled), tmp_path, group)
    model = load_any(tmp_path / "export")
    found = classify(model, Manifest.open(labelled), ZeroShotSettings(SPLIT), group)
    likely = [next(iter(model.classify(wave))) for wave in waves(Manifest.open(labelled), 32000)]
    assert found["accuracy"] == pytest.approx(np.mean([SOUNDS[n % 6] == label for n, label in enumerate(likely)]))


def test_figures_are_those_of_a_hand(group: Group) -> None:
    scores = np.array([[3.0, 1.0, 0.0], [1.0, 2.0, 3.0], [0.0, 0.0, 5.0], [1.0, 0.0, 0.0]])
    wanted = np.array([[1, 0, 0], [0, 1, 1], [0, 1, 0], [0, 0, 0]], dtype=bool)
    found = figures(scores, wanted, "a/b")
    assert found["clips"] == 3 and found["labels_a_clip"] == pytest.approx(4 / 3)
    assert found["accuracy"] == pytest.approx(2 / 3)
    # label 0: its clip is first; label 1: its clips are 1st and 3rd; label 2: its clip is second
    assert found["mAP"] == pytest.approx((1 + (1 + 2 / 3) / 2 + 1 / 2) / 3)
    with pytest.raises(InputError, match="no clip of the split has a label"):
        figures(scores, np.zeros_like(wanted), "a/b")


def test_noise_is_added_to_waves_or_to_features_and_follows_from_the_clip(
    labelled: Path, export: Path, group: Group
) -> None:
    manifest, model = Manifest.open(labelled), load_any(export)

    def heard(noise: Noise, batch: int = 4) -> torch.Tensor:
        order = SequentialOrder(manifest.table, SPLIT, model.recipe.data, batch)

        def keep(features: torch.Tensor, frames: torch.Tensor, seeds: torch.Tensor) -> tuple[torch.Tensor, ...]:
            assert features.shape[2:] == (128, 100)
            return features[:, 0].flatten(1), frames

        return encode_clips(Hearing(keep, model.recipe.data, model.audio_input, noise), manifest, order, group)[0]

    clean, wave, features = heard(Noise()), heard(Noise(0.1)), heard(Noise(0.1, "features"))
    torch.testing.assert_close(heard(Noise(1e-9)), clean, atol=1e-3, rtol=0)  # the same path, without audible noise
    assert 0.09 < float((features - clean).std()) < 0.11
    assert float((wave - clean).abs().mean()) > 0.2  # where there was silence, there is noise now
    torch.testing.assert_close(heard(Noise(0.1), batch=2), wave)


def test_an_unknown_split_is_refused_with_those_that_there_are(build: Path) -> None:
    with pytest.raises(InputError, match="they have clotho/development, clotho/evaluation"):
        dataset_labels(Manifest.open(build).table, "clotho/test")


def test_clips_without_labels_are_refused(build: Path) -> None:
    with pytest.raises(InputError, match="at least two labels"):
        dataset_labels(Manifest.open(build).table, SPLIT)


def test_arguments_that_make_no_sense_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["classify", "nowhere", "--shards", "nowhere", "--split", SPLIT]
    for more, message in ((["--prompt", "sound"], "must have {} once"), (["--noise", "nan"], "--noise 0 or more")):
        assert cli.main([*words, *more]) == 2
        assert message in capsys.readouterr().err
