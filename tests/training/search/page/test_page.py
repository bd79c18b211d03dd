"""The page in a real browser: a description typed, hits seen and heard, a sound dropped."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sharding.shards.manifest import Manifest
from tests.training.search.indexes import SHORT, indexed, untrained
from tests.training.search.page.browser import CHROMIUM, Browser, browser
from training.search.finding import Finder
from training.search.models import WholeModel
from training.search.page.serving import Service
from training.search.store import SoundIndex

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
HITS = "document.querySelectorAll('.hit').length"
DROP = """
(async () => {
  const sound = await (await fetch('/sound/9')).blob();
  const files = new DataTransfer();
  files.items.add(new File([sound], '<b>mine</b>.flac'));
  for (const kind of ['dragenter', 'drop']) {
    dispatchEvent(new DragEvent(kind, {dataTransfer: files, cancelable: true}));
  }
})()
"""


@pytest.fixture(scope="module")
def asked() -> list[tuple[str, str]]:
    """Path and ``Range`` of every request."""
    return []


@pytest.fixture(scope="module")
def address(build: Path, asked: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    uvicorn = pytest.importorskip("uvicorn")
    from training.search.page.web import application, listen

    manifest, retriever, folder = Manifest.open(build), untrained([]), tmp_path_factory.mktemp("page") / "index"
    indexed(retriever, manifest, folder, windows=SHORT)
    index = SoundIndex.open(folder)
    app = application(Service(Finder(index, WholeModel(index, retriever)), manifest.storage), ["127.0.0.1"])

    async def noting(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            asked.append((scope["path"], dict(scope["headers"]).get(b"range", b"").decode()))
        await app(scope, receive, send)

    listening = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(noting, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("chromium")) as found:
        yield found


def test_a_description_is_typed_and_a_hit_is_heard_where_it_answers(
    page: Browser, address: str, asked: list[tuple[str, str]]
) -> None:
    page.go(address)
    page.until("document.querySelectorAll('#examples button').length")
    assert page.run("document.activeElement.id") == "words"
    page.type("a low hum -hiss")
    page.press("Enter")
    assert page.until(HITS) == 20
    assert page.run("location.search") == "?q=a+low+hum+-hiss"
    assert "without hiss" in page.run("document.getElementById('status').textContent")
    page.press("ArrowDown")
    page.press("ArrowDown")
    assert page.run("[...document.querySelectorAll('.hit')].findIndex((hit) => hit.matches('.here'))") == 1
    page.until(
        "document.querySelector('.hit canvas').width > 20 && document.querySelector('.hit canvas').height === 72"
    )
    page.press(" ")
    page.until("document.querySelectorAll('.hit')[1].querySelector('audio').currentTime > hits[1].from_s")
    assert page.run("document.querySelectorAll('.hit')[1].matches('.playing')")
    entry = page.run("hits[1].entry")
    assert any(path == f"/sound/{entry}" and ranged.startswith("bytes=") for path, ranged in asked)
    assert page.run(f"fetch('/sound/{entry}', {{headers: {{Range: 'bytes=0-9'}}}}).then((a) => a.status)") == 206
    page.press(" ")
    page.until("document.querySelectorAll('.hit')[1].querySelector('audio').paused")


def test_the_address_of_a_search_brings_it_back(page: Browser, address: str) -> None:
    page.go(address + "?q=some+hiss&dataset=clotho%2Fevaluation&top=5")
    page.until(HITS)
    assert page.run("[...new Set(hits.map((hit) => hit.split))]") == ["evaluation"]
    assert page.run("document.getElementById('words').value") == "some hiss"
    assert page.run("document.getElementById('dataset').value") == "clotho/evaluation"
    first = page.run("hits[0].entry")
    page.press("ArrowDown")
    page.press("m")
    page.until(f"location.search.includes('like={first}') && !document.body.matches('.busy')")
    page.until("document.querySelectorAll('#chosen li').length === 1")
    page.run("history.back()")
    page.until("document.getElementById('words').value === 'some hiss'")
    page.until(f"hits.length && hits[0].entry === {first}")


def test_a_dropped_sound_finds_itself_and_its_name_is_shown_as_text(page: Browser, address: str) -> None:
    page.go(address)
    page.until("document.querySelectorAll('#examples button').length")
    page.run(DROP)
    page.until(f"location.search.includes('sound=') && {HITS}")
    assert page.run("hits[0].score") > 0.9
    assert page.run("document.querySelector('#chosen span').textContent") == "like: <b>mine</b>.flac"
    assert page.run("document.getElementById('drop').hidden")


def test_what_is_refused_is_said_on_the_page(page: Browser, address: str) -> None:
    page.go(address + "?sound=forgotten")
    page.until("document.getElementById('status').matches('.wrong')")
    said = page.run("document.getElementById('status').textContent")
    assert said == "This sound is not known here any more; drop it on the page again."
    page.go(address + "?q=-rain")
    page.until("document.getElementById('status').textContent.startsWith('Nothing to look for')")


def test_the_page_fits_a_phone(page: Browser, address: str) -> None:
    page.ask("Emulation.setDeviceMetricsOverride", width=360, height=700, deviceScaleFactor=2, mobile=True)
    page.go(address + "?q=hum")
    page.until(HITS)
    time.sleep(0.2)
    assert page.run("document.documentElement.scrollWidth") <= 360
    page.ask("Emulation.clearDeviceMetricsOverride")
