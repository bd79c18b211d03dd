"""PaSST's published variants, files of weights, and segments of other lengths; AST's interpolation with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from sharding.common.errors import InputError
from tests.training.models.encoders.test_encoders import audio_encoder
from training.data.settings import MaskingSettings
from training.data.sound.features import AudioInput, FeatureExtractor
from training.models.encoders import AUDIO_ENCODERS, encoder_module
from training.models.encoders.audio.passt import VARIANTS, Settings, build

SECONDS = {"passt_20sec": 20.0, "passt_30sec": 30.0}


@pytest.mark.slow
@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_a_published_variant_hears_what_its_front_end_gives(variant: str) -> None:
    encoder: Any = build(Settings(variant=variant, source="random"))
    encoder.net.blocks = encoder.net.blocks[:1]  # the rest is the same once more
    audio = AudioInput.of(encoder)
    assert audio.segment_s == SECONDS.get(variant, 10.0)
    features = FeatureExtractor(audio, MaskingSettings(), train=False)
    waves, lengths = torch.randn(1, audio.segment) / 10, torch.tensor([audio.segment])
    sound = features.frames(lengths)
    pooled, tokens, mask = encoder.eval()(features(waves, lengths, lengths), sound, torch.zeros(1, dtype=torch.int64))
    assert pooled.shape == (1, 768) and tokens.shape[:2] == mask.shape and bool(mask.all())
    columns = encoder.net.time_new_pos_embed.shape[-1]
    rows = encoder.net.freq_new_pos_embed.shape[2]
    assert tokens.shape[1] in (rows * columns, rows * (columns - 1))  # nearly every published position is used


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_come_from_a_file_or_are_refused(suffix: str, tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"variant": "custom", "width": 32, "depth": 2, "heads": 2, "segment_s": 2.0}
    state = build(Settings(source="random", **sizes)).net.state_dict()
    path = tmp_path / f"weights{suffix}"

    def write(values: dict[str, torch.Tensor]) -> None:
        torch.save(values, path) if suffix == ".pt" else save_file(values, path)

    write(state | {"head.1.weight": torch.zeros(527, 32), "head_dist.weight": torch.zeros(527, 32)})
    loaded = build(Settings(source=str(path), **sizes)).net.state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in state.items())
    with pytest.raises(InputError, match="has the shape"):
        build(Settings(source=str(path), **sizes | {"segment_s": 3.0}))
    write({name: value for name, value in state.items() if name != "norm.bias"})
    with pytest.raises(InputError, match=r"lack a parameter.*norm\.bias"):
        build(Settings(source=str(path), **sizes))
    path.write_bytes(b"broken")
    with pytest.raises(InputError, match="not a file of weights"):
        build(Settings(source=str(path), **sizes))


def test_settings_that_cannot_work_say_why() -> None:
    with pytest.raises(InputError, match="passt_30sec"):
        build(Settings(variant="passt_40sec"))
    with pytest.raises(InputError, match="no custom PaSST is published"):
        build(Settings(variant="custom"))
    with pytest.raises(InputError, match="no patch"):
        audio_encoder("passt", patchout_freq=8)
    with pytest.raises(InputError, match="shorter than a patch"):
        audio_encoder("passt", interpolate_s=0.1)


def test_any_stride_has_positions_for_its_patches() -> None:
    encoder = audio_encoder("passt", stride=8)
    _, tokens, _ = encoder(torch.randn(1, 128, 200), torch.tensor([200]), torch.zeros(1, dtype=torch.int64))
    assert tokens.shape[1] == 15 * 24


@pytest.mark.parametrize("segment_s", [1.27, 1.274, 1.276, 0.995])
def test_a_segment_of_any_length_has_a_position_for_every_patch(segment_s: float) -> None:
    encoder = audio_encoder("passt", segment_s=segment_s)
    audio = AudioInput.of(encoder)
    bins, frames = FeatureExtractor(audio, MaskingSettings(), train=False).shape
    pooled, _, _ = encoder(torch.randn(1, bins, frames), torch.tensor([frames]), torch.zeros(1, dtype=torch.int64))
    assert bool(pooled.isfinite().all())


@pytest.mark.parametrize("name", ["passt", "ast"])
def test_interpolated_positions_keep_the_ends_and_take_longer_segments(name: str) -> None:
    short = {"passt": {"segment_s": 2.0}, "ast": {}}[name]
    before, after = audio_encoder(name, **short), audio_encoder(name, interpolate_s=5.12, **short)
    assert (after.segment_s, after.hop_s) == (5.12, 5.12)
    pooled, tokens, mask = after(torch.randn(2, 128, 512), torch.tensor([512, 100]), torch.arange(2))
    assert tokens.shape[:2] == mask.shape == (2, 8 * 32)
    assert 0 < mask[1].sum() < mask[0].sum()

    def over_time(encoder: Any) -> torch.Tensor:
        if name == "passt":
            columns = (200 if encoder is before else 512) // 16
            return encoder.net.time_new_pos_embed[0, :, 0, :columns]
        embeddings = encoder.net.embeddings
        return embeddings.position_embeddings[0, 2:].unflatten(0, embeddings.get_shape(encoder.net.config))[0].T

    for end in (0, -1):
        torch.testing.assert_close(over_time(after)[:, end], over_time(before)[:, end], atol=0.1, rtol=0)
    same = audio_encoder(name, interpolate_s=before.segment_s, **short)
    for (key, one), (_, other) in zip(before.named_parameters(), same.named_parameters(), strict=True):
        torch.testing.assert_close(one[..., : other.shape[-1]], other, msg=key)
    pooled.sum().backward()
    assert all(parameter.grad is not None for parameter in after.parameters())


def test_interpolated_models_load_from_their_own_folder(tmp_path: Path) -> None:
    """As an export does: the folder already holds the longer positions."""
    module = encoder_module(AUDIO_ENCODERS, "ast")
    saved = audio_encoder("ast", interpolate_s=5.12)
    saved.net.save_pretrained(tmp_path)
    loaded = module.build(module.Settings(source=str(tmp_path), interpolate_s=5.12))
    assert loaded.segment_s == 5.12
    for (name, one), (_, other) in zip(saved.named_parameters(), loaded.named_parameters(), strict=True):
        torch.testing.assert_close(one, other, msg=name)
