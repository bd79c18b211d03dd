"""Front ends: what each published audio encoder computes between the waveform and its first layer.

A front end turns waves of one length into normalised features, one by one on a CPU or as a batch on a device, with
the same numbers up to rounding.  A CPU transforms each wave on its own, because a batch of spectra does not fit
its cache and takes about twice as long for each clip.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np
import torch
import torchaudio.compliance.kaldi as kaldi
from numpy.typing import NDArray
from torch import Tensor

from training.data.sampling.hashing import hash64, integers_below
from training.data.sound.masking import Masks, Shown
from training.data.sound.melbank import MelBank, htk_bank, kaldi_bank, slaney_bank
from training.data.sound.spectra import Windows, fill_mel

Int64 = NDArray[np.int64]
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
        """The number of frames of a wave with ``samples`` samples; an array of lengths gives an array."""
        return samples // self.hop

    def draw(self, seeds: Int64, train: bool) -> Int64:
        """What waves are transformed with, ``[n, ...]``: drawn by their ``seeds [n]`` in training, fixed elsewhere."""
        return np.zeros((len(seeds), 0), np.int64)

    def __call__(
        self, waves: Tensor, lengths: Tensor, drawn: Int64, out: Tensor | None = None, masks: Masks | None = None
    ) -> Tensor:
        """Features of waves of one padded length.

        Args:
            waves: ``[n, samples]`` float32 in [-1, 1], zero after each length.
            lengths: ``[n]`` int64, how many samples are sound.
            drawn: what `draw` gave for each wave.
            out: the tensor to fill and return; None: a new one.
            masks: of each wave; the caller will fill the cells that they hide, which may hold anything.

        Returns:
            ``[n, F, T]`` float32 on the waves' device.
        """
        if out is None:
            out = waves.new_empty(len(waves), self.bins, int(self.frames(waves.shape[1])))
        with torch.inference_mode():  # small operations take less time than under no_grad
            self._fill(waves, lengths, drawn, out, masks)
        return out

    def _fill(self, waves: Tensor, lengths: Tensor, drawn: Int64, out: Tensor, masks: Masks | None) -> None:
        """Fill ``out``; see `__call__`."""
        bins, frames = out.shape[1:]
        shown = Shown.all(bins, frames)
        if waves.device.type != "cpu":
            self._transform(waves, lengths, drawn, shown, out)
            return
        for number in range(len(waves)):
            one = slice(number, number + 1)
            if self.skips and masks is not None:
                shown = masks.shown(number, bins, frames)
            self._transform(waves[one], lengths[one], drawn[one], shown, out[one])

    @abstractmethod
    def _transform(self, waves: Tensor, lengths: Tensor, drawn: Int64, shown: Shown, out: Tensor) -> None:
        """Fill ``out [n, F, T]``: on the CPU for one wave, at least the shown cells; on a device for a batch."""


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

    def draw(self, seeds: Int64, train: bool) -> Int64:
        """The lowest and the highest edge of the filters in Hz, ``[n, 2]``."""
        if not train:
            return np.tile([0, 15000], (len(seeds), 1))
        drawn = hash64(JITTER, seeds[:, None], np.arange(2))
        return np.array([0, 16000]) + np.array([1, -1]) * integers_below(drawn, np.array([10, 2000]))

    def _transform(self, waves: Tensor, lengths: Tensor, drawn: Int64, shown: Shown, out: Tensor) -> None:
        banks = [kaldi_bank(128, 1024, self.rate, float(low), float(high)) for low, high in drawn.tolist()]
        windows = Windows(1024, self.hop, 800, periodic=False, emphasis=0.97)
        fill_mel(out, waves, windows, banks, shown, lambda mel: mel.add_(1e-5).log_().add_(4.5).div_(5))


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

    def _transform(self, waves: Tensor, lengths: Tensor, drawn: Int64, shown: Shown, out: Tensor) -> None:
        size = waves.shape[1]
        waves = torch.stack(
            [
                torch.nn.functional.pad(wave[:length].repeat(size // length), (0, size % length))
                for wave, length in zip(waves, lengths.clamp(min=1).tolist(), strict=True)
            ]
        )
        windows, banks = Windows(1024, self.hop, 1024), [self._bank()] * len(waves)
        fill_mel(out, waves, windows, banks, shown, lambda mel: mel.clamp_(min=1e-10).log10_().mul_(10))

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

    def _transform(self, waves: Tensor, lengths: Tensor, drawn: Int64, shown: Shown, out: Tensor) -> None:
        bank = slaney_bank(self.bins, 400, self.rate, 0.0, 8000.0)
        windows, banks = Windows(400, self.hop, 400), [bank] * len(waves)
        fill_mel(out, waves, windows, banks, shown, lambda mel: mel.clamp_(min=1e-10).log10_())
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

    def _transform(self, waves: Tensor, lengths: Tensor, drawn: Int64, shown: Shown, out: Tensor) -> None:
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

    def _transform(self, waves: Tensor, lengths: Tensor, drawn: Int64, shown: Shown, out: Tensor) -> None:
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

    def _transform(self, waves: Tensor, lengths: Tensor, drawn: Int64, shown: Shown, out: Tensor) -> None:
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
