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
import scipy.fft
from scipy.ndimage import maximum_filter1d, uniform_filter1d

RATE = 32000  # of the sound that is compared: the shards' own, so all that a model can hear
_SIZE, _HOP = 2048, 512  # samples of a spectrum, and between two
_EDGES_HZ = (
    40, 100, 200, 300, 400, 510, 630, 770, 920, 1080, 1270, 1480, 1720, 2000, 2320, 2700, 3150, 3700, 4400, 5300, 6400,
    7700, 9500, 12000, 15700,
)  # fmt: skip
_BINS = np.ceil(np.array(_EDGES_HZ) * _SIZE / RATE).astype(int)
_STARTS, _WIDTHS = _BINS[:-1] - _BINS[0], np.diff(_BINS)
_HERTZ = np.arange(_BINS[0], _BINS[-1]) * RATE / _SIZE
_WINDOW = np.hanning(_SIZE + 1)[:-1].astype(np.float32)
_ROUNDING = float((_WINDOW**2).sum()) / 12 / 32767**2  # power a bin of the noise of 16 bits
_SEARCH = 32  # samples to either side in which the alignment is refined
_FINER = 16  # steps of a sample
_DELAYS = np.array(sorted(np.arange(-40, 41) / 16, key=abs))  # in samples, none first
_STEP_COST = 2.0  # of a change of the delay; a frame that is wholly explained gives 12
_CLIPPING = np.geomspace(0.1, 0.98, 24)  # levels that are tried, as shares of the peak
_SMOOTH = np.hanning(9)[1:-1] / np.hanning(9).sum()  # bins over which a filter is evened
_CELL = 2  # hops
CELL_S = _CELL * _HOP / RATE
_RUN = 3  # cells over which a decision is evened: 0.1 s
_LONGEST_FADE_S = 3.0
_FADED = 0.12  # gain below which a faded end is not compared
_STEADY = 10 ** (-27 / 10)  # of the sound: the strongest steady noise that counts as noise
_AUDIBLE = 10 ** (-30 / 10)  # of the mean power: a fainter moment is judged as if it were so loud
_AUDIBLE_CELL = 10 ** (-33 / 10)  # the same for one band
# A codec's noise follows the sound of its band.  A pair that has hardly any in most moments went through no codec.  In
# other pairs it varies by some decibels, up to what codecs of low quality leave (MP3 at 40 kbit/s), which grows with
# frequency.
_ABOVE_USUAL = 10 ** (6 / 10)
_CLEAN = 10 ** (-30 / 10)
_CODED = 10 ** (np.interp(np.log2(_EDGES_HZ[:-1]), np.log2([500, 1000, 2000, 4000]), [-11, -9, -6, -2]) / 10)
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
    """What ``a`` holds beyond ``b``, and ``b`` beyond ``a``; None where there is nothing.

    Args:
        a, b: float32 [n] at 32 kHz of the same time, aligned within a millisecond.
    """
    a, b = _aligned(a, b)
    a, b = _clipped_like(a, b), _clipped_like(b, a)
    first, second = _spectra(a), _spectra(b)
    weight = _weights(first, second)
    turns = _turns(first, second, weight)
    second *= turns
    gain = _gain(first, second, weight)
    in_a, in_b = _power(first), _power(second)
    lost_in_a, lost_in_b = _lost(in_b, in_a), _lost(in_a, in_b)
    shown, undone = _spectra(a * _at_samples(gain, len(a))), _spectra(b / _at_samples(gain, len(b))) * turns
    there, back = _filter(shown, second, weight), _filter(undone, first, weight)
    beyond_b = _residual(first, undone, back, there, 1 / gain) * ~lost_in_b
    beyond_a = _residual(second, shown, there, back, gain) * ~lost_in_a
    by_b, by_a = _power(undone * back), _power(shown * there)
    faded = _faded(np.minimum(gain, 1 / gain))
    return (
        _excess(_cells(beyond_b), _cells(by_b * ~lost_in_b), _cells(in_a * ~lost_in_b), faded),
        _excess(_cells(beyond_a), _cells(by_a * ~lost_in_a), _cells(in_b * ~lost_in_a), faded),
    )


def _aligned(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both without their mean and as long as the shorter, ``b`` moved to where it fits best, by parts of a sample."""
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
    errors = [float(((wanted - np.clip(a, -peak * share, peak * share)) ** 2).sum()) for share in _CLIPPING]
    best = int(np.argmin(errors))
    return np.clip(a, -peak * _CLIPPING[best], peak * _CLIPPING[best]) if errors[best] < 0.7 * plain else a


def _spectra(x: np.ndarray) -> np.ndarray:
    """complex64 [frames, bins] of the bands that are compared."""
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(x, _SIZE // 2, mode="reflect"), _SIZE)[::_HOP]
    spectra: np.ndarray = scipy.fft.rfft(frames * _WINDOW, axis=1)[:, _BINS[0] : _BINS[-1]]
    return spectra


def _power(z: np.ndarray) -> np.ndarray:
    power: np.ndarray = z.real**2 + z.imag**2
    return power


def _bands(power: np.ndarray) -> np.ndarray:
    """Sums over the bins of each band: [..., bins] to [..., bands]."""
    return np.add.reduceat(power, _STARTS, axis=-1)


def _evened(x: np.ndarray, size: int, axis: int = 0) -> np.ndarray:
    return uniform_filter1d(x, size, axis=axis, mode="nearest")


def _cells(power: np.ndarray) -> np.ndarray:
    """Powers [cells, bands] of frames [frames, bins]."""
    return _evened(_bands(power), 2 * _CELL + 1)[::_CELL]


def _weights(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Weights [frames, bands] that give loud and faint moments and bands the same say."""
    in_a, in_b = _evened(_bands(_power(a)), 5), _evened(_bands(_power(b)), 5)
    scale = in_b.mean() / max(float(in_a.mean()), 1e-20)
    return 1 / (in_a * scale + in_b + 4 * _ROUNDING * _WIDTHS)


def _filter(source: np.ndarray, target: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The filter [bins] that makes ``target`` from ``source``, by weighted least squares over all frames."""
    wide = np.repeat(weight, _WIDTHS, axis=1)
    product = (wide * target * source.conj()).sum(axis=0)
    power = (wide * _power(source)).sum(axis=0)
    return np.convolve(product, _SMOOTH, "same") / np.maximum(np.convolve(power, _SMOOTH, "same"), 1e-20)


def _turns(a: np.ndarray, b: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Factors [frames, bins] that undo the delay of ``b`` behind ``a`` where it changes, in steps, with time.

    Some resamplers work in pieces of a second, of which each begins a third of a sample late; cutters lose a sample.
    """
    wide = np.repeat(weight, _WIDTHS, axis=1)
    product = wide * b * (a * _filter(a, b, weight)).conj()
    fit = (product @ np.exp(2j * np.pi / RATE * _HERTZ[:, None] * _DELAYS).astype(np.complex64)).real
    delay = _DELAYS[_steps(fit)]
    turns: np.ndarray = np.exp(2j * np.pi / RATE * delay[:, None] * _HERTZ).astype(np.complex64)
    return turns


def _steps(fit: np.ndarray) -> np.ndarray:
    """The columns [rows] with the greatest sum over ``fit`` [rows, columns], where each change of the column costs."""
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
    return np.interp(np.arange(n), np.arange(len(gain)) * _HOP, gain).astype(np.float32)


def _residual(
    target: np.ndarray, source: np.ndarray, filter_: np.ndarray, opposite: np.ndarray, gain: np.ndarray
) -> np.ndarray:
    """Power [frames, bins] of what ``source``, raised by ``gain`` [frames] already, does not explain of ``target``.

    What the rounding of both to 16 bits leaves is taken off.
    Noise in the source makes the least squares filter too small.  Noise in the target makes the opposite filter too
    small, whose inverse is then too large.  So the better of both explanations counts, bin by bin.
    """
    size = np.abs(opposite)
    inverse = opposite.conj() / np.maximum(size, 1e-3 * float(size.max(initial=0.0)) + 1e-20) ** 2
    rounding = 8 * _ROUNDING * (1 + (gain**2)[:, None] * _power(filter_))
    better = np.minimum(*(_power(target - source * each) for each in (filter_, inverse)))
    left: np.ndarray = np.maximum(better - rounding, 0)
    return left


def _gain(a: np.ndarray, b: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The gain [frames] that makes the loudness of ``a`` that of ``b``: ones, unless one of both is faded in or out.

    Whatever only one of the two holds makes the gain that least squares find too small in one direction; so the one
    of both directions counts that is nearer to 1, and only what has the shape of a fade is taken for one.
    """
    tracks, sounding = [], np.ones(len(a))
    for source, target in ((a, b), (b, a)):
        shaped = source * _filter(source, target, weight)
        product = _evened((weight * _bands((target * shaped.conj()).real)).sum(axis=1), 5)
        power = _evened((weight * _bands(_power(shaped))).sum(axis=1), 5)
        floor = 1e-4 * float(np.max(power, initial=0.0)) + 1e-12
        track = np.clip((product + floor) / (power + floor), 0.01, 100)
        tracks.append(track / np.exp(np.median(np.log(track))))
        sounding = sounding * power / (power + 100 * floor)
    there, back = tracks[0], 1 / tracks[1]
    track = np.where(np.abs(np.log(there)) <= np.abs(np.log(back)), there, back)
    gain = np.ones(len(track), np.float32)
    for end in (slice(None), slice(None, None, -1)):
        gain[end] *= _fade(track[end], sounding[end])
    return gain


def _fade(track: np.ndarray, sounding: np.ndarray) -> np.ndarray:
    """The gain [frames] of a fade at the beginning of a track of gains; ones where it has none.

    ``sounding`` [frames], 0 to 1, says how much there is to tell a gain from.
    """
    n = min(len(track) // 2, int(_LONGEST_FADE_S * RATE / _HOP))
    if n < 4 or sounding[:n].sum() < 4:
        return np.ones(len(track))
    at, say = np.arange(len(track)) * _HOP / RATE, sounding[:n] / sounding[:n].sum()
    best, least = np.ones(len(track)), 0.3
    for wanted, power in ((track[:n], 1), (1 / track[:n], -1)):  # b is faded, or a is
        flat = _misfit(wanted, np.ones(n), say)
        for seconds in np.geomspace(0.05, _LONGEST_FADE_S, 48):
            ramp = np.clip(at / seconds, 0, 1)
            for shape in (ramp, np.sin(ramp * np.pi / 2), ramp**2, np.sin(ramp * np.pi / 2) ** 2):
                error = _misfit(wanted, shape[:n], say) / max(flat, 1e-4)
                if error < least:
                    best, least = np.maximum(shape, _FADED / 4) ** power, error
    return best


def _misfit(track: np.ndarray, shape: np.ndarray, say: np.ndarray) -> float:
    """The weighted mean square, relative to the track's, of what a shape at its best level leaves of a track."""
    whole = float((say * track**2).sum())
    return 1 - float((say * track * shape).sum()) ** 2 / max(whole * float((say * shape**2).sum()), 1e-20)


def _faded(gain: np.ndarray) -> np.ndarray:
    """Cells at the ends in which a fade has left too little to compare: bool [cells]."""
    low = gain < _FADED
    return (np.logical_and.accumulate(low) | np.logical_and.accumulate(low[::-1])[::-1])[::_CELL]


def _lost(wide: np.ndarray, narrow: np.ndarray) -> np.ndarray:
    """The bins [bins] of an upper band that ``narrow`` lacks by a limit of its bandwidth (powers [frames, bins]).

    The band is there in ``wide`` in most moments, and ``narrow`` ends below it in a cliff, where ``wide`` goes on: an
    event that is there for a moment, or sound above the end of a natural spectrum, is not lost bandwidth.
    """
    lost = np.zeros(wide.shape[1], bool)
    loud = [p.sum(axis=1) for p in (wide, narrow)]
    active = np.logical_and(*(level > level.max() * 1e-4 for level in loud))
    if active.sum() < 3:
        return lost
    usual = [np.quantile(_evened(_evened(p, 5), 9, 1)[active][::2], 0.4, axis=0) for p in (wide, narrow)]
    ratio = 10 * np.log10((usual[0] + 1e-12) / (usual[1] + 1e-12))
    missing = ratio - np.median(ratio[(_HERTZ > 300) & (_HERTZ < 3000)]) > 8
    nothing = (usual[0] < 40 * _ROUNDING) & (usual[1] < 40 * _ROUNDING)
    there = np.flatnonzero(~(missing | nothing))
    first = int(there[-1]) + 1 if len(there) else 0
    if first >= len(lost) or _HERTZ[first] < 3000 or not missing[first:].any():
        return lost
    step = first // 10
    below, above = slice(first - step, first), slice(first + step // 2, first + step + step // 2)
    if above.start >= len(lost):
        return lost
    fall = [10 * np.log10(level[below].mean() / max(float(level[above].mean()), 1e-12)) for level in usual]
    lost[first - step // 2 :] = fall[1] > 9 and fall[1] - fall[0] > 6
    return lost


def _excess(residual: np.ndarray, explained: np.ndarray, whole: np.ndarray, faded: np.ndarray) -> Excess | None:
    """What stands out of the residual of one side.

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
    residual, left, near = _evened(residual, _RUN), _evened(left, _RUN), _evened(near, _RUN)
    sound = np.maximum(_evened(masking.sum(axis=1), _RUN), mean * _AUDIBLE)
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
    low, high = float(_EDGES_HZ[bands[0]]), float(_EDGES_HZ[bands[-1] + 1])
    return Excess(start * CELL_S, (end - start) * CELL_S, low, high, 10 * float(np.log10(max(above, 1e-12))))


def ceiling(x: np.ndarray) -> np.ndarray:
    """The greatest power [bands] that a stretch reaches in each band."""
    reached: np.ndarray = _cells(_power(_spectra(x))).max(axis=0)
    return reached


def new_sound(x: np.ndarray, known: np.ndarray) -> Excess | None:
    """What stands out of the powers ``known`` [bands] in a stretch that the other clip does not reach.

    A clip may begin a little earlier than its copy; what sounds there must not be louder than what follows.
    """
    powers = _cells(_power(_spectra(x)))
    left = np.where(powers > 2 * known, powers, 0) * (powers > known.sum() * _AUDIBLE)
    marked = left.any(axis=1)
    return _strongest(marked, left, np.broadcast_to(known, left.shape)) if marked.any() else None
