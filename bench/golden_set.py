"""The golden set that is stored in ``tests/golden``: a tiny build, and the first losses of a run of each head.

``golden.json`` holds the checksum of each of the build's files, its tables by value, and the losses; ``sound.flac``
holds the sound of all its samples, one after the other.  Where another kind of CPU measured the set, resamplers and
sums may round differently, so there the tables, the sound and the losses are compared instead of checksums.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import tarfile
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import soundfile as sf
import torch

from bench.golden_inputs import HEADS, write_recipes, write_source
from sharding import cli as sharding
from training import cli as training

FOLDER = Path(__file__).resolve().parent.parent / "tests/golden"
VALUES, SOUND = FOLDER / "golden.json", FOLDER / "sound.flac"
RATE = 32_000  # of a build's sound, Hz
# Not part of the set, because they differ from run to run: the first names the folder of the source, the second holds
# the times of its files, and the third has the checksums of both.
PLACES = tuple(f".build/{name}" for name in ("settings.json", "inputs.parquet", "contents.json"))
BYTES = ("sha256", "bytes", "offset")  # names of columns that tell encoded bytes, not what they hold, end like this
CHANGES = {
    "data": {"train": [{"split": "mine/train"}], "batch_size": 4, "workers": 0},
    "validation": {"split": None},
    "optimizer": {"epochs": 3},
}


@dataclass(frozen=True)
class GoldenSet:
    """The golden set in memory: what the files of the stored set hold.

    Attributes:
        machine: the kind of CPU that measured it.
        files: path below OUT to SHA-256, but for ``PLACES``.
        tables: path below OUT to the table's rows, without the columns that tell encoded bytes.
        samples: member of a shard to its length in samples, in the order of ``sound``.
        losses: head to the loss of each step.
        norms: head to the norm of each step's gradient; Adam and clipping hide a wrong factor from the losses.
        sound: int16 [n], all members one after the other.
    """

    machine: str
    files: dict[str, str]
    tables: dict[str, list[dict[str, Any]]]
    samples: dict[str, int]
    losses: dict[str, list[float]]
    norms: dict[str, list[float]]
    sound: np.ndarray


def measure(folder: Path) -> GoldenSet:
    """Build and train below ``folder`` by command line, and read what that gave."""
    torch.set_num_threads(1)  # sums round differently with another number of threads
    out = folder / "out"
    source = f"--source=mine={write_source(folder / 'mine')}"
    _command(sharding, "build", source, f"--out={out}", "--protect=mine/test", "--shard-size=100KB", "--window-s=1")
    write_recipes(folder, CHANGES)
    steps: dict[str, list[dict[str, Any]]] = {}
    for head in HEADS:
        run = folder / head
        _command(training, "fit", f"{folder / head}.yaml", f"--shards={out}", f"--run={run}")
        steps[head] = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    waves = dict(_waves(out))
    return GoldenSet(
        f"{json.loads((out / 'dataset.json').read_text())['cpu']}, {torch.backends.cpu.get_cpu_capability()}",
        {_name(path, out): hashlib.sha256(path.read_bytes()).hexdigest() for path in _files(out)},
        {_name(path, out): _rows(path) for path in _files(out) if path.suffix == ".parquet" and _shown(path, out)},
        {name: len(wave) for name, wave in waves.items()},
        {head: [step["loss"] for step in taken] for head, taken in steps.items()},
        {head: [step["grad_norm"] for step in taken] for head, taken in steps.items()},
        np.concatenate(list(waves.values())),
    )


def _command(line: Any, *words: str) -> None:
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        status = line.main(words)
    if status != 0:
        raise RuntimeError(f"exit status {status}: {' '.join(words)}\n{output.getvalue()}")


def _files(out: Path) -> list[Path]:
    return [path for path in sorted(out.rglob("*")) if path.is_file() and _name(path, out) not in PLACES]


def _name(path: Path, out: Path) -> str:
    return path.relative_to(out).as_posix()


def _shown(path: Path, out: Path) -> bool:
    """Whether a file is made for users: plans and notes of a build repeat what its tables say."""
    return not _name(path, out).startswith((".build/", "plan/"))


def _rows(path: Path) -> list[dict[str, Any]]:
    table = pq.read_table(path)
    return table.select([name for name in table.column_names if not name.endswith(BYTES)]).to_pylist()


def _waves(out: Path) -> list[tuple[str, np.ndarray]]:
    """(member, int16 [n]) of all sound in the shards, in order."""
    found = []
    for shard in sorted((out / "shards").iterdir()):
        with tarfile.open(shard) as tar:
            for member in tar:
                if member.name.endswith(".flac"):
                    data = tar.extractfile(member)
                    assert data is not None
                    found.append((member.name, sf.read(io.BytesIO(data.read()), dtype="int16")[0]))
    return found


def load() -> GoldenSet:
    """The set as it is stored."""
    return GoldenSet(**json.loads(VALUES.read_text()), sound=sf.read(SOUND, dtype="int16")[0])


def regenerate() -> None:
    """Measure the set on this machine and store it."""
    with tempfile.TemporaryDirectory(prefix="golden-") as folder:
        found = asdict(measure(Path(folder)))
    FOLDER.mkdir(exist_ok=True)
    sf.write(SOUND, found.pop("sound"), RATE, subtype="PCM_16")
    VALUES.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


def same_values(one: Any, other: Any, tolerance: float = 1e-3) -> bool:
    """Whether plain values are the same, numbers to a relative or absolute ``tolerance``."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_values(one[key], other[key], tolerance) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(same_values(a, b, tolerance) for a, b in zip(one, other, strict=True))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance)
    return bool(one == other)
