"""Data for training: an exact order over plain shards, read by offset.

In any training loop::

    from sharding.shards.manifest import Manifest
    from training.data import AudioInput, DataSettings, Loader, MixtureItem, Order

    manifest = Manifest.open("shards")
    settings = DataSettings(train=(MixtureItem("clotho/development"),), batch_size=32)
    order = Order(manifest.table, settings, seed=0)
    audio = AudioInput("passt", rate=32000, segment_s=10.0, hop_s=10.0, max_s=30.0)
    loader = Loader(manifest, order, settings, audio, tokenizer)
    for batch in loader.epoch(0):
        train(batch.features, batch.frames, batch.tokens, batch.token_mask)
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_MODULES = {
    "AudioInput": "sound.features",
    "AugmentSettings": "settings",
    "Batch": "batch",
    "DataSettings": "settings",
    "DrawnSamples": "sampling.draws",
    "FRONT_ENDS": "sound.spectrogram",
    "FeatureExtractor": "sound.features",
    "FrontEnd": "sound.spectrogram",
    "Loader": "loader",
    "Masking": "sound.masking",
    "MaskingSettings": "settings",
    "MixtureItem": "settings",
    "Order": "sampling.order",
    "SequentialOrder": "sampling.order",
    "ShuffleSettings": "settings",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that the settings can be used without importing torch."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(f"training.data.{_MODULES[name]}"), name)
