"""Decides from the waveforms whether two stretches of sound hold the same recording.

Two copies of one recording correlate sample by sample once they are aligned, also after coding, filtering or a change
of level.  Two recordings of similar things do not.  How much a correlation proves depends on how much the sound could
have differed: two hums of 50 Hz correlate although they are independent, because a hum has almost no degrees of
freedom.  So the verdict rests on the *evidence* ``-N ln(1 - rho^2)`` in nats, the log likelihood ratio of Gaussian
signals that share a component against signals that do not.  Here rho is the correlation, and N is the effective number
of independent components: the time-bandwidth product, with duration and bandwidth as participation ratios of energy.

Each pair is compared twice: as it is, where loud events decide, and levelled to even loudness, where the sound between
the events counts as much (the room around a ticking clock, the crackle after a bang).  Either proof is enough.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, reduce
from typing import NamedTuple

import numpy as np
import scipy.fft
import scipy.linalg
import scipy.ndimage

from sharding.dedup.fingerprint import RATE
from sharding.dedup.outcomes import OUTCOME_RANK

BLOCK_S = 0.25
_BLOCK = int(BLOCK_S * RATE)
_ENVELOPE = 20  # samples in one value of the energy envelope: 2.5 ms, short enough for a click
_SILENT = 10 ** (-80 / 10)  # a block is silent if its mean square after band-passing is below this
_QUIET = 10 ** (-45 / 10)  # a block is too faint to be compared below this share of the loudest block's power
_FINE = 4  # lags that are tried for each sample
_TAPS = 16  # samples on either side from which a correlation is interpolated
_AT_ONCE = 2048  # samples that are interpolated in one matrix product, so that a block fits into the cache
_FADE = RATE // 50  # samples faded in and out: a cut through a rumble or a constant offset would click
_LEVELLING = RATE // 20  # samples over which loudness is averaged for levelling
_LEVELLED = 10 ** (-40 / 20)  # amplitude, relative to the loudest moment, below which levelling raises no further
_ORDER = 256  # order of linear prediction: it separates tones that are 31 Hz apart
_PREDICTED = 1e-6  # share of a stretch's power below which the prediction error is not raised
_RHO_CAP = 0.9999  # higher correlations say more about the codec than about the sound


@dataclass(frozen=True)
class VerificationSettings:
    """When two stretches are called the same sound, and when different ones."""

    same_correlation: float = 0.7
    same_evidence: float = 130.0  # nats
    same_components: float = 24.0  # effective components; two metronomes with equal clicks reach 12
    buried_correlation: float = 0.55  # enough for a copy under noise, if evidence and components are twice the above
    same_span_s: float = 0.3  # shortest agreeing span
    different_correlation: float = 0.35  # below it, the two are different
    different_evidence: float = 10.0  # nats; a search of a thousand lags finds less by chance
    block_correlation: float = 0.45  # from which a block of BLOCK_S agrees
    tonal_correlation: float = 0.9  # undecided pairs from here on are compared again without their tones
    tonal_components: float = 64.0  # effective components that must agree without the tones; equal clicks reach 19


class Verdict(NamedTuple):
    """The outcome at one alignment."""

    outcome: str  # same | different | undecided
    lag_s: float  # time of b's first sample after a's first sample
    start_s: float  # of the agreeing span, in a
    overlap_s: float  # length of the agreeing span
    correlation: float  # absolute value over the agreeing span
    components: float  # effective number of independent components of the agreeing span
    evidence: float  # nats

    @property
    def strength(self) -> tuple[int, float]:
        """Orders verdicts: the greater it is, the more the verdict says that the two are the same."""
        return OUTCOME_RANK[self.outcome], self.evidence


NOTHING = Verdict("different", 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


@lru_cache(maxsize=64)
def _band_response(size: int) -> np.ndarray:
    """Amplitude response on ``size``-point transforms: 250 to 3,500 Hz, rising by 6 dB an octave.

    Natural spectra fall with frequency.  The rise compensates for that, so that not only the lowest octave counts.
    """
    f = scipy.fft.rfftfreq(size, 1 / RATE)
    ramp = np.clip((f - 200) / 100, 0, 1) * np.clip((3600 - f) / 200, 0, 1)
    return (np.sin(ramp * np.pi / 2) ** 2 * f / 1000).astype(np.float32)


def band_passed(wave: np.ndarray) -> np.ndarray:
    """``wave`` (float [n] at 8 kHz) in the band that is compared: without its mean, faded in and out, float32 [n]."""
    wave = np.asarray(wave, np.float32) - np.float32(np.mean(wave))
    fade = min(_FADE, len(wave) // 2)
    if fade:
        ramp = np.sin(np.linspace(0, np.pi / 2, fade, dtype=np.float32)) ** 2
        wave[:fade] *= ramp
        wave[-fade:] *= ramp[::-1]
    size = scipy.fft.next_fast_len(len(wave) + RATE // 4, real=True)
    spectrum = scipy.fft.rfft(wave, size) * _band_response(size)
    return scipy.fft.irfft(spectrum, size)[: len(wave)].astype(np.float32)


def levelled(wave: np.ndarray) -> np.ndarray:
    """A band-passed stretch at even loudness.  Silence, and sound 40 dB below the loudest moment, stays fainter."""
    power = scipy.ndimage.uniform_filter1d(wave * wave, _LEVELLING, mode="constant")
    level = np.sqrt(np.maximum(power, 0))
    floor = max(float(level.max(initial=0.0)) * _LEVELLED, float(np.sqrt(_SILENT)))
    return wave / np.maximum(level, floor)


def is_silent(wave: np.ndarray) -> bool:
    """Whether the compared band holds nothing audible: digital silence, a constant offset, padding."""
    return len(wave) < _ENVELOPE or float(np.mean(band_passed(wave) ** 2)) < _SILENT


def best_lag(a: np.ndarray, b: np.ndarray, lowest: float, highest: float) -> int | None:
    """The lag of ``b`` against ``a``, in samples between ``lowest`` and ``highest``, with the highest correlation.

    ``a`` and ``b`` are band-passed.  Correlations are normalised by the energy of the overlap at each lag and weighted
    by its length.  Lags with an overlap of less than a quarter of a second are not tried; None if there is no other.
    """
    first = max(int(np.floor(lowest)), _BLOCK - len(b))
    last = min(int(np.ceil(highest)), len(a) - _BLOCK)
    if last < first:
        return None
    lags = np.arange(first, last + 1)
    size = scipy.fft.next_fast_len(len(a) + len(b) + _TAPS, real=True)
    cross = scipy.fft.irfft(scipy.fft.rfft(a, size) * np.conj(scipy.fft.rfft(b, size)), size)
    # Lags between samples are tried too: at 3 kHz half a sample costs a tenth of the correlation, and the peak with it.
    around = cross[np.arange(first - _TAPS, last + _TAPS + 1) % size]
    fine = np.abs(_interpolated(around, _FINE))
    sums_a = np.concatenate([[0.0], np.cumsum(a.astype(np.float64) ** 2)])
    sums_b = np.concatenate([[0.0], np.cumsum(b.astype(np.float64) ** 2)])
    left, right = np.maximum(lags, 0), np.minimum(lags + len(b), len(a))
    energy_a = sums_a[right] - sums_a[left]
    energy_b = sums_b[right - lags] - sums_b[left - lags]
    length = right - left
    # An overlap of faint ends alone must not win, nor a short overlap by chance.
    floor_a, floor_b = (sums[-1] / (len(sums) - 1) * 0.01 * length for sums in (sums_a, sums_b))
    scale = np.sqrt(np.maximum(energy_a, floor_a) * np.maximum(energy_b, floor_b)) + 1e-12
    weight = np.sqrt(length / (length + 2 * RATE)) / scale
    peaks = reduce(np.maximum, fine.T)  # twenty times as fast as a maximum over the short axis
    best = int(np.argmax(peaks * weight))
    return int(lags[best]) + round(int(np.argmax(fine[best])) / _FINE)


def _interpolated(sequence: np.ndarray, steps: int) -> np.ndarray:
    """A band-limited sequence at ``steps`` points a sample: [n - 2 * _TAPS, steps], from its ``_TAPS``-th sample on.

    Matrix products, block by block, take a quarter of the time of a general polyphase filter.
    """
    windows, weights = np.lib.stride_tricks.sliding_window_view(sequence, 2 * _TAPS + 1), _interpolators(steps)
    fine = np.empty((len(windows), steps), np.float32)
    for start in range(0, len(windows), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        np.matmul(np.ascontiguousarray(windows[some]), weights, out=fine[some])
    return fine


@lru_cache(maxsize=2)
def _interpolators(steps: int) -> np.ndarray:
    """Weights [2 * _TAPS + 1, steps] of the samples around one, for each of the ``steps`` points from it on."""
    at = np.arange(-_TAPS * steps, _TAPS * steps + 1) / steps
    taps = np.pad(np.sinc(at) * np.kaiser(len(at), 5.0), (0, steps - 1))
    return np.ascontiguousarray(taps.reshape(-1, steps)[::-1], np.float32)


def _delayed(wave: np.ndarray, fraction: float) -> np.ndarray:
    """``wave`` delayed by ``fraction`` of a sample."""
    size = scipy.fft.next_fast_len(len(wave) + 64, real=True)
    turn = np.exp(-2j * np.pi * scipy.fft.rfftfreq(size) * fraction).astype(np.complex64)
    return scipy.fft.irfft(scipy.fft.rfft(wave, size) * turn, size)[: len(wave)]


def _lag_fraction(a: np.ndarray, b: np.ndarray, lag: int) -> float:
    """The fraction of a sample, in [-1, 1], to add to ``lag`` to reach the peak of the band-limited correlation."""
    shifts = range(lag - _TAPS - 1, lag + _TAPS + 2)
    cross = np.array([_inner_product(a, b, shift) for shift in shifts], np.float32)
    steps = 32
    total = _interpolated(cross, steps).ravel()[: 2 * steps + 1]
    return int(np.argmax(np.abs(total))) / steps - 1


def _inner_product(a: np.ndarray, b: np.ndarray, lag: int) -> float:
    """The cross-correlation of ``a`` and ``b`` at one lag."""
    left, right = max(lag, 0), min(lag + len(b), len(a))
    return float(np.dot(a[left:right], b[left - lag : right - lag])) if right > left else 0.0


def _participation(energy: np.ndarray) -> float:
    """The participation ratio of energies [n]: 1 if one entry holds all of the energy, n if all hold the same."""
    total = float(energy.sum())
    return total * total / max(float((energy.astype(np.float64) ** 2).sum()), 1e-30)


def effective_components(wave: np.ndarray) -> float:
    """The effective number of independent components of a band-passed stretch: its time-bandwidth product.

    A stretch of less than 10 ms has none.
    """
    usable = len(wave) // _ENVELOPE * _ENVELOPE
    if usable < 4 * _ENVELOPE:
        return 0.0
    envelope = (wave[:usable].reshape(-1, _ENVELOPE) ** 2).sum(axis=1)
    duration = _participation(envelope) * _ENVELOPE / RATE
    spectrum = np.abs(scipy.fft.rfft(wave * np.hanning(len(wave)).astype(np.float32))) ** 2
    whole = np.abs(scipy.fft.rfft(wave)) ** 2
    bandwidth = min(_participation(spectrum), _participation(whole)) * RATE / len(wave)
    return duration * bandwidth


def align_and_compare(
    a: np.ndarray,
    b: np.ndarray,
    lowest_s: float,
    highest_s: float,
    settings: VerificationSettings | None = None,
) -> Verdict:
    """Compare ``a`` and ``b`` (float [n] at 8 kHz) at the best lag between ``lowest_s`` and ``highest_s``.

    A lag of t seconds means that b's first sample is t seconds after a's first sample.
    """
    settings = settings or VerificationSettings()
    if min(len(a), len(b)) < _BLOCK:
        return NOTHING
    a, b = band_passed(a), band_passed(b)
    even_a, even_b = levelled(a), levelled(b)
    best = NOTHING
    for x, y in ((even_a, even_b), (a, b)):  # loud events and the rest may correlate best at different lags
        lag = best_lag(x, y, lowest_s * RATE, highest_s * RATE)
        if lag is None:
            return NOTHING
        for verdict in _verdicts_at(a, b, lag, settings):
            if verdict.strength >= best.strength:
                best = verdict
            if best.outcome == "same":
                return best
    return best


def _verdicts_at(a: np.ndarray, b: np.ndarray, lag: int, settings: VerificationSettings) -> Iterator[Verdict]:
    """The verdicts on band-passed sounds at a lag in samples: as they are, levelled, and where needed without tones."""
    fraction = _lag_fraction(a, b, lag)
    left, right = max(lag, 0), min(lag + len(b), len(a))
    cut = _FADE if right - left > 4 * _BLOCK else 0  # leaves out where band_passed faded one of the two
    inner = slice(left + cut, right - cut)
    x, y = a[inner], _delayed(b, fraction)[inner.start - lag : inner.stop - lag]

    def verdict(x: np.ndarray, y: np.ndarray, settings: VerificationSettings) -> Verdict:
        span, rho, effective, evidence = _evidence(x, y, settings)
        first = left if span[0] == 0 else left + cut + span[0]
        last = right if span[1] == len(x) else left + cut + span[1]
        overlap_s = (last - first) / RATE if span[1] else 0.0
        outcome = _outcome(rho, effective, evidence, overlap_s, settings)
        return Verdict(outcome, (lag + fraction) / RATE, first / RATE, overlap_s, rho, effective, evidence)

    plain = verdict(x, y, settings)
    yield plain
    yield verdict(levelled(x), levelled(y), settings)
    if plain.outcome == "undecided" and plain.correlation >= settings.tonal_correlation:
        toneless = verdict(*innovations(x, y), replace(settings, same_components=settings.tonal_components))
        if toneless.outcome == "same" and toneless.overlap_s >= plain.overlap_s / 2:
            yield plain._replace(outcome="same", components=toneless.components, evidence=toneless.evidence)


def innovations(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The parts of two aligned stretches (float [n]) that their past does not predict: the sound without its tones.

    Both pass the same filter, the error of linear prediction in ``x`` (autocorrelation method), so that a copy stays a
    copy.  Both lose their first ``_ORDER`` samples.  Sound 60 dB below the whole is not raised.  Empty where ``x`` is
    silent or has less than four times ``_ORDER`` samples.
    """
    from scipy.signal import oaconvolve  # takes half a second to import, and only tonal pairs need it

    if len(x) < 4 * _ORDER:
        return x[:0], y[:0]
    size = scipy.fft.next_fast_len(len(x) + _ORDER, real=True)
    power = np.abs(scipy.fft.rfft(x.astype(np.float64), size)) ** 2
    past = scipy.fft.irfft(power, size)[: _ORDER + 1]
    if past[0] <= _SILENT * len(x):
        return x[:0], y[:0]
    past[0] *= 1 + _PREDICTED
    predictor = scipy.linalg.solve_toeplitz(past[:-1], past[1:])
    error = np.concatenate([[1.0], -predictor])
    first, second = (oaconvolve(z, error, mode="valid").astype(np.float32) for z in (x, y))
    return first, second


def _evidence(
    x: np.ndarray, y: np.ndarray, settings: VerificationSettings
) -> tuple[tuple[int, int], float, float, float]:
    """The agreeing span of aligned stretches in samples, its correlation, effective components and evidence."""
    span = _agreeing_span(x, y, settings)
    if span is None:
        return (0, 0), _correlation(x, y), 0.0, 0.0
    x, y = x[slice(*span)], y[slice(*span)]
    rho = _correlation(x, y)
    effective = min(effective_components(x), effective_components(y))
    return span, rho, effective, -effective * float(np.log1p(-(min(rho, _RHO_CAP) ** 2)))


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    """The absolute correlation of aligned stretches; 0 if they are silent."""
    scale = np.sqrt(float(np.dot(x, x)) * float(np.dot(y, y)))
    return 0.0 if scale <= _SILENT * len(x) else abs(float(np.dot(x, y))) / scale


def _agreeing_span(x: np.ndarray, y: np.ndarray, settings: VerificationSettings) -> tuple[int, int] | None:
    """First sample, and one past the last, of the span in which aligned ``x`` and ``y`` agree block by block.

    More than a second of disagreement ends a span.  Of several spans, the one with the most agreeing blocks is taken.
    Blocks in which both are faint neither agree nor disagree; next to either end of the span they belong to it.
    """
    edges = np.append(np.arange(0, len(x) - _BLOCK // 2, _BLOCK), len(x))
    if len(edges) < 2:
        return None
    starts = edges[:-1]
    energy_x, energy_y = np.add.reduceat(x * x, starts), np.add.reduceat(y * y, starts)
    product = np.add.reduceat(x * y, starts)
    lengths = np.diff(edges)
    sign = np.sign(product.sum()) or 1.0
    floor_x = max(float((energy_x / lengths).max()) * _QUIET, _SILENT)
    floor_y = max(float((energy_y / lengths).max()) * _QUIET, _SILENT)
    quiet_x, quiet_y = energy_x / lengths < floor_x, energy_y / lengths < floor_y
    rho = sign * product / np.sqrt(np.maximum(energy_x * energy_y, 1e-30))
    state = np.where(quiet_x & quiet_y, 0, np.where(rho >= settings.block_correlation, 1, -1))
    patience = int(1 / BLOCK_S)
    best: tuple[int, int, int] | None = None
    start, agreed, missed, end = None, 0, 0, 0
    for k, value in enumerate([*state.tolist(), *[-1] * (patience + 1)]):
        if value == 1:
            start = k if start is None else start
            agreed, missed, end = agreed + 1, 0, k
        elif value == -1 and start is not None:
            missed += 1
            if missed > patience:
                if best is None or agreed > best[0]:
                    best = (agreed, start, end)
                start, agreed, missed = None, 0, 0
    if best is None:
        return None
    _, first, last = best
    while first > 0 and state[first - 1] == 0:
        first -= 1
    while last + 1 < len(state) and state[last + 1] == 0:
        last += 1
    return int(edges[first]), int(edges[last + 1])


def _outcome(rho: float, effective: float, evidence: float, overlap_s: float, settings: VerificationSettings) -> str:
    if rho < settings.different_correlation or evidence < settings.different_evidence:
        return "different"
    needed = 1 if rho >= settings.same_correlation else 2
    enough = min(effective / settings.same_components, evidence / settings.same_evidence) >= needed
    if rho >= settings.buried_correlation and enough and overlap_s >= settings.same_span_s:
        return "same"
    return "undecided"
