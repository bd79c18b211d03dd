"""Models where there is no network: who asks for one is answered soon, and told what to do."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from huggingface_hub import constants

from tests.conftest import REPOSITORY
from training.models import downloads
from training.models.downloads import is_hub_name, only_here

NOBODY = "http://127.0.0.1:9"  # a connection to this port is refused


def test_folders_and_paths_are_no_names_on_the_hub(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    for source in (str(tmp_path / "model"), "/no/such/model", "../model", "s3://bucket/run"):
        assert not is_hub_name(source) and only_here(source)
    assert is_hub_name("bert-base-uncased") and is_hub_name("openai/whisper-tiny.en")


def test_a_hub_that_refuses_or_never_answers_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "ANSWER_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and says nothing
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        assert only_here("nobody/model")
        once = time.monotonic() - began
        assert only_here("nobody/other") and time.monotonic() - began < 2 * once < 8


def test_a_recipe_whose_models_are_nowhere_names_the_option_for_a_folder(build: Path, tmp_path: Path) -> None:
    environment = os.environ | {"HF_ENDPOINT": NOBODY, "HF_HOME": str(tmp_path / "home")}
    environment.pop("HF_HUB_OFFLINE", None)
    command = [sys.executable, "-m", "training", "order", "own_sounds", f"--shards={build}"]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=25)
    assert done.returncode == 2, done.stderr
    assert "the Hugging Face hub does not answer" in done.stderr and "--set text.source=FOLDER" in done.stderr
