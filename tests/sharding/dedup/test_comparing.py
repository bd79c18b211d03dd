"""Two recordings compared by their waveforms."""

import csv

import pytest
import soundfile
import soxr

from sharding.dedup.comparing import compare_waves
from sharding.dedup.fingerprint import RATE
from sharding.dedup.grouping import relations
from tests.sharding.dedup.test_matching import scene


@pytest.mark.parametrize("seconds", [0.0, 0.0001, 0.1, 0.3])
def test_very_short_clips_are_no_error(seconds):
    wave = scene(0)
    table = compare_waves(wave, wave[: int(seconds * RATE)])
    assert table.num_rows >= 1


def _known_pairs(folder, kind, every):
    with (folder / "audio/pairs.csv").open(newline="") as file:
        for row in [r for r in csv.DictReader(file) if r["kind"] == kind][::every]:
            waves = []
            for name in ("a", "b"):
                wave, rate = soundfile.read(folder / "audio" / row[name], dtype="float32", always_2d=True)
                waves.append(soxr.resample(wave.mean(axis=1), rate, RATE))
            yield row, relations(compare_waves(*waves))[0]


def test_real_recordings_in_two_encodings_are_found(shared_data):
    for row, relation in _known_pairs(shared_data, "esc10_ogg44k__esc50_flac16k", 20):
        assert relation.by_waveform == "same", row
        assert abs(relation.offset_s) < 0.02


@pytest.mark.slow
def test_all_real_recordings_in_two_encodings_are_found(shared_data):
    for row, relation in _known_pairs(shared_data, "esc10_ogg44k__esc50_flac16k", 1):
        assert relation.by_waveform == "same", row
        assert relation.offset_s == pytest.approx(float(row["lag_s"]), abs=0.02)


@pytest.mark.slow
def test_a_shared_source_alone_merges_nothing(shared_data):
    for row, relation in _known_pairs(shared_data, "esc50_same_freesound_id", 1):
        if relation.by_waveform == "same":  # the correlation that was measured independently must show it too
            assert float(row["xcorr_peak_8k"]) > 0.55, row
