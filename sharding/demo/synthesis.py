"""Synthesises the demo corpus in the layouts of the four published datasets, with overlaps and defects."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sharding.common.errors import InputError
from sharding.demo.corpus import Corpus, Truth
from sharding.demo.defects import plant_defects
from sharding.demo.layouts import through_mp3
from sharding.demo.scenes import Scene, make_scene

SMALLEST = 40
SHARED_NAME = "Door open close.wav"  # one name in two splits, for two different recordings


def synthesise(out: Path, seed: int = 0, clips: int = 600) -> Truth:
    """Write a corpus of about ``clips`` clips below ``out`` and return its truth, which is also in ``out/truth.json``.

    ``out`` gets the folders ``clotho``, ``audiocaps``, ``wavcaps`` and ``tacos`` and
    ``excluded_freesound_ids.csv``.  An existing corpus is replaced.  The same seed and size give the same files.

    Raises:
        InputError: ``out`` holds anything else than such a corpus, or ``clips`` is too small.
    """
    if clips < SMALLEST:
        raise InputError(
            "a corpus of so few clips cannot hold every kind of overlap", value=clips, remedy=f"ask for {SMALLEST}"
        )
    if out.exists() and any(out.iterdir()):
        if not (out / "truth.json").is_file():
            raise InputError("the folder is not empty", file=out, remedy="choose a new or an empty folder")
        shutil.rmtree(out)
    corpus = Corpus(out, np.random.default_rng(seed), Truth(seed))
    fill_clotho(corpus, clips)
    fill_audiocaps(corpus, clips)
    fill_others(corpus, clips)
    plant_defects(corpus)
    return corpus.finish()


def fill_clotho(corpus: Corpus, clips: int) -> None:
    """Add the three Clotho splits, and clips of other datasets from the same recordings."""
    for split, count in (
        ("evaluation", clips // 10),
        ("validation", clips // 30),
        ("development", clips // 5),
    ):
        every = 5 if split == "evaluation" else 8
        for index in range(max(4, count)):
            kind = index % every
            if kind < len(EXCERPTS):
                add_excerpt(corpus, split, EXCERPTS[kind])
            elif kind == len(EXCERPTS) and index < every:
                corpus.add_clotho(split, corpus.scene(count=2), sound_id="Not found")
            else:
                corpus.add_clotho(split, corpus.scene(count=2 if split == "evaluation" else None))
    shared = corpus.long_scene()
    (early, _), (late, at) = shared.part(0, 2), shared.part(1, 3)
    ident = corpus.new_freesound_id()
    a = corpus.add_clotho("development", early, ident, (0.0, early.seconds))
    b = corpus.add_clotho("evaluation", late, ident, (at, shared.seconds))
    corpus.note_same_recording("overlapping excerpts in two splits, id known", a, b, overlap_s=early.seconds - at)
    for split in ("development", "evaluation"):
        corpus.add_clotho(split, corpus.scene(count=2), name=SHARED_NAME)
    corpus.add_clotho("development", corpus.scene(), sound_id="Not found")


@dataclass(frozen=True)
class Excerpt:
    """A Clotho clip that was cut at ``start_s`` from a longer recording, whose Freesound id is ``ident``."""

    clip_id: str
    clip: Scene
    recording: Scene
    start_s: float
    ident: str


def add_excerpt(corpus: Corpus, split: str, add_other: Callable[[Corpus, Excerpt], None]) -> None:
    """Add a Clotho clip that is an excerpt of a recording, and another clip from the same recording."""
    recording = corpus.long_scene()
    clip, start = recording.part(1, 2)
    ident = corpus.new_freesound_id()
    clip_id = corpus.add_clotho(split, clip, ident, (start, start + clip.seconds))
    add_other(corpus, Excerpt(clip_id, clip, recording, start, ident))


def add_whole_recording(corpus: Corpus, excerpt: Excerpt) -> None:
    """Add the whole recording to WavCaps under the same id."""
    other = corpus.add_wavcaps("FreeSound", excerpt.recording, excerpt.ident)
    corpus.note_same_recording("excerpt, id known", excerpt.clip_id, other, start_s=excerpt.start_s)


def add_anonymous_copy(corpus: Corpus, excerpt: Excerpt) -> None:
    """Add a copy of the recording to WavCaps under another id, so that only the sound shows what it is."""
    rng, recording = corpus.rng, excerpt.recording
    source = str(rng.choice(["FreeSound", "BBC_Sound_Effects", "SoundBible"]))
    gain = np.float32(min(10 ** (rng.uniform(-9, 3) / 20), 0.99 / np.abs(recording.wave).max()))
    wave = through_mp3(recording.wave * gain) if rng.random() < 0.5 else recording.wave * gain
    other = corpus.add_wavcaps(source, replace(recording, wave=wave))
    corpus.note_same_recording("excerpt, id unknown", excerpt.clip_id, other, start_s=excerpt.start_s)


def add_overlapping_excerpt(corpus: Corpus, excerpt: Excerpt) -> None:
    """Add an excerpt of the recording that overlaps with the first one to TACOS."""
    rng, start, end = corpus.rng, excerpt.start_s, excerpt.start_s + excerpt.clip.seconds
    part, at = excerpt.recording.cut(
        max(0.0, start - rng.uniform(0, 2)), start + excerpt.clip.seconds * rng.uniform(0.8, 1)
    )
    span = (at, at + part.seconds)
    other = corpus.add_tacos("development", part, excerpt.ident, excerpt.recording.seconds, span)
    overlap = min(span[1], end) - max(at, start)
    corpus.note_same_recording("overlapping excerpts, id known", excerpt.clip_id, other, overlap_s=overlap)


EXCERPTS = (add_whole_recording, add_anonymous_copy, add_overlapping_excerpt)


def fill_audiocaps(corpus: Corpus, clips: int) -> None:
    """Add AudioCaps clips, and to WavCaps some clips with the same ten seconds, or others, of the same videos."""
    for split, count in (("train", clips // 6), ("val", clips // 60), ("test", clips // 40)):
        for index in range(max(3, count)):
            ident = corpus.new_youtube_id(dashed=index % 9 == 0)
            start = int(corpus.rng.integers(0, 59)) * 10 + (3 if index % 9 == 4 else 0)
            scene = corpus.scene(longest_s=10)
            me = corpus.add_audiocaps(split, scene, ident, start)
            if index % (6 if split == "train" else 3) == 1:
                other = corpus.add_wavcaps("AudioSet_SL", scene, f"Y{ident}.wav")
                corpus.note_same_recording("same segment, id known", me, other, start_s=0.0)
            elif index % 12 == 2:
                other = corpus.add_wavcaps("AudioSet_SL", corpus.scene(), f"Y{ident}.wav")
                corpus.truth.same_source_other_part.append((me, other))


def fill_others(corpus: Corpus, clips: int) -> None:
    """Add WavCaps and TACOS clips that overlap with nothing, and two long recordings."""
    parts = (("FreeSound", 12), ("AudioSet_SL", 16), ("BBC_Sound_Effects", 30), ("SoundBible", 30))
    for source, share in parts:
        for _ in range(max(2, clips // share)):
            corpus.add_wavcaps(source, corpus.scene())
    for index in range(max(5, clips // 14)):
        scene = corpus.scene()
        at = float(corpus.rng.uniform(0, 20))
        span = (at, at + scene.seconds)
        split = "test" if index % 5 == 4 else "development"
        corpus.add_tacos(split, scene, corpus.new_freesound_id(), span[1] + 3, span)
    corpus.add_wavcaps("BBC_Sound_Effects", make_scene(corpus.rng, tuple(corpus.class_names(6)), 95.0))
    # A protected clip in the middle of a long recording that no id connects with it.
    protected = corpus.scene(count=2)
    me = corpus.add_clotho("evaluation", protected)
    before = make_scene(corpus.rng, corpus.class_names(3), 31.0)
    after = make_scene(corpus.rng, corpus.class_names(3), 34.0)
    wave = np.concatenate([before.wave, protected.wave * np.float32(0.7), after.wave])
    long = Scene((*before.events, *protected.events, *after.events), wave)
    other = corpus.add_wavcaps("BBC_Sound_Effects", long)
    corpus.note_same_recording(
        "a protected clip inside a long recording, id unknown", me, other, start_s=before.seconds
    )
