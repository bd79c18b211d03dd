"""The resolved recipe: it reads back as itself, and a resumed run knows what was changed."""

from __future__ import annotations

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.small_runs import TREE, small_recipe
from training.config import resolved
from training.config.loading import parse_recipe


@settings(deadline=None)
@given(
    lr=st.floats(1e-7, 1.0),
    zero=st.integers(0, 3),
    decay=st.floats(0.5, 1.0),
    globs=st.dictionaries(st.sampled_from(["audio.*", "text.*", "head.*"]), st.floats(0.1, 10.0)),
    freeze=st.lists(st.sampled_from(["audio.*", "text.net.*"])),
    seed=st.integers(-(2**40), 2**40),
)
def test_a_resolved_recipe_reads_back_as_itself(
    lr: float, zero: int, decay: float, globs: dict[str, float], freeze: list[str], seed: int
) -> None:
    optimizer = {"clip": 1, "lr": lr, "final_lr": 0, "layer_decay": decay, "rates": globs, "freeze": freeze}
    recipe = parse_recipe(TREE | {"optimizer": optimizer, "engine": {"zero": zero}, "seed": seed})
    again = parse_recipe(yaml.safe_load(resolved.dump(recipe)))
    assert again == recipe
    assert resolved.digest(again) == resolved.digest(recipe)


def test_sizes_that_the_source_decides_are_not_recorded() -> None:
    towers = ["audio={encoder: whisper, source: some/folder}", "text={encoder: bert, source: some/folder}"]
    recipe = small_recipe(towers)
    tree = yaml.safe_load(resolved.dump(recipe))
    assert not {"width", "depth", "heads", "vocabulary"} & {*tree["audio"], *tree["text"]}
    assert parse_recipe(tree) == recipe
    assert "width" in resolved.to_tree(small_recipe())["audio"]  # it is random, so the recipe decides


def test_digests_of_different_recipes_differ() -> None:
    assert resolved.digest(small_recipe(["seed=1"])) != resolved.digest(small_recipe(["seed=2"]))


def test_differences_name_what_makes_it_another_run() -> None:
    first = small_recipe()
    free = ["engine.zero=3", "data.workers=3", "data.max_failures=9", "log.health=5", "checkpoint.every=7"]
    assert resolved.differences(first, small_recipe(free)) == []
    assert resolved.differences(first, small_recipe(["optimizer.lr=1e-4"])) == ["optimizer.lr: 0.001 -> 0.0001"]
    assert resolved.differences(first, small_recipe(["engine.ema=0.9"])) == ["engine.ema: 0.0 -> 0.9"]
    other = small_recipe(["validation.split=clotho/other"])  # the best checkpoint is chosen by one split's figures
    assert len(resolved.differences(first, other)) == 1
    assert resolved.differences(first, small_recipe(["optimizer.rates={'audio.*': 0.5}"]))
