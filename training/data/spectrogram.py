"""Front ends: what each published audio encoder computes between the waveform and its first layer.

A front end turns waves of one length into normalised features, one by one on a CPU or as a batch on a device, with
the same numbers up to rounding.  A CPU transforms each wave on its own, because a batch of spectra does not fit
its cache and takes about twice as long for each clip.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torchaudio.compliance.kaldi as kaldi
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from training.data.hashing import hash64, integers_below
from training.data.masking import Masks, Shown
from training.data.melbank import MelBank, htk_bank, kaldi_bank, slaney_bank

Int64 = NDArray[np.int64]
FRAMES = 125  # the most spectra that a CPU computes at once: they fit its cache
JITTER = 0x4A495454  # purpose of a hash: the drawn edges of the mel filters


class FrontEnd(ABC):
    """Waves to features.

    Attributes:
        rate: sample rate of the waves in Hz.
        bins: number F of frequency bins of the features.
        hop: samples from one frame to the next.
        floor: the value of the features where there is silence.
        published_fill: the value that the published training code gives to masked cells.
        repeats: whether short sound is repeated up to the end of its segment, where masks may then lie as well.
        maskable: whether the features are a spectrogram, in which time and frequency can be masked.
        plain: whether the features are the samples themselves.
        draws: whether training draws something here, so that a sound has other features each time.
        skips: whether a CPU computes nothing that masks will hide, because no other cell depends on it.
    """

    rate: int
    bins: int
    hop: int
    floor: float
    published_fill: float
    repeats: bool = False
    maskable: bool = True
    plain: bool = False
    draws: bool = False
    skips: bool = False

    def silence(self, features: Tensor) -> float | Tensor:
        """The value that silence has in ``features [n, F, T]``: a number, or one for each ``[n, 1, 1]``."""
        return self.floor

    def frames(self, samples: int | Int64) -> int | Int64:
        """How many frames so many samples give; an array of lengths gives an array."""
        return samples // self.hop

    def __call__(
        self,
        waves: Tensor,
        lengths: Tensor,
        seeds: Tensor,
        train: bool,
        out: Tensor | None = None,
        masks: Masks | None = None,
    ) -> Tensor:
        """Features of waves of one padded length.

        Args:
            waves: ``[n, samples]`` float32 in [-1, 1], zero after each length.
            lengths: ``[n]`` int64, how many samples are sound.
            seeds: ``[n]`` int64, for what training draws here (PaSST: the edges of the filters).
            train: whether to draw.
            out: the tensor to fill and return; None: a new one.
            masks: of each wave; the caller will fill the cells that they hide, which may hold anything.

        Returns:
            ``[n, F, T]`` float32 on the waves' device.
        """
        if out is None:
            out = waves.new_empty(len(waves), self.bins, int(self.frames(waves.shape[1])))
        with torch.inference_mode():  # small operations take less time than under no_grad
            self._fill(waves, lengths, seeds, train, out, masks)
        return out

    def _fill(
        self, waves: Tensor, lengths: Tensor, seeds: Tensor, train: bool, out: Tensor, masks: Masks | None
    ) -> None:
        """Fill ``out``; see `__call__`."""
        bins, frames = out.shape[1:]
        shown = Shown.all(bins, frames)
        if waves.device.type != "cpu":
            self._transform(waves, lengths, seeds, train, shown, out)
            return
        for number in range(len(waves)):
            one = slice(number, number + 1)
            if self.skips and masks is not None:
                shown = masks.shown(number, bins, frames)
            self._transform(waves[one], lengths[one], seeds[one], train, shown, out[one])

    @abstractmethod
    def _transform(self, waves: Tensor, lengths: Tensor, seeds: Tensor, train: bool, shown: Shown, out: Tensor) -> None:
        """Fill ``out [n, F, T]``: on the CPU for one wave, at least the shown cells; on a device for a batch."""


@dataclass(frozen=True)
class Windows:
    """How spectra are taken of a wave: of centred windows, with the wave's edges reflected.

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


class Passt(FrontEnd):
    """PaSST's mel (Koutini et al., arXiv 2110.05069; hear21passt ``AugmentMelSTFT``).

    Pre-emphasis 0.97, 1024-point FFT, window 800 (symmetric Hann), hop 320, 128 Kaldi filters whose edges
    training draws (0-9 Hz and 14,001-16,000 Hz; else 0 and 15,000), ``(log(x + 1e-5) + 4.5) / 5``.
    Silence is -1.40; the published code masks before the normalisation, with 0, which becomes 0.9.
    """

    rate, bins, hop = 32000, 128, 320
    floor = (math.log(1e-5) + 4.5) / 5
    published_fill = 4.5 / 5
    draws = True  # the edges of the filters
    skips = True

    def frames(self, samples: int | Int64) -> int | Int64:
        return 1 + (samples - 1) // self.hop  # pre-emphasis shortens the wave by one sample

    def _transform(self, waves: Tensor, lengths: Tensor, seeds: Tensor, train: bool, shown: Shown, out: Tensor) -> None:
        edges = np.tile([0, 15000], (len(waves), 1))
        if train:
            drawn = hash64(JITTER, seeds.cpu().numpy()[:, None], np.arange(2))
            edges = np.array([0, 16000]) + np.array([1, -1]) * integers_below(drawn, np.array([10, 2000]))
        banks = [kaldi_bank(128, 1024, self.rate, float(low), float(high)) for low, high in edges]
        windows = Windows(1024, self.hop, 800, periodic=False, emphasis=0.97)
        _fill_mel(out, waves, windows, banks, shown, lambda mel: mel.add_(1e-5).log_().add_(4.5).div_(5))


class PasstHop160(Passt):
    """The mel of PaSST's variant ``stfthop160``: 200 frames a second."""

    hop = 160


class PasstHop100(Passt):
    """The mel of PaSST's variant ``stfthop100``: 320 frames a second."""

    hop = 100


class Clap(FrontEnd):
    """CLAP's HTS-AT input (transformers ``ClapFeatureExtractor``, ``rand_trunc`` and ``repeatpad``).

    48 kHz, FFT and window 1024 (periodic Hann), hop 480, 64 Slaney filters from 50 to 14,000 Hz, decibels with a
    floor of 1e-10.  A clip that is shorter than the segment is repeated as a whole as often as it fits.
    """

    rate, bins, hop = 48000, 64, 480
    floor = -100.0
    published_fill = 0.0
    repeats = True
    skips = True

    def frames(self, samples: int | Int64) -> int | Int64:
        return 1 + samples // self.hop

    def _transform(self, waves: Tensor, lengths: Tensor, seeds: Tensor, train: bool, shown: Shown, out: Tensor) -> None:
        size = waves.shape[1]
        waves = torch.stack(
            [
                torch.nn.functional.pad(wave[:length].repeat(size // length), (0, size % length))
                for wave, length in zip(waves, lengths.clamp(min=1).tolist(), strict=True)
            ]
        )
        windows, banks = Windows(1024, self.hop, 1024), [self._bank()] * len(waves)
        _fill_mel(out, waves, windows, banks, shown, lambda mel: mel.clamp_(min=1e-10).log10_().mul_(10))

    def _bank(self) -> MelBank:
        return slaney_bank(64, 1024, self.rate, 50.0, 14000.0)


class ClapFused(Clap):
    """The input of CLAP models with feature fusion (``truncation="fusion"``): HTK's filters, of equal height."""

    def _bank(self) -> MelBank:
        return htk_bank(64, 1024, self.rate, 50.0, 14000.0)


class Whisper(FrontEnd):
    """Whisper's log-mel (arXiv 2212.04356 section 2.2; transformers ``WhisperFeatureExtractor``).

    16 kHz, FFT and window 400, hop 160, 80 Slaney filters, log10 no lower than 8 below the segment's maximum,
    ``(x + 4) / 4``.
    """

    rate, bins, hop = 16000, 80, 160
    floor = (math.log10(1e-10) + 4) / 4
    published_fill = 0.0

    def _transform(self, waves: Tensor, lengths: Tensor, seeds: Tensor, train: bool, shown: Shown, out: Tensor) -> None:
        bank = slaney_bank(self.bins, 400, self.rate, 0.0, 8000.0)
        windows, banks = Windows(400, self.hop, 400), [bank] * len(waves)
        _fill_mel(out, waves, windows, banks, shown, lambda mel: mel.clamp_(min=1e-10).log10_())
        torch.maximum(out, out.amax((1, 2), keepdim=True) - 8, out=out).add_(4).div_(4)

    def silence(self, features: Tensor) -> Tensor:
        """The lowest value of each segment: its features reach no further down than 8 below their maximum."""
        return features.amin((1, 2), keepdim=True)


class Whisper128(Whisper):
    """The log-mel of Whisper large-v3: 128 filters instead of 80."""

    bins = 128


class Ast(FrontEnd):
    """AST's Kaldi filter bank (arXiv 2104.01778 section 2.1; transformers ``ASTFeatureExtractor``).

    16 kHz, frames of 25 ms every 10 ms, 128 bins, ``(x + 4.2677393) / (2 × 4.5689974)``.  Frames after the end of
    the sound hold 0 before the normalisation, as published.  A segment of 10.24 s has 1024 frames.
    """

    rate, bins, hop = 16000, 128, 160
    mean, std = -4.2677393, 4.5689974
    floor = (math.log(torch.finfo(torch.float32).eps) - mean) / (2 * std)
    published_fill = (0 - mean) / (2 * std)

    def frames(self, samples: int | Int64) -> int | Int64:
        return -(-samples // self.hop)

    def _transform(self, waves: Tensor, lengths: Tensor, seeds: Tensor, train: bool, shown: Shown, out: Tensor) -> None:
        out.zero_()
        for number, length in enumerate(lengths.tolist()):
            if length >= 400:
                bank = kaldi.fbank(
                    waves[number : number + 1, :length],
                    sample_frequency=self.rate,
                    window_type="hanning",
                    num_mel_bins=self.bins,
                )
                out[number, :, : len(bank)] = bank.T
        out.sub_(self.mean).div_(2 * self.std)


class Waveform(FrontEnd):
    """The waveform itself at 16 kHz with mean 0 and variance 1 (transformers ``Wav2Vec2FeatureExtractor``).

    For data2vec, wav2vec 2.0, HuBERT and WavLM; ``F`` is 1 and a frame is a sample.
    """

    rate, bins, hop = 16000, 1, 1
    floor = 0.0
    published_fill = 0.0
    maskable = False

    def _transform(self, waves: Tensor, lengths: Tensor, seeds: Tensor, train: bool, shown: Shown, out: Tensor) -> None:
        if waves.device.type == "cpu" and int(lengths.min()) == waves.shape[1]:  # nothing is padded
            variance, mean = torch.var_mean(waves, dim=1, correction=0, keepdim=True)
            out[:, 0] = (waves - mean) / (variance + 1e-7).sqrt()
            return
        sound = torch.arange(waves.shape[1], device=waves.device) < lengths[:, None]
        count = lengths.clamp(min=1)[:, None]
        centred = (waves - (waves * sound).sum(1, keepdim=True) / count) * sound
        variance = centred.square().sum(1, keepdim=True) / count
        out[:, 0] = centred / (variance + 1e-7).sqrt()


class Samples(FrontEnd):
    """The decoded samples themselves, at any rate, for a training loop that has its own front end."""

    rate, bins, hop = 32000, 1, 1
    floor = 0.0
    published_fill = 0.0
    maskable = False
    plain = True

    def _transform(self, waves: Tensor, lengths: Tensor, seeds: Tensor, train: bool, shown: Shown, out: Tensor) -> None:
        out[:, 0] = waves


class Samples16k(Samples):
    """Samples at 16 kHz, for a published model that has its own front end."""

    rate = 16000


class Samples48k(Samples):
    """Samples at 48 kHz, for a published model that has its own front end."""

    rate = 48000


FRONT_ENDS: Mapping[str, FrontEnd] = {
    "samples": Samples(),
    "samples-16000": Samples16k(),
    "samples-48000": Samples48k(),
    "passt": Passt(),
    "passt-hop160": PasstHop160(),
    "passt-hop100": PasstHop100(),
    "ast": Ast(),
    "clap": Clap(),
    "clap-fused": ClapFused(),
    "whisper": Whisper(),
    "whisper-128": Whisper128(),
    "waveform": Waveform(),
}


def _fill_mel(
    out: Tensor,
    waves: Tensor,
    windows: Windows,
    banks: list[MelBank],
    shown: Shown,
    scale: Callable[[Tensor], Tensor],
) -> None:
    """Fill ``out [n, F, T]`` with mel spectra that ``scale`` changes in place; each wave has its own bank.

    On the CPU there is one wave, and the cells that are shown are filled.
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
    """A wave ``[n]``, or its emphasised one ``[n - 1]``, with so many samples reflected at either end."""
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
