"""What the loader's tests share: settings, a loader, and batches taken apart into samples."""

from __future__ import annotations

from typing import Any

from tests.training.data.letters import Letters
from tests.training.data.shards import Build
from training.data import (
    AudioInput,
    AugmentSettings,
    Batch,
    DataSettings,
    Loader,
    MaskingSettings,
    MixtureItem,
    Order,
)

AUDIO = AudioInput("passt", 32000, segment_s=1.0, hop_s=1.0, max_s=3.0)
SETTINGS = DataSettings(
    train=(MixtureItem("clotho/development"), MixtureItem("wavcaps", repeat=2.0)),
    batch_size=12,
    crop_s=2.5,
    masking=MaskingSettings(time_masks=2, time_width=30, freq_masks=2, freq_width=20),
    augment=AugmentSettings(gain_db=6.0, noise=0.5, room=0.5, mixup=0.5),
)


def loader(build: Build, settings: DataSettings = SETTINGS, workers: int = 0, **more: Any) -> Loader:
    order = Order(build.table, settings, 11)
    return Loader(build, order, settings, more.pop("audio", AUDIO), Letters(), workers=workers, **more)


def samples(batches: list[Batch]) -> list[tuple]:
    """Everything about each sample, padding left out, so that ranks' parts can be compared with the whole."""
    out = []
    for batch in batches:
        for number, key in enumerate(batch.keys):
            real = batch.frames[number] > 0
            tokens = batch.tokens[number][batch.token_mask[number]].tolist()
            ids = [int(getattr(batch, name)[number]) for name in ("clip", "caption", "group", "kin", "seeds")]
            features = batch.features[number][real].numpy().tobytes()
            out.append((key, batch.texts[number], batch.frames[number][real].tolist(), tokens, ids, features))
    return out
