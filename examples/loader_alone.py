"""Read training batches from a build, without Earshot's trainer.

    python examples/loader_alone.py OUT DATASET/SPLIT

The global batch at every step is the same for any number of ranks and of loader workers.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from sharding.shards.manifest import Manifest
from training.data import AudioInput, DataSettings, Loader, MixtureItem, Order
from training.data.batch import Batch
from training.models.encoders.text.tokenizer import train_tokenizer


def batches(out: str, split: str, batch_size: int = 4, rank: int = 0, world: int = 1) -> Iterator[Batch]:
    """The batches of a rank in the first epoch."""
    manifest = Manifest.open(out)
    settings = DataSettings(train=(MixtureItem(split),), batch_size=batch_size, crop_s=10.0, workers=0)
    order = Order(manifest.table, settings, seed=0)
    audio = AudioInput("passt", rate=32000, segment_s=10.0, hop_s=10.0, max_s=10.0)
    # Your model's own tokenizer goes here, for example transformers.AutoTokenizer.from_pretrained(NAME).
    tokenizer = train_tokenizer(["a low hum", "a whistle", "a beep"], 300)
    loader = Loader(manifest, order, settings, audio, tokenizer, rank=rank, world=world)
    yield from loader.epoch(0)


def main(out: str, split: str) -> int:
    """Print the shapes of an epoch's batches; returns how many there are."""
    count = 0
    for batch in batches(out, split):
        print(batch.keys, tuple(batch.features.shape), tuple(batch.tokens.shape))
        count += 1
    return count


if __name__ == "__main__":
    main(*sys.argv[1:3])
