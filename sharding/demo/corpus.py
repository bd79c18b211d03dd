"""The synthesised corpus as it grows, and the truth about it.

Every recording is a scene: one to four events over background noise, one after the other or at once.  The captions are
written from the same events.  ``truth.json`` says what a correct build must find.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from sharding.demo.captions import distinct_captions, human_caption, machine_caption
from sharding.demo.layouts import LICENCES, AudioCaps, Clotho, Tacos, WavCaps
from sharding.demo.scenes import Scene, make_scene
from sharding.demo.sounds import SOUNDS
from sharding.demo.waves import Rng

UPLOADERS = ("lavender_field", "Óscar de Ávila", "Zoë", "tape.loop", "kitchen-sink", "north_pier", "mic 54")
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
# File names like those in published tables that have broken loaders.
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
class Truth:
    """What a correct build of the corpus must find; ``truth.json`` has the same fields.

    Attributes:
        same_recording: clips that share sound: ``kind``, ``members`` and a time.
        same_source_other_part: pairs of clips from different parts of the same source.
        defects: broken clips, and ``what`` is wrong with each.
        scenes: the events of each clip: class, onset and offset in seconds.
        orphans: audio files that no table names.
        bad_rows: clips whose rows have impossible times.
        clips: the number of clips of each part of each dataset.
    """

    seed: int
    same_recording: list[dict[str, Any]] = field(default_factory=list)
    same_source_other_part: list[tuple[str, str]] = field(default_factory=list)
    defects: list[dict[str, str]] = field(default_factory=list)
    scenes: dict[str, list[tuple[str, float, float]]] = field(default_factory=dict)
    orphans: list[str] = field(default_factory=list)
    bad_rows: list[dict[str, str]] = field(default_factory=list)
    clips: dict[str, int] = field(default_factory=dict)


@dataclass
class Corpus:
    """The folders of the four datasets as they grow, and the truth about them."""

    root: Path
    rng: Rng
    truth: Truth
    clotho: Clotho = field(init=False)
    audiocaps: AudioCaps = field(init=False)
    wavcaps: WavCaps = field(init=False)
    tacos: Tacos = field(init=False)
    used_ids: set[int] = field(default_factory=set)
    titles: int = 0  # how many titles were given

    def __post_init__(self) -> None:
        self.clotho = Clotho(self.root / "clotho")
        self.audiocaps = AudioCaps(self.root / "audiocaps")
        self.wavcaps = WavCaps(self.root / "wavcaps")
        self.tacos = Tacos(self.root / "tacos")
        self._pairs = self._class_pairs()

    def _class_pairs(self) -> Iterator[tuple[str, str]]:
        """Pairs of classes of sound.  No pair is repeated before all have occurred, so that test clips differ."""
        everything = list(combinations(SOUNDS, 2))
        while True:
            for index in self.rng.permutation(len(everything)):
                pair = everything[index]
                yield pair if self.rng.random() < 0.5 else (pair[1], pair[0])

    def new_freesound_id(self) -> str:
        """A new id in the form of Freesound's."""
        while (value := int(self.rng.integers(100_000, 700_000))) in self.used_ids:
            pass
        self.used_ids.add(value)
        return str(value)

    def new_youtube_id(self, dashed: bool) -> str:
        """A new id in the form of YouTube's; some begin with a dash, which has broken loaders."""
        letters = "".join(self.rng.choice(list(ALPHABET), 10))
        return ("-" if dashed else "k") + letters

    def class_names(self, count: int) -> tuple[str, ...]:
        """Different classes of sound."""
        pair = next(self._pairs)
        others = [name for name in SOUNDS if name not in pair]
        return (*pair, *(str(name) for name in self.rng.choice(others, max(0, count - 2), replace=False)))[:count]

    def scene(self, longest_s: float = 9.0, count: int | None = None) -> Scene:
        """The sound of one clip: mostly two events, one after the other."""
        chosen = int(self.rng.choice([1, 2, 2, 2, 2, 2, 3])) if count is None else count
        names = self.class_names(chosen)
        needed = sum(SOUNDS[name].shortest_s for name in names) + 0.8
        long = self.rng.random() < 0.12
        seconds = float(self.rng.uniform(15, 28) if long else self.rng.uniform(4, longest_s))
        return make_scene(self.rng, names, max(seconds, needed), chosen == 2 and self.rng.random() < 0.2)

    def long_scene(self) -> Scene:
        """A recording of four events, from which clips are cut."""
        return make_scene(self.rng, self.class_names(4), float(self.rng.uniform(13, 18)))

    def uploader(self) -> str:
        return str(self.rng.choice(UPLOADERS))

    def licence(self) -> str:
        return str(self.rng.choice(LICENCES, p=[0.41, 0.41, 0.14, 0.04]))

    def title(self, scene: Scene) -> str:
        """A title that no other clip has."""
        self.titles += 1
        return f"{' and '.join(event.name for event in scene.events)} {self.titles}"

    def note_same_recording(self, kind: str, *members: str, **more: float) -> None:
        """Note that clips share sound."""
        self.truth.same_recording.append({"kind": kind, "members": list(members)} | more)

    def note_defect(self, clip: str, what: str) -> None:
        """Note that a clip is broken."""
        self.truth.defects.append({"clip": clip, "what": what})

    def _note_scene(self, clip: str, scene: Scene) -> str:
        """Note the events of a clip; returns the clip."""
        self.truth.scenes[clip] = [
            (event.name, round(event.onset_s, 3), round(event.offset_s, 3)) for event in scene.events
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
        """Add a Clotho clip with five captions; one in four has a file name that has broken loaders."""
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
            distinct_captions(self.rng, scene.events, 5),
            self.new_freesound_id() if sound_id is None else sound_id,
            self.uploader(),
            start_end_s,
            self.licence(),
            [event.name for event in scene.events],
        )
        return self._note_scene(clip, scene)

    def add_audiocaps(self, split: str, scene: Scene, youtube_id: str, start: int) -> str:
        """Add an AudioCaps clip: one caption in train, five in the other splits."""
        captions = distinct_captions(self.rng, scene.events, 1 if split == "train" else 5)
        return self._note_scene(self.audiocaps.add(split, youtube_id, start, scene.wave, captions), scene)

    def add_wavcaps(self, source: str, scene: Scene, ident: str | None = None) -> str:
        """Add a WavCaps clip under a new id of its source, or under the given one."""
        if ident is None:
            ident = {
                "FreeSound": self.new_freesound_id(),
                "AudioSet_SL": f"Y{self.new_youtube_id(False)}.wav",
                "BBC_Sound_Effects": f"NHU0{self.new_freesound_id()}",
                "SoundBible": self.new_freesound_id()[:4] + str(self.titles),
            }[source]
        caption, title = machine_caption(self.rng, scene.events), self.title(scene)
        clip = self.wavcaps.add(source, ident, scene.wave, caption, author=self.uploader(), title=title)
        return self._note_scene(clip, scene)

    def add_tacos(self, split: str, scene: Scene, sound_id: str, original_s: float, span_s: tuple[float, float]) -> str:
        """Add a TACOS clip with a caption for each event and one for the whole clip."""
        strong = [(human_caption(self.rng, [event]), event.onset_s, event.offset_s) for event in scene.events]
        clip = self.tacos.add(
            split,
            sound_id,
            scene.wave,
            machine_caption(self.rng, scene.events),
            strong,
            original_s=original_s,
            span_s=span_s,
            uploader=self.uploader(),
            licence=self.licence(),
            title=self.title(scene),
        )
        return self._note_scene(clip, scene)

    def finish(self) -> Truth:
        """Write every table, the exclusion list and the truth."""
        for layout in (self.clotho, self.audiocaps, self.wavcaps, self.tacos):
            layout.finish()
        clips = {f"clotho/{split}": len(rows) for split, rows in self.clotho.rows.items()}
        for split, rows in self.audiocaps.rows.items():
            clips[f"audiocaps/{split}"] = len({(row["youtube_id"], row["start_time"]) for row in rows})
        clips |= {f"wavcaps/{source}": len(rows) for source, rows in self.wavcaps.rows.items()}
        clips |= {f"tacos/{split}": len(rows) for split, rows in self.tacos.metadata.items()}
        self.truth.clips = clips
        listed = [row["sound_id"] for row in self.clotho.rows["evaluation"]]
        with (self.root / "excluded_freesound_ids.csv").open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([["sound_id"], *([ident] for ident in dict.fromkeys(listed))])
        (self.root / "truth.json").write_text(json.dumps(asdict(self.truth), indent=1, ensure_ascii=False))
        return self.truth
