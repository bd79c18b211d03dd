"""Defects of the demo corpus: what is wrong in published copies, planted on purpose."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sharding.demo.captions import distinct
from sharding.demo.layouts import write_audio
from sharding.demo.waves import RATE

if TYPE_CHECKING:
    from sharding.demo.corpus import Corpus

PAGE = b"<!DOCTYPE html><html><body><h1>429 Too Many Requests</h1></body></html>\n"


def plant_defects(corpus: Corpus) -> None:
    """Add every kind of broken file and row, and write each down in the truth."""
    broken_files(corpus)
    missing_files(corpus)
    bad_rows(corpus)


def broken_files(corpus: Corpus) -> None:
    wavcaps, rng = corpus.wavcaps, corpus.rng
    whole = next(iter(sorted((wavcaps.root / "audio/FreeSound").glob("*.flac")))).read_bytes()
    video = f"Y{corpus.youtube_id(dashed=False)}.wav"
    cases = (
        ("AudioSet_SL", video, b"", "zero length", 0.0),
        ("FreeSound", corpus.number(), whole[: len(whole) // 3], "cut off inside the stream", 9.0),
        ("FreeSound", corpus.number(), PAGE, "a web page instead of audio", 9.0),
        ("SoundBible", corpus.number(), rng.bytes(20000), "random bytes", 9.0),
    )
    for source, ident, content, what, seconds in cases:
        clip = wavcaps.add(source, ident, content, "A dog is barking.", duration_s=seconds)
        corpus.defect(clip, what)
    silence = np.zeros(5 * RATE, np.float32)
    clip = wavcaps.add("BBC_Sound_Effects", f"NHU0{corpus.number()}", silence, "Silence is heard.")
    corpus.defect(clip, "digital silence")


def missing_files(corpus: Corpus) -> None:
    """Rows without audio, one in each dataset, an id that climbs out, and a file without a row."""
    scene = corpus.scene(count=2)
    clip = corpus.wavcaps.add("FreeSound", "../../../escape", None, "A dog is barking.", duration_s=9.0)
    corpus.defect(clip, "an id that climbs out of the folder")
    words = distinct(corpus.rng, scene.events, 5)
    missing = [
        corpus.clotho.add(
            "development", "Gone.wav", None, words, corpus.number(), "Zoë", None, corpus.licence(), ["gone"]
        ),
        corpus.audiocaps.add("train", corpus.youtube_id(dashed=True), 30, None, words[:1]),
        corpus.audiocaps.add("test", corpus.youtube_id(dashed=False), 40, None, words),
        corpus.wavcaps.add("AudioSet_SL", f"Y{corpus.youtube_id(False)}.wav", None, words[0], duration_s=10.0),
        corpus.tacos.add(
            "development",
            corpus.number(),
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
        corpus.defect(clip, "no such file")
    orphan = "audio/SoundBible/99999.flac"
    write_audio(corpus.wavcaps.root / orphan, corpus.scene().wave, RATE, subtype="PCM_16")
    corpus.truth["orphans"] = [f"wavcaps/{orphan}"]


def bad_rows(corpus: Corpus) -> None:
    """Times that cannot be, in tables whose audio is sound."""
    scene = corpus.scene(count=2)
    ident, length = corpus.number(), scene.seconds
    clip = corpus.add_tacos("development", scene, ident, length, (0.0, length + 0.8))
    name = f"{ident}.mp3"
    for text, onset, offset in (
        ("A click.", -0.02, 1.0),
        ("A thud.", 1.0, length + 2.4),
        ("A pop.", 2.0, 2.0),
    ):
        corpus.tacos.strong.append({"filename": name, "text": text, "onset": str(onset), "offset": str(offset)})
    corpus.truth.setdefault("bad_rows", []).append({"clip": clip, "what": "intervals outside the clip"})
