"""A build's page: everything is counted, everything is inside, nothing that it shows can break it."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from sharding.build.run import build
from sharding.cli import main
from sharding.common.runners import LocalRunner
from sharding.demo.scenes import make_scene
from sharding.demo.waves import RATE
from sharding.fates.decide import REASONS, FateSettings
from sharding.reports.excerpts import excerpt, player, spectrogram
from sharding.reports.report import write_report
from sharding.settings import BuildSettings
from sharding.sources.protected import parse_protect

NASTY = '<script>alert("x")</script> & a dog barks'


def tone(seed: int, seconds: float = 6.0) -> np.ndarray:
    return make_scene(np.random.default_rng(seed), ("dog", "rain"), seconds).wave


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five kinds of clip: written, a copy of it, one that leaks, a broken one, and a protected one."""
    root = tmp_path_factory.mktemp("report")
    source = root / "mine"
    source.mkdir()
    rows = []
    for name, seed, split in (("one", 1, "train"), ("two", 2, "train"), ("held", 3, "test"), ("leak", 3, "train")):
        sf.write(source / f"{name}.wav", tone(seed), RATE, subtype="PCM_16")
        rows.append({"path": f"{name}.wav", "captions": [NASTY, "A dog barks."], "split": split, "licence": "CC0"})
    shutil.copy(source / "one.wav", source / "copy.wav")
    (source / "page.flac").write_bytes(b"<html>429</html>")
    for name in ("copy.wav", "page.flac"):
        rows.append({"path": name, "captions": ["A dog."], "split": "train"})
    (source / "clips.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = BuildSettings(sources={"mine": str(source)}, fates=FateSettings(protect=parse_protect("mine/test")))
    build(settings, str(root / "out"), LocalRunner(1))
    return root / "out"


@pytest.fixture(scope="module")
def page(built: Path) -> str:
    return Path(write_report(built)).read_text()


class Reader(HTMLParser):
    """Every address that a page loads, and whether its elements are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.loads += [value or "" for name, value in attrs if name == "src" or (tag == "link" and name == "href")]


def test_the_page_loads_nothing_from_elsewhere_and_captions_cannot_break_it(page: str) -> None:
    reader = Reader()
    reader.feed(page)
    assert reader.loads and all(address.startswith("data:") for address in reader.loads)
    assert reader.scripts == 0
    assert "&lt;script&gt;" in page


def test_every_clip_is_counted_and_every_reason_is_explained(page: str, built: Path) -> None:
    assert "6 clips went in, 3 came out" in page
    dataset = json.loads((built / "dataset.json").read_text())
    for name in dataset["reasons"]:
        fate, _, reason = name.partition("/")
        if fate != "written":
            assert f"<code>{reason}</code>" in page
            assert REASONS[reason] in page.replace("&#39;", "'")
    assert re.search(r'mine/test <span class="soft small">protected', page)


def test_leaks_and_duplicates_can_be_heard_on_both_sides(page: str) -> None:
    leaks = page.split("Leaks into protected splits")[1].split("<h2>")[0]
    assert "mine/train/leak" in leaks and "mine/test/held" in leaks
    assert leaks.count("<audio") == 2
    duplicates = page.split("<h2>Duplicates")[1].split("<h2>")[0]
    assert {"mine/train/one", "mine/train/copy"} <= set(re.findall(r"<code>([^<]+)</code>", duplicates))
    assert duplicates.count("<audio") == 2


def test_a_page_is_written_where_the_datasets_are_gone(built: Path, tmp_path: Path) -> None:
    moved = tmp_path / "out"
    shutil.copytree(built, moved)
    settings = json.loads((moved / ".build/settings.json").read_text())
    settings["sources"] = {"mine": str(tmp_path / "nowhere")}
    (moved / ".build/settings.json").write_text(json.dumps(settings))
    text = Path(write_report(moved)).read_text()
    assert "no sound at hand" in text and "6 clips went in" in text


def test_the_command_names_the_page_and_refuses_what_is_no_build(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(built), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["report"].endswith("report/index.html")
    assert main(["report", str(tmp_path)]) == 2
    assert "dataset.json is missing" in capsys.readouterr().err


def test_a_player_is_mp3_of_the_sound_and_a_picture_is_png() -> None:
    import base64
    import io

    wave = tone(9, 2.0)
    kind, _, body = player(wave, RATE).partition(";base64,")
    assert kind == "data:audio/mpeg"
    decoded, rate = excerpt(io.BytesIO(base64.b64decode(body)), 10.0)
    assert len(decoded) / rate == pytest.approx(len(wave) / RATE, abs=0.15)
    assert spectrogram(wave[:100], RATE).startswith("data:image/png;base64,")
