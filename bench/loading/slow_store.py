"""A small HTTP server that acts as an object store. It answers each request after a delay.

It knows the one request that the loader makes (GET with a Range), on the loopback address.  Many requests can wait at
the same time, as in a real store; a test server with few threads cannot do this.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import re
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

_RANGE = re.compile(rb"(?im)^range: bytes=(\d+)-(\d+)\r$")


@contextmanager
def slow_store(root: Path, latency_s: float) -> Iterator[str]:
    """Serve the files below ``root`` as the bucket ``bench``; yields the endpoint's address."""
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=_serve, args=(root, latency_s, theirs), daemon=True)
    server.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        server.terminate()
        server.join()


def _serve(root: Path, latency_s: float, ready: Connection) -> None:
    asyncio.run(_answer_for_ever(root, latency_s, ready))


async def _answer_for_ever(root: Path, latency_s: float, ready: Connection) -> None:
    contents: dict[str, bytes] = {}

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split(b" ", 2)[1].decode().removeprefix("/bench/")
                if path not in contents:
                    contents[path] = (root / path).read_bytes()
                found = _RANGE.search(head)
                whole = contents[path]
                first, last = (int(found[1]), min(int(found[2]), len(whole) - 1)) if found else (0, len(whole) - 1)
                await asyncio.sleep(latency_s)
                lines = ["HTTP/1.1 206 Partial Content", f"Content-Length: {last + 1 - first}", "ETag: x"]
                lines.append(f"Content-Range: bytes {first}-{last}/{len(whole)}")
                writer.write("\r\n".join([*lines, "", ""]).encode() + whole[first : last + 1])
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1024)
    ready.send(server.sockets[0].getsockname()[1])
    async with server:
        await server.serve_forever()
