"""What the page asks for, without the web: hits, sounds, spectrograms, and what the index holds."""

from __future__ import annotations

import functools
import hashlib
import re
import threading
import time
from collections import OrderedDict
from typing import Any

import numpy as np
import pyarrow as pa

from sharding.common.errors import InputError
from sharding.common.sizes import quantity, show_hours
from sharding.common.storage import Storage
from sharding.layout import shard_name
from sharding.shards.checksum import is_changed
from training.search.entries import Filter, licences_by_use, splits_of, values_at
from training.search.finding import Finder, Hit, Query
from training.search.page.spectrum import spectrum
from training.search.page.words import parse_words

KINDS = {"flac": "audio/flac", "wav": "audio/wav", "mp3": "audio/mpeg", "ogg": "audio/ogg", "opus": "audio/ogg"}
MOST_HITS, HITS = 200, 20
LONGEST_QUERY = 2000  # characters
REMEMBERED = 500  # dropped sounds whose vectors are kept
SHOWN_LICENCES, EXAMPLES = 40, 6
KEPT_SOUNDS = 8  # stored sounds that stay in memory, because a player asks for one in several ranges


class Service:
    """What the page asks for, without the web.

    Args:
        finder: finds sounds in the index.
        shards: the build that holds the sound.
    """

    def __init__(self, finder: Finder, shards: Storage) -> None:
        self._finder, self._entries, self._shards = finder, finder.index.entries, shards
        self._one = threading.Lock()  # the model answers one query at a time
        self._sounds: OrderedDict[str, np.ndarray] = OrderedDict()
        self.spectrum = functools.lru_cache(maxsize=2000)(self._spectrum)
        self.stored = functools.lru_cache(maxsize=KEPT_SOUNDS)(self._stored)

    @functools.cached_property
    def about(self) -> dict[str, Any]:
        """What the index holds, and what can be filtered by."""
        entries, about = self._entries, self._finder.index.about
        splits = splits_of(entries)[1]
        return {
            "holdings": f"{quantity(about['recordings'], 'recording')}, {show_hours(about['seconds'] / 3600)}",
            "datasets": sorted({name.partition("/")[0] for name in splits}),
            "splits": sorted(splits),
            "licences": sorted(licences_by_use(entries["licence"])[:SHOWN_LICENCES]),
            "examples": _examples(entries),
        }

    def search(self, ask: dict[str, list[str]]) -> dict[str, Any]:
        """The hits of the parameters of an address."""
        began = time.perf_counter()
        typed = " ".join(ask.get("q", []))
        if len(typed) > LONGEST_QUERY:
            raise InputError(f"a description has at most {LONGEST_QUERY} characters", value=len(typed))
        text, without = parse_words(typed)
        vectors = [self._sound(name) for name in ask.get("sound", [])]
        vectors += [self._finder.entry_vector(whole_number(row, "like")) for row in ask.get("like", [])]
        query = Query((text,) if text else (), tuple(vectors), without)
        among = Filter(
            tuple(ask.get("dataset", [])),
            tuple(ask.get("licence", [])),
            _seconds(ask.get("min"), "min"),
            _seconds(ask.get("max"), "max"),
        )
        top = min(MOST_HITS, max(1, whole_number(ask.get("top", [str(HITS)])[0], "top")))
        with self._one:
            hits = self._finder.find(query, top, among)
        return {
            "text": text,
            "without": list(without),
            "hits": [self._shown(hit) for hit in hits],
            "seconds": time.perf_counter() - began,
        }

    def remember(self, data: bytes) -> str:
        """The name of a sound that someone brings; the same bytes have the same name."""
        name = hashlib.sha256(data).hexdigest()[:20]
        if name not in self._sounds:
            with self._one:
                self._sounds[name] = self._finder.sound_vector(data, "the sound")
        self._sounds.move_to_end(name)
        while len(self._sounds) > REMEMBERED:
            self._sounds.popitem(last=False)
        return name

    def _stored(self, row: int) -> tuple[bytes, str]:
        """The stored sound of an entry, compared with its checksum, and its kind.

        Raises:
            InputError: there is no such entry, or the build does not hold this sound any more.
        """
        if not 0 <= row < len(self._entries):
            raise InputError("the index has no such entry", value=row)
        entry = self._entries.slice(row, 1)
        place = ("shard", "audio_offset", "audio_bytes", "audio", "audio_xxh3", "audio_sha256")
        shard, offset, size, audio, xxh3, sha256 = (entry[name][0].as_py() for name in place)
        try:
            data = self._shards.read(shard_name(shard), offset, size)
        except FileNotFoundError:
            data = None
        if data is None or is_changed(data, xxh3, sha256):
            raise InputError(
                "the build does not hold this sound any more, or holds it elsewhere",
                file=self._shards.url,
                remedy="make the index again with `earshot index`, or say with --shards where the build is",
            )
        return data, KINDS.get(audio.rpartition(".")[2], "application/octet-stream")

    def _spectrum(self, row: int) -> bytes:
        from sharding.audio import AudioError, decode_segment  # decoders take long to import

        try:
            wave, rate = decode_segment(self.stored(row)[0])
        except AudioError as error:
            raise InputError(f"the sound does not decode: {error}", value=row) from error
        return spectrum(wave, rate).tobytes()

    def _sound(self, name: str) -> np.ndarray:
        if name not in self._sounds:
            raise InputError("this sound is not known here any more", remedy="drop it on the page again")
        return self._sounds[name]

    def _shown(self, hit: Hit) -> dict[str, Any]:
        """A hit, and where its player begins and ends in the stored sound."""
        entry = self._entries.slice(hit.row, 1)
        origin, length = (entry[name][0].as_py() for name in ("sample_start_s", "sample_s"))
        inside = {"from_s": max(0.0, hit.start_s - origin), "to_s": min(length, hit.end_s - origin)}
        return hit.as_dict() | inside | {"sample_s": length}


def _examples(entries: pa.Table) -> list[str]:
    """Short captions of entries that lie evenly apart: what the page suggests to look for."""
    rows = np.unique(np.linspace(0, len(entries) - 1, 40 * EXAMPLES).astype(int)) if len(entries) else np.zeros(0, int)
    written = values_at(entries["captions"], rows.tolist())
    found = dict.fromkeys(text.strip().rstrip(".") for texts in written for text in texts[:1])
    short = [text for text in found if 3 <= len(text) <= 70]
    return short[:: max(1, len(short) // EXAMPLES)][:EXAMPLES]


def whole_number(text: str, name: str) -> int:
    """A row or a count that stands in an address.

    Raises:
        InputError: it is none.
    """
    if not re.fullmatch(r"\d{1,12}", text):
        raise InputError(f"{name} must be a whole number", value=text)
    return int(text)


def _seconds(texts: list[str] | None, name: str) -> float | None:
    if not texts:
        return None
    try:
        seconds = float(texts[0])
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e9:
        raise InputError(f"{name} must be a number of seconds", value=texts[0])
    return seconds
