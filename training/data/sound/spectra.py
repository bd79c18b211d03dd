"""Mel spectra of waves: a batch at once on a device, and one wave in blocks that fit the cache on a CPU."""

from __future__ import annotations

from collections.abc import Callable
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
            _fill_one(out[0], waves[0], windows, banks[0], shown, scale)
        return
    if windows.emphasis is not None:
        waves = torch.sub(waves[:, 1:], waves[:, :-1], alpha=windows.emphasis)
    hann = torch.hann_window(windows.hann, periodic=windows.periodic, device=waves.device)
    spectra = torch.stft(waves, windows.n_fft, windows.hop, windows.hann, hann, center=True, return_complex=True)
    parts = torch.view_as_real(spectra[..., : out.shape[2]])
    # Twice as fast as abs().square(), which takes a square root.
    power = parts[..., 0].square().addcmul_(parts[..., 1], parts[..., 1])
    out.copy_(scale(torch.stack([bank.weights for bank in banks]).to(power.device) @ power))


def _fill_one(
    out: Tensor, wave: Tensor, windows: Windows, bank: MelBank, shown: Shown, scale: Callable[[Tensor], Tensor]
) -> None:
    """Fill the shown cells of ``out [F, T]`` with the mel spectra of one wave on the CPU; see `fill_mel`."""
    frames = _reflected(wave, windows.n_fft // 2, windows.emphasis).unfold(0, windows.n_fft, windows.hop)
    hann = _hann(windows.hann, windows.periodic, windows.n_fft)
    memory = torch.empty(FRAMES * windows.n_fft)
    runs = [(_power(frames[run], hann, memory), out[:, run]) for run in shown.frames]
    for filters, band, weights in bank.groups(shown.bins):
        for power, cells in runs:
            torch.mm(weights, power[band], out=cells[filters])
    for _, cells in runs:
        for bins in shown.bins:
            scale(cells[bins])


def _power(frames: Tensor, hann: Tensor, memory: Tensor) -> Tensor:
    """Power spectra of frames on the CPU, a block that fits its cache at a time.

    All blocks have one size; the last one may begin inside the one before it.

    Args:
        frames: ``[T, n_fft]``, before they are multiplied with the window.
        hann: the window ``[n_fft]``.
        memory: for a block of frames, ``[FRAMES * n_fft]``.

    Returns:
        ``[n_fft / 2 + 1, T]``.
    """
    count, n_fft = frames.shape
    power = torch.empty(count, n_fft // 2 + 1)
    blocks = -(-count // FRAMES)
    size = -(-count // blocks)
    cut, imaginary = (memory[: size * width].view(size, width) for width in (n_fft, n_fft // 2 + 1))
    others = imaginary.numpy()  # in the memory of the frames, which are not needed any more then
    for number in range(blocks):
        begin = min(number * size, count - size)
        torch.mul(frames[begin : begin + size], hann, out=cut)
        spectra, part = torch.fft.rfft(cut).numpy(), power[begin : begin + size]
        # Of numbers that are not adjacent, numpy takes several at once, and torch one after the other
        np.square(spectra.real, out=part.numpy())
        np.abs(spectra.imag, out=others)
        part.addcmul_(imaginary, imaginary)
        del spectra  # the next ones take its memory, which is in the cache
    return power.t()


def _reflected(wave: Tensor, edge: int, emphasis: float | None) -> Tensor:
    """A wave ``[n]``, or the emphasised one ``[n - 1]``, with samples reflected at both ends."""
    samples = len(wave) if emphasis is None else len(wave) - 1
    sound = np.empty(samples + 2 * edge, np.float32)
    middle = sound[edge : edge + samples]
    if emphasis is None:
        middle[:] = wave.numpy()
    else:
        torch.sub(wave[1:], wave[:-1], alpha=emphasis, out=torch.from_numpy(middle))
    sound[:edge] = middle[edge:0:-1]
    sound[edge + samples :] = middle[-2 : -edge - 2 : -1]
    return torch.from_numpy(sound)


@lru_cache(maxsize=8)
def _hann(window: int, periodic: bool, n_fft: int) -> Tensor:
    """A Hann window in the middle of a frame ``[n_fft]``; the samples before and after it are zero."""
    before = (n_fft - window) // 2
    return F.pad(torch.hann_window(window, periodic=periodic), (before, n_fft - window - before))
