"""Mel spectra of one wave on a CPU, computed in blocks, against the spectra of a batch."""

from __future__ import annotations

import pytest
import torch

from tests.training.data.sound.test_spectrogram import sound
from training.data.sound.masking import Shown
from training.data.sound.melbank import slaney_bank
from training.data.sound.spectra import FRAMES, Windows, fill_mel

BANK = slaney_bank(64, 512, 16000, 0.0, 8000.0)
WIDE = Windows(512, 160, 512)
NARROW = Windows(512, 160, 400, periodic=False, emphasis=0.97)
COUNT = 2 * FRAMES + 51  # windows of a wave: two blocks and a part of a third one
ALL = Shown.all(64, COUNT)
PART = Shown([slice(8, 40), slice(96, 200), slice(248, COUNT)], [slice(0, 16), slice(40, 64)])


@pytest.mark.parametrize("windows", [WIDE, NARROW])
@pytest.mark.parametrize("shown", [ALL, PART])
def test_shown_cells_of_one_wave_equal_those_of_a_batch(windows: Windows, shown: Shown) -> None:
    wave = sound((COUNT - 1) * windows.hop + (windows.emphasis is not None))
    batch, one = torch.empty(2, 64, COUNT), torch.full((1, 64, COUNT), torch.nan)
    fill_mel(batch, wave.expand(2, -1), windows, [BANK, BANK], shown, torch.Tensor.log1p_)
    fill_mel(one, wave[None], windows, [BANK], shown, torch.Tensor.log1p_)
    for bins in shown.bins:
        for frames in shown.frames:
            assert (one[0, bins, frames] - batch[0, bins, frames]).abs().max() < 1e-4


def test_cells_that_a_mask_hides_are_left_as_they_are() -> None:
    out = torch.full((1, 64, COUNT), -7.0)
    fill_mel(out, sound((COUNT - 1) * 160)[None], WIDE, [BANK], PART, torch.Tensor.log1p_)
    assert bool((out[0, 16:40] == -7).all()) and bool((out[0, :, 40:96] == -7).all())
    assert bool((out[0, :16, 8:40] != -7).all())


def test_nothing_is_computed_where_nothing_is_shown() -> None:
    out = torch.full((1, 64, COUNT), -7.0)
    fill_mel(out, sound((COUNT - 1) * 160)[None], WIDE, [BANK], Shown([], [slice(0, 64)]), torch.Tensor.log1p_)
    assert bool((out == -7).all())
