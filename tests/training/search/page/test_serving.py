"""The application behind the page, asked by a client without a browser."""

from __future__ import annotations

import asyncio
import io
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from hypothesis import example, given
from hypothesis import strategies as st

from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.shards.manifest import Manifest
from tests.training.search.indexes import SHORT, indexed, untrained
from training.search.finding import Finder
from training.search.models import WholeModel
from training.search.page.serving import Service
from training.search.store import SoundIndex

pytest.importorskip("starlette")
from training.search.page.web import LARGEST_UPLOAD, application, byte_range, listen


@pytest.fixture(scope="module")
def manifest(build: Path) -> Manifest:
    return Manifest.open(build)


@pytest.fixture(scope="module")
def client(manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from starlette.testclient import TestClient

    retriever, folder = untrained([]), tmp_path_factory.mktemp("index")
    indexed(retriever, manifest, folder, windows=SHORT)
    index = SoundIndex.open(folder)
    service = Service(Finder(index, WholeModel(index, retriever)), manifest.storage)
    with TestClient(application(service, ["127.0.0.1", "[::1]"]), base_url="http://127.0.0.1:8765") as found:
        yield found


def wav(seconds: float = 1.0) -> bytes:
    buffer = io.BytesIO()
    sf.write(buffer, 0.5 * np.sin(np.arange(round(16000 * seconds)) / 5), 16000, format="WAV")
    return buffer.getvalue()


def test_a_search_gives_places_and_what_a_player_needs(client: Any) -> None:
    found = client.get("/api/search", params={"q": "a low hum -hiss", "top": "5"}).json()
    assert (found["text"], found["without"]) == ("a low hum", ["hiss"]) and len(found["hits"]) == 5
    for hit in found["hits"]:
        assert 0 <= hit["from_s"] < hit["to_s"] <= hit["sample_s"]
    about = client.get("/api/about").json()
    assert about["splits"] == ["clotho/development", "clotho/evaluation"]
    assert re.fullmatch(r"33 recordings, \d+ s", about["holdings"])


def test_the_stored_sound_comes_whole_or_in_ranges(client: Any, manifest: Manifest) -> None:
    hit = client.get("/api/search?q=hum").json()["hits"][0]
    row = next(row for row in manifest.table.to_pylist() if row["key"] == hit["key"])
    data = manifest.storage.read(f"shards/{row['shard']}", row["audio_offset"], row["audio_bytes"])
    address = f"/sound/{hit['entry']}"
    whole = client.get(address)
    assert (whole.status_code, whole.content, whole.headers["content-type"]) == (200, data, "audio/flac")
    part = client.get(address, headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, data[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(data)}"
    assert client.get(address, headers={"Range": "bytes=-50"}).content == data[-50:]
    assert client.get(address, headers={"Range": "bytes=200-"}).content == data[200:]
    beyond = client.get(address, headers={"Range": f"bytes={len(data)}-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{len(data)}")
    head = client.head(address)
    assert head.headers["content-length"] == str(len(data)) and not head.content
    picture = client.get(f"/spectrum/{hit['entry']}")
    assert picture.status_code == 200 and len(picture.content) % int(picture.headers["x-bands"]) == 0


@given(st.one_of(st.none(), st.text(max_size=30), st.from_regex(r"bytes=\d{0,4}-\d{0,4}", fullmatch=True)))
@example(f"bytes={'9' * 5000}-")
def test_any_range_lies_in_the_sound_or_is_empty(header: str | None) -> None:
    first, last = byte_range(header, 1000)
    assert first > last or 0 <= first <= last < 1000


def test_a_sound_that_is_brought_is_searched_with_by_name(client: Any) -> None:
    name = client.post("/api/sounds", content=wav()).json()["sound"]
    assert client.post("/api/sounds", content=wav()).json()["sound"] == name
    assert len(client.get("/api/search", params={"sound": name}).json()["hits"]) > 5
    own = client.get("/api/search", params={"like": "7", "top": "1"}).json()["hits"][0]
    assert own["entry"] == 7


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("/api/search", "nothing to look for"),
        ("/api/search?q=-rain", "nothing to look for"),
        ("/api/search?q=" + "a" * 3000, "at most 2000 characters"),
        ("/api/search?sound=unknown", "drop it on the page again"),
        ("/api/search?like=x", "a whole number"),
        ("/api/search?like=99999", "no such entry"),
        ("/api/search?q=a&min=nan", "number of seconds"),
        ("/api/search?q=a&dataset=nowhere", "it has clotho/development, clotho/evaluation"),
        ("/api/search?q=a&min=5&max=2", "at least 5 s and at most 2 s"),
        ("/sound/99999", "no such entry"),
        ("/sound/" + "9" * 5000, "a whole number"),
        ("/spectrum/" + "9" * 5000, "a whole number"),
        ("/sound/-1", "a whole number"),
        ("/spectrum/99999", "no such entry"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_words(client: Any, address: str, message: str) -> None:
    answer = client.get(address)
    assert answer.status_code == 400 and message in answer.json()["error"]


def test_what_is_no_sound_or_too_large_is_refused(client: Any) -> None:
    answer = client.post("/api/sounds", content=b"<html>")
    assert answer.status_code == 400 and "not a sound" in answer.json()["error"]
    blocks = (bytes(1 << 20) for _ in range((LARGEST_UPLOAD >> 20) + 1))
    assert client.post("/api/sounds", content=blocks).status_code == 413


def test_an_upload_that_is_broken_off_ends_quietly(client: Any) -> None:
    asked = iter([{"type": "http.request", "body": b"RIFF", "more_body": True}, {"type": "http.disconnect"}])
    scope = {
        "type": "http", "http_version": "1.1", "method": "POST", "path": "/api/sounds", "query_string": b"",
        "headers": [(b"host", b"127.0.0.1")],
    }  # fmt: skip
    said: list[Any] = []

    async def receive() -> Any:
        return next(asked)

    async def send(message: Any) -> None:
        said.append(message)

    asyncio.run(client.app(scope, receive, send))  # raises nothing, which a server would log as a crash
    assert said[0]["status"] == 400


def test_a_build_that_has_changed_or_is_gone_plays_no_other_sound(
    client: Any, manifest: Manifest, tmp_path: Path
) -> None:
    retriever, folder = untrained([]), tmp_path / "index"
    indexed(retriever, manifest, folder, windows=SHORT)
    index = SoundIndex.open(folder)
    finder = Finder(index, WholeModel(index, retriever))
    shard = tmp_path / "shards" / index.entries["shard"][0].as_py()
    service = Service(finder, Storage(tmp_path))
    with pytest.raises(InputError, match="make the index again"):
        service.stored(0)
    shard.parent.mkdir()
    shard.write_bytes(bytes(10_000_000))
    with pytest.raises(InputError, match="make the index again"):
        service.spectrum(0)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", ""])
def test_a_request_under_a_foreign_name_is_refused(client: Any, host: str) -> None:
    assert client.get("/api/search?q=hum", headers={"Host": host}).status_code == 400


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:1", "[::1]:8765"])
def test_a_request_under_a_name_of_this_machine_is_answered(client: Any, host: str) -> None:
    assert client.get("/", headers={"Host": host}).status_code == 200


def test_every_answer_forbids_foreign_scripts(client: Any) -> None:
    for address in ("/", "/page.css", "/page.js", "/api/about", "/api/search?q=hum", "/sound/0", "/spectrum/0"):
        headers = client.get(address).headers
        assert "script-src 'self'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
    page = client.get("/").text + client.get("/page.js").text + client.get("/page.css").text
    assert "innerHTML" not in page and "https://" not in page


def test_a_port_that_is_taken_is_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match="cannot listen at this address"):
            listen("127.0.0.1", taken.getsockname()[1])
    listen("127.0.0.1", 0).close()
