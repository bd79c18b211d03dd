"""The page over HTTP: a small web application, for this machine unless asked otherwise.

GET  /                    the page (page/index.html, page.css, page.js)
GET  /api/about           what the index holds, and what can be filtered by
GET  /api/search?...      hits of ``q`` (see `words`), ``sound``, ``like``, and filters
POST /api/sounds          a sound file as the body; answers with the name by which ``sound`` asks for what resembles it
GET  /sound/ROW           the stored sound of an entry; a player asks for ranges of its bytes
GET  /spectrum/ROW        its spectrogram: bytes ``[bands, columns]``, see `spectrum`
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from pathlib import Path

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sharding.common.errors import InputError
from training.search.page.serving import Service, whole_number
from training.search.page.spectrum import BANDS

PAGE = Path(__file__).parent
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
LARGEST_UPLOAD = 64 << 20  # bytes of a dropped sound
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_CACHED = {"Cache-Control": "private, max-age=3600"}
_RANGE = re.compile(r"bytes=(\d{0,100})-(\d{0,100})")


def application(service: Service, hosts: Iterable[str]) -> Starlette:
    """The web application.

    Args:
        service: what answers the questions of the page.
        hosts: the names under which the page may be asked for; a request with another ``Host`` is refused, so that no
            foreign page can reach this one through a name of its own (DNS rebinding).
    """
    answers = _Answers(service)
    routes = [Route(path, page) for path in FILES]
    routes += [Route("/api/about", answers.about), Route("/api/search", answers.search)]
    routes += [Route("/api/sounds", answers.sounds, methods=["POST"])]
    routes += [Route("/sound/{row}", answers.sound), Route("/spectrum/{row}", answers.spectrum)]
    guard = Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    return Starlette(
        routes=routes, middleware=[guard], exception_handlers={InputError: refuse, ClientDisconnect: broken_off}
    )


class _Answers:
    """What a `Service` answers, as responses; its work is done in threads, so that no request waits for another."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def about(self, request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(lambda: self._service.about), headers=HEADERS)

    async def search(self, request: Request) -> Response:
        ask: dict[str, list[str]] = {}
        for key, value in request.query_params.multi_items():
            if value.strip():
                ask.setdefault(key, []).append(value)
        return JSONResponse(await run_in_threadpool(self._service.search, ask), headers=HEADERS)

    async def sounds(self, request: Request) -> Response:
        data = bytearray()
        async for block in request.stream():
            data += block
            if len(data) > LARGEST_UPLOAD:
                what = f"a sound of more than {LARGEST_UPLOAD >> 20} MB"
                return JSONResponse({"error": what + "; drop a shorter one"}, status_code=413, headers=HEADERS)
        return JSONResponse({"sound": await run_in_threadpool(self._service.remember, bytes(data))}, headers=HEADERS)

    async def sound(self, request: Request) -> Response:
        row = whole_number(request.path_params["row"], "a sound")
        data, kind = await run_in_threadpool(self._service.stored, row)
        first, last = byte_range(request.headers.get("range"), len(data))
        headers = HEADERS | _CACHED | {"Accept-Ranges": "bytes"}
        if first > last:
            return Response(status_code=416, headers=headers | {"Content-Range": f"bytes */{len(data)}"})
        if "range" in request.headers:
            headers |= {"Content-Range": f"bytes {first}-{last}/{len(data)}"}
        if request.method == "HEAD":
            return Response(media_type=kind, headers=headers | {"Content-Length": str(last - first + 1)})
        return Response(data[first : last + 1], 206 if "range" in request.headers else 200, headers, kind)

    async def spectrum(self, request: Request) -> Response:
        data = await run_in_threadpool(self._service.spectrum, whole_number(request.path_params["row"], "a sound"))
        headers = HEADERS | _CACHED | {"X-Bands": str(BANDS)}
        return Response(data, media_type="application/octet-stream", headers=headers)


async def page(request: Request) -> Response:
    """A file of the page."""
    name, kind = FILES[request.url.path]
    return Response((PAGE / name).read_bytes(), media_type=kind, headers=HEADERS | {"Cache-Control": "no-cache"})


async def refuse(request: Request, error: Exception) -> Response:
    """The answer to bad input: the message of the error, and its remedy."""
    assert isinstance(error, InputError)
    remedy = f"; {error.remedy}" if error.remedy else ""
    found = "" if error.value is None else f": {error.value}"
    return JSONResponse({"error": f"{error.what}{found}{remedy}"}, status_code=400, headers=HEADERS)


async def broken_off(request: Request, error: Exception) -> Response:
    """The answer to an upload that was broken off; nobody reads it."""
    return Response(status_code=400)


def byte_range(header: str | None, size: int) -> tuple[int, int]:
    """First and last byte that a ``Range`` header asks for; the first is greater than the last where there are none.

    Any other form of the header is ignored, and the whole is sent (RFC 9110, section 14.2).
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
        InputError: the port is taken, or the address does not belong to this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
        found.listen()  # whoever asks before the server has started waits for it, and is not refused
    except (OSError, OverflowError) as error:
        found.close()
        raise InputError(
            f"cannot listen at this address: {getattr(error, 'strerror', None) or error}",
            value=f"{host}:{port}",
            remedy="choose another --port, or 0 for any that is free",
        ) from error
    return found
