"""A decided change ends in the same files, wherever the builders that carry it out are killed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharding.build import journal
from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.layout import Work, in_work
from tests.sharding.build.kills import Death, Killed
from tests.sharding.corpora import tree

CHANGE = [
    journal.remove("dataset.json"),
    journal.move("new/shard", "shards/shard"),
    journal.remove_folder("old"),
    journal.copy("new/dataset.json", "dataset.json"),
    journal.write("settings.json", b"{}"),
]
CLEANUP = [journal.remove_folder("new"), journal.remove("note")]
AFTER = {"dataset.json": b"new", "shards/shard": b"sound", "settings.json": b"{}", "other": b"stays"}


def before(folder: Path) -> Storage:
    shutil.rmtree(folder, ignore_errors=True)
    out = Storage(folder)
    files = {
        "dataset.json": "old",
        "new/dataset.json": "new",
        "new/shard": "sound",
        "old/a": "",
        "old/b": "",
        "note": "",
    }
    for name, text in (files | {"other": "stays"}).items():
        out.write(name, text.encode())
    return out


def test_a_change_is_made_and_leaves_no_intent(tmp_path: Path) -> None:
    journal.carry_out(before(tmp_path / "out"), CHANGE, CLEANUP)
    assert tree(tmp_path / "out") == AFTER


def test_finish_changes_nothing_if_there_is_no_intent(tmp_path: Path) -> None:
    out = before(tmp_path / "out")
    found = tree(tmp_path / "out")
    journal.finish(out)
    assert tree(tmp_path / "out") == found


@settings(max_examples=40, deadline=None)
@given(kills=st.lists(st.integers(1, 12), min_size=1, max_size=4))
def test_however_often_it_is_killed_the_change_is_finished(
    kills: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("journal") / "out"
    out = before(folder)
    untouched = tree(folder)
    with pytest.MonkeyPatch.context() as patched:
        death = Death(patched)
        for number, moment in enumerate(kills):
            death.left = moment
            try:
                if number == 0:
                    journal.carry_out(out, CHANGE, CLEANUP)
                else:
                    journal.finish(out)
            except Killed:
                pass
    decided = out.exists(in_work(Work.INTENT)) or tree(folder) == AFTER
    journal.finish(out)
    out.sweep()
    assert tree(folder) == (AFTER if decided else untouched)


@pytest.mark.parametrize(
    "intent",
    [
        "[]",
        '{"operations": []}',
        '{"operations": [["format", "disk", ""]], "cleanup": []}',
        '{"operations": [1], "cleanup": []}',
        '{"operations": [["remove", "../outside", ""]], "cleanup": []}',
    ],
)
def test_an_intent_that_no_builder_wrote_is_refused(intent: str, tmp_path: Path) -> None:
    out = before(tmp_path / "out")
    (tmp_path / "outside").write_text("not ours")
    out.write(in_work(Work.INTENT), intent.encode())
    with pytest.raises(InputError):
        journal.finish(out)
    assert (tmp_path / "outside").exists()


def test_an_intent_is_json_that_lists_its_operations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = before(tmp_path / "out")
    Death(monkeypatch).left = 2
    with pytest.raises(Killed):
        journal.carry_out(out, CHANGE, CLEANUP)
    intent = json.loads(out.read(in_work(Work.INTENT)))
    assert intent["operations"][1] == ["move", "shards/shard", "new/shard"]
