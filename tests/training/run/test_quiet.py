"""Libraries print errors only, and report their use to nobody."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from tests.training.small_runs import REPOSITORY
from training.run.quiet import quiet


def test_prints_and_warnings_are_discarded(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with quiet():
            print("shapes")
            warnings.warn("old", UserWarning, stacklevel=1)
        print("result")
    assert capsys.readouterr().out == "result\n" and not seen


def test_libraries_log_errors_only() -> None:
    code = (
        "import training, logging; logging.basicConfig(level=0)\n"
        "for name in ('transformers', 'DeepSpeed'):\n"
        "    logging.getLogger(name).warning('low'); logging.getLogger(name).error('high')"
    )
    shown = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert shown.stderr.count("high") == 2 and "low" not in shown.stderr
    assert logging.getLogger("transformers").filters


def test_onnxruntime_opens_no_session_with_its_makers(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    said = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    code = "import training, onnxruntime"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, env=said | {"TMPDIR": str(tmp_path)}, check=True)
    assert list(tmp_path.iterdir()) == []
