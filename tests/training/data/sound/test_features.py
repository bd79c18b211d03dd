"""Segments of clips, and their features."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sharding.common.errors import InputError
from tests.training.data.sound.test_spectrogram import sound
from training.data.settings import MaskingSettings
from training.data.sound.features import REST, AudioInput, FeatureExtractor, find_front_end, segment_seeds
from training.data.sound.masking import Masking

MASKS = MaskingSettings(time_masks=2, time_width=40, freq_masks=2, freq_width=20)


@given(
    samples=st.integers(1, 4_000_000),
    segment_s=st.sampled_from([1.0, 10.0, 10.24, 30.0]),
    share=st.sampled_from([1.0, 0.5, 0.25]),
)
@settings(deadline=None, max_examples=200)
def test_segments_cover_a_clip_but_for_a_short_rest(samples: int, segment_s: float, share: float) -> None:
    audio = AudioInput("passt", 32000, segment_s, segment_s * share, 120.0)
    lengths = audio.segment_lengths(samples)
    hop = round(audio.hop_s * 32000)
    assert (lengths >= 1).all() and (lengths <= audio.segment).all()
    rest = samples - ((len(lengths) - 1) * hop + lengths[-1])
    assert 0 <= rest <= REST * audio.segment, "the last segment ends where the clip ends, or shortly before"
    assert (lengths[:-1] == audio.segment).all(), "only the last segment has padding"
    assert len(lengths) == 1 or lengths[-1] > audio.segment - hop + REST * audio.segment - 1, "it holds new sound"


def test_a_clip_that_a_codec_made_a_little_longer_is_one_segment() -> None:
    audio = AudioInput("passt", 32000, 10.0, 10.0, 30.0)
    assert audio.segment_lengths(320_022).tolist() == [320_000]
    assert audio.segment_lengths(336_001).tolist() == [320_000, 16_001]


def test_cut_keeps_every_sample() -> None:
    audio = AudioInput("passt", 32000, 1.0, 0.5, 30.0)
    wave = sound(70000).numpy()
    segments, lengths = audio.cut(wave), audio.segment_lengths(len(wave))
    assert segments.shape == (4, 32000)
    for number, length in enumerate(lengths):
        assert np.array_equal(segments[number, :length], wave[number * 16000 : number * 16000 + length])
        assert not segments[number, length:].any()


def test_masks_of_a_sample_do_not_depend_on_its_batch() -> None:
    audio = AudioInput("passt", 32000, 1.0, 1.0, 30.0)
    extractor = FeatureExtractor(audio, MASKS, True)
    waves, lengths = torch.stack([sound(32000, seed) for seed in range(4)]), torch.full((4,), 32000)
    seeds = torch.from_numpy(segment_seeds(9, 4))
    whole, drawn = extractor(waves, lengths, seeds), extractor.draw(lengths, seeds.numpy())
    for number in range(4):
        part = slice(number, number + 1)
        assert torch.equal(whole[part], extractor(waves[part], lengths[part], seeds[part]))
        assert torch.equal(whole[part], extractor.transform(waves[part], lengths[part], drawn.take(part)))


@given(
    seed=st.integers(0, 2**40),
    share=st.floats(0, 1),
    masks=st.tuples(st.integers(0, 3), st.integers(1, 90), st.integers(0, 3), st.integers(1, 128)),
    name=st.sampled_from(["passt", "passt-hop100", "clap", "whisper", "ast"]),
)
@settings(deadline=None, max_examples=40)
def test_what_masks_hide_is_not_computed_and_nothing_else_changes(
    seed: int, share: float, masks: tuple[int, int, int, int], name: str
) -> None:
    front_end = find_front_end(name)
    extractor = FeatureExtractor(AudioInput(name, front_end.rate, 1.0, 1.0, 30.0), MaskingSettings(*masks), True)
    wave, length = sound(front_end.rate), max(1, round(share * front_end.rate))
    wave[length:] = 0
    waves, lengths, seeds = wave[None], torch.tensor([length]), torch.tensor([seed])
    wanted = front_end(waves, lengths, front_end.draw(seeds.numpy(), train=True))
    fill = front_end.silence(wanted) if extractor.masking.fill == "floor" else front_end.published_fill
    wanted = Masking(extractor.masking)(wanted, extractor.maskable(lengths), seeds, fill)
    found = extractor(waves, lengths, seeds, out=torch.full((1, *extractor.shape), torch.nan))
    assert torch.equal(found, wanted)


def test_features_can_be_trained_on() -> None:
    """They are no tensors of inference mode, which autograd refuses."""
    extractor = FeatureExtractor(AudioInput("passt", 32000, 1.0, 1.0, 30.0), MASKS, True)
    features = extractor(sound(32000)[None], torch.tensor([32000]), torch.tensor([1]))
    weight = torch.ones((), requires_grad=True)
    (features * weight).sum().backward()
    assert weight.grad == features.sum()


def test_masks_are_for_training_alone() -> None:
    audio = AudioInput("whisper", 16000, 1.0, 1.0, 30.0)
    waves, lengths, seeds = sound(16000)[None], torch.tensor([16000]), torch.tensor([5])
    plain = FeatureExtractor(audio, MaskingSettings(), True)(waves, lengths, seeds)
    assert torch.equal(FeatureExtractor(audio, MASKS, False)(waves, lengths, seeds), plain)
    assert not torch.equal(FeatureExtractor(audio, MASKS, True)(waves, lengths, seeds), plain)


def test_masks_cover_sound_and_its_repetitions_and_never_padding() -> None:
    for name, rate, frames in (("whisper", 16000, 50), ("clap", 48000, 101)):
        extractor = FeatureExtractor(AudioInput(name, rate, 1.0, 1.0, 30.0), replace(MASKS, freq_masks=0), True)
        lengths = torch.tensor([rate // 2])
        assert extractor.maskable(lengths).tolist() == [frames]
        assert extractor.frames(lengths).tolist() == [min(frames, 51 if name == "clap" else 50)]


def test_frames_of_padding_are_0_and_of_any_sound_at_least_1() -> None:
    extractor = FeatureExtractor(AudioInput("passt", 32000, 1.0, 1.0, 30.0), MASKS, True)
    assert extractor.frames(torch.tensor([0, 1, 320, 32000])).tolist() == [0, 1, 1, 100]
    assert extractor.shape == (128, 100)


def test_seeds_of_segments_differ_and_belong_to_their_sample() -> None:
    seeds = segment_seeds(np.array([3, 4]), 5)
    assert seeds.shape == (2, 5) and len(set(seeds.ravel().tolist())) == 10
    assert (segment_seeds(3, 5) == seeds[0]).all()


def test_an_unknown_front_end_names_the_known_ones() -> None:
    with pytest.raises(InputError, match="there are ast, clap, clap-fused, passt"):
        find_front_end("mel")


@pytest.mark.parametrize("name", ["segment_s", "hop_s", "max_s"])
def test_durations_below_one_sample_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} is shorter than one sample"):
        AudioInput(
            **({"front_end": "passt", "rate": 32000, "segment_s": 1.0, "hop_s": 1.0, "max_s": 3.0} | {name: 1e-9})
        )
