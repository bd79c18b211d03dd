"""Every encoder that a recipe can name runs, learns, masks, freezes, and loads from a local folder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from sharding.common.errors import InputError
from training.engine.dropout import SampleDropout
from training.models.encoders import AUDIO_ENCODERS, TEXT_ENCODERS, encoder_module

CAPTIONS = ["a dog barks twice", "rain falls on a tin roof", "a bell rings and a bird answers"]
ONE_MODEL = {"multimodal"}  # one model as both encoders, which tests/training/models/multimodal proves
AUDIO_NAMES, TEXT_NAMES = sorted(AUDIO_ENCODERS.keys() - ONE_MODEL), sorted(TEXT_ENCODERS.keys() - ONE_MODEL)
SMALL = {"source": "random", "width": 32, "depth": 2, "heads": 2}
AUDIO: dict[str, tuple[dict[str, Any], int, int]] = {  # settings, bins, frames of a segment
    "ast": ({"segment_s": 1.28, "stride": 16}, 128, 128),
    "clap": ({"width": 64, "depth": 1}, 64, 1001),
    "data2vec": ({"segment_s": 1.0}, 1, 16000),
    "passt": ({"variant": "custom", "segment_s": 2.0}, 128, 200),
    "whisper": ({"segment_s": 2.0}, 80, 200),
}


def audio_encoder(name: str, **more: Any) -> Any:
    module = encoder_module(AUDIO_ENCODERS, name)
    torch.manual_seed(0)
    return module.build(module.Settings(**(SMALL | AUDIO[name][0] | more)))


def text_encoder(name: str, **more: Any) -> Any:
    module = encoder_module(TEXT_ENCODERS, name)
    torch.manual_seed(0)
    return module.build(module.Settings(**(SMALL | {"vocabulary": 300} | more)), CAPTIONS)


def tokens_of(encoder: Any, captions: list[str], length: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    encoded = encoder.tokenizer(captions, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
    return encoded["input_ids"], encoded["attention_mask"].bool()


def test_every_registered_audio_encoder_is_tested() -> None:
    assert sorted(AUDIO) == AUDIO_NAMES


@pytest.mark.parametrize("name", AUDIO_NAMES)
def test_audio_encoder_gives_vectors_masks_and_gradients(name: str) -> None:
    encoder = audio_encoder(name)
    _, bins, frames = AUDIO[name]
    features = torch.randn(3, bins, frames)
    sound = torch.tensor([frames, frames // 2, 1 if bins > 1 else 400])
    pooled, tokens, mask = encoder(features, sound, torch.arange(3))
    assert pooled.shape == (3, encoder.dim)
    assert tokens.shape == (*mask.shape, encoder.dim)
    counts = mask.sum(1)
    assert counts[0] == mask.shape[1]
    assert 0 < counts[2] < counts[1] < counts[0]
    pooled.square().sum().backward()
    reached = [p.grad is not None and bool(p.grad.abs().sum() > 0) for p in encoder.blocks()[0].parameters()]
    assert any(reached)


@pytest.mark.parametrize("name", AUDIO_NAMES)
def test_a_segment_is_encoded_the_same_in_any_batch(name: str) -> None:
    """In training mode without dropout, every rank computes the same for a segment."""
    encoder = audio_encoder(name).train()
    _, bins, frames = AUDIO[name]
    features, seeds = torch.randn(4, bins, frames), torch.tensor([5, 6, 7, 8])
    sound = torch.full((4,), frames)
    together = encoder(features, sound, seeds)[0]
    alone = torch.cat([encoder(features[i : i + 1], sound[:1], seeds[i : i + 1])[0] for i in range(4)])
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=1e-4)


def pieces(call: Callable[[list[int]], torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """The output of four samples with dropout, as one batch and as two; the generator of torch differs each time."""
    seeds = torch.tensor([7, -3, 2**60, 11])
    found = []
    for number, rows in enumerate(([0, 1, 2, 3], [0], [1, 2, 3])):
        torch.manual_seed(number)
        with torch.no_grad(), SampleDropout(seeds[rows]):
            found.append(call(rows))
    return found[0], torch.cat(found[1:])


@pytest.mark.parametrize("name", TEXT_NAMES)
def test_dropout_of_captions_is_the_same_in_any_split_of_the_batch(name: str) -> None:
    encoder = text_encoder(name, dropout=0.3).train()
    tokens, mask = tokens_of(encoder, [*CAPTIONS, "hiss"])
    whole, cut = pieces(lambda rows: encoder(tokens[rows], mask[rows])[:, 0])
    torch.testing.assert_close(cut, whole, atol=1e-5, rtol=1e-4)
    assert (encoder(tokens, mask)[:, 0] - whole).abs().max() > 1e-3


@pytest.mark.parametrize("name", AUDIO_NAMES)
def test_dropout_of_segments_is_the_same_in_any_split_of_the_batch(name: str) -> None:
    encoder = audio_encoder(name, dropout=0.3).train()
    _, bins, frames = AUDIO[name]
    features, seeds = torch.randn(4, bins, frames), torch.arange(4)
    sound = torch.tensor([frames, frames // 2, frames, frames // 3])
    whole, cut = pieces(lambda rows: encoder(features[rows], sound[rows], seeds[rows])[0])
    torch.testing.assert_close(cut, whole, atol=1e-5, rtol=1e-4)
    assert (encoder(features, sound, seeds)[0] - whole).abs().max() > 1e-3


def test_patchout_belongs_to_the_sample() -> None:
    encoder = audio_encoder("passt", patchout_time=4, patchout_freq=2, patchout_any=3).train()
    features, sound = torch.randn(2, 128, 200), torch.tensor([200, 200])
    first = encoder(features, sound, torch.tensor([1, 2]))[0]
    again = encoder(features.flip(0), sound, torch.tensor([2, 1]))[0].flip(0)
    torch.testing.assert_close(first, again, atol=1e-6, rtol=1e-5)
    other = encoder(features, sound, torch.tensor([3, 2]))[0]
    assert not torch.allclose(first[0], other[0])
    torch.testing.assert_close(first[1], other[1], atol=1e-6, rtol=1e-5)


def test_passt_equals_hear21passt() -> None:
    encoder = audio_encoder("passt").eval()
    features = torch.randn(2, 128, 200)
    cls, dist = encoder.net.forward_features(features[:, None])
    pooled = encoder(features, torch.tensor([200, 200]), torch.tensor([0, 0]))[0]
    torch.testing.assert_close(pooled, (cls + dist) / 2)


def test_the_mean_over_patches_leaves_silence_out() -> None:
    encoder = audio_encoder("passt", pooled="patches").eval()
    features, seeds = torch.randn(1, 128, 200), torch.zeros(1, dtype=torch.int64)
    pooled, tokens, mask = encoder(features, torch.tensor([100]), seeds)
    torch.testing.assert_close(pooled, tokens[mask].mean(0, keepdim=True))


def test_passt_weights_load_from_a_file(tmp_path: Any) -> None:
    saved = audio_encoder("passt")
    torch.save(saved.net.state_dict(), tmp_path / "passt.pt")
    torch.manual_seed(9)
    module = encoder_module(AUDIO_ENCODERS, "passt")
    settings = module.Settings(**(SMALL | AUDIO["passt"][0] | {"source": str(tmp_path / "passt.pt")}))
    loaded = module.build(settings)
    for (name, a), (_, b) in zip(saved.named_parameters(), loaded.named_parameters(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("name", ["ast", "clap", "data2vec"])
def test_published_audio_models_load_from_a_local_folder(name: str, tmp_path: Any) -> None:
    saved = audio_encoder(name)
    saved.net.save_pretrained(tmp_path)
    torch.manual_seed(9)
    module = encoder_module(AUDIO_ENCODERS, name)
    loaded = module.build(module.Settings(source=str(tmp_path)))
    _, bins, frames = AUDIO[name]
    features, sound = torch.randn(2, bins, frames), torch.tensor([frames, frames])
    saved.eval(), loaded.eval()
    torch.testing.assert_close(
        saved(features, sound, torch.zeros(2, dtype=torch.int64))[0],
        loaded(features, sound, torch.zeros(2, dtype=torch.int64))[0],
    )


@pytest.mark.parametrize("name", TEXT_NAMES)
def test_text_encoder_ignores_padding_and_learns(name: str) -> None:
    encoder = text_encoder(name, dropout=0.0)
    tokens, mask = tokens_of(encoder, CAPTIONS)
    out = encoder(tokens, mask)
    assert out.shape == (3, 16, encoder.dim)
    longer, longer_mask = tokens_of(encoder, CAPTIONS, 24)
    real = mask[..., None]
    torch.testing.assert_close(out * real, encoder(longer, longer_mask)[:, :16] * real, atol=1e-5, rtol=1e-4)
    (out * real).square().sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.blocks()[0].parameters())


@pytest.mark.parametrize("name", TEXT_NAMES)
def test_text_models_load_from_a_local_folder(name: str, tmp_path: Any) -> None:
    saved = text_encoder(name, dropout=0.0).eval()
    saved.net.save_pretrained(tmp_path)
    saved.tokenizer.save_pretrained(tmp_path)
    module = encoder_module(TEXT_ENCODERS, name)
    loaded = module.build(module.Settings(source=str(tmp_path), dropout=0.0), []).eval()
    tokens, mask = tokens_of(saved, CAPTIONS)
    assert torch.equal(tokens, tokens_of(loaded, CAPTIONS)[0])
    torch.testing.assert_close(saved(tokens, mask), loaded(tokens, mask))


def test_freezing_below_a_block_leaves_the_upper_ones_to_train() -> None:
    encoder = audio_encoder("passt", depth=4)
    encoder.freeze_below(3)
    trained = {name for name, p in encoder.named_parameters() if p.requires_grad}
    assert trained
    assert all(name.startswith(("net.blocks.3.", "net.norm.")) for name in trained)
    with pytest.raises(InputError, match="4 blocks"):
        encoder.freeze_below(5)


def test_an_unknown_encoder_is_named_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="passt"):
        encoder_module(AUDIO_ENCODERS, "pasta")


def test_segments_that_fit_into_no_memory_are_refused() -> None:
    with pytest.raises(InputError, match="segment_s"):
        audio_encoder("data2vec", segment_s=1e9)
