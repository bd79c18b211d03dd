"""Masks on spectrograms: where they lie, how wide they are, and that nothing but the sample decides it."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.sampling.hashing import hash64, signed
from training.data.settings import MaskingSettings
from training.data.sound.masking import GRAIN, Masking, Masks, _covered, mask_digest

SEEDS = signed(hash64(2, np.arange(4000)))
BINS = 64


def drawn(settings: MaskingSettings, frames: int) -> tuple[np.ndarray, np.ndarray]:
    return Masking(settings).draw(SEEDS, np.full(len(SEEDS), frames), BINS)


@given(
    frames=st.integers(0, 1200),
    time_width=st.integers(1, 400),
    freq_width=st.integers(1, 100),
    masks=st.integers(0, 3),
)
@settings(deadline=None, max_examples=50)
def test_masks_lie_inside_and_leave_half_of_the_sound(
    frames: int, time_width: int, freq_width: int, masks: int
) -> None:
    chosen = MaskingSettings(masks, time_width, masks, freq_width)
    time, freq = Masking(chosen).draw(SEEDS[:200], np.full(200, frames), BINS)
    assert time.shape == freq.shape == (200, masks, 2)
    for spans, size, width in ((time, frames, min(time_width, frames // 2)), (freq, BINS, min(freq_width, BINS))):
        starts, ends = spans[..., 0], spans[..., 1]
        assert (starts >= 0).all() and (ends >= starts).all() and (ends <= size).all()
        assert (ends - starts <= width).all()


def test_widths_are_uniform_below_their_limit() -> None:
    time, freq = drawn(MaskingSettings(1, 40, 1, 16), 400)
    for spans, width in ((time, 40), (freq, 16)):
        counts = np.bincount((spans[:, 0, 1] - spans[:, 0, 0]), minlength=width)
        assert len(counts) == width
        expected = len(SEEDS) / width
        assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


def test_masks_lie_anywhere_along_both_axes() -> None:
    """The free space before a mask is uniform in what the mask leaves free, whatever the mask's width."""
    time, freq = drawn(MaskingSettings(1, 40, 1, 16), 400)
    for spans, size in ((time, 400), (freq, BINS)):
        starts, widths = spans[:, 0, 0], spans[:, 0, 1] - spans[:, 0, 0]
        for chosen in (widths < np.median(widths), widths >= np.median(widths)):
            before = (starts[chosen] + 0.5) / (size - widths[chosen])
            counts, _ = np.histogram(before, bins=8, range=(0, 1))
            expected = chosen.sum() / 8
            assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


def test_masks_of_one_sample_are_independent() -> None:
    time, freq = drawn(MaskingSettings(2, 40, 1, 16), 400)
    one, other, third = time[:, 0, 0], time[:, 1, 0], freq[:, 0, 0]
    for a, b in ((one, other), (one, third)):
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.06


def test_masks_depend_on_the_sample_and_not_on_its_batch() -> None:
    chosen = Masking(MaskingSettings(2, 40, 2, 16))
    time, freq = chosen.draw(SEEDS[:8], np.full(8, 100), BINS)
    for number in range(8):
        alone = chosen.draw(SEEDS[number : number + 1], np.array([100]), BINS)
        assert (alone[0] == time[number]).all() and (alone[1] == freq[number]).all()
    assert len({time[number].tobytes() for number in range(8)}) == 8


def test_masked_cells_are_filled_and_others_are_kept() -> None:
    chosen = Masking(MaskingSettings(2, 20, 2, 10))
    frames, seeds = torch.tensor([50, 30, 0]), torch.from_numpy(SEEDS[:3])
    features = torch.randn(3, BINS, 60)
    wanted = features.clone()
    time, freq = chosen.draw(SEEDS[:3], frames.numpy(), BINS)
    for one, times, freqs in zip(wanted, time, freq, strict=True):
        for start, end in times:
            one[:, start:end] = -7.0
        for start, end in freqs:
            one[start:end] = -7.0
    assert (wanted[0] == -7.0).any() and (wanted[0] != -7.0).any()
    cells = _covered(time, 60, torch.device("cpu"))[:, None, :] | _covered(freq, BINS, torch.device("cpu"))[:, :, None]
    assert torch.equal(features.masked_fill(cells, -7.0), wanted), "what other devices compute"
    assert chosen(features, frames, seeds, -7.0) is features, "they are filled in place"
    assert torch.equal(features, wanted)


@given(
    masks=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 200)).map(sorted), max_size=4),
    size=st.integers(1, 200),
)
def test_what_no_mask_hides_is_shown_in_whole_grains(masks: list[list[int]], size: int) -> None:
    spans = np.minimum(np.array(masks, dtype=np.int64).reshape(1, -1, 2), size)
    shown = Masks(spans, spans[:, :0]).shown(0, 7, size)
    hidden, found = _covered(spans, size, torch.device("cpu"))[0].numpy(), np.zeros(size, int)
    for run in shown.frames:
        found[run] += 1
        assert run.start % GRAIN == 0 and (run.stop % GRAIN == 0 or run.stop == size)
    assert (found <= 1).all() and found[~hidden].all() and shown.bins == [slice(0, 7)]
    for start, end in spans[0]:
        assert end - start < 2 * GRAIN or not found[start + GRAIN : end - GRAIN].any()


def test_a_digest_names_the_masks() -> None:
    time, freq = drawn(MaskingSettings(1, 40, 1, 16), 400)
    assert mask_digest(time[:2], freq[:2]) == mask_digest(time[:2].copy(), freq[:2].copy())
    assert mask_digest(time[:2], freq[:2]) != mask_digest(time[1:3], freq[:2])
    assert mask_digest(time[:2], freq[:2]) != mask_digest(freq[:2], time[:2])


def test_without_masks_there_is_nothing_to_do() -> None:
    assert not Masking(MaskingSettings()).active
    assert Masking(MaskingSettings(time_masks=1)).active and Masking(MaskingSettings(freq_masks=1)).active


def test_masks_never_change() -> None:
    """A change gives every run other masks, which the changelog must announce as ITERATION ORDER."""
    time, freq = drawn(MaskingSettings(2, 40, 2, 16), 400)
    assert mask_digest(time[:50], freq[:50]) == "fb7600329fd333ea"
