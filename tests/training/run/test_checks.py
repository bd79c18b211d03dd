"""What a run refuses before it begins."""

from __future__ import annotations

import shlex
from types import SimpleNamespace

import pytest

from sharding.common.errors import InputError
from tests.training.data.shards import row, table_of
from tests.training.small_runs import small_recipe
from training.config.loading import load_recipe
from training.run.checks import check_recipe, check_splits, with_found_splits

MINE = table_of([row(0, "mine", "train"), row(1, "mine", "other"), row(2, "mine", "test-clean"), row(3, "yours", "x")])


def test_splits_that_the_build_lacks_are_named_at_once() -> None:
    with pytest.raises(InputError) as caught:
        check_splits(load_recipe("demo"), MINE)
    message = str(caught.value)
    for split in ("clotho/development", "audiocaps/train", "clotho/validation"):
        assert split in message
    assert "the shards have mine/other, mine/test-clean, mine/train, yours/x" in message


def test_the_options_that_are_shown_make_the_recipe_fit() -> None:
    with pytest.raises(InputError) as caught:
        check_splits(load_recipe("demo"), MINE)
    words = shlex.split(str(caught.value.remedy).partition("to use them: ")[2])
    assert words[::2] == ["--set", "--set"]
    recipe = load_recipe("demo", words[1::2])
    assert [item.split for item in recipe.data.train] == ["mine/other", "mine/train", "yours/x"]
    assert recipe.validation.split == "mine/test-clean"
    check_recipe(recipe, SimpleNamespace(table=MINE))


def test_the_options_that_are_shown_validate_on_a_split_that_is_not_for_tests() -> None:
    table = table_of([row(number, "mine", split) for number, split in enumerate(("test", "train", "validation"))])
    with pytest.raises(InputError, match=r"--set validation.split=mine/validation"):
        check_splits(load_recipe("demo"), table)


def test_a_build_without_samples_is_called_so() -> None:
    with pytest.raises(InputError, match=r"(?s)the build has no samples.*earshot report OUT"):
        check_splits(load_recipe("demo"), MINE.slice(0, 0))


def test_a_dataset_stands_for_all_of_its_splits() -> None:
    check_splits(small_recipe(["data.train=[{split: mine}]"]), MINE)


def test_a_validation_split_that_is_trained_on_is_refused() -> None:
    manifest = SimpleNamespace(table=MINE)
    for trained in ("mine", "mine/train"):
        with pytest.raises(InputError, match="is trained on"):
            check_recipe(small_recipe([f"data.train=[{{split: {trained}}}]", "validation.split=mine/train"]), manifest)
    check_recipe(small_recipe(["data.train=[{split: mine/train}]", "validation.split=mine/other"]), manifest)


def test_a_star_stands_for_what_the_build_has() -> None:
    splits = ["train", "more", "test", "validation", "dev"]
    table = table_of([row(number, "mine", split) for number, split in enumerate(["dev", *splits])])
    star = small_recipe(["data.train=[{split: '*', captions: [human]}]", "validation.split='*'"])
    recipe, lines = with_found_splits(star, table)
    assert [item.split for item in recipe.data.train] == ["mine/more", "mine/train"]
    assert all(item.captions == ("human",) for item in recipe.data.train)
    assert recipe.validation.split == "mine/dev"  # it has two clips, validation one; a test split is never used
    assert lines == ["training on mine/more, mine/train", "validating on mine/dev"]
    assert with_found_splits(recipe, table) == (recipe, [])


def test_a_star_without_a_split_to_stand_for() -> None:
    star = small_recipe(["data.train=[{split: '*'}]", "validation.split='*'"])
    recipe, lines = with_found_splits(star, table_of([row(0, "mine", "all"), row(1, "mine", "test")]))
    assert recipe.validation.split is None
    assert "--split-by group" in lines[1]
    with pytest.raises(InputError, match="none can be trained on"):
        with_found_splits(star, table_of([row(0, "mine", "test")]))
