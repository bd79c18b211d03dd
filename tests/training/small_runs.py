"""Small training runs for the tests: a recipe of tiny models, a build of synthetic sounds, ranks in processes."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import signal
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.multiprocessing import ProcessExitedException

from sharding.checks import checksummed_bytes
from sharding.common.processes import leave
from sharding.common.storage import Storage
from sharding.layout import manifest_name
from sharding.schema import FORMAT_VERSION
from tests.training.data.shards import RATE, _add, flac, row, table_of
from tests.training.ranks import on_ranks, start_on_ranks
from training.config.loading import parse_recipe
from training.config.overrides import apply_override
from training.config.sections import Recipe

REPOSITORY = Path(__file__).resolve().parents[2]
TREE: dict[str, Any] = {
    "audio": {
        "encoder": "passt",
        "variant": "custom",
        "source": "random",
        "segment_s": 1.0,
        "max_s": 3.0,
        "width": 16,
        "depth": 2,
        "heads": 2,
        "patchout_time": 1,
        "patchout_freq": 1,
    },
    "text": {
        "encoder": "roberta",
        "source": "random",
        "width": 16,
        "depth": 2,
        "heads": 2,
        "vocabulary": 280,
        "dropout": 0.0,
    },
    "head": {"name": "dual", "dim": 16},
    "loss": {"name": "ntxent"},
    "data": {
        "train": [{"split": "clotho/development"}],
        "batch_size": 6,
        "crop_s": 2.5,
        "workers": 0,
        "masking": {"time_masks": 1, "time_width": 10, "freq_masks": 1, "freq_width": 8},
    },
    "optimizer": {"clip": 1.0, "lr": 1e-3, "epochs": 2, "warmup_epochs": 1},
    "engine": {"zero": 1, "dropout": "sample"},
    "log": {"tensorboard": False, "health": 2},
}
_SAME = ("step", "epoch", "loss", "lr", "grad_norm", "batch")
SOUNDS = ("low hum", "whistle", "hiss", "ticking", "rising tone", "beeping")


def small_recipe(overrides: Sequence[str] = (), tree: Mapping[str, Any] = TREE) -> Recipe:
    changed = json.loads(json.dumps(tree))
    for override in overrides:
        apply_override(changed, override)
    return parse_recipe(changed, "small recipe")


def sound(kind: int, seconds: float, draw: np.random.Generator) -> np.ndarray:
    """One of ``SOUNDS``, with a level and a detail of its own."""
    t = np.arange(round(seconds * RATE)) / RATE
    detail = draw.uniform(0.9, 1.1)
    wave = [
        np.sign(np.sin(2 * np.pi * 110 * detail * t)),
        np.sin(2 * np.pi * 4000 * detail * t),
        draw.standard_normal(len(t)),
        np.sin(2 * np.pi * 1000 * t) * (t * 8 * detail % 1 < 0.05),
        np.sin(2 * np.pi * (300 + 700 * detail * t) * t),
        np.sin(2 * np.pi * 1500 * detail * t) * (t * 2 % 1 < 0.5),
    ][kind]
    return draw.uniform(0.1, 0.5) * wave / np.abs(wave).max() + 0.001 * draw.standard_normal(len(t))


def write_sounds(
    root: Path,
    clips: int = 24,
    held_out: int = 9,
    seed: int = 0,
    labels: bool = False,
    times: bool = False,
    splits: Mapping[str, int] | None = None,
) -> None:
    """A build of ``SOUNDS`` in turn, in clotho/development and clotho/evaluation, 1 to 3 s each.

    With ``labels``, each clip has the name of its sound as a label too.  ``splits`` names other splits, as
    dataset/split, and how many clips each has.  With ``times``, the second caption of each clip is true of its first
    0.9 s alone.
    """
    splits = splits or {"clotho/development": clips, "clotho/evaluation": held_out}
    draw = np.random.default_rng(seed)
    (root / "shards").mkdir(parents=True)
    done = []
    for place, (whole, count) in enumerate(splits.items()):
        (dataset, split), first = whole.split("/"), 1000 * place
        name = f"{dataset}-{split}-000000.tar"
        with tarfile.open(root / "shards" / name, "w", format=tarfile.USTAR_FORMAT) as tar:
            for number in range(count):
                kind = number % len(SOUNDS)
                captions = [
                    {"text": text, "kind": "human", "onset": None, "offset": None, "source": None}
                    for text in (f"A {SOUNDS[kind]} is heard.", f"There is a {SOUNDS[kind]}, take {number}.")
                ]
                if times:
                    captions[1] |= {"onset": 0.0, "offset": 0.9}
                if labels:
                    captions.append(captions[0] | {"text": SOUNDS[kind], "kind": "label"})
                seconds = round(float(draw.uniform(1.0, 3.0)), 2)
                one = row(first + number, dataset, split, shard=name, captions=captions, duration_s=seconds)
                done.append(one | _add(tar, one["audio"], flac(sound(kind, seconds, draw)), "audio"))
                done[-1] |= _add(tar, one["key"] + ".json", b"{}", "json")
    commit(root, done)


def commit(root: Path, rows: list[dict[str, Any]]) -> None:
    """Write manifests and ``dataset.json`` for the tars below ``root``, so that `Manifest.open` takes them."""
    storage = Storage(root)
    shards = []
    for name in sorted({one["shard"] for one in rows}):
        data = (root / "shards" / name).read_bytes()
        storage.write_table(manifest_name(name), table_of([one for one in rows if one["shard"] == name]))
        listing = storage.read(manifest_name(name))
        shards.append(
            {
                "name": name,
                "bytes": len(data),
                "sha256": hashlib.sha256(data).hexdigest(),
                "samples": sum(one["shard"] == name for one in rows),
                "manifest_bytes": len(listing),
                "manifest_sha256": hashlib.sha256(listing).hexdigest(),
            }
        )
    settings = {"fates": {"protect": []}, "plan": {"shard_bytes": 10**9}}
    head = {"format": FORMAT_VERSION, "plan": "synthetic", "cpu": "any", "settings": settings}
    empty = {key: {} for key in ("versions", "datasets", "fates", "reasons", "tables")}
    dataset = {**head, **empty, "shards": shards}
    storage.write("dataset.json", checksummed_bytes(dataset))


def run_ranks(world: int, build: Path, cases: Mapping[str, Sequence[str]], out: Path, die_after: int = 0) -> None:
    """Fit every case (overrides of the small recipe) in turn on ``world`` processes, into ``out/<case>``.

    With ``die_after``, every rank kills itself when that step is through, and that is what this waits for.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            on_ranks(_fit_rank, world, world, folder, str(build), dict(cases), str(out), die_after)
        except ProcessExitedException as death:
            if not die_after or death.signal_name != "SIGKILL":
                raise
        else:
            assert not die_after, f"the run ended before step {die_after}"


def kill_ranks(
    world: int, build: Path, cases: Mapping[str, Sequence[str]], out: Path, moment: Callable[[], None]
) -> None:
    """Fit as `run_ranks` does, and kill every rank when ``moment``, which waits for it, returns; none is left."""
    with tempfile.TemporaryDirectory() as folder:
        context = start_on_ranks(_fit_rank, world, world, folder, str(build), dict(cases), str(out), 0)
        try:
            moment()
        finally:
            for process in context.processes:
                process.kill()
            for process in context.processes:
                process.join(20)
        assert not any(process.is_alive() for process in context.processes)


def _fit_rank(
    rank: int, world: int, folder: str, build: str, cases: Mapping[str, Sequence[str]], out: str, die_after: int
) -> None:
    import torch
    import torch.distributed as dist

    from training.engine.launch import ranks
    from training.run.loop import fit
    from training.tasks import task_module

    def die(state: dict[str, Any]) -> None:
        if die_after and state["step"] >= die_after:
            os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)
    if world > 1:
        store, patience = f"file://{folder}/store", datetime.timedelta(seconds=120)
        dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world, timeout=patience)
    with ranks() as group:
        for name, overrides in cases.items():
            recipe = small_recipe(overrides)
            source = task_module(recipe).open_source(recipe, None if recipe.data.texts else build)
            fit(recipe, source, Path(out) / name, group, die)
    if world > 1:
        dist.destroy_process_group()
    leave(0)


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def figures(run: Path) -> list[dict[str, Any]]:
    return [{name: line[name] for name in _SAME} for line in lines(run)]
