"""Does either of two aligned stretches hold sound that the other one does not explain?

``sharding.dedup.waveform`` proves that two recordings share sound.  That is not enough to remove one of them: a mix
shares the sound of the recording it was made from, and holds more.  Here each stretch is predicted from the other one,
over the whole band, and what the prediction leaves over, the *residual*, is searched for sound that a listener would
notice.

Explained, and therefore no difference, is what happens to a copy:

* a filter that does not change with time (equaliser, resampler, fractions of a sample of delay), which is estimated for
  each frequency by least squares, a gain that changes slowly (fades), and a delay that changes by up to 2.5 samples
  (cutters and resamplers lose a sample now and then);
* clipping at a level that is searched for;
* a missing upper band, where the narrower spectrum ends in a cliff and the wider one does not;
* steady noise at least 27 dB below the sound;
* the noise of a codec, which follows the sound: a little more than the pair has in most of its moments, within limits.

The spectra have bands of about one critical band (Zwicker, 1961), because a residual is heard or masked by
the sound in its own band.  All decisions are made from powers of cells of one band and 32 ms.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.ndimage import maximum_filter1d

from sharding.dedup.prediction import EDGES_HZ, FADED, HOP, RATE, Prediction, bands, evened, power, predict, spectra

_CELL = 2  # hops
CELL_S = _CELL * HOP / RATE
_RUN = 3  # cells over which a decision is evened: 0.1 s
_STEADY = 10 ** (-27 / 10)  # of the sound: the strongest steady noise that counts as noise
_AUDIBLE = 10 ** (-30 / 10)  # of the mean power: a fainter moment is judged as if it were so loud
_AUDIBLE_CELL = 10 ** (-33 / 10)  # the same for one band
# A codec's noise follows the sound of its band.  A pair that has hardly any in most moments went through no codec.  In
# other pairs it varies by some decibels, up to what codecs of low quality leave (MP3 at 40 kbit/s), which grows with
# frequency.
_ABOVE_USUAL = 10 ** (6 / 10)
_CLEAN = 10 ** (-30 / 10)
_CODED = 10 ** (np.interp(np.log2(EDGES_HZ[:-1]), np.log2([500, 1000, 2000, 4000]), [-11, -9, -6, -2]) / 10)
_MOMENT, _MOMENT_CODED = 10 ** (-18 / 10), 10 ** (-14 / 10)  # of the sound of a moment, beyond the codec's noise
_END, _MOMENT_END = 4, 10 ** (-5 / 10)  # cells at either end, where codecs leave more
_UNCODED = 10 ** (-50 / 10)  # of the sound: a pair that usually has less residual went through no codec
_BAND = 10 ** (4 / 10)  # of what explains a cell: a residual that stands out of its band
_BAND_CELLS = 10
_TOTAL = 10 ** (-8.5 / 10)  # of all sound: no codec leaves so much


class Excess(NamedTuple):
    """Sound that one stretch holds and the other one does not explain, where it is strongest."""

    start_s: float  # in the stretch
    duration_s: float
    low_hz: float
    high_hz: float
    above_db: float  # its power relative to what the other stretch explains there


def excesses(a: np.ndarray, b: np.ndarray) -> tuple[Excess | None, Excess | None]:
    """What ``a`` holds beyond ``b``, and ``b`` beyond ``a``; None if there is nothing.

    Args:
        a, b: float32 [n] at 32 kHz of the same time, aligned within a millisecond.
    """
    of_a, of_b, gain = predict(a, b)
    faded = _faded(np.minimum(gain, 1 / gain))
    return _excess_of(of_a, faded), _excess_of(of_b, faded)


def _excess_of(found: Prediction, faded: np.ndarray) -> Excess | None:
    return _excess(_cells(found.left), _cells(found.explained), _cells(found.whole), faded)


def _cells(power: np.ndarray) -> np.ndarray:
    """Powers [cells, bands] of frames [frames, bands]."""
    return evened(power, 2 * _CELL + 1)[::_CELL]


def _faded(gain: np.ndarray) -> np.ndarray:
    """Cells at the ends in which a fade has left too little to compare: bool [cells]."""
    low = gain < FADED
    return (np.logical_and.accumulate(low) | np.logical_and.accumulate(low[::-1])[::-1])[::_CELL]


def _excess(residual: np.ndarray, explained: np.ndarray, whole: np.ndarray, faded: np.ndarray) -> Excess | None:
    """The strongest unexplained sound in the residual of one side.

    Args:
        residual, explained, whole: powers [cells, bands] of the residual, of what the other side explains, and of all.
        faded: cells that are not judged.
    """
    mean = float(whole.sum(axis=1).mean())
    if mean <= 0:
        return None
    steady = np.quantile(residual, 0.3, axis=0)
    steady *= min(1.0, _STEADY * mean / max(float(steady.sum()), 1e-20))
    left = np.maximum(residual - 4 * steady, 0)
    left[faded] = left[:1] = left[-1:] = 0
    # a codec's noise spreads over its frame, before an attack and after it
    masking = np.maximum(explained, 10**-1.5 * maximum_filter1d(explained, 5, axis=0))
    near = masking.copy()
    near[:, 1:] = np.maximum(near[:, 1:], 0.1 * masking[:, :-1])
    near[:, :-1] = np.maximum(near[:, :-1], 0.03 * masking[:, 1:])
    residual, left, near = evened(residual, _RUN), evened(left, _RUN), evened(near, _RUN)
    sound = np.maximum(evened(masking.sum(axis=1), _RUN), mean * _AUDIBLE)
    audible = np.maximum(near, mean * _AUDIBLE_CELL)
    usual = _usual(residual / audible, explained)
    beyond = np.maximum(left - near * np.clip(usual * _ABOVE_USUAL, _CLEAN, _CODED), 0).sum(axis=1)
    usual_of_all = float(_usual((residual.sum(axis=1) / sound)[:, None], explained.sum(axis=1)[:, None])[0])
    over = beyond > sound * float(np.clip(usual_of_all * _ABOVE_USUAL, _MOMENT, _MOMENT_CODED))
    stands_out = left > audible * np.maximum(usual * _ABOVE_USUAL, _BAND)
    if usual_of_all > _UNCODED:
        for end in (slice(None, _END), slice(-_END, None)):
            over[end] &= beyond[end] > sound[end] * _MOMENT_END
            stands_out[end] = False
    if stands_out.sum() >= _BAND_CELLS:
        over |= stands_out.any(axis=1)
    if not over.any():
        over[:] = left.sum() > _TOTAL * explained.sum()
    return _strongest(over, left, masking) if over.any() else None


def _usual(share: np.ndarray, explained: np.ndarray) -> np.ndarray:
    """The residual's share of the sound in half of the moments in which a band sounds: [bands].

    Args:
        share: the residual's share of the sound [cells, bands].
        explained: what the other side explains [cells, bands].
    """
    sounding = explained > 0.01 * explained.mean(axis=0)
    return np.array(
        [np.median(column[there]) if there.any() else 0.0 for column, there in zip(share.T, sounding.T, strict=True)]
    )


def _strongest(marked: np.ndarray, left: np.ndarray, masking: np.ndarray) -> Excess:
    """The run of marked cells around the strongest residual, and the bands that hold it."""
    peak = int(np.argmax(np.where(marked, left.sum(axis=1), -1)))
    gaps = np.flatnonzero(~marked)
    start = int(gaps[gaps < peak].max(initial=-1)) + 1
    end = int(gaps[gaps > peak].min(initial=len(marked)))
    heard, masks = left[start:end].sum(axis=0), masking[start:end].sum(axis=0)
    bands = np.flatnonzero(heard >= 0.1 * heard.max())
    above = heard[bands].sum() / max(float(masks[bands].sum()), 1e-12)
    low, high = float(EDGES_HZ[bands[0]]), float(EDGES_HZ[bands[-1] + 1])
    return Excess(start * CELL_S, (end - start) * CELL_S, low, high, 10 * float(np.log10(max(above, 1e-12))))


def ceiling(x: np.ndarray) -> np.ndarray:
    """The greatest power [bands] that a stretch reaches in each band."""
    reached: np.ndarray = _cells(bands(power(spectra(x)))).max(axis=0)
    return reached


def new_sound(x: np.ndarray, known: np.ndarray) -> Excess | None:
    """The strongest sound above the powers ``known`` [bands] in a stretch that the other clip does not reach.

    A clip may begin a little earlier than its copy; what sounds there must not be louder than what follows.
    """
    powers = _cells(bands(power(spectra(x))))
    left = np.where(powers > 2 * known, powers, 0) * (powers > known.sum() * _AUDIBLE)
    marked = left.any(axis=1)
    return _strongest(marked, left, np.broadcast_to(known, left.shape)) if marked.any() else None
