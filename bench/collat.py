"""Measures CoLLAT on real sound and real towers: each term of its loss, and greedy against optimal matching.

Whisper tiny hears and is frozen; MiniLM reads and is locked; what is trained stands between.  Training has single
recordings of ESC-50's folds 1 and 2 and mixtures of two or three of them; the test has fold 3.  A fifth of the labels
is kept out of training.  Texts are label prompts, "This is a sound of A, B, and C".  Whisper's vectors are computed
once, clean and with noise, and averaged over 100 ms, so that a run takes minutes on one core.

    python -m bench.collat [--quick] [--method NAME ...] [--seeds N ...] [--steps N] [--out FOLDER]
    python -m bench.collat --matching [--quick]

The second form compares the two matchings at a batch of 512 with 77 tokens, in time, memory and loss.  With ``--out``
an interrupted bench continues where it stopped.  It needs what EARSHOT_DATA and EARSHOT_MODELS name.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
import torch
from torch import Tensor, nn

from bench.scenes import RATE, Recording, esc50
from training.data.batch import Batch
from training.data.captions import label_prompt
from training.data.settings import MaskingSettings
from training.data.sound.features import AudioInput, FeatureExtractor
from training.engine.distributed import LocalGroup
from training.evaluation.classification import figures, label_matrix
from training.models.collat.interaction import InteractionSettings, TokenInteraction
from training.models.collat.locked_text import LockedTextModel
from training.models.collat.token_space import TokenSpace
from training.models.encoders import AudioEncoder, TextEncoder
from training.models.encoders.audio import whisper
from training.models.encoders.pooling import masked_mean
from training.models.encoders.randomness import noisy
from training.models.encoders.text.families import BERT, Bert
from training.objectives.local.token_matching import MATCHINGS, distances
from training.objectives.pairs import build_loss
from training.objectives.pairs.ntxent import Settings as NTXentSettings
from training.objectives.pairs.tiled import global_loss
from training.tasks.collat import CollatTask, Settings

SECONDS, STRIDE, SIGMA = 5.0, 5, 0.1  # of a sound; Whisper's tokens of 20 ms in one vector; of the noise
LONGEST = 18  # tokens of a text
PROMPT = "this is a sound of {}"
METHODS: dict[str, dict[str, Any]] = {
    "all terms": {},
    "without tokens": {"token_weight": 0.0},
    "without global": {"global_weight": 0.0},
    "without noise": {"noise_weight": 0.0},
    "optimal": {"matching": "optimal"},
    "unit: token": {"unit": "token"},
    "unit: sum": {"unit": "sum"},
    "padding matched": {"padding": True},
    "ends predicted": {"ends": "predicted"},
    "layer 3": {"layer": 3},
    "start learned": {"interaction": {"start": "learned"}},
    "self-attention": {"interaction": {"self_attention": True}},
}
COMPARED = ("all terms", "without tokens", "without global", "without noise", "optimal")


@dataclasses.dataclass(frozen=True)
class Size:
    """How much data is used, and how long models are trained."""

    clips: int  # of each split, at most
    scenes: tuple[int, int]  # to train, to test
    steps: int
    batch: int


FULL = Size(10_000, (600, 200), 120, 16)
QUICK = Size(24, (16, 12), 3, 8)


@dataclasses.dataclass(frozen=True)
class Sounds:
    """Sounds as Whisper hears them.

    Attributes:
        labels: the labels of each sound.
        views: by name ``[n, width, tokens]``: "clean", "features" (noise on the features) and "wave" (on the wave).
    """

    labels: list[list[str]]
    views: dict[str, Tensor]


class Stored(AudioEncoder):
    """A batch of vectors of a frozen encoder, which were computed before."""

    front_end, segment_s, hop_s, max_s = "whisper", SECONDS, SECONDS, SECONDS

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def blocks(self) -> list[nn.Module]:
        return []

    def forward(self, features: Tensor, frames: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        tokens = features.transpose(1, 2)
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool)
        return masked_mean(tokens, mask), tokens, mask


class StoredTask(CollatTask):
    """CoLLAT on stored vectors; the second view is that of the same sound with noise on Whisper's features."""

    noisy_view: Tensor

    def second_view(self, batch: Batch) -> Tensor:
        return self.noisy_view


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few steps on a few sounds: shows that it runs")
    parser.add_argument("--matching", action="store_true", help="compare the matchings instead")
    parser.add_argument("--way", choices=MATCHINGS, help=argparse.SUPPRESS)
    parser.add_argument(
        "--method", nargs="+", choices=METHODS, default=COMPARED, metavar="NAME", help=", ".join(METHODS)
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="N")
    parser.add_argument("--steps", type=int, metavar="N", help=f"instead of {FULL.steps}")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("EARSHOT_DATA", "../shared/data")))
    parser.add_argument("--models", type=Path, default=Path(os.environ.get("EARSHOT_MODELS", "../shared/models")))
    parser.add_argument("--out", type=Path, help="keep vectors and figures here (default: a temporary folder)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    size = QUICK if args.quick else FULL
    if args.way:
        print(json.dumps(match(args.way, 16 if args.quick else 512)))
        return
    if args.matching:
        compare_matchings(args.quick)
        return
    for file in (args.data / "audio/clips.csv", args.models / "whisper-tiny.en", args.models / "all-MiniLM-L6-v2"):
        if not file.exists():
            raise SystemExit(f"{file} is absent: EARSHOT_DATA and EARSHOT_MODELS name the folders")
    size = dataclasses.replace(size, steps=args.steps or size.steps)
    with tempfile.TemporaryDirectory() as temporary:
        out = args.out or Path(temporary)
        out.mkdir(parents=True, exist_ok=True)
        sounds = hear(args.data, args.models, out, size)
        results = {
            method: [learn(method, seed, sounds, args.models, out, size) for seed in args.seeds]
            for method in args.method
        }
    show(results)


def hear(data: Path, models: Path, out: Path, size: Size) -> dict[str, Sounds]:
    """Whisper's vectors of every split: training, and the tests "seen", "unseen" and "scenes"."""
    rng = np.random.default_rng(0)
    folds = {"train": esc50(data, (1, 2)), "test": esc50(data, (3,))}
    labels = sorted({recording.label for recording in folds["train"]})
    unseen = set(labels[::5])
    split = {
        "train": [[each] for each in folds["train"] if each.label not in unseen],
        "seen": [[each] for each in folds["test"] if each.label not in unseen],
        "unseen": [[each] for each in folds["test"] if each.label in unseen],
    }
    split = {name: [sounds[k] for k in rng.permutation(len(sounds))[: size.clips]] for name, sounds in split.items()}
    known = {fold: [each for each in found if each.label not in unseen] for fold, found in folds.items()}
    split["scenes"] = draw_mixtures(known["test"], size.scenes[1], rng)
    split["train"] += draw_mixtures(known["train"], size.scenes[0], rng)
    encoder = whisper.build(whisper.Settings(source=str(models / "whisper-tiny.en"), segment_s=SECONDS)).eval()
    return {name: heard(name, mixtures, encoder, out, rng) for name, mixtures in split.items()}


def draw_mixtures(recordings: Sequence[Recording], count: int, rng: np.random.Generator) -> list[list[Recording]]:
    """Mixtures; each has two or three recordings of different labels."""
    mixtures = []
    for _ in range(count):
        labels = rng.choice(sorted({each.label for each in recordings}), int(rng.integers(2, 4)), replace=False)
        mixtures.append([rng.choice([each for each in recordings if each.label == label]) for label in labels])  # type: ignore[arg-type]
    return mixtures


def wave_of(recordings: Sequence[Recording], rng: np.random.Generator) -> np.ndarray:
    """One recording of 5 s, or a mixture of several, each with a random peak level and a random shift in time."""
    total = np.zeros(round(SECONDS * RATE), np.float32)
    for recording in recordings:
        wave, _ = sf.read(recording.path, dtype="float32", always_2d=True)
        wave = np.resize(wave.mean(axis=1), len(total))
        if len(recordings) > 1:
            wave = np.roll(wave, int(rng.integers(len(wave)))) * rng.uniform(0.3, 0.6) / (np.abs(wave).max() + 1e-6)
        total += wave
    return total


@torch.inference_mode()
def heard(
    name: str, mixtures: list[list[Recording]], encoder: AudioEncoder, out: Path, rng: np.random.Generator
) -> Sounds:
    """The vectors of sounds, read from the folder of the bench if they are there."""
    labels = [[recording.label for recording in mixture] for mixture in mixtures]
    waves = [wave_of(mixture, rng) for mixture in mixtures]
    audio, file = AudioInput.of(encoder), out / f"{name}-{len(mixtures)}.npz"
    features = FeatureExtractor(audio, MaskingSettings(), train=False)
    places = ("clean", "features" if name == "train" else "wave")
    if not file.is_file():
        found: dict[str, list[Tensor]] = {place: [] for place in places}
        began = time.monotonic()
        for number, wave in enumerate(waves):
            length, seed = torch.tensor([len(wave)]), torch.tensor([number])
            samples = torch.from_numpy(wave)[None]
            for place in places:
                sound = (
                    noisy(samples[None, :, None], length[None], seed, SIGMA)[0, :, 0] if place == "wave" else samples
                )
                mel = features(sound, length, seed)
                if place == "features":
                    mel = noisy(mel[None], features.frames(length)[None], seed, SIGMA)[0]
                tokens = encoder(mel, features.frames(length), seed)[1]
                found[place].append(tokens.unflatten(1, (-1, STRIDE)).mean(2)[0].t())
            if number % 100 == 0:
                print(f"  {name}: {number}/{len(waves)} heard, {time.monotonic() - began:.0f} s", file=sys.stderr)
        arrays: Any = {place: torch.stack(views).numpy() for place, views in found.items()}
        np.savez(file.with_suffix(".writing.npz"), **arrays)
        file.with_suffix(".writing.npz").rename(file)
    with np.load(file) as stored:
        return Sounds(labels, {place: torch.from_numpy(stored[place]) for place in places})


def task_of(method: str, seed: int, text: TextEncoder, width: int) -> StoredTask:
    """A small CoLLAT with the loss weights of the paper and the changes of the method."""
    torch.manual_seed(seed)
    changes = dict(METHODS[method])
    interaction = InteractionSettings(**{"blocks": 2, "width": 256, "heads": 4, **changes.pop("interaction", {})})
    settings = Settings("collat", interaction=interaction, **changes)
    space = TokenSpace(text, settings.ends, settings.place, settings.layer)
    module = TokenInteraction(interaction, LONGEST - space.given, width, space.examples())
    loss = build_loss(NTXentSettings(tau=0.07))
    return StoredTask(LockedTextModel(Stored(width), module, space), loss, "ntxent", settings)


def batch_of(sounds: Sounds, rows: Sequence[int], text: TextEncoder, view: str) -> Batch:
    """A batch of sounds with their prompts."""
    texts = [label_prompt(PROMPT, sounds.labels[row]) for row in rows]
    words = text.tokenizer(texts, padding=True, truncation=True, max_length=LONGEST, return_tensors="pt")
    features = sounds.views[view][list(rows)][:, None]
    clip = torch.tensor(rows)
    same = torch.tensor([hash_of(each) for each in texts])
    return Batch(
        clip=clip, caption=same, group=clip, kin=clip, seeds=clip, valid=torch.ones(len(rows), dtype=torch.bool),
        keys=[str(row) for row in rows], failures=[], name_part=0, features=features,
        frames=torch.full((len(rows), 1), features.shape[-1]), tokens=words["input_ids"],
        token_mask=words["attention_mask"].bool(), texts=texts, labels=[sounds.labels[row] for row in rows],
        tags=torch.zeros(len(rows), 0, dtype=torch.int64),
        heard_s=torch.zeros(len(rows), 2, dtype=torch.float64),
    )  # fmt: skip


def hash_of(text: str) -> int:
    from sharding.schema import stable_id

    return stable_id(text)


def learn(method: str, seed: int, sounds: dict[str, Sounds], models: Path, out: Path, size: Size) -> dict[str, float]:
    """Train and test one model; figures are kept in the folder of the bench."""
    file = out / f"{method}-{size.steps}-{seed}.json".replace(": ", "-").replace(" ", "-")
    if file.is_file():
        return dict(json.loads(file.read_text()))
    train, began = sounds["train"], time.process_time()
    text = BERT.build(Bert(source=str(models / "all-MiniLM-L6-v2")), []).eval()
    task = task_of(method, seed, text, train.views["clean"].shape[1]).train()
    moving = [parameter for parameter in task.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(moving, lr=1e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=size.steps)
    draw = np.random.default_rng(seed)
    rows: list[int] = []
    for step in range(size.steps):
        if len(rows) < size.batch:
            rows = draw.permutation(len(train.labels)).tolist()
        mine, rows = rows[: size.batch], rows[size.batch :]
        task.noisy_view = train.views["features"][mine][:, None]
        value = loss_of(task, batch_of(train, mine, text, "clean"))
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(moving, 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            print(f"  {method} {seed}: step {step}, loss {float(value.detach()):.3f}", file=sys.stderr)
    found = {"minutes": (time.process_time() - began) / 60} | test(task.eval(), sounds, text)
    file.write_text(json.dumps(found))
    return found


def loss_of(task: CollatTask, batch: Batch) -> Tensor:
    """The task's loss of a batch on one rank, as the engine adds it up."""
    outputs = task(batch)
    total = torch.zeros(())
    for term in task.terms().values():
        rows, columns = outputs.sides[term.rows], outputs.sides[term.columns]
        total = total + term.weight * global_loss(term.scorer, term.loss, rows, columns, LocalGroup())
    for name, found in outputs.local.items():
        total = total + task.weights()[name] * found.total / found.count
    return total


@torch.inference_mode()
def test(task: CollatTask, sounds: dict[str, Sounds], text: TextEncoder) -> dict[str, float]:
    """Zero-shot accuracy of single recordings and mAP of mixtures, clean and with noise."""
    found = {}
    for name in ("seen", "unseen", "scenes"):
        labels = tuple(sorted({label for each in sounds[name].labels for label in each}))
        prompts = Sounds([[label] for label in labels], {"clean": torch.zeros(len(labels), 1, 1)})
        words = batch_of(prompts, range(len(labels)), text, "clean")
        texts = task.model.text_side(words.tokens, words.token_mask)[0]
        wanted = label_matrix(sounds[name].labels, labels)
        for view in ("clean", "wave"):
            vectors = sounds[name].views[view]
            clips = [heard_side(task, part) for part in vectors.split(64)]
            measured = figures((torch.cat(clips) @ texts.t()).double().numpy(), wanted, name)
            metric = "mAP" if name == "scenes" else "accuracy"
            found[f"{name} {view}"] = measured[metric]
            found[f"{name} chance"] = measured[f"chance_{metric}"]
    return found


def heard_side(task: CollatTask, vectors: Tensor) -> Tensor:
    """The vectors of stored sounds ``[n, width, tokens]`` in the text encoder's space."""
    frames = torch.full((len(vectors), 1), vectors.shape[-1])
    return task.model.audio_side(vectors[:, None], frames, torch.zeros(len(vectors), dtype=torch.int64))[0]


def compare_matchings(quick: bool) -> None:
    """Measure both matchings, each in its own process, on the same embeddings."""
    found = {}
    for way in MATCHINGS:
        words = [sys.executable, "-m", "bench.collat", "--way", way, *(["--quick"] if quick else [])]
        found[way] = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    print(f"{'':10}{'distances s':>13}{'matching s':>12}{'peak MB':>9}{'L1 a token':>12}")
    for way, row in found.items():
        print(f"{way:10}{row['distances']:13.2f}{row['matching']:12.3f}{row['peak']:9.0f}{row['loss']:12.4f}")
    greedy, optimal = found["greedy"], found["optimal"]
    print(json.dumps({"optimal over greedy": {key: optimal[key] / greedy[key] for key in ("matching", "loss")}}))


def match(way: str, batch: int) -> dict[str, float]:
    """Match random predictions with random texts of 77 tokens of width 512; processor seconds, the fastest of three."""
    generator = torch.Generator().manual_seed(0)
    text, predicted = (torch.randn(batch, 77, 512, generator=generator) for _ in range(2))
    predicted = 0.1 * text[:, torch.randperm(77, generator=generator)] + predicted  # hardly anything is learnt
    mask = torch.arange(77) < torch.randint(5, 78, (batch, 1), generator=generator)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = peak_mb()
    began = time.process_time()
    cost = distances(text, predicted)
    spent, seconds = time.process_time() - began, []
    for _ in range(3):
        began = time.process_time()
        found = MATCHINGS[way](cost, mask)  # type: ignore[index]
        seconds.append(time.process_time() - began)
    total = float(cost.gather(2, found[..., None])[..., 0][mask].sum())
    return {"distances": spent, "matching": min(seconds), "peak": peak_mb() - before, "loss": total / int(mask.sum())}


def peak_mb() -> float:
    """The most memory that this process has held since the peak was last cleared."""
    (line,) = (each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def show(results: dict[str, list[dict[str, float]]]) -> None:
    """The table, mean and range over seeds."""
    columns = [name for name in next(iter(results.values()))[0] if not name.endswith("chance")]
    first = next(iter(results.values()))[0]
    print(f"{'':18}" + "".join(f"{column:>22}" for column in columns))
    chance = [first.get(f"{column.split()[0]} chance", float("nan")) for column in columns]
    print(f"{'chance':18}" + "".join(f"{value:22.3f}" for value in chance))
    for method, runs in results.items():
        cells = [[run[column] for run in runs] for column in columns]
        text = [f"{np.mean(cell):.3f} ({min(cell):.3f}-{max(cell):.3f})" for cell in cells]
        print(f"{method:18}" + "".join(f"{cell:>22}" for cell in text))
    base = np.mean([run["scenes clean"] for run in next(iter(results.values()))])
    print(json.dumps({m: float(np.mean([run["scenes clean"] for run in runs]) / base) for m, runs in results.items()}))


if __name__ == "__main__":
    main()
