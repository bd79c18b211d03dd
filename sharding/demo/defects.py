"""Defects of the demo corpus, planted on purpose: what is wrong in copies of published datasets."""

from __future__ import annotations

import numpy as np

from sharding.demo.captions import distinct_captions
from sharding.demo.corpus import Corpus
from sharding.demo.layouts import write_audio
from sharding.demo.waves import RATE

PAGE = b"<!DOCTYPE html><html><body><h1>429 Too Many Requests</h1></body></html>\n"


def plant_defects(corpus: Corpus) -> None:
    """Add every kind of broken file and row, and note each of them in the truth."""
    broken_files(corpus)
    missing_files(corpus)
    bad_rows(corpus)


def broken_files(corpus: Corpus) -> None:
    """Add files that hold no sound, or only a part of it."""
    wavcaps, rng = corpus.wavcaps, corpus.rng
    whole = next(iter(sorted((wavcaps.root / "audio/FreeSound").glob("*.flac")))).read_bytes()
    video = f"Y{corpus.new_youtube_id(dashed=False)}.wav"
    cases = (
        ("AudioSet_SL", video, b"", "zero length", 0.0),
        ("FreeSound", corpus.new_freesound_id(), whole[: len(whole) // 3], "cut off inside the stream", 9.0),
        ("FreeSound", corpus.new_freesound_id(), PAGE, "a web page instead of audio", 9.0),
        ("SoundBible", corpus.new_freesound_id(), rng.bytes(20000), "random bytes", 9.0),
    )
    for source, ident, content, what, seconds in cases:
        clip = wavcaps.add(source, ident, content, "A dog is barking.", duration_s=seconds)
        corpus.note_defect(clip, what)
    silence = np.zeros(5 * RATE, np.float32)
    clip = wavcaps.add("BBC_Sound_Effects", f"NHU0{corpus.new_freesound_id()}", silence, "Silence is heard.")
    corpus.note_defect(clip, "digital silence")


def missing_files(corpus: Corpus) -> None:
    """Add rows without audio to each dataset, an id that leads out of the folder, and a file without a row."""
    scene = corpus.scene(count=2)
    clip = corpus.wavcaps.add("FreeSound", "../../../escape", None, "A dog is barking.", duration_s=9.0)
    corpus.note_defect(clip, "an id that leads out of the folder")
    words = distinct_captions(corpus.rng, scene.events, 5)
    missing = [
        corpus.clotho.add(
            "development", "Gone.wav", None, words, corpus.new_freesound_id(), "Zoë", None, corpus.licence(), ["gone"]
        ),
        corpus.audiocaps.add("train", corpus.new_youtube_id(dashed=True), 30, None, words[:1]),
        corpus.audiocaps.add("test", corpus.new_youtube_id(dashed=False), 40, None, words),
        corpus.wavcaps.add("AudioSet_SL", f"Y{corpus.new_youtube_id(False)}.wav", None, words[0], duration_s=10.0),
        corpus.tacos.add(
            "development",
            corpus.new_freesound_id(),
            None,
            words[0],
            [(words[1], 0.0, 2.0)],
            original_s=9.0,
            span_s=(0.0, 9.0),
            uploader="Zoë",
            licence=corpus.licence(),
            title="gone",
        ),
    ]
    for clip in missing:
        corpus.note_defect(clip, "no such file")
    orphan = "audio/SoundBible/99999.flac"
    write_audio(corpus.wavcaps.root / orphan, corpus.scene().wave, RATE, subtype="PCM_16")
    corpus.truth.orphans = [f"wavcaps/{orphan}"]


def bad_rows(corpus: Corpus) -> None:
    """Add impossible times to a table whose audio is intact."""
    scene = corpus.scene(count=2)
    ident, length = corpus.new_freesound_id(), scene.seconds
    clip = corpus.add_tacos("development", scene, ident, length, (0.0, length + 0.8))
    name = f"{ident}.mp3"
    for text, onset, offset in (
        ("A click.", -0.02, 1.0),
        ("A thud.", 1.0, length + 2.4),
        ("A pop.", 2.0, 2.0),
    ):
        corpus.tacos.strong.append({"filename": name, "text": text, "onset": str(onset), "offset": str(offset)})
    corpus.truth.bad_rows.append({"clip": clip, "what": "intervals outside the clip"})
