"""Measures whether captions with times teach a model where in a recording something is heard.

Recordings are scenes of three to five events of ESC-50, one after the other, written as TACOS is published: a caption
with times for each event.  Folds 1 and 2 are trained on, fold 3 is the test split.  The recipe tacos_moments is
trained with its window-level loss and, on the same captions and crops, without it; then each caption of the test split
is looked for in its own recording (`earshot moments`).

    python -m bench.moments [--quick] [--seeds N ...] [--scenes N] [--data FOLDER] [--out FOLDER] --pretrained FOLDER

The encoders are frozen, so the windows of the test split are encoded once for all models.  It needs the recordings that
EARSHOT_DATA names, and whisper-tiny.en and all-MiniLM-L6-v2 as saved models in the folder of ``--pretrained``.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import itertools
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
import torch

from bench.scenes import RATE, Recording, esc50, event
from sharding.audio.form import AudioForm
from sharding.build.run import build
from sharding.common.runners import LocalRunner
from sharding.probe.clip import ProbeSettings
from sharding.settings import BuildSettings
from sharding.shards.manifest import Manifest
from training.config.loading import load_recipe
from training.data.batch import Batch
from training.evaluation.encoding import SideEncoder, side_encoder
from training.evaluation.moments import retrieve_moments
from training.models.encoders import EncodedAudio
from training.models.heads.base import Side
from training.models.hub import load

METHODS = {"clips alone": ["task={name: retrieval}"], "clips and windows": []}
SPLITS = {"development": (1, 2), "test": (3,)}
FIGURES = ("R1@0.5", "R1@0.7", "mAP")
WORDINGS = ("{}", "The sound of {}", "{} is heard", "One hears {}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few scenes and epochs: shows that it runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="of head and order")
    parser.add_argument("--scenes", type=int, default=120, metavar="N", help="to train on (120); a fifth to test")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("EARSHOT_DATA", "../shared/data")))
    parser.add_argument("--out", type=Path, help="keep the build and the runs here (default: a temporary folder)")
    parser.add_argument("--pretrained", type=Path, required=True, metavar="FOLDER")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        out, scenes = args.out or Path(temporary), 10 if args.quick else args.scenes
        manifest = prepare(args.data, out, scenes)
        changes = [
            *(f"audio.source={args.pretrained / 'whisper-tiny.en'}", f"data.stored_folder={out / 'stored'}"),
            *(f"text.source={args.pretrained / 'all-MiniLM-L6-v2'}", "data.workers=0", "log.tensorboard=false"),
            *(["optimizer.epochs=3", "data.batch_size=8"] if args.quick else []),
        ]
        encoded: list[EncodedAudio] = []
        results: dict[str, list[dict[str, Any]]] = {}
        for seed, (name, method) in itertools.product(args.seeds, METHODS.items()):
            run = out / f"{name.replace(' ', '-')}-{seed}"
            results.setdefault(name, []).append(learn(manifest, run, [*changes, *method, f"seed={seed}"], encoded))
    show(results)


def prepare(data: Path, out: Path, scenes: int) -> Manifest:
    """Write and build the recordings below ``out``."""
    if not (out / "shards/dataset.json").is_file():
        rng = np.random.default_rng(0)
        (out / "tacos/audio").mkdir(parents=True, exist_ok=True)
        tables: dict[str, list[Sequence[Any]]] = {
            "metadata": [("filename", "freesound_id", "license", "start_time_s", "end_time_s")],
            "annotations_strong": [("filename", "text", "onset", "offset")],
        }
        for split, folds in SPLITS.items():
            recordings = esc50(data, folds)
            tables[f"{split}_split"] = [("filename",)]
            for number in range(scenes if split == "development" else max(2, scenes // 5)):
                name = f"{len(tables['metadata'])}.wav"
                wave, captions = scene(recordings, rng)
                sf.write(out / "tacos/audio" / name, wave, RATE, subtype="PCM_16")
                tables["metadata"].append((name, 10_000 * max(folds) + number, "CC0", 0, len(wave) / RATE))
                tables["annotations_strong"] += [(name, *caption) for caption in captions]
                tables[f"{split}_split"].append((name,))
        for table, rows in tables.items():
            with (out / f"tacos/{table}.csv").open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows(rows)
        settings = BuildSettings(roots={"tacos": str(out / "tacos")}, probe=ProbeSettings(form=AudioForm("wav")))
        build(settings, str(out / "shards"), LocalRunner(1))
    return Manifest.open(out / "shards")


def scene(
    recordings: Sequence[Recording], rng: np.random.Generator
) -> tuple[np.ndarray, list[tuple[str, float, float]]]:
    """Three to five events of different kinds with pauses ``[n]``, and a caption with its times for each."""
    by_label: dict[str, list[Recording]] = {}
    for recording in recordings:
        by_label.setdefault(recording.label, []).append(recording)
    parts, captions, length = [], [], 0
    for label in rng.choice(sorted(by_label), int(rng.integers(3, 6)), replace=False).tolist():
        pause = 1e-4 * rng.standard_normal(int(rng.uniform(0.2, 2.0) * RATE))
        wave = event(by_label[label][int(rng.integers(len(by_label[label])))], rng)
        length += len(pause)
        text = str(rng.choice(WORDINGS)).format(label)
        captions.append((text[0].upper() + text[1:] + ".", length / RATE, (length + len(wave)) / RATE))
        length += len(wave)
        parts += [pause.astype(np.float32), wave]
    return np.concatenate(parts), captions


def learn(manifest: Manifest, run: Path, changes: list[str], encoded: list[EncodedAudio]) -> dict[str, Any]:
    """Train a model and find the moments of the test split."""
    from training.engine.launch import ranks
    from training.run.loop import fit

    began = time.process_time()
    with ranks() as group:
        result = fit(load_recipe("tacos_moments", changes), manifest, run, group)
    minutes = (time.process_time() - began) / 60
    retriever = load(result["export"])
    encoder = with_encoded(side_encoder(retriever.model, retriever.recipe.data), encoded)
    return retrieve_moments(encoder, manifest, "tacos/test") | {"minutes": minutes}


def with_encoded(encoder: SideEncoder, encoded: list[EncodedAudio]) -> SideEncoder:
    """An encoder that hears batches only where ``encoded``, which it fills, does not have them in the same order."""
    numbers = itertools.count()

    def audio(batch: Batch) -> Side:
        number = next(numbers)
        with torch.inference_mode():
            if number == len(encoded):
                encoded.append(encoder.model.clips(batch))
            side: Side = encoder.head.audio_side(encoded[number])
        return side

    return dataclasses.replace(encoder, audio=audio)


def show(results: dict[str, list[dict[str, Any]]]) -> None:
    """The table, mean and range over seeds, and the ratio as the last line."""
    first = next(iter(results.values()))[0]
    print(f"{first['captions']} captions of {first['clips']} recordings")
    chance = "".join(f"{first.get(f'chance_{figure}', float('nan')):24.3f}" for figure in FIGURES)
    print(f"{'':20}" + "".join(f"{name:>24}" for name in (*FIGURES, "minutes")))
    print(f"{'chance':20}{chance}")
    for name, runs in results.items():
        cells = [[run[figure] for run in runs] for figure in (*FIGURES, "minutes")]
        text = [f"{np.mean(cell):.3f} ({min(cell):.3f}-{max(cell):.3f})" for cell in cells]
        print(f"{name:20}" + "".join(f"{cell:>24}" for cell in text))
    before, after = (np.mean([run["mAP"] for run in runs]) for runs in results.values())
    print(f"mAP with windows over mAP without: {after / before:.2f}")


if __name__ == "__main__":
    main()
