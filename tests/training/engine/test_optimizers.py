from __future__ import annotations

import pytest

from sharding.common.errors import InputError
from tests.training.small_runs import small_recipe
from training.engine.optimizers import freeze, parameter_groups
from training.tasks.retrieval import RetrievalTask, assemble


def task_of(*overrides: str) -> tuple[RetrievalTask, object]:
    recipe = small_recipe(overrides)
    return RetrievalTask(*assemble(recipe, ["a low hum"])), recipe.optimizer


def test_learning_rates_are_set_by_name_and_by_depth() -> None:
    task, settings = task_of("optimizer.rates={'head.*': 4.0, 'text.*': 0.5}", "optimizer.layer_decay=0.5")
    names = task.names()
    groups = parameter_groups(task, settings)
    factor = {id(p): group["factor"] for group in groups for p in group["params"]}
    assert len(factor) == len(names)
    found = {name: factor[id(parameter)] for name, parameter in names.items()}
    assert found["head.audio_projection.weight"] == 4.0
    # two blocks: the upper one has the full rate, the lower one half of it, what lies below a quarter
    assert found["audio.net.norm.weight"] == 1.0
    assert found["audio.net.blocks.1.attn.qkv.weight"] == 1.0
    assert found["audio.net.blocks.0.attn.qkv.weight"] == 0.5
    assert found["audio.net.patch_embed.proj.weight"] == 0.25
    assert found["text.net.encoder.layer.1.output.dense.weight"] == 0.5
    assert found["text.net.embeddings.word_embeddings.weight"] == 0.125
    assert all(group["lr"] == pytest.approx(1e-3 * group["factor"]) for group in groups)


def test_the_published_partial_finetuning_trains_blocks_8_to_11() -> None:
    task, settings = task_of("audio.depth=12", "optimizer.freeze_below={audio: 8}")
    names = task.names()
    freeze(task, settings)
    trained = {name.split(".")[3] for name, p in names.items() if "audio.net.blocks" in name and p.requires_grad}
    assert trained == {"8", "9", "10", "11"}
    assert names["audio.net.norm.weight"].requires_grad
    assert not names["audio.net.patch_embed.proj.weight"].requires_grad
    assert all(p.requires_grad for name, p in names.items() if name.startswith("text."))


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("optimizer.freeze=['haed.*']", "no parameter has such a name"),
        ("optimizer.freeze=['*']", "every parameter is frozen"),
        ("optimizer.freeze_below={audio: 3}", "2 blocks"),
        ("optimizer.freeze_below={audio: 3}", "optimizer.freeze_below.audio: "),
    ],
)
def test_what_cannot_be_frozen_is_refused(override: str, told: str) -> None:
    task, settings = task_of(override)
    with pytest.raises(InputError) as caught:
        freeze(task, settings)
    assert told in str(caught.value)


def test_no_parameter_is_a_scalar() -> None:
    # DeepSpeed refuses 0-dimensional parameters
    task, _ = task_of("loss.trainable_tau=true")
    assert all(p.dim() > 0 for p in task.parameters())
    assert "loss.temperature.raw" in task.names()
