"""A synthesised corpus in the four published layouts, with their defects and overlaps, and its truth.

Every recording is a scene: one to four events over a bed of noise, in turn or at once.  Captions are written
from the same events.  What a correct builder must find is in ``truth.json``.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from sharding.demo_captions import Event, distinct, human, machine
from sharding.demo_layouts import LICENCES, AudioCaps, Clotho, Tacos, WavCaps, through_mp3
from sharding.demo_sounds import SOUNDS, sound
from sharding.demo_waves import RATE, Rng, Wave, bed, room, samples
from sharding.errors import InputError

SMALLEST = 40
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
SHARED_NAME = "Door open close.wav"  # one name in two splits, for two different recordings


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
        start, end = samples(start_s) if start_s > 0 else 0, samples(end_s)
        begin = start / RATE
        inside = [event for event in self.events if start_s <= (event.onset_s + event.offset_s) / 2 < end_s]
        moved = [replace(event, onset_s=event.onset_s - begin, offset_s=event.offset_s - begin) for event in inside]
        return Scene(tuple(moved), self.wave[start:end]), begin


def make_scene(rng: Rng, names: tuple[str, ...], seconds: float, together: bool = False) -> Scene:
    """Events of the given classes, in turn with short pauses, or the second over the first."""
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
        wave = sound(rng, name, length, shade, count, far)
        begin = samples(onset)
        wave = wave[: len(total) - begin]
        total[begin : begin + len(wave)] += wave
        events.append(Event(name, float(onset), float(onset + length), shade, count, far))
    mixed = room(rng, total) + bed(rng, len(total))
    peak = 10 ** (rng.uniform(-10, -1) / 20)
    return Scene(tuple(events), mixed * np.float32(peak / np.abs(mixed).max()))


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


def synthesise(out: Path, seed: int = 0, clips: int = 600) -> dict[str, Any]:
    """Write a corpus of about ``clips`` clips below ``out`` and return its truth (also ``out/truth.json``).

    ``out`` gets the folders ``clotho``, ``audiocaps``, ``wavcaps`` and ``tacos`` and
    ``excluded_freesound_ids.csv``.  A corpus that stands there already is replaced.  The same seed and size
    give the same files.

    Raises ``InputError`` where ``out`` holds anything else than such a corpus, or ``clips`` is too small.
    """
    from sharding.demo_defects import plant_defects

    if clips < SMALLEST:
        raise InputError("a corpus this small cannot hold every overlap", value=clips, remedy=f"ask for {SMALLEST}")
    if out.exists() and any(out.iterdir()):
        if not (out / "truth.json").is_file():
            raise InputError("the folder is not empty", file=out, remedy="choose a new or an empty folder")
        shutil.rmtree(out)
    corpus = Corpus(out, np.random.default_rng(seed))
    corpus.truth |= {"seed": seed}
    fill_clotho(corpus, clips)
    fill_audiocaps(corpus, clips)
    fill_others(corpus, clips)
    plant_defects(corpus)
    return corpus.finish()


def fill_clotho(corpus: Corpus, clips: int) -> None:
    """The three Clotho splits, and what other datasets hold of the same recordings."""
    for split, count in (
        ("evaluation", clips // 10),
        ("validation", clips // 30),
        ("development", clips // 5),
    ):
        every = 5 if split == "evaluation" else 8
        for index in range(max(4, count)):
            relation = index % every
            if relation < 3:
                relate_clotho(corpus, split, relation)
            elif relation == 3 and index < every:
                corpus.add_clotho(split, corpus.scene(count=2), sound_id="Not found")
            else:
                corpus.add_clotho(split, corpus.scene(count=2 if split == "evaluation" else None))
    shared = corpus.original()
    (early, _), (late, at) = shared.part(0, 2), shared.part(1, 3)
    ident = corpus.number()
    a = corpus.add_clotho("development", early, ident, (0.0, early.seconds))
    b = corpus.add_clotho("evaluation", late, ident, (at, shared.seconds))
    corpus.same("overlapping excerpts in two splits, id known", a, b, overlap_s=early.seconds - at)
    for split in ("development", "evaluation"):
        corpus.add_clotho(split, corpus.scene(count=2), name=SHARED_NAME)
    corpus.add_clotho("development", corpus.scene(), sound_id="Not found")


def relate_clotho(corpus: Corpus, split: str, relation: int) -> None:
    """A Clotho clip that is an excerpt of an original, and another clip of the same original."""
    rng, whole = corpus.rng, corpus.original()
    clip, start = whole.part(1, 2)
    ident = corpus.number()
    me = corpus.add_clotho(split, clip, ident, (start, start + clip.seconds))
    if relation == 0:
        other = corpus.add_wavcaps("FreeSound", whole, ident)
        corpus.same("excerpt, id known", me, other, start_s=start)
    elif relation == 1:  # a mirror without any id: only the sound itself can tell
        source = str(rng.choice(["FreeSound", "BBC_Sound_Effects", "SoundBible"]))
        loud = np.float32(min(10 ** (rng.uniform(-9, 3) / 20), 0.99 / np.abs(whole.wave).max()))
        wave = through_mp3(whole.wave * loud) if rng.random() < 0.5 else whole.wave * loud
        other = corpus.add_wavcaps(source, replace(whole, wave=wave))
        corpus.same("excerpt, id unknown", me, other, start_s=start)
    else:
        part, at = whole.cut(max(0.0, start - rng.uniform(0, 2)), start + clip.seconds * rng.uniform(0.8, 1))
        span = (at, at + part.seconds)
        other = corpus.add_tacos("development", part, ident, whole.seconds, span)
        overlap = min(span[1], start + clip.seconds) - max(at, start)
        corpus.same("overlapping excerpts, id known", me, other, overlap_s=overlap)


def fill_audiocaps(corpus: Corpus, clips: int) -> None:
    """AudioCaps, and the same ten seconds, or others of the same video, in WavCaps' AudioSet part."""
    for split, count in (("train", clips // 6), ("val", clips // 60), ("test", clips // 40)):
        for index in range(max(3, count)):
            ident = corpus.youtube_id(dashed=index % 9 == 0)
            start = int(corpus.rng.integers(0, 59)) * 10 + (3 if index % 9 == 4 else 0)
            scene = corpus.scene(longest_s=10)
            me = corpus.add_audiocaps(split, scene, ident, start)
            if index % (6 if split == "train" else 3) == 1:
                other = corpus.add_wavcaps("AudioSet_SL", scene, f"Y{ident}.wav")
                corpus.same("same segment, id known", me, other, start_s=0.0)
            elif index % 12 == 2:
                other = corpus.add_wavcaps("AudioSet_SL", corpus.scene(), f"Y{ident}.wav")
                corpus.truth["same_source_other_part"].append([me, other])


def fill_others(corpus: Corpus, clips: int) -> None:
    """WavCaps and TACOS clips that overlap with nothing, and two long recordings."""
    parts = (("FreeSound", 12), ("AudioSet_SL", 16), ("BBC_Sound_Effects", 30), ("SoundBible", 30))
    for source, share in parts:
        for _ in range(max(2, clips // share)):
            corpus.add_wavcaps(source, corpus.scene())
    for index in range(max(5, clips // 14)):
        scene = corpus.scene()
        at = float(corpus.rng.uniform(0, 20))
        span = (at, at + scene.seconds)
        split = "test" if index % 5 == 4 else "development"
        corpus.add_tacos(split, scene, corpus.number(), span[1] + 3, span)
    corpus.add_wavcaps("BBC_Sound_Effects", make_scene(corpus.rng, tuple(corpus.classes(6)), 95.0))
    # A protected clip in the middle of a long recording that no id connects with it.
    protected = corpus.scene(count=2)
    me = corpus.add_clotho("evaluation", protected)
    before = make_scene(corpus.rng, corpus.classes(3), 31.0)
    after = make_scene(corpus.rng, corpus.classes(3), 34.0)
    wave = np.concatenate([before.wave, protected.wave * np.float32(0.7), after.wave])
    long = Scene((*before.events, *protected.events, *after.events), wave)
    other = corpus.add_wavcaps("BBC_Sound_Effects", long)
    corpus.same("a protected clip inside a long recording, id unknown", me, other, start_s=before.seconds)
