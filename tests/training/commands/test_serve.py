"""``serve`` as a process: it says where the page is, answers there, and ends when it is interrupted."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from sharding.shards.manifest import Manifest
from tests.conftest import REPOSITORY
from tests.training.search.indexes import SHORT, exported, indexed, untrained
from training.cli import main


def test_a_folder_that_is_no_index_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("uvicorn")
    assert main(["serve", str(tmp_path), "--port", "0"]) == 2
    assert "no finished index here" in capsys.readouterr().err


@pytest.mark.slow
def test_the_page_is_there_until_it_is_interrupted(build: Path, tmp_path: Path) -> None:
    pytest.importorskip("uvicorn")
    retriever = untrained([])
    model = exported(retriever, tmp_path / "model")
    indexed(retriever, Manifest.open(build), tmp_path / "index", windows=SHORT, model=str(model))
    command = [sys.executable, "-m", "training", "serve", str(tmp_path / "index"), "--port", "0"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        address = next(found[0] for line in process.stderr if (found := re.search(r"http://127\.0\.0\.1:\d+/", line)))
        with urllib.request.urlopen(address + "api/search?q=hum") as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()
