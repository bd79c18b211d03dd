"""Facts are read from wherever a build keeps them."""

from __future__ import annotations

import shutil
from pathlib import Path

from sharding.common.storage import Storage
from sharding.reports.facts import finished_facts, read_facts
from sharding.rows import FactsRow, rows
from sharding.schema import FACTS


def test_every_probed_clip_has_one_row(built: Path) -> None:
    facts = list(rows(finished_facts(Storage(built)), FactsRow))
    assert len({row.clip_id for row in facts}) == len(facts) == 14
    assert {row.clip_id: row.error for row in facts if row.error} == {
        "mine/train/page": "not_audio",
        "mine/train/gone": "missing",
    }
    assert all(row.duration_s and row.windows for row in facts if not row.error)


def test_some_columns_can_be_read_alone(built: Path) -> None:
    table = finished_facts(Storage(built), ["clip_id", "detail"])
    assert table.column_names == ["clip_id", "detail"]


def test_a_build_without_facts_has_an_empty_table(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built, tmp_path / "out", ignore=shutil.ignore_patterns(".build"))
    assert finished_facts(Storage(tmp_path / "out")).num_rows == 0
    assert read_facts(Storage(tmp_path), ["clip_id"]).schema.equals(FACTS.empty_table().select(["clip_id"]).schema)
