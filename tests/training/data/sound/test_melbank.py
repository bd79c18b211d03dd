"""Filter banks against the dense products that they stand for."""

from __future__ import annotations

import pytest
import torch
import torchaudio.compliance.kaldi as kaldi
import torchaudio.functional
from hypothesis import given
from hypothesis import strategies as st

from training.data.sound.melbank import MelBank, kaldi_bank, slaney_bank


@pytest.mark.parametrize(
    "bank",
    [
        kaldi_bank(128, 1024, 32000, 0.0, 15000.0),
        kaldi_bank(37, 512, 16000, 9.0, 8000.0),
        slaney_bank(64, 1024, 48000, 50.0, 14000.0),
        slaney_bank(80, 400, 16000, 0.0, 8000.0),
    ],
)
def test_a_bank_gives_the_dense_product(bank: MelBank) -> None:
    power = torch.rand(bank.weights.shape[1], 25)
    assert torch.allclose(products(bank, power), bank.weights @ power, rtol=1e-5, atol=1e-6)


def products(bank: MelBank, power: torch.Tensor, *runs: slice) -> torch.Tensor:
    groups = bank.groups(runs or [slice(0, len(bank.weights))])
    return torch.cat([weights @ power[band] for _, band, weights in groups])


def test_some_filters_give_what_they_give_among_all() -> None:
    bank, power = kaldi_bank(128, 1024, 32000, 3.0, 15500.0), torch.rand(513, 104)
    whole, runs = products(bank, power), [slice(0, 8), slice(24, 80), slice(88, 128)]
    assert torch.equal(products(bank, power, *runs), torch.cat([whole[run] for run in runs]))
    groups = [(filters.start, filters.stop) for filters, _, _ in bank.groups(runs[:2])]
    assert groups == [(0, 8), (24, 40), (40, 56), (56, 72), (72, 80)]


def test_filters_without_any_frequency_give_zero() -> None:
    bank = MelBank.of(torch.zeros(20, 9))
    assert not products(bank, torch.rand(9, 4)).any()


@given(
    bins=st.integers(4, 140),
    n_fft=st.sampled_from([64, 400, 512, 1024]),
    rate=st.sampled_from([16000, 32000]),
    low=st.floats(0, 3000),
    high=st.floats(3100, 8000),
)
def test_kaldi_filters_are_those_of_torchaudio(bins: int, n_fft: int, rate: int, low: float, high: float) -> None:
    triangles, _ = kaldi.get_mel_banks(bins, n_fft, float(rate), low, high, 100.0, -500.0, 1.0)
    ours = kaldi_bank(bins, n_fft, rate, low, high).weights
    assert torch.equal(ours[:, :-1], triangles) and not ours[:, -1].any(), "Kaldi omits the Nyquist frequency"


def test_weights_are_those_of_torchaudio() -> None:
    slaney = torchaudio.functional.melscale_fbanks(513, 50.0, 14000.0, 64, 48000, "slaney", "slaney")
    assert torch.equal(slaney_bank(64, 1024, 48000, 50.0, 14000.0).weights, slaney.T)
