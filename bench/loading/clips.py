"""The clips of the loader's benches: synthesised shards, manifests of any size, and the floor of their decoding."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import soundfile
import torch

from sharding.common.storage import Storage
from sharding.schema import MANIFEST
from sharding.shards.checksum import fast_checksum
from training.data.sound.melbank import kaldi_bank

RATE, SHARD = 32000, 64  # Hz; clips a shard


@dataclass(frozen=True)
class Clips:
    """Synthesised shards and their manifest rows.

    Attributes:
        members: every clip's FLAC file.
        urls: the tars.
        files: the same clips as single files.
    """

    table: pa.Table
    storage: Storage
    members: list[bytes]
    urls: list[str]
    files: list[str]


def synthesise(root: Path, count: int) -> Clips:
    """Clips of 10 s of shaped noise in tars of 64, with their manifest."""
    for name in ("shards", "files"):
        (root / name).mkdir()
    draw, rows, members, urls, files = np.random.default_rng(0), [], [], [], []
    envelope = np.sin(np.arange(10 * RATE) / RATE * 2) ** 2
    for first in range(0, count, SHARD):
        name = f"bench-all-{first // SHARD:06d}.tar"
        urls.append(str(root / "shards" / name))
        with tarfile.open(urls[-1], "w", format=tarfile.USTAR_FORMAT) as tar:
            for number in range(first, min(first + SHARD, count)):
                noise = np.cumsum(draw.standard_normal(10 * RATE)) * 0.002
                file = io.BytesIO()
                wave = np.clip((noise - noise.mean()) * envelope, -1, 1)
                soundfile.write(file, wave, RATE, format="FLAC", subtype="PCM_16")
                members.append(file.getvalue())
                files.append(str(root / "files" / f"{number}.flac"))
                Path(files[-1]).write_bytes(members[-1])
                rows.append(manifest_row(number, name, tar.offset + tarfile.BLOCKSIZE, len(members[-1])))
                rows[-1] |= {"audio_xxh3": fast_checksum(members[-1])}
                text = json.dumps({"clip_id": rows[-1]["clip_id"], "captions": rows[-1]["captions"]}).encode()
                for ending, data in (("flac", members[-1]), ("json", text)):
                    info = tarfile.TarInfo(f"{rows[-1]['key']}.{ending}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return Clips(pa.Table.from_pylist(rows, schema=MANIFEST), Storage(root), members, urls, files)


def manifest_row(number: int, shard: str, offset: int, size: int) -> dict[str, Any]:
    """The manifest's row of a clip of 10 s."""
    clip = f"bench/all/{number}"
    caption = {"text": f"sound {number}", "kind": "human", "onset": None, "offset": None, "source": None}
    values = {
        "key": clip.replace("/", "~"),
        "clip_id": clip,
        "windows": 1,
        "dataset": "bench",
        "split": "all",
        "shard": shard,
        "audio_offset": offset,
        "audio_bytes": size,
        "audio_sha256": "",
        "audio_xxh3": None,
        "rate": RATE,
        "duration_s": 10.0,
        "captions": [caption],
        "group": clip,
        "kin": clip,
    }
    zeros = {field.name: 0 for field in MANIFEST if pa.types.is_integer(field.type)}
    return {field.name: None for field in MANIFEST} | zeros | {"start_s": 0.0} | values


def decode(data: bytes) -> torch.Tensor:
    """The floor of decoding: nothing but libsndfile."""
    return torch.from_numpy(soundfile.read(io.BytesIO(data), dtype="float32")[0])


def plain_mel(wave: torch.Tensor) -> torch.Tensor:
    """The floor of a spectrogram: one torch STFT, one dense product."""
    window = torch.hann_window(800, periodic=False)
    power = torch.stft(wave, 1024, 320, 800, window, return_complex=True).abs().square()
    return kaldi_bank(128, 1024, RATE, 0.0, 15000.0).weights @ power


def floor(members: list[bytes], mel: bool) -> None:
    """The least work of any loader, in one process."""
    torch.set_num_threads(1)
    with torch.no_grad():
        for data in members:
            wave = decode(data)
            if mel:
                plain_mel(wave)


def floor_from_files(files: list[str]) -> None:
    """The floor of decoded audio with the reading that every loader does as well, in one process."""
    for file in files:
        decode(Path(file).read_bytes())


def no_tokens(texts: list[str], **options: Any) -> dict[str, torch.Tensor]:
    """Replaces the tokenizer in benches that do not measure texts."""
    nothing = torch.zeros(len(texts), 1, dtype=torch.int64)
    return {"input_ids": nothing, "attention_mask": nothing}
