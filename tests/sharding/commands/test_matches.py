"""The command that compares two sound files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from sharding.cli import main
from tests.sharding.corpora import RATE, noise


def test_what_cannot_be_compared_is_not_called_different(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, wave in (("short", noise(0, 0.1)), ("still", np.zeros(RATE)), ("sound", noise(1, 1.0))):
        soundfile.write(tmp_path / f"{name}.wav", wave, RATE)
    for name, told in (("short", "too_short"), ("still", "silent"), ("absent", "No such file")):
        assert main(["matches", "--pairs", str(tmp_path / "sound.wav"), str(tmp_path / f"{name}.wav")]) == 2
        shown = capsys.readouterr().err
        assert told in shown and f"{name}.wav" in shown
    assert main(["matches", "--pairs", *2 * [str(tmp_path / "sound.wav")]]) == 0
