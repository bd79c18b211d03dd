"""Manifest tables for tests of the order."""

from __future__ import annotations

from tests.training.data.shards import row, table_of
from training.data import MixtureItem

CLOTHO = [row(number) for number in range(150)]
WAVCAPS = [row(number, "wavcaps", "train") for number in range(230)]
LONG = [
    row(number, "long", "train", window=window, windows=4, duration_s=300.0)
    for number in range(20)
    for window in range(4)
]
TABLE = table_of(CLOTHO + WAVCAPS + LONG)
MIXED = (MixtureItem("clotho/development"), MixtureItem("wavcaps"), MixtureItem("long/train", repeat=2.5))
