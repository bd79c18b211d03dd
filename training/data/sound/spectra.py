"""Mel spectra of waves: a batch at once on a device, and one wave in blocks that fit the cache on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from training.data.sound.masking import Shown
from training.data.sound.melbank import MelBank

FRAMES = 125  # the most spectra that a CPU computes at once: they fit its cache


@dataclass(frozen=True)
class Windows:
    """The windows of which spectra are taken: they are centred, and the edges of the wave are reflected.

    Attributes:
        n_fft: samples of a window with the zeros around it.
        hop: samples from one window to the next.
        hann: samples of the Hann window.
        periodic: whether the Hann window is periodic.
        emphasis: the share of the sample before it that is taken from each sample; None: of none.
    """

    n_fft: int
    hop: int
    hann: int
    periodic: bool = True
    emphasis: float | None = None


def fill_mel(
    out: Tensor,
    waves: Tensor,
    windows: Windows,
    banks: list[MelBank],
    shown: Shown,
    scale: Callable[[Tensor], Tensor],
) -> None:
    """Fill ``out`` with the mel spectra of waves; of one wave on a CPU, only the cells that are shown.

    Args:
        out: ``[n, F, T]`` float32.
        waves: ``[n, samples]`` float32.
        windows: how the waves are cut.
        banks: the mel filters of each wave.
        shown: the cells of one wave on a CPU that are filled; elsewhere all are.
        scale: changes mel energies in place, and returns them.
    """
    if waves.device.type == "cpu" and len(waves) == 1:
        if shown.frames and shown.bins:
            power = _power_of_one(waves[0], windows, shown.frames)
            for bins, mel in banks[0].products(power, shown.bins):
                shown.place(scale(mel), out[0, bins])
        return
    if windows.emphasis is not None:
        waves = torch.sub(waves[:, 1:], waves[:, :-1], alpha=windows.emphasis)
    hann = torch.hann_window(windows.hann, periodic=windows.periodic, device=waves.device)
    spectra = torch.stft(waves, windows.n_fft, windows.hop, windows.hann, hann, center=True, return_complex=True)
    parts = torch.view_as_real(spectra[..., : out.shape[2]])
    # Twice as fast as abs().square(), which takes a square root.
    power = parts[..., 0].square().addcmul_(parts[..., 1], parts[..., 1])
    out.copy_(scale(torch.stack([bank.weights for bank in banks]).to(power.device) @ power))


def _power_of_one(wave: Tensor, windows: Windows, runs: Sequence[slice]) -> Tensor:
    """Power spectra ``[n_fft / 2 + 1, T]`` of one wave on the CPU, a block that fits its cache at a time.

    Args:
        wave: ``[samples]``.
        windows: how it is cut.
        runs: the windows whose spectra are wanted, one after the other in the result.
    """
    frames = _reflected(wave, windows.n_fft // 2, windows.emphasis).unfold(0, windows.n_fft, windows.hop)
    hann = _hann(windows.hann, windows.periodic, windows.n_fft)
    blocks, size = _blocks(runs)
    power = torch.empty(sum(run.stop - run.start for run in runs), windows.n_fft // 2 + 1)
    cut = torch.empty(size, windows.n_fft)
    imaginary = cut.flatten()[: size * power.shape[1]].view(size, -1)  # the windows are not needed any more then
    others = imaginary.numpy()
    for block, part in zip(blocks, power.split(size), strict=True):
        count = 0
        for piece in block:
            begin, count = count, count + piece.stop - piece.start
            torch.mul(frames[piece], hann, out=cut[begin:count])
        spectra = torch.fft.rfft(cut[:count]).numpy()
        # Of numbers that are not adjacent, numpy takes several at once, and torch one after the other
        np.square(spectra.real, out=part.numpy())
        np.abs(spectra.imag, out=others[:count])
        part.addcmul_(imaginary[:count], imaginary[:count])
    return power.t()


def _blocks(runs: Sequence[slice]) -> tuple[list[list[slice]], int]:
    """Runs of windows as blocks, each made of pieces of runs, and their size: but for the last one they are equal."""
    total = sum(run.stop - run.start for run in runs)
    size = -(-total // -(-total // FRAMES))
    blocks, free = list[list[slice]](), 0
    for run in runs:
        at = run.start
        while at < run.stop:
            if not free:
                blocks.append([])
                free = size
            piece = slice(at, min(at + free, run.stop))
            blocks[-1].append(piece)
            at, free = piece.stop, free - (piece.stop - piece.start)
    return blocks, size


def _reflected(wave: Tensor, edge: int, emphasis: float | None) -> Tensor:
    """A wave ``[n]``, or the emphasised one ``[n - 1]``, with samples reflected at both ends."""
    samples = len(wave) if emphasis is None else len(wave) - 1
    sound = torch.empty(samples + 2 * edge)
    middle = sound[edge : edge + samples]
    if emphasis is None:
        middle.copy_(wave)
    else:
        torch.sub(wave[1:], wave[:-1], alpha=emphasis, out=middle)
    sound[:edge] = middle[1 : edge + 1].flip(0)
    sound[edge + samples :] = middle[-edge - 1 : -1].flip(0)
    return sound


@lru_cache(maxsize=8)
def _hann(window: int, periodic: bool, n_fft: int) -> Tensor:
    """A Hann window in the middle of a frame ``[n_fft]``; the samples before and after it are zero."""
    before = (n_fft - window) // 2
    return F.pad(torch.hann_window(window, periodic=periodic), (before, n_fft - window - before))
