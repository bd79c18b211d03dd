from __future__ import annotations

import numpy as np
import pytest

from sharding.common.progress import Progress
from sharding.dedup import residual
from sharding.dedup.explanation import RATE
from sharding.dedup.residual import Explainer
from sharding.dedup.spreading import QUIETLY, Spreader


def noise(seconds: float, seed: int) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE)).astype(np.float32)


@pytest.fixture(scope="module")
def clips() -> dict[str, np.ndarray]:
    """A recording, and two that begin earlier and later by what the other one does not hold."""
    whole = noise(7, 0)
    late, loud = whole[RATE // 4 :].copy(), whole.copy()
    loud[: RATE // 5] *= 8
    bang = 0.5 * whole
    bang[5 * RATE : 5 * RATE + RATE // 2] += noise(0.5, 1)
    return {"bang": bang, "late": late, "loud": loud, "whole": whole}


def test_an_overlap_that_is_judged_in_parts_has_the_same_row(
    clips: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wave(clip_id: str, start_s: float, duration_s: float, rate: int) -> np.ndarray:
        start = round(start_s * rate)
        return clips[clip_id][start : start + round(duration_s * rate)]

    durations = {clip_id: len(sound) / RATE for clip_id, sound in clips.items()}
    begun: list[Progress] = []

    def begin(what: str, total: int | None, unit: str) -> Progress:
        begun.append(QUIETLY(what, total, unit))
        return begun[-1]

    pairs = [("late", "whole", -0.25), ("late", "loud", -0.25), ("bang", "whole", 0.0)]
    monkeypatch.setattr(residual, "_STRETCHES", 3)
    found = Explainer(wave, durations, 0.95, 1.0).explain(pairs, Spreader(map, begin))
    rows = {(row["a"], row["b"]): row for row in found}
    assert rows["late", "whole"]["outcome"] == "same" and rows["late", "whole"]["overlap_s"] == 6.75
    ahead = rows["late", "loud"]["difference"]
    assert ahead["clip_id"] == "loud" and ahead["start_s"] < 0.25
    assert rows["bang", "whole"]["difference"]["start_s"] == pytest.approx(5, abs=0.1)
    assert begun[0].unit == "stretches" and begun[0].done == begun[0].total == 21
    monkeypatch.setattr(residual, "_STRETCHES", 100)
    at_once = Explainer(wave, durations, 0.95, 1.0).explain(pairs, Spreader(map, QUIETLY))
    assert sorted(map(repr, at_once)) == sorted(map(repr, found))
