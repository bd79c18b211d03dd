"""Predicts each of two aligned stretches of sound from the other one, and computes the residual of the prediction.

A prediction undoes what happens to a copy: a filter that does not change with time, a fade, a delay that changes a
little, clipping, and a missing upper band (see ``sharding.dedup.explanation``, which judges what is left).  Whatever
works on whole spectra goes over them in pieces that fit into a core's cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import scipy.fft
from scipy.ndimage import uniform_filter1d

RATE = 32000  # of the sound that is compared: the shards' own, so all that a model can hear
_SIZE, HOP = 2048, 512  # samples of a spectrum, and between two
EDGES_HZ = (
    40, 100, 200, 300, 400, 510, 630, 770, 920, 1080, 1270, 1480, 1720, 2000, 2320, 2700, 3150, 3700, 4400, 5300, 6400,
    7700, 9500, 12000, 15700,
)  # fmt: skip
_BINS = np.ceil(np.array(EDGES_HZ) * _SIZE / RATE).astype(int)
_STARTS, _WIDTHS = _BINS[:-1] - _BINS[0], np.diff(_BINS)
_HERTZ = np.arange(_BINS[0], _BINS[-1]) * RATE / _SIZE
_WINDOW = np.hanning(_SIZE + 1)[:-1].astype(np.float32)
_ROUNDING = float((_WINDOW**2).sum()) / 12 / 32767**2  # power a bin of the noise of 16 bits
_SEARCH = 32  # samples to either side in which the alignment is refined
_FINER = 16  # steps of a sample
_DELAYS = np.array(sorted(np.arange(-40, 41) / 16, key=abs))  # in samples, none first; then -d and d by turns
_TURNS = np.exp(2j * np.pi / RATE * _DELAYS[:, None] * _HERTZ).astype(np.complex64)  # [delays, bins] that undo them
_COSINES, _SINES = (part.astype(float) for part in (_TURNS[::2].T.real, _TURNS[::2].T.imag))  # of 0 and above
_STEP_COST = 2.0  # what a change of the delay costs; a frame that is wholly explained gains 12
_CLIPPING = np.geomspace(0.1, 0.98, 24)  # levels that are tried, as shares of the peak
_SMOOTH = np.hanning(9)[1:-1] / np.hanning(9).sum()  # bins over which a filter is evened
_ROWS, _COLUMNS = 8, 64  # frames or bins that are computed at once
_LONGEST_FADE_S = 3.0
FADED = 0.12  # gain below which a faded end is not compared


class Prediction(NamedTuple):
    """One stretch as it is predicted from the other one: powers [frames, bands].

    Bins that the other one lacks by a limit of its bandwidth are left out.
    """

    left: np.ndarray  # what the other one does not explain
    explained: np.ndarray  # what it does
    whole: np.ndarray


def predict(a: np.ndarray, b: np.ndarray) -> tuple[Prediction, Prediction, np.ndarray]:
    """``a`` predicted from ``b``, ``b`` from ``a``, and the gain [frames] that gives ``a`` the loudness of ``b``.

    Args:
        a, b: float32 [n] at 32 kHz of the same time, aligned within a millisecond.
    """
    a, b = _aligned(a, b)
    a, b = _clipped_like(a, b), _clipped_like(b, a)
    first, second = spectra(a), spectra(b)
    in_a, in_b = power(first), power(second)
    weight = _weights(in_a, in_b)
    wide = np.repeat(weight, _WIDTHS, axis=1)
    there = _filter(first, second, wide)
    steps = _delays(first * there, second, wide)
    if steps.any():
        second *= _TURNS[steps]
        in_b, there = power(second), _filter(first, second, wide)
    back = _filter(second, first, wide)
    gain = _gain(first, second, weight, there, back)
    lost_in_a, lost_in_b = _lost(in_a, in_b)
    shown, undone = first, second
    if np.any(gain != 1):
        shown = spectra(a * _at_samples(gain, len(a)))
        undone = spectra(b / _at_samples(gain, len(b))) * _TURNS[steps]
        there, back = _filter(shown, second, wide), _filter(undone, first, wide)
    of_a = _residual(first, undone, back, there, 1 / gain, lost_in_b)
    of_b = _residual(second, shown, there, back, gain, lost_in_a)
    whole_a, whole_b = bands(in_a * ~lost_in_b), bands(in_b * ~lost_in_a)
    return Prediction(*of_a, whole_a), Prediction(*of_b, whole_b), gain


def _aligned(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both stretches without their mean and equally long; ``b`` is moved to the best fit, by parts of a sample."""
    n = min(len(a), len(b))
    a, b = a[:n] - np.mean(a[:n]), b[:n] - np.mean(b[:n])
    size = scipy.fft.next_fast_len(n + 2 * _SEARCH, real=True)
    spectrum = scipy.fft.rfft(b, size)
    cross = scipy.fft.rfft(a, size) * np.conj(spectrum)
    cross /= np.sqrt(np.abs(cross)) + 1e-12  # evens the spectrum half way: high frequencies tell the delay best
    around = scipy.fft.irfft(cross, size)[np.arange(-_SEARCH, _SEARCH + 1)]
    fine = scipy.fft.irfft(scipy.fft.rfft(around), _FINER * len(around))
    delay = int(np.argmax(np.abs(fine[: 2 * _SEARCH * _FINER + 1]))) / _FINER - _SEARCH
    turn = np.exp(-2j * np.pi * scipy.fft.rfftfreq(size) * delay)
    return a.astype(np.float32), scipy.fft.irfft(spectrum * turn, size)[:n].astype(np.float32)


def _clipped_like(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``a`` clipped at the level, if there is one, that brings it closest to ``b``."""
    soft = np.abs(b) < 0.5 * np.abs(b).max(initial=0.0)
    own = float(np.dot(a[soft], a[soft]))
    gain = float(np.dot(a[soft], b[soft])) / own if own > 0 else 0.0
    if gain == 0:
        return a
    peak = float(np.abs(a).max())
    wanted = b / np.float32(gain)
    plain = float(((wanted - a) ** 2).sum())
    if _least_error(a, wanted, peak) > 0.71 * plain:
        return a  # most recordings are not clipped
    errors = [float(((wanted - np.clip(a, -peak * share, peak * share)) ** 2).sum()) for share in _CLIPPING]
    best = int(np.argmin(errors))
    return np.clip(a, -peak * _CLIPPING[best], peak * _CLIPPING[best]) if errors[best] < 0.7 * plain else a


def _least_error(a: np.ndarray, wanted: np.ndarray, peak: float) -> float:
    """A sum of squares that no level of clipping ``a`` can go below in what it leaves of ``wanted``, to rounding.

    Above a level L, a sample that is wanted to be w leaves (w - L)^2; its terms are added up once for all levels, by
    256 steps of the samples' size.  Those in the step that holds L itself are left out.
    """
    size, signed = np.abs(a), np.copysign(1, a) * wanted
    step = np.minimum(size * np.float32(255 / peak), 255).astype(np.uint8)

    def summed(weights: np.ndarray | None) -> np.ndarray:
        """Sums over the samples below each step, and a last one of all."""
        return np.concatenate([[0.0], np.bincount(step, weights, 256).cumsum()])

    below = summed((signed - size) ** 2)
    count, linear, square = (each[-1] - each for each in (summed(None), summed(signed), summed(signed**2)))
    levels = peak * _CLIPPING
    own = (levels * np.float32(255 / peak)).astype(int)
    low, high = np.maximum(own - 1, 0), np.minimum(own + 2, 256)  # one step more on either side, because of rounding
    errors = below[low] + square[high] + levels * (levels * count[high] - 2 * linear[high])
    return float(errors.min())


def _slices(n: int, size: int = _ROWS) -> Iterator[slice]:
    """Slices of ``n`` rows or columns, ``size`` at a time, so that these and their results fit into a core's cache."""
    return (slice(start, start + size) for start in range(0, n, size))


def spectra(x: np.ndarray) -> np.ndarray:
    """complex64 [frames, bins] of the bands that are compared."""
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(x, _SIZE // 2, mode="reflect"), _SIZE)[::HOP]
    found = np.empty((len(frames), len(_HERTZ)), np.complex64)
    for rows in _slices(len(frames), 2 * _ROWS):
        found[rows] = scipy.fft.rfft(frames[rows] * _WINDOW, axis=1)[:, _BINS[0] : _BINS[-1]]
    return found


def power(z: np.ndarray) -> np.ndarray:
    """The square of the absolute value of complex numbers."""
    squares: np.ndarray = z.real**2
    squares += z.imag**2
    return squares


def bands(powers: np.ndarray) -> np.ndarray:
    """Sums over the bins of each band: [..., bins] to [..., bands]."""
    sums: np.ndarray = np.add.reduceat(powers, _STARTS, axis=-1)
    return sums


def evened(x: np.ndarray, size: int, axis: int = 0) -> np.ndarray:
    """The mean over ``size`` neighbours."""
    return uniform_filter1d(x, size, axis=axis, mode="nearest")


def _weights(in_a: np.ndarray, in_b: np.ndarray) -> np.ndarray:
    """Weights [frames, bands] by which loud and faint moments and bands count the same; from powers [frames, bins]."""
    in_a, in_b = evened(bands(in_a), 5), evened(bands(in_b), 5)
    scale = in_b.mean() / max(float(in_a.mean()), 1e-20)
    return 1 / (in_a * scale + in_b + 4 * _ROUNDING * _WIDTHS)


def _filter(source: np.ndarray, target: np.ndarray, wide: np.ndarray) -> np.ndarray:
    """The filter [bins] that makes ``target`` from ``source``, by least squares over all frames.

    ``wide`` [frames, bins] are the weights.
    """
    product, strength = np.empty(wide.shape[1], np.complex128), np.empty(wide.shape[1])
    for bins in _slices(wide.shape[1], _COLUMNS):
        part, weight = source[:, bins], wide[:, bins]
        product[bins] = (weight * target[:, bins] * part.conj()).sum(axis=0)
        strength[bins] = (weight * power(part)).sum(axis=0)
    return np.convolve(product, _SMOOTH, "same") / np.maximum(np.convolve(strength, _SMOOTH, "same"), 1e-20)


def _delays(a: np.ndarray, b: np.ndarray, wide: np.ndarray) -> np.ndarray:
    """The index of the delay [frames] of ``b`` behind the filtered ``a``; it changes in steps with time.

    Some resamplers work in pieces of a second, of which each begins a third of a sample late; cutters lose a sample.
    """
    even, odd = (np.empty((len(a), _COSINES.shape[1])) for _ in range(2))
    for rows in _slices(len(a), 4 * _ROWS):
        product = wide[rows] * b[rows] * a[rows].conj()
        even[rows] = product.real @ _COSINES
        odd[rows] = product.imag @ _SINES
    fit = np.empty((len(a), len(_DELAYS)))
    fit[:, ::2], fit[:, 1::2] = even - odd, (even + odd)[:, 1:]
    return _steps(fit)


def _steps(fit: np.ndarray) -> np.ndarray:
    """The columns [rows] with the greatest sum over ``fit`` [rows, columns], where each change of the column costs."""
    if float((fit.max(axis=1) - fit[:, 0]).sum()) < 0.99 * _STEP_COST:  # no change of the column could pay
        return np.zeros(len(fit), np.int64)
    came = np.empty(fit.shape, np.int64)
    total = -_STEP_COST * (np.arange(fit.shape[1]) > 0)
    for row, gain in enumerate(fit):
        best = int(np.argmax(total))
        stays = total >= total[best] - _STEP_COST
        came[row] = np.where(stays, np.arange(len(total)), best)
        total = np.where(stays, total, total[best] - _STEP_COST) + gain
    path = np.empty(len(fit), np.int64)
    at = int(np.argmax(total))
    for row in range(len(fit) - 1, -1, -1):
        path[row] = at
        at = came[row, at]
    return path


def _at_samples(gain: np.ndarray, n: int) -> np.ndarray:
    """A gain [frames] at each of ``n`` samples."""
    return np.interp(np.arange(n), np.arange(len(gain)) * HOP, gain).astype(np.float32)


def _residual(
    target: np.ndarray,
    source: np.ndarray,
    filter_: np.ndarray,
    opposite: np.ndarray,
    gain: np.ndarray,
    lost: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Powers [frames, bands] that ``source``, raised by ``gain`` [frames] already, does not and does explain of
    ``target``, without the bins that are ``lost`` [bins].

    What the rounding of both to 16 bits leaves is taken off.
    Noise in the source makes the least squares filter too small.  Noise in the target makes the opposite filter too
    small, whose inverse is then too large.  So the better of both explanations counts, bin by bin.
    """
    size = np.abs(opposite)
    inverse = opposite.conj() / np.maximum(size, 1e-3 * float(size.max(initial=0.0)) + 1e-20) ** 2
    passed, there = power(filter_), ~lost
    left, explained = np.empty((len(target), len(_WIDTHS))), np.empty((len(target), len(_WIDTHS)))
    for rows in _slices(len(target)):
        wanted, by_filter = target[rows], source[rows] * filter_
        rounding = 8 * _ROUNDING * (1 + (gain[rows] ** 2)[:, None] * passed)
        better = np.minimum(power(wanted - by_filter), power(wanted - source[rows] * inverse))
        left[rows] = bands(np.maximum(better - rounding, 0) * there)
        explained[rows] = bands(power(by_filter) * there)
    return left, explained


def _gain(a: np.ndarray, b: np.ndarray, weight: np.ndarray, there: np.ndarray, back: np.ndarray) -> np.ndarray:
    """The gain [frames] that makes the loudness of ``a`` that of ``b``: ones, unless one of both is faded in or out.

    ``there`` and ``back`` [bins] are the filters from each to the other.

    Whatever only one of the two holds makes the gain that least squares find too small in one direction; so the one
    of both directions counts that is nearer to 1, and only what has the shape of a fade is taken for one.
    """
    tracks, sounding = [], np.ones(len(a))
    for source, target, filter_ in ((a, b, there), (b, a, back)):
        product, strength = np.empty(len(a)), np.empty(len(a))
        for rows in _slices(len(a)):
            shaped = source[rows] * filter_
            product[rows] = (weight[rows] * bands((target[rows] * shaped.conj()).real)).sum(axis=1)
            strength[rows] = (weight[rows] * bands(power(shaped))).sum(axis=1)
        product, strength = evened(product, 5), evened(strength, 5)
        floor = 1e-4 * float(np.max(strength, initial=0.0)) + 1e-12
        track = np.clip((product + floor) / (strength + floor), 0.01, 100)
        tracks.append(track / np.exp(np.median(np.log(track))))
        sounding = sounding * strength / (strength + 100 * floor)
    forth, reverse = tracks[0], 1 / tracks[1]
    track = np.where(np.abs(np.log(forth)) <= np.abs(np.log(reverse)), forth, reverse)
    gain = np.ones(len(track), np.float32)
    for end in (slice(None), slice(None, None, -1)):
        gain[end] *= _fade(track[end], sounding[end])
    return gain


def _fade(track: np.ndarray, sounding: np.ndarray) -> np.ndarray:
    """The gain [frames] of a fade at the beginning of a track of gains; ones where it has none.

    ``sounding`` [frames], 0 to 1, says how much there is to tell a gain from.
    """
    n = min(len(track) // 2, int(_LONGEST_FADE_S * RATE / HOP))
    if n < 4 or sounding[:n].sum() < 4:
        return np.ones(len(track))
    say = sounding[:n] / sounding[:n].sum()
    best, least = np.ones(len(track)), 0.3
    shapes = _ramps(len(track))
    for wanted, exponent in ((track[:n], 1), (1 / track[:n], -1)):  # b is faded, or a is
        flat = max(_misfit(wanted, np.ones(n), say), 1e-4)
        near = _misfits(wanted, shapes[:, :n], say) < (least + 1e-6) * flat
        for number in np.flatnonzero(near):
            error = _misfit(wanted, shapes[number, :n], say) / flat
            if error < least:
                best, least = np.maximum(shapes[number], FADED / 4) ** exponent, error
    return best


@lru_cache(4)
def _ramps(n: int) -> np.ndarray:
    """The first ``n`` frames of fades of several lengths and shapes: [fades, n]."""
    at = np.arange(n) * HOP / RATE
    ramps = [np.clip(at / seconds, 0, 1) for seconds in np.geomspace(0.05, _LONGEST_FADE_S, 48)]
    return np.stack(
        [shape for ramp in ramps for shape in (ramp, np.sin(ramp * np.pi / 2), ramp**2, np.sin(ramp * np.pi / 2) ** 2)]
    )


def _misfit(track: np.ndarray, shape: np.ndarray, say: np.ndarray) -> float:
    """The weighted mean square, relative to the track's, of what a shape at its best level leaves of a track."""
    whole = float((say * track**2).sum())
    return 1 - float((say * track * shape).sum()) ** 2 / max(whole * float((say * shape**2).sum()), 1e-20)


def _misfits(track: np.ndarray, shapes: np.ndarray, say: np.ndarray) -> np.ndarray:
    """``_misfit`` of each of ``shapes`` [shapes, frames], to rounding: which of them are worth a closer look."""
    whole = float((say * track**2).sum())
    misfits: np.ndarray = 1 - (shapes @ (say * track)) ** 2 / np.maximum(whole * (shapes**2 @ say), 1e-20)
    return misfits


def _lost(in_a: np.ndarray, in_b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The bins [bins] of an upper band that each lacks by a limit of its bandwidth, of powers [frames, bins]."""
    loud = [p.sum(axis=1) for p in (in_a, in_b)]
    active = np.logical_and(*(level > level.max() * 1e-4 for level in loud))
    if active.sum() < 3:
        nothing = np.zeros(in_a.shape[1], bool)
        return nothing, nothing
    usual = [np.quantile(evened(evened(p, 5)[active][::2], 9, 1), 0.4, axis=0) for p in (in_a, in_b)]
    return _cut_off(usual[1], usual[0]), _cut_off(usual[0], usual[1])


def _cut_off(wide: np.ndarray, narrow: np.ndarray) -> np.ndarray:
    """The bins of an upper band that ``narrow`` lacks; both are the usual powers [bins].

    The band is there in ``wide`` in most moments, and ``narrow`` ends below it in a cliff, where ``wide`` goes on: an
    event that is there for a moment, or sound above the end of a natural spectrum, is not lost bandwidth.
    """
    lost = np.zeros(len(wide), bool)
    ratio = 10 * np.log10((wide + 1e-12) / (narrow + 1e-12))
    missing = ratio - np.median(ratio[(_HERTZ > 300) & (_HERTZ < 3000)]) > 8
    nothing = (wide < 40 * _ROUNDING) & (narrow < 40 * _ROUNDING)
    there = np.flatnonzero(~(missing | nothing))
    first = int(there[-1]) + 1 if len(there) else 0
    if first >= len(lost) or _HERTZ[first] < 3000 or not missing[first:].any():
        return lost
    step = first // 10
    below, above = slice(first - step, first), slice(first + step // 2, first + step + step // 2)
    if above.start >= len(lost):
        return lost
    fall = [10 * np.log10(level[below].mean() / max(float(level[above].mean()), 1e-12)) for level in (wide, narrow)]
    lost[first - step // 2 :] = fall[1] > 9 and fall[1] - fall[0] > 6
    return lost
