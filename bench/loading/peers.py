"""Other loaders over the same clips, each used as its documentation says.

A contender gives batches of waves, or of masked mel by hear21passt's AugmentMelSTFT, which is what its users
train with.  One whose package is not installed (here or in ``.venv-peers``) is left out by name.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import soundfile
import torch
import webdataset
from torch.utils.data import DataLoader, Dataset, IterableDataset

from bench.loading.clips import RATE, SHARD, Clips, decode

BATCH = 16
APART = Path(__file__).parents[2] / f".venv-peers/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
if APART.is_dir():
    sys.path.append(str(APART))  # last, so that Earshot's own packages are found first


@dataclass(frozen=True)
class Contender:
    """A loader that is measured.

    Attributes:
        epoch: batches of a whole epoch.
        middle: the batches from the middle of an epoch on, as a fresh process that resumes would get them.
        resumes: how.
    """

    epoch: Callable[[], Iterable[Any]]
    middle: Callable[[], Iterator[Any]]
    resumes: str


Peer = Callable[[Clips, Path, int, bool], Contender]


class Published:
    """The published spectrogram: a batch of waves through AugmentMelSTFT in training mode."""

    def __init__(self) -> None:
        from hear21passt.models.preprocess import AugmentMelSTFT

        with contextlib.redirect_stdout(io.StringIO()):
            self.mel = AugmentMelSTFT(128, RATE, 800, 320, 1024, 48, 192, fmin_aug_range=10, fmax_aug_range=2000)

    def __call__(self, waves: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self.mel(waves)


class Collate:
    """Collates waves into a batch, in the worker."""

    def __init__(self, mel: bool) -> None:
        self.published = Published() if mel else None

    def __call__(self, waves: list[torch.Tensor]) -> torch.Tensor:
        batch = torch.stack(waves)
        return batch if self.published is None else self.published(batch)


def _loader(dataset: Any, workers: int, mel: bool, persistent: bool = True) -> DataLoader[Any]:
    return DataLoader(
        dataset, batch_size=BATCH, num_workers=workers, persistent_workers=persistent, collate_fn=Collate(mel)
    )


def _replayed(loader: Callable[[], Iterable[Any]], clips: Clips) -> Callable[[], Iterator[Any]]:
    return lambda: itertools.islice(loader(), len(clips.members) // BATCH // 2, None)


def webdataset_tars(clips: Clips, folder: Path, workers: int, mel: bool) -> Contender:
    """Webdataset's own pipeline over the same tars."""

    def fresh(persistent: bool = False) -> DataLoader[Any]:
        stages = [
            webdataset.SimpleShardList(clips.urls),
            webdataset.split_by_worker,
            webdataset.tarfile_to_samples(),
            webdataset.map(lambda sample: decode(sample["flac"])),
            webdataset.batched(BATCH, collation_fn=Collate(mel)),
        ]
        pipeline = webdataset.DataPipeline(*stages)
        return DataLoader(pipeline, batch_size=None, num_workers=workers, persistent_workers=persistent)

    kept = fresh(True)
    return Contender(lambda: kept, _replayed(fresh, clips), "no: replays")


class _Files(Dataset[torch.Tensor]):
    def __init__(self, files: list[str]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> torch.Tensor:
        return torch.from_numpy(soundfile.read(self.files[number], dtype="float32")[0])


def single_files(clips: Clips, folder: Path, workers: int, mel: bool) -> Contender:
    """The loader of the challenge's baseline: one file for each clip, and AugmentMelSTFT on the collated batch."""
    kept = _loader(_Files(clips.files), workers, mel)
    return Contender(
        lambda: kept, _replayed(lambda: _loader(_Files(clips.files), workers, mel, False), clips), "no: replays"
    )


class _Shar(IterableDataset[torch.Tensor]):
    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __iter__(self) -> Iterator[torch.Tensor]:
        from lhotse import CutSet  # type: ignore[import-not-found]

        for cut in CutSet.from_shar(in_dir=self.folder, split_for_dataloading=True):
            yield torch.from_numpy(cut.load_audio()[0])


def lhotse_shar(clips: Clips, folder: Path, workers: int, mel: bool) -> Contender:
    """Lhotse's shards of cuts."""
    from lhotse import MonoCut, Recording
    from lhotse.shar import SharWriter  # type: ignore[import-not-found]

    folder.mkdir()
    with SharWriter(str(folder), fields={"recording": "flac"}, shard_size=SHARD) as writer:
        for number, file in enumerate(clips.files):
            recording = Recording.from_file(file, recording_id=str(number))
            writer.write(MonoCut(str(number), 0.0, recording.duration, 0, recording=recording))
    kept = _loader(_Shar(str(folder)), workers, mel)
    return Contender(
        lambda: kept, _replayed(lambda: _loader(_Shar(str(folder)), workers, mel, False), clips), "replays"
    )


def mosaicml_streaming(clips: Clips, folder: Path, workers: int, mel: bool) -> Contender:
    """MosaicML's MDS shards."""
    from streaming import MDSWriter, StreamingDataset  # type: ignore[import-not-found]
    from streaming.base.util import clean_stale_shared_memory  # type: ignore[import-not-found]

    with MDSWriter(out=str(folder), columns={"flac": "bytes"}) as writer:
        for data in clips.members:
            writer.write({"flac": data})

    class Waves(StreamingDataset):
        def __getitem__(self, at: int) -> torch.Tensor:
            return decode(super().__getitem__(at)["flac"])

    def fresh() -> Any:
        clean_stale_shared_memory()
        return Waves(local=str(folder), batch_size=BATCH, shuffle=True, num_canonical_nodes=1)

    def middle() -> Iterator[Any]:
        dataset = fresh()
        state = dataset.state_dict(0, False) | {"sample_in_epoch": len(clips.members) // 2}
        dataset.load_state_dict(state)
        return iter(_loader(dataset, workers, mel, False))

    kept = _loader(fresh(), workers, mel)
    return Contender(lambda: kept, middle, "exact")


def litdata(clips: Clips, folder: Path, workers: int, mel: bool) -> Contender:
    """Lightning's chunks."""
    from litdata import StreamingDataLoader, StreamingDataset  # type: ignore[import-not-found]
    from litdata.streaming import Cache  # type: ignore[import-not-found]

    cache = Cache(str(folder), chunk_bytes="16MB")
    for number, data in enumerate(clips.members):
        cache[number] = {"flac": data}
    cache.done()
    cache.merge()

    class Waves(StreamingDataset):
        def __getitem__(self, at: Any) -> torch.Tensor:
            return decode(super().__getitem__(at)["flac"])

    def fresh(persistent: bool = False) -> Any:
        dataset = Waves(str(folder), shuffle=True, drop_last=False)
        return StreamingDataLoader(
            dataset, batch_size=BATCH, num_workers=workers, persistent_workers=persistent, collate_fn=Collate(mel)
        )

    def middle() -> Iterator[Any]:
        first = fresh()
        for _ in zip(range(len(clips.members) // BATCH // 2), first, strict=False):
            pass
        loader = fresh()
        loader.load_state_dict(first.state_dict())
        return iter(loader)

    kept = fresh(True)
    return Contender(lambda: kept, middle, "exact")


def megatron_energon(clips: Clips, folder: Path, workers: int, mel: bool) -> Contender:
    """Megatron-Energon, over the same tars, for which it writes an index."""
    from megatron.energon import Cooker, DefaultTaskEncoder, WorkerConfig, basic_sample_keys, get_loader, stateless  # type: ignore[import-not-found]
    from megatron.energon import get_train_dataset as train_dataset
    from megatron.energon.flavors.webdataset import BaseWebdatasetFactory  # type: ignore[import-not-found]

    folder.mkdir()
    for url in clips.urls:
        shutil.copy(url, folder)
    names = [Path(url).name for url in clips.urls]
    BaseWebdatasetFactory.prepare_dataset(folder, names, split_parts_ratio=[("train", 1.0)], workers=1)
    kind = {"__module__": "megatron.energon", "__class__": "CrudeWebdataset"}
    (folder / ".nv-meta/dataset.yaml").write_text(json.dumps(kind))
    collate = Collate(mel)

    @stateless
    def cook(sample: dict[str, Any]) -> dict[str, Any]:
        return basic_sample_keys(sample) | {"wave": decode(sample["flac"])}

    class Tasks(DefaultTaskEncoder):
        decoder = None
        cookers = [Cooker(cook)]  # noqa: RUF012 - its documented form

        def batch(self, samples: list[dict[str, Any]]) -> torch.Tensor:
            return collate([sample["wave"] for sample in samples])

    def fresh() -> Any:
        dataset = train_dataset(
            folder,
            worker_config=WorkerConfig(rank=0, world_size=1, num_workers=workers),
            batch_size=BATCH,
            shuffle_buffer_size=None,
            max_samples_per_sequence=SHARD,
            task_encoder=Tasks(),
            repeat=False,
        )
        return get_loader(dataset)

    kept = fresh()
    return Contender(lambda: kept, _replayed(fresh, clips), "exact, with equal workers (replayed here)")


PEERS: dict[str, Peer] = {
    "webdataset": webdataset_tars,
    "files": single_files,
    "lhotse": lhotse_shar,
    "streaming": mosaicml_streaming,
    "litdata": litdata,
    "energon": megatron_energon,
}


def contenders(clips: Clips, root: Path, workers: int, mel: bool) -> tuple[dict[str, Contender], dict[str, str]]:
    """The contenders that can run here, and why the others cannot."""
    found, absent = {}, {}
    for name, peer in PEERS.items():
        folder = root / f"{name}-{workers}-{mel}"
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                found[name] = peer(clips, folder, workers, mel)
        except ImportError as error:
            absent[name] = f"not installed ({error.name})"
    return found, absent
