"""Do two stretches of sound hold the same recording?  The last word on every candidate, from the waveform.

Two copies of one recording, whatever was done to them, are correlated sample by sample once they are
aligned; two recordings of like things are not.  What correlation proves depends on how much the sound could
have differed: two hums of 50 Hz correlate although nothing connects them, because a hum has almost no
freedom.  So the verdict rests on *evidence*, the log likelihood ratio of Gaussian signals
``-N ln(1 - rho^2)`` nats, where N is the effective number of independent components (time-bandwidth
product by participation ratios of energy over time and over frequency) and rho the correlation.

Each pair is judged twice: as it is, where loud events decide, and levelled to even loudness, where what lies
between the events counts as much (a clock's room, the crackle after a bang).  Either proof is enough.
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

BLOCK_S = 0.25
_BLOCK = int(BLOCK_S * RATE)
_ENVELOPE = 20  # samples of one energy value: 2.5 ms, so that a click is seen to be short
_SILENT = 10 ** (-80 / 10)  # mean square after band-passing below which a block is silent
_QUIET = 10 ** (-45 / 10)  # of the loudest block's power: too faint to judge by
_FINE = 4  # lags a sample
_TAPS = 16  # samples to either side that interpolate a correlation
_AT_ONCE = 2048  # samples that are interpolated in one product: a block that the cache holds
_FADE = RATE // 50  # at both ends of a stretch: cutting through a rumble or an offset makes a click
_LEVELLING = RATE // 20  # samples over which loudness is evened
_LEVELLED = 10 ** (-40 / 20)  # of the loudest moment: what is fainter is not raised to full level
_ORDER = 256  # samples from which the next is predicted: tones 31 Hz apart are told apart
_PREDICTED = 1e-6  # of a stretch's power: fainter than this is not raised when tones are taken away
_RHO_CAP = 0.9999  # beyond it, correlation says more about the codec than about the sound


@dataclass(frozen=True)
class VerificationSettings:
    """What it takes to call two stretches the same sound."""

    same_correlation: float = 0.7
    same_evidence: float = 130.0  # nats
    same_components: float = 24.0  # effective components that must agree: equal metronomes reach 12
    buried_correlation: float = 0.55  # enough where the evidence is twice as strong: a copy under noise
    same_span_s: float = 0.3
    different_correlation: float = 0.35
    different_evidence: float = 10.0  # nats: what searching a thousand lags finds by chance
    block_correlation: float = 0.45
    tonal_correlation: float = 0.9  # undecided above it: what lies beneath the tones is judged
    tonal_components: float = 64.0  # of what lies beneath that must agree: equal clicks reach 19


class Verdict(NamedTuple):
    """The outcome at one alignment."""

    outcome: str  # same | different | undecided
    lag_s: float  # b's first sample stands at this time of a's first sample
    start_s: float  # of the agreeing span, in a
    overlap_s: float  # length of the agreeing span
    correlation: float  # over the agreeing span, absolute
    components: float
    evidence: float  # nats


_RANK = {"different": 0, "undecided": 1, "same": 2}
NOTHING = Verdict("different", 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


@lru_cache(maxsize=64)
def _weight(size: int) -> np.ndarray:
    """Amplitude response on ``size``-point transforms: 250 to 3,500 Hz, rising 6 dB an octave.

    The rise undoes the fall of natural spectra, so that more than the lowest octave is heard.
    """
    f = scipy.fft.rfftfreq(size, 1 / RATE)
    ramp = np.clip((f - 200) / 100, 0, 1) * np.clip((3600 - f) / 200, 0, 1)
    return (np.sin(ramp * np.pi / 2) ** 2 * f / 1000).astype(np.float32)


def band_passed(wave: np.ndarray) -> np.ndarray:
    """The part of ``wave`` (float [n] at 8 kHz) that is compared."""
    wave = np.asarray(wave, np.float32) - np.float32(np.mean(wave))
    fade = min(_FADE, len(wave) // 2)
    if fade:
        ramp = np.sin(np.linspace(0, np.pi / 2, fade, dtype=np.float32)) ** 2
        wave[:fade] *= ramp
        wave[-fade:] *= ramp[::-1]
    size = scipy.fft.next_fast_len(len(wave) + RATE // 4, real=True)
    spectrum = scipy.fft.rfft(wave, size) * _weight(size)
    return scipy.fft.irfft(spectrum, size)[: len(wave)].astype(np.float32)


def levelled(wave: np.ndarray) -> np.ndarray:
    """A band-passed stretch at even loudness, as far as what is faint is not mere residue."""
    power = scipy.ndimage.uniform_filter1d(wave * wave, _LEVELLING, mode="constant")
    level = np.sqrt(np.maximum(power, 0))
    floor = max(float(level.max(initial=0.0)) * _LEVELLED, float(np.sqrt(_SILENT)))
    return wave / np.maximum(level, floor)


def is_silent(wave: np.ndarray) -> bool:
    """True where nothing audible is left in the compared band (digital silence, DC, padding)."""
    return len(wave) < _ENVELOPE or float(np.mean(band_passed(wave) ** 2)) < _SILENT


def find_lag(a: np.ndarray, b: np.ndarray, lowest: float, highest: float) -> int | None:
    """The lag in samples, between ``lowest`` and ``highest``, at which ``b`` stands best in ``a``.

    ``a`` and ``b`` are band-passed and levelled.  Correlations are normalised by the energy of the overlap at
    each lag and weighed by its length; lags that leave under a quarter of a second are not tried.
    """
    first = max(int(np.floor(lowest)), _BLOCK - len(b))
    last = min(int(np.ceil(highest)), len(a) - _BLOCK)
    if last < first:
        return None
    lags = np.arange(first, last + 1)
    size = scipy.fft.next_fast_len(len(a) + len(b) + _TAPS, real=True)
    cross = scipy.fft.irfft(scipy.fft.rfft(a, size) * np.conj(scipy.fft.rfft(b, size)), size)
    # between samples too: at 3 kHz half a sample costs a tenth of the correlation, enough to miss a true peak
    around = cross[np.arange(first - _TAPS, last + _TAPS + 1) % size]
    fine = np.abs(_interpolated(around, _FINE))
    sums_a = np.concatenate([[0.0], np.cumsum(a.astype(np.float64) ** 2)])
    sums_b = np.concatenate([[0.0], np.cumsum(b.astype(np.float64) ** 2)])
    left, right = np.maximum(lags, 0), np.minimum(lags + len(b), len(a))
    energy_a = sums_a[right] - sums_a[left]
    energy_b = sums_b[right - lags] - sums_b[left - lags]
    length = right - left
    # an overlap of nothing but faint ends must not win, nor a short one by luck
    floor_a, floor_b = (sums[-1] / (len(sums) - 1) * 0.01 * length for sums in (sums_a, sums_b))
    scale = np.sqrt(np.maximum(energy_a, floor_a) * np.maximum(energy_b, floor_b)) + 1e-12
    weight = np.sqrt(length / (length + 2 * RATE)) / scale
    peaks = reduce(np.maximum, fine.T)  # a maximum over so short an axis takes twenty times as long
    best = int(np.argmax(peaks * weight))
    return int(lags[best]) + round(int(np.argmax(fine[best])) / _FINE)


def _interpolated(sequence: np.ndarray, steps: int) -> np.ndarray:
    """A band-limited sequence at ``steps`` points a sample: [n - 2 * _TAPS, steps], from its ``_TAPS``-th sample on.

    A product of matrices, block by block: a polyphase filter written for any rates takes four times as long.
    """
    windows, phases = np.lib.stride_tricks.sliding_window_view(sequence, 2 * _TAPS + 1), _phases(steps)
    fine = np.empty((len(windows), steps), np.float32)
    for start in range(0, len(windows), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        np.matmul(np.ascontiguousarray(windows[some]), phases, out=fine[some])
    return fine


@lru_cache(maxsize=2)
def _phases(steps: int) -> np.ndarray:
    """Weights [2 * _TAPS + 1, steps] of the samples around one for each of the ``steps`` points from it on."""
    at = np.arange(-_TAPS * steps, _TAPS * steps + 1) / steps
    taps = np.pad(np.sinc(at) * np.kaiser(len(at), 5.0), (0, steps - 1))
    return np.ascontiguousarray(taps.reshape(-1, steps)[::-1], np.float32)


def _shifted(wave: np.ndarray, fraction: float) -> np.ndarray:
    """``wave`` delayed by ``fraction`` of a sample."""
    size = scipy.fft.next_fast_len(len(wave) + 64, real=True)
    turn = np.exp(-2j * np.pi * scipy.fft.rfftfreq(size) * fraction).astype(np.complex64)
    return scipy.fft.irfft(scipy.fft.rfft(wave, size) * turn, size)[: len(wave)]


def _refined(a: np.ndarray, b: np.ndarray, lag: int) -> float:
    """The fraction in [-1, 1] to add to ``lag``: the peak of the band-limited cross-correlation."""
    shifts = range(lag - _TAPS - 1, lag + _TAPS + 2)
    cross = np.array([_product(a, b, shift) for shift in shifts], np.float32)
    steps = 32
    total = _interpolated(cross, steps).ravel()[: 2 * steps + 1]
    return int(np.argmax(np.abs(total))) / steps - 1


def _product(a: np.ndarray, b: np.ndarray, lag: int) -> float:
    left, right = max(lag, 0), min(lag + len(b), len(a))
    return float(np.dot(a[left:right], b[left - lag : right - lag])) if right > left else 0.0


def _participation(energy: np.ndarray) -> float:
    """How many of the entries hold the energy: 1 where one holds all, n where it is even."""
    total = float(energy.sum())
    return total * total / max(float((energy.astype(np.float64) ** 2).sum()), 1e-30)


def components(wave: np.ndarray) -> float:
    """Effective number of independent components of a band-passed stretch: its time-bandwidth product."""
    usable = len(wave) // _ENVELOPE * _ENVELOPE
    if usable < 4 * _ENVELOPE:
        return 0.0
    envelope = (wave[:usable].reshape(-1, _ENVELOPE) ** 2).sum(axis=1)
    duration = _participation(envelope) * _ENVELOPE / RATE
    spectrum = np.abs(scipy.fft.rfft(wave * np.hanning(len(wave)).astype(np.float32))) ** 2
    whole = np.abs(scipy.fft.rfft(wave)) ** 2
    bandwidth = min(_participation(spectrum), _participation(whole)) * RATE / len(wave)
    return duration * bandwidth


def verify(
    a: np.ndarray,
    b: np.ndarray,
    lowest_s: float,
    highest_s: float,
    settings: VerificationSettings | None = None,
) -> Verdict:
    """Compare ``a`` and ``b`` (float [n] at 8 kHz) at the best lag between ``lowest_s`` and ``highest_s``.

    A lag of t seconds means: b's first sample stands t seconds after a's first.
    """
    settings = settings or VerificationSettings()
    if min(len(a), len(b)) < _BLOCK:
        return NOTHING
    a, b = band_passed(a), band_passed(b)
    even_a, even_b = levelled(a), levelled(b)
    best = NOTHING
    for x, y in ((even_a, even_b), (a, b)):  # loud events and the rest may favour different lags
        lag = find_lag(x, y, lowest_s * RATE, highest_s * RATE)
        if lag is None:
            return NOTHING
        for verdict in _at_lag(a, b, lag, settings):
            if (_RANK[verdict.outcome], verdict.evidence) >= (_RANK[best.outcome], best.evidence):
                best = verdict
            if best.outcome == "same":
                return best
    return best


def _at_lag(a: np.ndarray, b: np.ndarray, lag: int, settings: VerificationSettings) -> Iterator[Verdict]:
    """The verdicts on the band-passed sounds at a lag in samples: as they are, then levelled."""
    fraction = _refined(a, b, lag)
    left, right = max(lag, 0), min(lag + len(b), len(a))
    cut = _FADE if right - left > 4 * _BLOCK else 0  # where one of the two was faded in or out they differ
    inner = slice(left + cut, right - cut)
    x, y = a[inner], _shifted(b, fraction)[inner.start - lag : inner.stop - lag]

    def verdict(x: np.ndarray, y: np.ndarray, settings: VerificationSettings) -> Verdict:
        span, rho, freedom, evidence = _judged(x, y, settings)
        first = left if span[0] == 0 else left + cut + span[0]
        last = right if span[1] == len(x) else left + cut + span[1]
        overlap_s = (last - first) / RATE if span[1] else 0.0
        outcome = _outcome(rho, freedom, evidence, overlap_s, settings)
        return Verdict(outcome, (lag + fraction) / RATE, first / RATE, overlap_s, rho, freedom, evidence)

    plain = verdict(x, y, settings)
    yield plain
    yield verdict(levelled(x), levelled(y), settings)
    if plain.outcome == "undecided" and plain.correlation >= settings.tonal_correlation:
        beneath = verdict(*innovations(x, y), replace(settings, same_components=settings.tonal_components))
        if beneath.outcome == "same" and beneath.overlap_s >= plain.overlap_s / 2:
            yield plain._replace(outcome="same", components=beneath.components, evidence=beneath.evidence)


def innovations(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What of two aligned stretches cannot be predicted from their past: what lies beneath tones and hums.

    Both float [n] pass the same filter, the error of linear prediction in x (autocorrelation method), so that a copy
    stays a copy, and lose their first ``_ORDER`` samples.  What is 60 dB below the whole is not raised.
    """
    from scipy.signal import oaconvolve  # takes half a second to import, and only who compares tones needs it

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


def _judged(
    x: np.ndarray, y: np.ndarray, settings: VerificationSettings
) -> tuple[tuple[int, int], float, float, float]:
    """The agreeing span of aligned stretches in samples, its correlation, components and evidence."""
    span = _agreeing_span(x, y, settings)
    if span is None:
        return (0, 0), _correlation(x, y), 0.0, 0.0
    x, y = x[slice(*span)], y[slice(*span)]
    rho = _correlation(x, y)
    freedom = min(components(x), components(y))
    return span, rho, freedom, -freedom * float(np.log1p(-(min(rho, _RHO_CAP) ** 2)))


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    scale = np.sqrt(float(np.dot(x, x)) * float(np.dot(y, y)))
    return 0.0 if scale <= _SILENT * len(x) else abs(float(np.dot(x, y))) / scale


def _agreeing_span(x: np.ndarray, y: np.ndarray, settings: VerificationSettings) -> tuple[int, int] | None:
    """First and last sample of the stretch in which aligned ``x`` and ``y`` agree block by block.

    Blocks in which both are faint or silent neither agree nor disagree; where they continue an agreeing
    stretch to either end they belong to it.  The stretch with the most agreement wins; a second of
    disagreement ends it.
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


def _outcome(rho: float, freedom: float, evidence: float, overlap_s: float, settings: VerificationSettings) -> str:
    if rho < settings.different_correlation or evidence < settings.different_evidence:
        return "different"
    needed = 1 if rho >= settings.same_correlation else 2
    enough = min(freedom / settings.same_components, evidence / settings.same_evidence) >= needed
    if rho >= settings.buried_correlation and enough and overlap_s >= settings.same_span_s:
        return "same"
    return "undecided"
