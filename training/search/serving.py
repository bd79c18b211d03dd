"""The page on which an index is searched: a small web application, for this machine unless asked otherwise.

GET  /                    the page (page/index.html, page.css, page.js)
GET  /api/about           what the index holds, and what can be filtered by
GET  /api/search?...      hits of ``q`` (see `words`), ``sound``, ``like``, and filters
POST /api/sounds          a sound file as the body; answers with the name by which ``sound`` asks for what resembles it
GET  /sound/ROW           the stored sound of an entry; a player asks for ranges of its bytes
GET  /spectrum/ROW        its spectrogram: bytes ``[bands, columns]``, see `spectrum`
"""

from __future__ import annotations

import functools
import hashlib
import re
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.layout import shard_name
from sharding.shards.checksum import is_changed
from training.search.entries import Filter, licences_by_use, splits_of, values_at
from training.search.finding import Finder, Hit, Query
from training.search.spectrum import BANDS, spectrum
from training.search.words import parse_words

PAGE = Path(__file__).parent / "page"
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
KINDS = {"flac": "audio/flac", "wav": "audio/wav", "mp3": "audio/mpeg", "ogg": "audio/ogg", "opus": "audio/ogg"}
LARGEST_UPLOAD = 64 << 20  # bytes of a dropped sound
MOST_HITS, HITS = 200, 20
LONGEST_QUERY = 2000  # characters
REMEMBERED = 500  # dropped sounds whose vectors are kept
SHOWN_LICENCES, EXAMPLES = 40, 6
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_RANGE = re.compile(r"bytes=(\d{0,100})-(\d{0,100})")
KEPT_SOUNDS = 8  # stored sounds that stay in memory, because a player asks for one in several ranges


class Service:
    """What the page asks for, without the web.

    Args:
        finder: of the index.
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
            "entries": len(entries),
            "recordings": about["recordings"],
            "hours": about["seconds"] / 3600,
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
        vectors += [self._finder.entry_vector(_whole(row, "like")) for row in ask.get("like", [])]
        query = Query((text,) if text else (), tuple(vectors), without)
        among = Filter(
            tuple(ask.get("dataset", [])),
            tuple(ask.get("licence", [])),
            _seconds(ask.get("min"), "min"),
            _seconds(ask.get("max"), "max"),
        )
        top = min(MOST_HITS, max(1, _whole(ask.get("top", [str(HITS)])[0], "top")))
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


def application(service: Service, hosts: Iterable[str]) -> Any:
    """The web application.

    Args:
        service: answers.
        hosts: the names under which the page may be asked for; a request with another ``Host`` is refused, so that no
            foreign page can reach this one through a name of its own (DNS rebinding).

    Raises:
        InputError: the libraries are not installed.
    """
    try:
        from starlette.applications import Starlette
        from starlette.concurrency import run_in_threadpool
        from starlette.middleware import Middleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware
        from starlette.requests import ClientDisconnect, Request
        from starlette.responses import JSONResponse, Response
        from starlette.routing import Route
    except ImportError as error:
        raise InputError("the page needs starlette", remedy="pip install earshot[search]") from error

    async def page(request: Request) -> Response:
        name, kind = FILES[request.url.path]
        return Response((PAGE / name).read_bytes(), media_type=kind, headers=HEADERS | {"Cache-Control": "no-cache"})

    async def about(request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(lambda: service.about), headers=HEADERS)

    async def search(request: Request) -> Response:
        ask: dict[str, list[str]] = {}
        for key, value in request.query_params.multi_items():
            if value.strip():
                ask.setdefault(key, []).append(value)
        return JSONResponse(await run_in_threadpool(service.search, ask), headers=HEADERS)

    async def sounds(request: Request) -> Response:
        data = bytearray()
        async for block in request.stream():
            data += block
            if len(data) > LARGEST_UPLOAD:
                what = f"a sound of more than {LARGEST_UPLOAD >> 20} MB"
                return JSONResponse({"error": what + "; drop a shorter one"}, status_code=413, headers=HEADERS)
        return JSONResponse({"sound": await run_in_threadpool(service.remember, bytes(data))}, headers=HEADERS)

    async def sound(request: Request) -> Response:
        data, kind = await run_in_threadpool(service.stored, _whole(request.path_params["row"], "a sound"))
        first, last = byte_range(request.headers.get("range"), len(data))
        headers = HEADERS | {"Accept-Ranges": "bytes", "Cache-Control": "private, max-age=3600"}
        if first > last:
            return Response(status_code=416, headers=headers | {"Content-Range": f"bytes */{len(data)}"})
        if "range" in request.headers:
            headers |= {"Content-Range": f"bytes {first}-{last}/{len(data)}"}
        if request.method == "HEAD":
            return Response(media_type=kind, headers=headers | {"Content-Length": str(last - first + 1)})
        return Response(data[first : last + 1], 206 if "range" in request.headers else 200, headers, kind)

    async def picture(request: Request) -> Response:
        data = await run_in_threadpool(service.spectrum, _whole(request.path_params["row"], "a sound"))
        headers = HEADERS | {"X-Bands": str(BANDS), "Cache-Control": "private, max-age=3600"}
        return Response(data, media_type="application/octet-stream", headers=headers)

    async def refuse(request: Request, error: Exception) -> Response:
        assert isinstance(error, InputError)
        remedy = f"; {error.remedy}" if error.remedy else ""
        found = "" if error.value is None else f": {error.value}"
        return JSONResponse({"error": f"{error.what}{found}{remedy}"}, status_code=400, headers=HEADERS)

    async def left(request: Request, error: Exception) -> Response:
        return Response(status_code=400)  # nobody reads it: the upload was broken off

    routes = [Route(path, page) for path in FILES]
    routes += [Route("/api/about", about), Route("/api/search", search), Route("/api/sounds", sounds, methods=["POST"])]
    routes += [Route("/sound/{row}", sound), Route("/spectrum/{row}", picture)]
    guard = Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    return Starlette(routes=routes, middleware=[guard], exception_handlers={InputError: refuse, ClientDisconnect: left})


def byte_range(header: str | None, size: int) -> tuple[int, int]:
    """First and last byte that a ``Range`` header asks for; the first is greater than the last where there are none.

    What is no range of one stretch is answered with the whole (RFC 9110, section 14.2).
    """
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or match[1] == match[2] == "":
        return 0, size - 1
    if match[1] == "":
        return max(0, size - int(match[2])), size - 1
    first = int(match[1])
    last = min(size - 1, int(match[2])) if match[2] else size - 1
    return (first, last) if first <= last else (size, -1)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        InputError: the port is taken, or the address is none of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
    except (OSError, OverflowError) as error:
        found.close()
        raise InputError(
            f"cannot listen there: {getattr(error, 'strerror', None) or error}",
            value=f"{host}:{port}",
            remedy="choose another --port, or 0 for any that is free",
        ) from error
    return found


def _examples(entries: pa.Table) -> list[str]:
    """Short captions of entries that lie evenly apart: what the page suggests to look for."""
    rows = np.unique(np.linspace(0, len(entries) - 1, 40 * EXAMPLES).astype(int)) if len(entries) else np.zeros(0, int)
    written = values_at(entries["captions"], rows.tolist())
    found = dict.fromkeys(text.strip().rstrip(".") for texts in written for text in texts[:1])
    short = [text for text in found if 3 <= len(text) <= 70]
    return short[:: max(1, len(short) // EXAMPLES)][:EXAMPLES]


def _whole(text: str, name: str) -> int:
    if not re.fullmatch(r"\d{1,12}", text):
        raise InputError(f"{name} is a whole number", value=text)
    return int(text)


def _seconds(texts: list[str] | None, name: str) -> float | None:
    if not texts:
        return None
    try:
        seconds = float(texts[0])
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e9:
        raise InputError(f"{name} is a number of seconds", value=texts[0])
    return seconds
