"""Scenes of the demo corpus: a few sounds with the words that describe them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sharding.demo.captions import Event
from sharding.demo.sounds import SOUNDS, make_sound
from sharding.demo.waves import RATE, Rng, Wave, background, echo, samples


@dataclass(frozen=True)
class Scene:
    """A recording and what happens in it: ``wave`` float32 [n] at ``RATE``."""

    events: tuple[Event, ...]
    wave: Wave

    @property
    def seconds(self) -> float:
        return len(self.wave) / RATE

    def part(self, first: int, last: int) -> tuple[Scene, float]:
        """The excerpt around events ``first`` to ``last``, and where it starts (s)."""
        start = 0.0
        if first:
            start = (self.events[first - 1].offset_s + self.events[first].onset_s) / 2
        end = self.seconds
        if last + 1 < len(self.events):
            end = (self.events[last].offset_s + self.events[last + 1].onset_s) / 2
        return self.cut(start, end)

    def cut(self, start_s: float, end_s: float) -> tuple[Scene, float]:
        """The excerpt between two times, with the events whose middle lies in it, and where it starts (s)."""
        start, end = samples(start_s) if start_s > 0 else 0, samples(end_s)
        begin = start / RATE
        inside = [event for event in self.events if start_s <= (event.onset_s + event.offset_s) / 2 < end_s]
        moved = [replace(event, onset_s=event.onset_s - begin, offset_s=event.offset_s - begin) for event in inside]
        return Scene(tuple(moved), self.wave[start:end]), begin


def make_scene(rng: Rng, names: tuple[str, ...], seconds: float, together: bool = False) -> Scene:
    """Events of the given classes, one after the other with short pauses, or all at once."""
    shares = rng.uniform(0.8, 1.2, len(names)) * [SOUNDS[name].shortest_s + 2 for name in names]
    edges = np.concatenate([[0], np.cumsum(shares / shares.sum())]) * (seconds - 0.3) + 0.15
    if together:
        edges = np.array([0.1, seconds - 0.1])
    total = np.zeros(samples(seconds), np.float32)
    events = []
    for place, name in enumerate(names):
        start, end = (edges[0], edges[1]) if together else (edges[place], edges[place + 1])
        gap = min(0.4, (end - start) * 0.1)
        onset, length = start + gap * rng.uniform(0.2, 1), end - start - 1.5 * gap
        countable = SOUNDS[name].countable
        count = int(rng.integers(1, 5)) if countable else 0
        far = bool(rng.random() < 0.25)
        shade = int(rng.integers(2))
        wave = make_sound(rng, name, length, shade, count, far)
        begin = samples(onset)
        wave = wave[: len(total) - begin]
        total[begin : begin + len(wave)] += wave
        events.append(Event(name, float(onset), float(onset + length), shade, count, far))
    mixed = echo(rng, total) + background(rng, len(total))
    peak = 10 ** (rng.uniform(-10, -1) / 20)
    return Scene(tuple(events), mixed * np.float32(peak / np.abs(mixed).max()))
