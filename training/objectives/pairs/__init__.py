"""The losses that a recipe can name.

A module has `Settings` (a frozen dataclass whose first field is `name`) and `build(settings) -> PairLoss`.
"""

from __future__ import annotations

import importlib
from typing import Any

from training.objectives.pairs.base import PairLoss

LOSSES: dict[str, str] = {
    "hybrid-nce": "training.objectives.pairs.hybrid_nce",
    "ntxent": "training.objectives.pairs.ntxent",
    "siglip": "training.objectives.pairs.siglip",
}


def build_loss(settings: Any) -> PairLoss:
    """The loss that its settings name."""
    return importlib.import_module(LOSSES[settings.name]).build(settings)
