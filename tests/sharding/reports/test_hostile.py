"""A report of a damaged or forged build is written, or refused by name; it never ends in a traceback."""

from __future__ import annotations

import copy
import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sharding.common.errors import InputError
from sharding.reports.report import write_report

VALUES = [None, True, -1, 10**30, 0.5, float("nan"), "", "../..", "<b>", [], {}, [[]], {"a": 1}]


@pytest.fixture(scope="module")
def hostile(reported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("hostile") / "out"
    shutil.copytree(reported, out)
    return out


def change(document: Any, rng: random.Random) -> Any:
    """The document with one value, at any depth, replaced or removed."""
    if not isinstance(document, dict | list) or not document or rng.random() < 0.1:
        return rng.choice(VALUES)
    changed = copy.copy(document)
    key = rng.choice(list(document)) if isinstance(document, dict) else rng.randrange(len(document))
    if rng.random() < 0.2:
        del changed[key]
    else:
        changed[key] = change(document[key], rng)
    return changed


@pytest.mark.slow
@pytest.mark.parametrize("name", ["overview.json", ".build/settings.json"])
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_any_changed_value_is_shown_or_refused(name: str, hostile: Path, reported: Path, seed: int) -> None:
    whole = (reported / name).read_text()
    (hostile / name).write_text(json.dumps(change(json.loads(whole), random.Random(seed))))
    try:
        assert Path(write_report(hostile)).read_text().endswith("</html>")
    except InputError as error:
        assert Path(name).name in str(error)
    finally:
        (hostile / name).write_text(whole)
