"""Front ends against the published code that they stand for."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hear21passt.models.preprocess import AugmentMelSTFT
from transformers import (
    ASTFeatureExtractor,
    ClapFeatureExtractor,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
)

from training.data.sampling.hashing import hash64, integers_below
from training.data.settings import MaskingSettings
from training.data.sound.features import AudioInput, FeatureExtractor
from training.data.sound.masking import Shown
from training.data.sound.spectrogram import FRONT_ENDS, JITTER


def sound(samples: int, seed: int = 0, level: float = 0.1) -> torch.Tensor:
    """Noise with a tone that comes and goes, and a stretch of digital silence."""
    draw = np.random.default_rng(seed)
    times = np.arange(samples) / 32000
    wave = level * (draw.standard_normal(samples) * np.sin(times * 3) ** 2 + np.sin(times * 2 * np.pi * 440))
    wave[samples // 3 : samples // 3 + samples // 10] = 0
    return torch.from_numpy(wave.astype(np.float32))


def features(
    name: str, wave: torch.Tensor, length: int | None = None, train: bool = False, seed: int = 0
) -> torch.Tensor:
    lengths = torch.tensor([len(wave) if length is None else length])
    front_end = FRONT_ENDS[name]
    return front_end(wave[None], lengths, front_end.draw(np.array([seed]), train))[0]


def published_passt(**options: int) -> AugmentMelSTFT:
    with contextlib.redirect_stdout(io.StringIO()):
        return AugmentMelSTFT(
            n_mels=128,
            sr=32000,
            win_length=800,
            hopsize=320,
            n_fft=1024,
            fmin_aug_range=10,
            fmax_aug_range=2000,
            **options,
        )


@pytest.mark.parametrize("samples", [320000, 160001, 40000])
def test_passt_equals_hear21passt(samples: int) -> None:
    wave = sound(samples)
    with torch.no_grad():
        wanted = published_passt(freqm=0, timem=0).eval()(wave[None])[0]
    ours = features("passt", wave)
    assert ours.shape == wanted.shape
    assert (ours - wanted).abs().max() < 1e-4


def test_passt_jitter_lies_in_the_published_range() -> None:
    """A drawn filter bank equals hear21passt's with the same edges, and differs between seeds."""
    wave = sound(40000)
    for seed in range(8):
        low = int(integers_below(hash64(JITTER, seed, 0), 10))
        high = 16000 - int(integers_below(hash64(JITTER, seed, 1), 2000))
        assert 0 <= low < 10 and 14000 < high <= 16000
        with torch.no_grad():
            wanted = published_passt(freqm=0, timem=0, fmin=low, fmax=high).eval()(wave[None])[0]
        assert (features("passt", wave, train=True, seed=seed) - wanted).abs().max() < 1e-4
    drawn = {float(features("passt", wave, train=True, seed=seed).sum()) for seed in range(8)}
    assert len(drawn) == 8
    assert torch.equal(features("passt", wave, train=True, seed=3), features("passt", wave, train=True, seed=3))


def test_ast_equals_transformers() -> None:
    wave = sound(163840)
    wanted = ASTFeatureExtractor()(wave.numpy(), sampling_rate=16000, return_tensors="pt")["input_values"][0].T
    assert (features("ast", wave) - wanted).abs().max() < 1e-4
    short = sound(50000)
    wanted = ASTFeatureExtractor()(short.numpy(), sampling_rate=16000, return_tensors="pt")["input_values"][0].T
    padded = torch.nn.functional.pad(short, (0, 163840 - 50000))
    assert (features("ast", padded, 50000) - wanted).abs().max() < 1e-4


def clap_features(extractor: ClapFeatureExtractor) -> Iterator[tuple[torch.Tensor, torch.Tensor, int]]:
    """The features that transformers computes, the padded sound, and the sound's length: of a long and a short clip."""
    for length in (480000, 200000):
        wave = sound(length)
        wanted = extractor(wave.numpy(), sampling_rate=48000, return_tensors="pt")["input_features"][0, 0].T
        yield wanted, torch.nn.functional.pad(wave, (0, 480000 - length)), length


def test_clap_equals_transformers() -> None:
    extractor = ClapFeatureExtractor(frequency_min=50, frequency_max=14000, truncation="rand_trunc")
    for wanted, padded, length in clap_features(extractor):
        assert (features("clap", padded, length) - wanted).abs().max() < 1e-2  # decibels; silence is -100


def test_clap_with_fusion_equals_transformers() -> None:
    extractor = ClapFeatureExtractor(frequency_min=50, frequency_max=14000, truncation="fusion")
    for wanted, padded, length in clap_features(extractor):
        assert (features("clap-fused", padded, length) - wanted).abs().max() < 1e-2
        assert (features("clap", padded, length) - wanted).abs().mean() > 3  # decibels: these are other filters


def test_masks_of_whisper_are_as_low_as_its_quietest_cell() -> None:
    """Whisper's features end 8 below their maximum, so the logarithm of silence would be a value it never sees."""
    settings = MaskingSettings(time_masks=2, time_width=200, fill="floor")
    audio = AudioInput("whisper", 16000, 5.0, 5.0, 5.0)
    waves = torch.stack([sound(80000), 0.01 * sound(80000)])
    lengths, seeds = torch.full((2,), 80000), torch.tensor([1, 2])
    plain = FeatureExtractor(audio, settings, train=False)(waves, lengths, seeds)
    masked = FeatureExtractor(audio, settings, train=True)(waves, lengths, seeds)
    for before, after in zip(plain, masked, strict=True):
        changed = after[before != after]
        assert len(changed) and bool((changed == before.min()).all())


def test_whisper_equals_transformers() -> None:
    wave = sound(200000)
    wanted = WhisperFeatureExtractor()(wave.numpy(), sampling_rate=16000, return_tensors="pt")["input_features"][0]
    padded = torch.nn.functional.pad(wave, (0, 480000 - 200000))
    assert (features("whisper", padded, 200000) - wanted).abs().max() < 1e-4


def test_waveform_equals_transformers() -> None:
    extractor = Wav2Vec2FeatureExtractor(return_attention_mask=True)
    waves = [sound(16000).numpy() + 0.2, sound(9000, 1).numpy()]
    wanted = extractor(waves, sampling_rate=16000, padding=True, return_tensors="pt")["input_values"]
    padded = torch.nn.functional.pad(torch.from_numpy(waves[1]), (0, 7000))
    batch = torch.stack([torch.from_numpy(waves[0]), padded])
    front_end = FRONT_ENDS["waveform"]
    ours = front_end(batch, torch.tensor([16000, 9000]), front_end.draw(np.zeros(2, np.int64), train=False))[:, 0]
    assert (ours - wanted).abs().max() < 1e-4


@pytest.mark.parametrize("name", sorted(FRONT_ENDS))
def test_silence_gives_the_declared_floor(name: str) -> None:
    front_end = FRONT_ENDS[name]
    values = features(name, torch.zeros(front_end.rate))
    frames = min(values.shape[1], 90)  # AST's last frames are padding, not silence
    assert (values[:, :frames] - front_end.floor).abs().max() < 1e-4
    assert values.shape == (front_end.bins, front_end.frames(front_end.rate))


@pytest.mark.parametrize("name", sorted(FRONT_ENDS))
def test_a_batch_gives_the_numbers_of_single_waves(name: str) -> None:
    front_end = FRONT_ENDS[name]
    samples = front_end.rate
    waves = torch.stack([sound(samples, seed) for seed in range(3)])
    lengths, drawn = torch.tensor([samples, samples // 2, samples // 3]), front_end.draw(np.arange(3), train=True)
    waves = waves * (torch.arange(samples) < lengths[:, None])
    together = front_end(waves, lengths, drawn)
    batched = torch.empty_like(together)
    front_end._transform(waves, lengths, drawn, Shown.all(*together.shape[1:]), batched)  # as a device does
    assert (together - batched).abs().max() < 1e-4
    alone = front_end(waves[1:2], lengths[1:2], front_end.draw(np.array([1]), train=True))
    assert torch.equal(together[1:2], alone)
