"""What each section of a recipe refuses."""

from __future__ import annotations

import pytest

from sharding.common.errors import InputError
from tests.training.small_runs import small_recipe


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lr=fast", "optimizer.lr must be a number"),
        ("data.batch_size=6.5", "data.batch_size must be a whole number"),
        ("data.batch_size=true", "data.batch_size must be a whole number"),
        ("engine.zero=4", "valid: 0, 1, 2, 3"),
        ("engine.dtype=bf61", "did you mean 'bf16'"),
        ("engine.dtype=fp16", "valid: fp32, bf16"),
        ("engine.chunk=-1", "chunk must be 0 (plain step)"),
        ("engine.ema=1", "ema must be in [0, 1)"),
        ("engine.max_skipped=1.5", "max_skipped must be a share"),
        ("data.masking.time_mask=2", "did you mean 'time_masks'"),
        ("data.train=[{split: clotho/development, repeet: 2}]", "did you mean 'repeat'"),
        ("optimizer.clip=-1", "clip must be 0"),
        ("optimizer.final_lr=1", "final_lr is above lr"),
        ("optimizer.betas=[0.9, 1.5]", "betas must be in [0, 1)"),
        ("optimizer.rates={'head.*': -1}", "rates must not be negative"),
        ("optimizer.freeze_below={head: 1}", "freeze_below takes the keys audio and text"),
        ("optimizer.layer_decay=0", "layer_decay must be in (0, 1]"),
        ("optimizer.steps=0", "steps must be positive"),
        ("optimizer.eps=0", "eps must be at least 1e-30"),
        ("optimizer.lr=1e300", "below 1e38"),
        ("optimizer.epochs=.inf", "optimizer.epochs must be a number"),
        ("optimizer.epochs=1e308", "epochs must be positive, and below"),
        ("checkpoint.keep_last=0", "keep_last must be at least 1"),
        ("checkpoint.every=-1", "every must be 0 (each epoch)"),
        ("validation.every=-1", "every must be 0 (each epoch)"),
        ("validation.batch=0", "batch must be positive"),
        ("validation.first=-1", "first must be 0 (all)"),
        ("log.health=-1", "health must be 0 (never)"),
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
        ("audio={encoder: passt, variant: passt_30sec, width: 384, depth: 6}", "passt_30sec decides width"),
        ("audio={encoder: whisper, source: some/folder, width: 64}", "the source decides width"),
        ("audio={encoder: ast, source: some/folder, stride: 4}", "the source decides stride"),
        ("text={encoder: bert, source: some/folder, vocabulary: 99}", "the source decides vocabulary"),
        ("text.depth=0", "text: depth must be positive"),
        ("text.dropout=2", "dropout must be in [0, 1)"),
    ],
)
def test_wrong_values_are_refused_with_the_remedy(override: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        small_recipe([override])
    assert message in str(caught.value)
