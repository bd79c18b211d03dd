"""Does the model learn from real sound?  Scenes and plain clips of ESC-50: folds 1 and 2 train, fold 3 tests.

Scenes last 15 to 30 s and hold three to five recordings in turn or at once; half of those in turn are twins of
another scene: the same kinds of event in another order.  Plain clips are the recordings themselves, 5 s each.
Both go the way that a user's own sounds go: a generic source, a build, a recipe, an evaluation.

    python -m bench.learn_esc [--quick] [--data FOLDER] [--out FOLDER]

Needs the recordings that EARSHOT_DATA names.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.scenes import Scene, draw_scenes, esc50, write_source
from sharding.build import BuildSettings, build
from sharding.errors import InputError
from sharding.manifest import Manifest
from sharding.runners import LocalRunner
from training.distributed import Group
from training.evaluation.run import encoders_of, evaluate
from training.export import Retriever, load
from training.recipe import load as load_recipe
from training.search import build_index, search

WORDINGS = 5
# The recipe is the demo's, from scratch.  Segments overlap, so that an event is met beside what follows it.
COMMON = ("validation.split=null", "checkpoint.every=0", "log.tensorboard=false", "data.workers=0")
SHAPES = {
    "scenes": ("audio.segment_s=10.0", "audio.hop_s=5.0", "audio.max_s=30.0", "data.crop_s=30.0"),
    "clips": ("audio.segment_s=5.0", "audio.max_s=5.0", "data.crop_s=5.0"),
}


@dataclass(frozen=True)
class Size:
    """How much is made and trained."""

    train: int
    test: int
    steps: int
    batch: int


FULL = {"scenes": Size(700, 120, 420, 32), "clips": Size(800, 400, 900, 32)}
QUICK = {"scenes": Size(24, 12, 4, 8), "clips": Size(40, 30, 6, 8)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few steps on a few sounds: shows that it runs")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("EARSHOT_DATA", "../shared/data")))
    parser.add_argument("--out", type=Path, help="keep builds and runs here (default: a temporary folder)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if not (args.data / "audio/clips.csv").is_file():
        raise SystemExit(f"no recordings below {args.data}: EARSHOT_DATA names their folder")
    with tempfile.TemporaryDirectory() as temporary:
        out = args.out or Path(temporary)
        try:
            results = {name: learn(name, args, out / name) for name in SHAPES}
        except InputError as error:
            raise SystemExit(str(error)) from error
    show(results)


def learn(name: str, args: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Make the sounds, build, train and test; returns figures."""
    from training.engine import ranks  # imports DeepSpeed
    from training.fit import fit

    size = (QUICK if args.quick else FULL)[name]
    rng = np.random.default_rng(args.seed)
    splits = draw(name, args.data, size, rng)
    write_source(folder / "source", splits, WORDINGS, rng)
    settings = BuildSettings(sources={name: str(folder / "source")})
    build(settings, str(folder / "shards"), LocalRunner(2))
    manifest = Manifest.open(folder / "shards")
    recipe = load_recipe(
        "demo",
        [
            *COMMON,
            *SHAPES[name],
            f"data.train=[{{split: {name}/train}}]",
            f"data.batch_size={size.batch}",
            f"optimizer.steps={size.steps}",
            f"seed={args.seed}",
        ],
    )
    began = time.process_time()
    with ranks() as group:
        fit(recipe, manifest, folder / "run", group)
        minutes = (time.process_time() - began) / 60
        retriever = load(folder / "run/export")
        figures = test(retriever, manifest, name, splits["test"], group)
    return figures | {"train": len(splits["train"]), "cpu_minutes": minutes}


def draw(name: str, data: Path, size: Size, rng: np.random.Generator) -> dict[str, list[Scene]]:
    """What the two splits are made of; no recording, and no fold, is in both."""
    folds = {"train": esc50(data, (1, 2)), "test": esc50(data, (3,))}
    counts = {"train": size.train, "test": size.test}
    if name == "scenes":
        return {split: draw_scenes(folds[split], counts[split], rng, split) for split in folds}
    chosen = {split: rng.permutation(len(folds[split]))[: counts[split]] for split in folds}
    return {
        split: [Scene(f"{split}{index:05d}", (folds[split][index],), False) for index in sorted(chosen[split])]
        for split in folds
    }


def test(retriever: Retriever, manifest: Manifest, name: str, scenes: list[Scene], group: Group) -> dict[str, float]:
    """Retrieval among the test split: by own captions, by labels (clips), and between twins (scenes)."""
    split = f"{name}/test"
    device = next(retriever.model.parameters()).device
    relevance = by_label(scenes) if name == "clips" else None
    data, sound = retriever.recipe.data, retriever.audio_input
    found = evaluate(
        encoders_of(retriever.model, device), manifest, split, data, sound, retriever.tokenizer, group,
        relevance=relevance,
    )  # fmt: skip
    metrics = found["text_to_audio_multiple" if relevance else "text_to_audio"]
    figures = {"test": float(found["clips"])}
    for metric in ("R@1", "R@10", "mAP@10"):
        figures |= {metric: metrics[metric], f"chance_{metric}": metrics[f"chance_{metric}"]}
    if name == "scenes":
        figures["order"] = order_accuracy(retriever, manifest, split, scenes)
    return figures


def by_label(scenes: list[Scene]) -> dict[str, list[str]]:
    """A query for each label, and the files that it should find."""
    files: dict[str, list[str]] = defaultdict(list)
    for scene in scenes:
        files[f"The sound of {scene.labels[0]}."].append(f"{scene.name}.wav")
    return dict(files)


def order_accuracy(retriever: Retriever, manifest: Manifest, split: str, scenes: list[Scene]) -> float:
    """How often a caption scores its own scene above the twin with the same events in another order; 0.5 by chance."""
    groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for scene in scenes:
        if not scene.together:
            groups[tuple(sorted(scene.labels))].append(f"{split}/{scene.name}")
    twins = {a: b for members in groups.values() if len(members) == 2 for a, b in (members, members[::-1])}
    rows = {row["clip_id"]: row["captions"] for row in manifest.table.select(["clip_id", "captions"]).to_pylist()}
    index = build_index(retriever, manifest, split)
    wins = []
    for clip, twin in twins.items():
        if clip in rows and twin in rows:
            texts = [caption["text"] for caption in rows[clip]]
            for hits in search(retriever, manifest, texts, split, len(index.clips), index).values():
                scores: dict[str, Any] = {hit["clip_id"]: hit["score"] for hit in hits}
                wins.append(float(scores[clip] > scores[twin]))
    return float(np.mean(wins)) if wins else float("nan")


def show(results: dict[str, dict[str, float]]) -> None:
    """The table, and the ratios as the last line."""
    columns = ("train", "test", "R@1", "chance_R@1", "R@10", "chance_R@10", "mAP@10", "chance_mAP@10", "cpu_minutes")
    print(f"{'':8}" + "".join(f"{column:>14}" for column in columns))
    for name, figures in results.items():
        print(f"{name:8}" + "".join(f"{figures[column]:14.3f}" for column in columns))
    print(f"order of events told right between twins: {results['scenes']['order']:.3f} (chance 0.5)")
    ratios = {f"{name}_mAP@10_over_chance": one["mAP@10"] / one["chance_mAP@10"] for name, one in results.items()}
    print(json.dumps(ratios | {"order_accuracy": results["scenes"]["order"]}))


if __name__ == "__main__":
    main()
