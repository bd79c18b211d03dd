"""The HTML report counts every clip, loads nothing from elsewhere, and no caption can break it."""

from __future__ import annotations

import copy
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from sharding.cli import main
from sharding.common.pages import environment
from sharding.fates.decide import REASONS
from sharding.reports.contents import BuildContents
from sharding.reports.report import TEMPLATES, page_values, write_report


@pytest.fixture(scope="module")
def page(reported: Path) -> str:
    return Path(write_report(reported)).read_text()


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


def test_every_clip_is_counted_and_every_reason_is_explained(page: str, reported: Path) -> None:
    assert "3 of 6 clips were written to the shards" in page
    dataset = json.loads((reported / "dataset.json").read_text())
    for name in dataset["reasons"]:
        fate, _, reason = name.partition("/")
        if fate != "written":
            assert f"<code>{reason}</code>" in page
            assert REASONS[reason] in page.replace("&#39;", "'")
    assert re.search(r'mine/test <span class="soft small">protected', page)


def test_leaks_and_duplicates_can_be_heard_on_both_sides(page: str) -> None:
    leaks = page.split("Training clips that share sound with protected splits")[1].split("<h2>")[0]
    assert "mine/train/leak" in leaks and "mine/test/held" in leaks
    assert leaks.count("<audio") == 2
    duplicates = page.split("<h2>Duplicates")[1].split("<h2>")[0]
    assert {"mine/train/one", "mine/train/copy"} <= set(re.findall(r"<code>([^<]+)</code>", duplicates))
    assert duplicates.count("<audio") == 2


def test_a_page_is_written_where_the_datasets_are_gone(reported: Path, tmp_path: Path) -> None:
    moved = tmp_path / "out"
    shutil.copytree(reported, moved)
    settings = json.loads((moved / ".build/settings.json").read_text())
    settings["sources"] = {"mine": str(tmp_path / "nowhere")}
    (moved / ".build/settings.json").write_text(json.dumps(settings))
    text = Path(write_report(moved)).read_text()
    assert "no sound available" in text and "3 of 6 clips" in text


def test_the_command_names_the_page_and_refuses_what_is_no_build(
    reported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(reported), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["report"].endswith("report/index.html")
    assert main(["report", str(tmp_path)]) == 2
    assert "this is not the folder of a build" in capsys.readouterr().err


def leaks_section(build: BuildContents) -> str:
    page = environment(TEMPLATES).get_template("report.html").render(page_values(build))
    return page.split("Training clips that share sound with protected splits")[1].split("<h2>")[0]


def test_the_page_says_which_protected_clips_were_compared(contents: BuildContents) -> None:
    assert contents.dataset["protection"] == [
        {"dataset": "mine", "split": "test", "clips": 1, "compared": 1, "not_compared": {}}
    ]
    rows = re.findall(r"<tr><td>(mine/test)</td>(.*?)</tr>", leaks_section(contents))
    assert [re.findall(r">(\d+)</td>", cells) for _, cells in rows] == [["1", "1", "0"]]


def test_text_from_data_cannot_act_on_a_terminal_that_shows_the_page(contents: BuildContents) -> None:
    build, nasty = copy.copy(contents), "\x1b[31mred \u202e\x07 <i>"
    caption = {"text": nasty, "kind": "human", "onset": None, "offset": None, "source": None}
    for name in ("catalogue", "first"):
        table = getattr(contents, name)
        rows = [row | {"captions": [caption]} for row in table.to_pylist()]
        setattr(build, name, pa.Table.from_pylist(rows, table.schema))
    page = environment(TEMPLATES).get_template("report.html").render(page_values(build))
    assert r"\x1b[31mred \u202e\x07 &lt;i&gt;" in page
    assert page.count("<audio") > 4 and not set(page) & set("\x1b\u202e\x07")


def test_what_was_not_compared_is_never_called_free_of_leaks(contents: BuildContents) -> None:
    build = copy.copy(contents)
    build.fates = contents.fates.filter(pc.not_equal(contents.fates["fate"], "withheld"))
    split = {"dataset": "mine", "split": "test", "clips": 5, "compared": 3, "not_compared": {"missing": 2}}
    build.dataset = {**contents.dataset, "protection": [split]}
    shown = leaks_section(build)
    assert "with a protected clip that could be compared" in shown and "2 <code>missing</code>" in shown
    assert re.search(r'class="n lost">2<', shown)
    build.dataset = {name: value for name, value in contents.dataset.items() if name != "protection"}
    assert "did not count how many protected clips" in leaks_section(build)
    build.dataset = {**contents.dataset, "protection": []}
    assert "protects no split" in leaks_section(build)
