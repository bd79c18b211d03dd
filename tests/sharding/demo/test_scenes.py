"""Scenes of synthesised sounds."""

from __future__ import annotations

import numpy as np
import pytest

from sharding.demo.scenes import make_scene


def test_events_of_a_scene_lie_inside_it_and_in_order() -> None:
    scene = make_scene(np.random.default_rng(5), ("dog", "rain", "bell"), 9.0)
    assert np.abs(scene.wave).max() < 0.95
    onsets = [event.onset_s for event in scene.events]
    assert onsets == sorted(onsets) and onsets[0] > 0 and scene.events[-1].offset_s < scene.seconds
    part, start = scene.part(1, 1)
    assert [event.name for event in part.events] == ["rain"]
    assert part.events[0].onset_s == pytest.approx(scene.events[1].onset_s - start)


def test_the_two_events_of_a_scene_can_be_at_once() -> None:
    first, second = make_scene(np.random.default_rng(6), ("dog", "rain"), 6.0, together=True).events
    assert first.onset_s < second.offset_s and second.onset_s < first.offset_s
