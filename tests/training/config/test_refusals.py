"""Keys of other trainers, and combinations that would train something else than the recipe seems to say."""

from __future__ import annotations

import pytest

from sharding.common.errors import InputError
from tests.training.small_runs import small_recipe


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["engine.gradient_accumulation_steps=4"], "engine.chunk"),
        (["engine.accum_freq=4"], "engine.chunk"),
        (["data.checksum=false"], "remove the key"),
        (["engine.local_loss=true"], "exactly one rank"),
        (["hostfile=hosts"], "the launcher takes the hostfile"),
        (["optimizer.weight_decay=0.1"], "adamw"),
        (["data.batch_size=1"], "has no negatives"),
        (["validation.metric=text_to_audio/mAP10"], "did you mean 'text_to_audio/mAP@10'"),
    ],
)
def test_what_would_train_something_else_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(InputError) as caught:
        small_recipe(overrides)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [
        ["optimizer.weight_decay=0.1", "optimizer.name=adamw"],
        ["data.batch_size=2"],
        ["optimizer.warmup_epochs=2"],
    ],
)
def test_what_is_near_a_refusal_is_taken(overrides: list[str]) -> None:
    small_recipe(overrides)
