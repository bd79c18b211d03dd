"""Measures AuroLA's stages on a real miniature: Whisper tiny's encoder and SmolLM2-135M, joined by a projector.

ESC-50, folds 1 and 2 to train; of fold 3 one half chooses the re-ranker's weight, and the other half is the test.  The
stages: nothing trained, after sentence pairs, after clips (with NT-Xent, and with Hybrid-NCE on labels as tags), and
re-ranked.  Beside them MiniLM with the same Whisper encoder, trained for as many steps, and for as much processor time,
as the second stage took.

    python -m bench.aurola --language FOLDER [--quick] [--blocks N] [--steps N] [--seeds N ...] [--out FOLDER]

FOLDER holds SmolLM2-135M-Instruct as save_pretrained writes it; Whisper and MiniLM are found through EARSHOT_MODELS,
the recordings through EARSHOT_DATA.  ``--blocks`` keeps only the lowest blocks of the language model: enough to see
that every stage runs, and too little to learn from (RESULTS.md).  With ``--out`` an interrupted bench continues.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from bench.learn_esc import by_label
from bench.scenes import Scene, captions, esc50, write_source
from sharding.audio.form import AudioForm
from sharding.build.run import build
from sharding.common.runners import LocalRunner
from sharding.common.storage import Storage
from sharding.probe.clip import ProbeSettings
from sharding.settings import BuildSettings
from sharding.shards.manifest import Manifest
from training.config.loading import load_recipe
from training.curation.annotations import Annotation, to_table
from training.engine.distributed import Group
from training.evaluation.encoding import side_encoder
from training.evaluation.figures import FORWARD
from training.evaluation.run import EvaluationSettings, evaluate
from training.evaluation.scores.files import ScoreFile
from training.evaluation.scores.writing import ScoringSettings, write_scores
from training.models.hub import load
from training.models.multimodal import listening
from training.models.retriever import Retriever
from training.reranking.run import compare, judge, open_reranker
from training.tasks import task_module
from training.tasks.retrieval import blank

TOP = 10
SPLITS = ("train", "validation", "test")
ALIKE = ("data.workers=0", "validation.split=null", "log.tensorboard=false", "data.crop_s=5.0", "data.max_tokens=24")
FLOAT = "engine={zero: 0}"  # float32 is faster than bfloat16 on most CPUs
ADAPTERS = "lora={text: {rank: 16, alpha: 32}}"


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is trained and measured."""

    steps: int
    batch: int
    clips: tuple[int, int, int]


FULL, QUICK = Size(60, 16, (10_000, 10_000, 10_000)), Size(2, 4, (24, 8, 8))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--language", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--quick", action="store_true", help="two steps on a few sounds: shows that it runs")
    parser.add_argument("--blocks", type=int, default=30, metavar="N", help="lowest blocks of the language model (30)")
    parser.add_argument("--steps", type=int, metavar="N", help=f"of each stage, instead of {FULL.steps}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="N")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("EARSHOT_DATA", "../shared/data")))
    parser.add_argument("--models", type=Path, default=Path(os.environ.get("EARSHOT_MODELS", "../shared/models")))
    parser.add_argument("--out", type=Path, help="keep the build and the runs here (default: a temporary folder)")
    args = parser.parse_args()
    for needed in (args.language, args.models / "whisper-tiny.en", args.data / "audio"):
        if not needed.is_dir():
            raise SystemExit(f"left out: there is no {needed}")
    torch.set_num_threads(1)
    size = QUICK if args.quick else FULL
    size = dataclasses.replace(size, steps=args.steps or size.steps)
    with tempfile.TemporaryDirectory() as temporary:
        out = args.out or Path(temporary)
        out.mkdir(parents=True, exist_ok=True)
        scenes = prepare(args.data, out, size)
        language = shortened(args.language, args.blocks, out)
        whisper = short_whisper(args.models, out)
        runs = [measure(seed, language, whisper, args.models, scenes, out, size) for seed in args.seeds]
    show(runs)


def shortened(folder: Path, blocks: int, out: Path) -> Path:
    """The language model, reduced to its lowest blocks."""
    import transformers

    target = out / f"language-{blocks}"
    if not (target / "tokenizer.json").is_file():
        net = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        net.model.layers = net.model.layers[:blocks]
        net.config.num_hidden_layers = min(blocks, net.config.num_hidden_layers)
        net.save_pretrained(target)
        transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(target)
    return target


def short_whisper(models: Path, out: Path) -> Path:
    """Whisper's encoder, reduced to the positions of its first 5 s."""
    target = out / "whisper-5s"
    if not (target / "config.json").is_file():
        listening.build(listening.Settings(source=f"{models}/whisper-tiny.en", segment_s=5.0)).net.save_pretrained(
            target
        )
    return target


def prepare(data: Path, out: Path, size: Size) -> dict[str, list[Scene]]:
    """Build the clips with a caption each, their labels as annotations, and sentence pairs; returns the splits."""
    rng = np.random.default_rng(0)
    test = esc50(data, (3,))
    drawn = dict(zip(SPLITS, (esc50(data, (1, 2)), test[::2], test[1::2]), strict=True))
    scenes = {
        split: [Scene(f"{split}{n:05d}", (recordings[n],), together=False) for n in range(len(recordings))][:count]
        for (split, recordings), count in zip(drawn.items(), size.clips, strict=True)
    }
    if not (out / "pairs.csv").is_file():
        write_source(out / "clips", scenes, 1, rng)
        settings = BuildSettings(sources={"clips": str(out / "clips")}, probe=ProbeSettings(form=AudioForm("wav")))
        build(settings, str(out / "shards"), LocalRunner(2))
        labels = {f"clips/{split}/{scene.name}": scene.labels for split, own in scenes.items() for scene in own}
        rows = [Annotation(clip, None, None, tags) for clip, tags in labels.items() if "/train/" in clip]
        pq.write_table(to_table(rows), out / "labels.parquet")
        (out / "pairs.csv").write_text("sent0,sent1,hard_neg\n" + "".join(sentence_pairs(scenes["train"], rng)))
    return scenes


def sentence_pairs(scenes: list[Scene], rng: np.random.Generator) -> list[str]:
    """Two wordings of every training clip, and a wording of another label."""
    rows = []
    for scene in scenes:
        other = next(each for each in rng.permutation(len(scenes)) if scenes[each].labels != scene.labels)
        words = (*captions(scene, 2, rng), *captions(scenes[other], 1, rng))
        rows.append(",".join(word.replace(",", "") for word in words) + "\n")
    return rows


def sections(language: Path, size: Size, seed: int) -> list[str]:
    """The overrides that the recipes of the miniature share."""
    return [
        f"text={{encoder: multimodal, source: {language}}}",
        *ALIKE,
        FLOAT,
        ADAPTERS,
        f"data.batch_size={size.batch}",
        f"optimizer={{name: adamw, clip: 1.0, lr: 1.0e-3, final_lr: 0.0, warmup_epochs: 0.1, steps: {size.steps}}}",
        f"checkpoint.every={size.steps}",
        f"seed={seed}",
    ]


def hearing(whisper: Path) -> list[str]:
    """Whisper's frozen encoder in segments of 5 s, and the training clips."""
    return [
        f"audio={{encoder: multimodal, source: {whisper}, max_s: 5.0}}",
        "data.train=[{split: clips/train}]",
        "optimizer.freeze=['audio.net.*']",
    ]


def measure(
    seed: int, language: Path, whisper: Path, models: Path, scenes: dict[str, list[Scene]], out: Path, size: Size
) -> dict[str, dict[str, float]]:
    """Every stage with one seed: figures by name, also kept below ``out``."""
    from training.engine.launch import ranks

    folder = out / f"{language.name}-{size.steps}-{seed}"
    file = folder / "figures.json"
    found: dict[str, dict[str, float]] = json.loads(file.read_text()) if file.is_file() else {}
    common, heard = sections(language, size, seed), hearing(whisper)
    human = "data.train=[{split: clips/train, captions: [human]}]"
    tagged = [f"data.annotations={out}/labels.parquet", "data.tags=labels", human]
    first, plain = str(folder / "pairs"), str(folder / "ntxent")
    texts = [f"data.texts={{nli: {out}/pairs.csv}}", "task.hard_negatives=true"]
    init = f"init_from={{model: {first}, parts: [text]}}"
    with ranks() as group:

        def stage(name: str, recipe: str, *overrides: str) -> Retriever | None:
            run = folder / name
            if name not in found:
                seconds, losses = train(recipe, list(overrides), out, run, group)
                found[name] = {"minutes": seconds / 60, "first loss": losses[0], "last loss": losses[1]}
            return None if name == "pairs" else load(run / "export")

        def test(name: str, retriever: Retriever | None) -> None:
            if retriever is not None and "mAP@10" not in found.setdefault(name, {}):
                found[name] |= retrieval(retriever, out, scenes["test"], group)
            folder.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(found))

        base = load_recipe("aurola", [*common, *heard])
        if "base" not in found:
            test("base", blank(base, ()))
        test("pairs", stage("pairs", "aurola_text", *common, *texts))
        test("ntxent", stage("ntxent", "aurola", *common, *heard, init, "loss={name: ntxent, tau: 0.05}"))
        test("hybrid", stage("hybrid", "aurola", *common, *heard, *tagged, init))
        judge_of = [f"init_from={{model: {plain}}}", "engine.chunk=0"]
        reranker = stage("rerank", "aurola_rerank", *common, *heard, *judge_of)
        if reranker is not None and "R@1 first" not in found["rerank"]:
            found["rerank"] |= reranked(load(Path(plain) / "export"), reranker, out, folder, group)
        file.write_text(json.dumps(found))
        mini = [
            f"audio={{encoder: whisper, source: {whisper}, max_s: 5.0}}",
            f"text={{encoder: bert, source: {models}/all-MiniLM-L6-v2, pooling: mean}}",
            "head={name: dual, dim: 256}",
            "lora={}",
            "optimizer.freeze=['audio.*']",
            "loss={name: ntxent, tau: 0.05}",
        ]
        test("MiniLM", stage("MiniLM", "aurola", *common, *heard, *mini))
        steps = round(size.steps * found["ntxent"]["minutes"] / found["MiniLM"]["minutes"])
        longer = [f"optimizer.steps={steps}", f"checkpoint.every={steps}"]
        test("MiniLM longer", stage("MiniLM longer", "aurola", *common, *heard, *mini, *longer))
        test("without pairs", stage("without pairs", "aurola", *common, *heard, "loss={name: ntxent, tau: 0.05}"))
    return found


def train(recipe: str, overrides: list[str], out: Path, run: Path, group: Group) -> tuple[float, tuple[float, float]]:
    """Train one stage; returns processor seconds, and the mean loss of the first and the last fifth of its steps."""
    from training.run.loop import fit

    loaded = load_recipe(recipe, overrides)
    source = task_module(loaded).open_source(loaded, None if loaded.data.texts else str(out / "shards"))
    began = time.process_time()
    fit(loaded, source, run, group)
    seconds = time.process_time() - began
    losses = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    fifth = max(1, len(losses) // 5)
    return seconds, (float(np.mean(losses[:fifth])), float(np.mean(losses[-fifth:])))


def retrieval(retriever: Retriever, out: Path, scenes: list[Scene], group: Group) -> dict[str, float]:
    """Retrieval among the unseen test clips: a query for each label."""
    encoder = side_encoder(retriever.model.eval(), retriever.recipe.data, torch.device("cpu"))
    relevance: Any = {query: dict.fromkeys(files, 1.0) for query, files in by_label(scenes).items()}
    found = evaluate(
        encoder, Manifest.open(out / "shards"), EvaluationSettings("clips/test", relevance=relevance), group
    )
    figures = found["text_to_audio_multiple"]
    return {name: figures[name] for name in ("mAP@10", "chance_mAP@10", "R@10", "chance_R@10")}


def reranked(first: Retriever, second: Retriever, out: Path, folder: Path, group: Group) -> dict[str, float]:
    """What the re-ranker brings to the test clips' own captions, with the weight chosen on the validation half."""
    manifest = Manifest.open(out / "shards")
    reranker = open_reranker(second, torch.device("cpu"), TOP)
    judged = {}
    for split in SPLITS[1:]:
        scored = folder / f"scores-{split}"
        write_scores(first, manifest, ScoringSettings("ntxent", f"clips/{split}", 16, None), str(scored), group)
        own = Storage(folder / f"judged-{split}")
        judged[split] = judge(second, reranker, manifest, ScoreFile.open(scored), TOP, own, group, (FORWARD,))
    result = compare(judged["test"], judged["validation"])["text_to_audio"]
    figures = {
        f"{name} {kind}": result[kind][name] for kind in ("first", "reranked", "oracle") for name in ("R@1", "mAP@10")
    }
    return figures | {"weight": result["weight"], "seconds a query": result["seconds_per_query"]}


def show(runs: list[dict[str, dict[str, float]]]) -> None:
    """The table, mean and range over seeds."""
    names = list(dict.fromkeys(name for run in runs for name in run))
    for name in names:
        cells = []
        for key in dict.fromkeys(key for run in runs for key in run.get(name, {})):
            values = [run[name][key] for run in runs if key in run.get(name, {})]
            spread = f" ({min(values):.3f}-{max(values):.3f})" if len(values) > 1 else ""
            cells.append(f"{key} {np.mean(values):.3f}{spread}")
        print(f"{name:14}" + "  ".join(cells))
    gains = {name: float(np.mean([run[name]["mAP@10"] for run in runs])) for name in names if "mAP@10" in runs[0][name]}
    print(json.dumps(gains))


if __name__ == "__main__":
    main()
