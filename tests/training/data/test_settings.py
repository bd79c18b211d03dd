"""What the data section of a recipe refuses."""

from __future__ import annotations

from typing import Any

import pytest

from sharding.common.errors import InputError
from training.data.settings import AugmentSettings, DataSettings, MaskingSettings, MixtureItem, ShuffleSettings

ITEM = MixtureItem("clotho")


@pytest.mark.parametrize(
    ("settings", "values", "message"),
    [
        (MixtureItem, {"split": ""}, "needs a split"),
        (MixtureItem, {"split": "a", "captions": ()}, "at least one kind of captions"),
        (MixtureItem, {"split": "a", "weight": 0.0}, "weight must be positive"),
        (MixtureItem, {"split": "a", "repeat": 0.0}, "repeat must be positive"),
        (MixtureItem, {"split": "a", "cap": 0}, "cap must be positive"),
        (MixtureItem, {"split": "a", "choose": 0}, "choose must be positive"),
        (MaskingSettings, {"time_masks": -1}, "must not be negative"),
        (MaskingSettings, {"time_width": 0}, "time_width must be positive"),
        (MaskingSettings, {"freq_width": 0}, "freq_width must be positive"),
        (AugmentSettings, {"noise": 1.1}, "noise must be a probability"),
        (AugmentSettings, {"gain_db": -1.0}, "gain_db must not be negative"),
        (AugmentSettings, {"room_rt60_s": (0.6, 0.1)}, r"room_rt60_s must be \(low, high\)"),
        (AugmentSettings, {"mixup_alpha": 0.0}, "mixup_alpha must be positive"),
        (ShuffleSettings, {"run": 0}, "run must be positive"),
        (ShuffleSettings, {"window": 0}, "window must be positive"),
        (ShuffleSettings, {"batches": "neighbours"}, "needs the file neighbours"),
        (ShuffleSettings, {"neighbours": "file"}, "needs batches: neighbours"),
        (DataSettings, {"train": ()}, "mixture .* is empty"),
        (DataSettings, {"train": (ITEM,), "max_tokens": 1}, "max_tokens must be at least 2"),
        (DataSettings, {"train": (ITEM,), "temperature": 0.0}, "temperature must be at least 0.05"),
        (DataSettings, {"train": (MixtureItem("a", weight=1.0), ITEM)}, "every item of the mixture has a weight"),
        (DataSettings, {"train": (MixtureItem("a", weight=1.0),), "temperature": 2.0}, "weights or a temperature"),
    ],
)
def test_wrong_values_are_refused(settings: Any, values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        settings(**values)
