from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sharding.common.errors import InputError
from tests.training.small_runs import TREE, small_recipe
from training import cli
from training.config import resolved
from training.config.extending import RECIPES
from training.config.loading import load_recipe, parse_recipe

PACKAGED = sorted(path.stem for path in RECIPES.glob("*.yaml"))


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


def refusal(tree: dict, **sections: object) -> str:
    with pytest.raises(InputError) as caught:
        parse_recipe(json.loads(json.dumps(tree)) | sections, "mine.yaml")
    return str(caught.value)


def test_an_unknown_key_names_file_row_path_and_nearest_key(tmp_path: Path) -> None:
    text = yaml.safe_dump(TREE, sort_keys=False).replace("  lr: 0.001", "  leaning_rate: 1\n  lrr: 0.001")
    path = write(tmp_path, text.replace("  leaning_rate: 1\n", ""))
    with pytest.raises(InputError) as caught:
        load_recipe(path)
    row = path.read_text().splitlines().index("  lrr: 0.001") + 1
    message = str(caught.value)
    assert f"mine.yaml, row {row}" in message
    assert "optimizer.lrr" in message
    assert "did you mean 'lr'" in message


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("optimizer.lr=fast", "optimizer.lr must be a number"),
        ("data.batch_size=6.5", "data.batch_size must be a whole number"),
        ("data.batch_size=true", "data.batch_size must be a whole number"),
        ("engine.zero=4", "valid: 0, 1, 2, 3"),
        ("engine.dtype=bf61", "did you mean 'bf16'"),
        ("head.name=duall", "did you mean 'dual'"),
        ("audio.encoder=pasta", "did you mean 'passt'"),
        ("data.masking.time_mask=2", "did you mean 'time_masks'"),
        ("data.train=[{split: clotho/development, repeet: 2}]", "did you mean 'repeat'"),
        ("optimiser.lr=1", "did you mean 'optimizer'"),
        ("optimizer.clip=-1", "clip must be 0"),
        ("optimizer.final_lr=1", "final_lr is above lr"),
        ("optimizer.weight_decay=0.1", "adamw"),
        ("engine.gradient_accumulation_steps=4", "engine.chunk"),
        ("engine.dtype=fp16", "valid: fp32, bf16"),
        ("data.batch_size=1", "has no negatives"),
        ("validation.metric=text_to_audio/mAP10", "did you mean 'text_to_audio/mAP@10'"),
        ("optimizer.warmup_epochs=2", "before its warm-up does"),
        ("engine.local_loss=true", "exactly one rank"),
        ("optimizer.betas=[0.9, 1.5]", "betas must be in [0, 1)"),
        ("optimizer.rates={'head.*': -1}", "rates must not be negative"),
        ("optimizer.lr=1e300", "below 1e38"),
        ("optimizer.epochs=.inf", "optimizer.epochs must be a number"),
        ("optimizer.epochs=1e308", "epochs must be positive, and below"),
        ("data.crop_s=.nan", "data.crop_s must be a number"),
        ("seed=99999999999999999999", "seed must be a whole number"),
        ("head.dim=0", "head: dim must be positive"),
        ("head={name: token-attention, dim: 16, heads: 0}", "heads must be positive"),
        ("head={name: co-attention, dim: 16, heads: 3}", "dim must be a multiple of heads"),
        ("head={name: text-aware-pooling, dropout: 1.5}", "dropout must be in [0, 1)"),
        ("audio.stride=0", "audio: stride must be positive"),
        ("audio.max_s=0", "audio: max_s must be positive"),
        ("audio.patchout_time=-1", "patchout must not be negative"),
        ("audio={encoder: ast, source: random, heads: 5}", "width must be a multiple of heads"),
        ("audio={encoder: clap, source: random, width: 4, heads: 2}", "multiple of 8"),
        ("audio={encoder: passt, variant: passt_30sec, width: 384, depth: 6}", "has its own width, depth"),
        ("text.depth=0", "text: depth must be positive"),
        ("text.dropout=2", "dropout must be in [0, 1)"),
    ],
)
def test_wrong_values_are_refused_with_the_remedy(override: str, told: str) -> None:
    with pytest.raises(InputError) as caught:
        small_recipe([override])
    assert told in str(caught.value)


def test_clipping_has_no_default() -> None:
    assert "optimizer.clip is missing" in refusal(TREE, optimizer={"lr": 1e-3})


def test_a_recipe_inside_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="row 1: the values are nested more than"):
        load_recipe(write(tmp_path, "seed: &x {seed: *x}\n"))


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "seed: 1\nseed: 2\n")
    with pytest.raises(InputError, match=r"row 2: the key seed is given twice"):
        load_recipe(path)
    path = write(tmp_path, "data:\n  train:\n    - {split: a,\n       split: b}\n")
    with pytest.raises(InputError, match=r"row 4: the key data.train.0.split is given twice"):
        load_recipe(path)


def test_what_looks_like_a_date_and_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not YAML"):
        small_recipe(["seed=2026-13-01"])
    with pytest.raises(InputError, match="not YAML"):
        load_recipe(write(tmp_path, "seed: 2026-13-01\n"))


def test_numbers_as_people_write_them(tmp_path: Path) -> None:
    # YAML 1.1 reads 2e-5 as text
    path = write(tmp_path, yaml.safe_dump(TREE).replace("lr: 0.001", "lr: 2e-5"))
    assert load_recipe(path).optimizer.lr == 2e-5
    assert load_recipe(path, ["optimizer.lr=3e-4"]).optimizer.lr == 3e-4


@pytest.mark.parametrize("name", PACKAGED)
def test_packaged_recipes_load_and_say_how_they_are_run(name: str) -> None:
    text = (RECIPES / f"{name}.yaml").read_text()
    assert text.startswith("#")
    assert re.search(r"-m (-- )?training fit", text)
    assert load_recipe(name).optimizer.clip is not None


def test_the_published_settings_of_the_dual_encoder() -> None:
    recipe = load_recipe("dual_encoder")
    assert (recipe.optimizer.lr, recipe.optimizer.final_lr) == (2e-5, 1e-7)
    assert (recipe.optimizer.warmup_epochs, recipe.optimizer.epochs) == (1, 11)
    assert (recipe.head.dim, recipe.loss.tau, recipe.data.batch_size) == (1024, 0.05, 128)
    assert (recipe.data.crop_s, recipe.data.max_tokens) == (30.0, 32)
    assert recipe.data.lower and recipe.data.strip_punctuation


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


def test_differences_name_what_makes_it_another_run() -> None:
    first = small_recipe()
    assert (
        resolved.differences(
            first, small_recipe(["engine.zero=3", "data.workers=3", "data.max_failures=9", "log.health=5"])
        )
        == []
    )
    assert resolved.differences(first, small_recipe(["optimizer.lr=1e-4"])) == ["optimizer.lr: 0.001 -> 0.0001"]
    assert resolved.differences(first, small_recipe(["engine.ema=0.9"])) == ["engine.ema: 0.0 -> 0.9"]
    other = small_recipe(["validation.split=clotho/other"])  # the best checkpoint is chosen by one split's figures
    assert len(resolved.differences(first, other)) == 1


def test_what_an_override_got_wrong_is_not_said_of_the_file() -> None:
    with pytest.raises(InputError, match=r"^--set data\.train=\[\{splt: a/b\}\]: unknown key data\.train\.0\.splt"):
        load_recipe("demo", ["data.train=[{splt: a/b}]"])
    with pytest.raises(InputError, match=r"demo\.yaml, row \d+: .*weight_decay"):
        load_recipe("demo", ["optimizer.name=adam"])


def test_an_override_needs_a_recipe_of_keys(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must be a mapping"):
        load_recipe(write(tmp_path, "- a list\n"), ["seed=1"])


def test_a_run_lies_in_a_file_system(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["fit", "demo", "--shards", "s3://bucket/shards", "--run", "s3://bucket/run"])
    assert "s3://bucket/run is no folder of a file system" in capsys.readouterr().err
