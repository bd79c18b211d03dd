"""Synthesises the demo corpus in the four published layouts."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sharding.common.errors import InputError
from sharding.demo.corpus import Corpus
from sharding.demo.layouts import through_mp3
from sharding.demo.scenes import Scene, make_scene

SMALLEST = 40
SHARED_NAME = "Door open close.wav"  # one name in two splits, for two different recordings


def synthesise(out: Path, seed: int = 0, clips: int = 600) -> dict[str, Any]:
    """Write a corpus of about ``clips`` clips below ``out`` and return its truth (also ``out/truth.json``).

    ``out`` gets the folders ``clotho``, ``audiocaps``, ``wavcaps`` and ``tacos`` and
    ``excluded_freesound_ids.csv``.  A corpus that stands there already is replaced.  The same seed and size
    give the same files.

    Raises ``InputError`` where ``out`` holds anything else than such a corpus, or ``clips`` is too small.
    """
    from sharding.demo.defects import plant_defects

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
