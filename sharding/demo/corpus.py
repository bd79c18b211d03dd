"""A synthesised corpus in the four published layouts, with their defects and overlaps, and its truth.

Every recording is a scene: one to four events over a bed of noise, in turn or at once.  Captions are written
from the same events.  What a correct builder must find is in ``truth.json``.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from sharding.demo.captions import distinct, human, machine
from sharding.demo.layouts import LICENCES, AudioCaps, Clotho, Tacos, WavCaps
from sharding.demo.scenes import Scene, make_scene
from sharding.demo.sounds import SOUNDS
from sharding.demo.waves import Rng

UPLOADERS = ("lavender_field", "Óscar de Ávila", "Zoë", "tape.loop", "kitchen-sink", "north_pier", "mic 54")
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
# Shapes of file names that published tables hold, and that have broken loaders.
ODD_NAMES = (
    "20260401.{0}.street.{1}.wav",
    "{0}&amp;storm {1}.wav",
    "Chris&#39; {0} {1}.wav",
    "{0} at night {1} .wav",
    " {0}  ambience {1}.wav",
    "{0}, ({1}) [take #2] 100%.wav",
    "{0}..WAV.{1}.wav",
    "-{0} {1}.wav",
)


@dataclass
class Corpus:
    """The trees as they grow, and the truth about them."""

    root: Path
    rng: Rng
    clotho: Clotho = field(init=False)
    audiocaps: AudioCaps = field(init=False)
    wavcaps: WavCaps = field(init=False)
    tacos: Tacos = field(init=False)
    truth: dict[str, Any] = field(
        default_factory=lambda: {
            "same_recording": [],
            "same_source_other_part": [],
            "defects": [],
            "scenes": {},
        }
    )
    numbers: set[int] = field(default_factory=set)
    titles: int = 0

    def __post_init__(self) -> None:
        self.clotho = Clotho(self.root / "clotho")
        self.audiocaps = AudioCaps(self.root / "audiocaps")
        self.wavcaps = WavCaps(self.root / "wavcaps")
        self.tacos = Tacos(self.root / "tacos")
        self.pairs = self._pairs()

    def _pairs(self) -> Iterator[tuple[str, str]]:
        """Pairs of classes, none again before all have come: held-out clips differ in what sounds in them."""
        everything = list(combinations(SOUNDS, 2))
        while True:
            for index in self.rng.permutation(len(everything)):
                pair = everything[index]
                yield pair if self.rng.random() < 0.5 else (pair[1], pair[0])

    def number(self) -> str:
        """A Freesound-like id that no other clip has."""
        while (value := int(self.rng.integers(100_000, 700_000))) in self.numbers:
            pass
        self.numbers.add(value)
        return str(value)

    def youtube_id(self, dashed: bool) -> str:
        letters = "".join(self.rng.choice(list(ALPHABET), 10))
        return ("-" if dashed else "k") + letters

    def classes(self, count: int) -> tuple[str, ...]:
        pair = next(self.pairs)
        others = [name for name in SOUNDS if name not in pair]
        return (*pair, *(str(name) for name in self.rng.choice(others, max(0, count - 2), replace=False)))[:count]

    def scene(self, longest_s: float = 9.0, count: int | None = None) -> Scene:
        """A clip's worth of sound: mostly two events in turn."""
        chosen = int(self.rng.choice([1, 2, 2, 2, 2, 2, 3])) if count is None else count
        names = self.classes(chosen)
        needed = sum(SOUNDS[name].shortest_s for name in names) + 0.8
        long = self.rng.random() < 0.12
        seconds = float(self.rng.uniform(15, 28) if long else self.rng.uniform(4, longest_s))
        return make_scene(self.rng, names, max(seconds, needed), chosen == 2 and self.rng.random() < 0.2)

    def original(self) -> Scene:
        """A recording of four events, of which clips are excerpts."""
        return make_scene(self.rng, self.classes(4), float(self.rng.uniform(13, 18)))

    def uploader(self) -> str:
        return str(self.rng.choice(UPLOADERS))

    def licence(self) -> str:
        return str(self.rng.choice(LICENCES, p=[0.41, 0.41, 0.14, 0.04]))

    def title(self, scene: Scene) -> str:
        self.titles += 1
        return f"{' and '.join(event.name for event in scene.events)} {self.titles}"

    def same(self, kind: str, *members: str, **more: float) -> None:
        self.truth["same_recording"].append({"kind": kind, "members": list(members)} | more)

    def defect(self, clip: str, what: str) -> None:
        self.truth["defects"].append({"clip": clip, "what": what})

    def told(self, clip: str, scene: Scene) -> str:
        """Note what sounds in a clip; returns the clip."""
        self.truth["scenes"][clip] = [
            [event.name, round(event.onset_s, 3), round(event.offset_s, 3)] for event in scene.events
        ]
        return clip

    def add_clotho(
        self,
        split: str,
        scene: Scene,
        sound_id: str | None = None,
        start_end_s: tuple[float, float] | None = None,
        name: str | None = None,
    ) -> str:
        """A Clotho clip with five captions and, now and then, a name that has broken loaders."""
        title = self.title(scene)
        if name is None:
            odd = self.rng.random() < 0.25
            name = f"{title}.wav"
            if odd:
                name = str(self.rng.choice(ODD_NAMES)).format(scene.events[0].name.capitalize(), self.titles)
        clip = self.clotho.add(
            split,
            name,
            scene.wave,
            distinct(self.rng, scene.events, 5),
            self.number() if sound_id is None else sound_id,
            self.uploader(),
            start_end_s,
            self.licence(),
            [event.name for event in scene.events],
        )
        return self.told(clip, scene)

    def add_audiocaps(self, split: str, scene: Scene, youtube_id: str, start: int) -> str:
        captions = distinct(self.rng, scene.events, 1 if split == "train" else 5)
        return self.told(self.audiocaps.add(split, youtube_id, start, scene.wave, captions), scene)

    def add_wavcaps(self, source: str, scene: Scene, ident: str | None = None) -> str:
        """A WavCaps clip under a new id of its source, or under the given one."""
        if ident is None:
            ident = {
                "FreeSound": self.number(),
                "AudioSet_SL": f"Y{self.youtube_id(False)}.wav",
                "BBC_Sound_Effects": f"NHU0{self.number()}",
                "SoundBible": self.number()[:4] + str(self.titles),
            }[source]
        caption, title = machine(self.rng, scene.events), self.title(scene)
        clip = self.wavcaps.add(source, ident, scene.wave, caption, author=self.uploader(), title=title)
        return self.told(clip, scene)

    def add_tacos(self, split: str, scene: Scene, sound_id: str, original_s: float, span_s: tuple[float, float]) -> str:
        """A TACOS clip with a caption for each event and one for the whole."""
        strong = [(human(self.rng, [event]), event.onset_s, event.offset_s) for event in scene.events]
        clip = self.tacos.add(
            split,
            sound_id,
            scene.wave,
            machine(self.rng, scene.events),
            strong,
            original_s=original_s,
            span_s=span_s,
            uploader=self.uploader(),
            licence=self.licence(),
            title=self.title(scene),
        )
        return self.told(clip, scene)

    def finish(self) -> dict[str, Any]:
        """Write every table and the truth."""
        for layout in (self.clotho, self.audiocaps, self.wavcaps, self.tacos):
            layout.finish()
        clips = {f"clotho/{split}": len(rows) for split, rows in self.clotho.rows.items()}
        for split, rows in self.audiocaps.rows.items():
            clips[f"audiocaps/{split}"] = len({(row["youtube_id"], row["start_time"]) for row in rows})
        clips |= {f"wavcaps/{source}": len(rows) for source, rows in self.wavcaps.rows.items()}
        clips |= {f"tacos/{split}": len(rows) for split, rows in self.tacos.metadata.items()}
        self.truth["clips"] = clips
        listed = [row["sound_id"] for row in self.clotho.rows["evaluation"]]
        with (self.root / "excluded_freesound_ids.csv").open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([["sound_id"], *([ident] for ident in dict.fromkeys(listed))])
        (self.root / "truth.json").write_text(json.dumps(self.truth, indent=1, ensure_ascii=False))
        return self.truth
