"""``python -m training fit``: its arguments and what it shows."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.training.small_runs import REPOSITORY
from training import cli
from training.commands import fit


def test_a_file_is_no_run_folder(capsys: pytest.CaptureFixture[str]) -> None:
    for run in (__file__, f"{__file__}/below/it"):
        with pytest.raises(SystemExit):
            cli.main(["fit", "demo", "--shards", "shards", "--run", run])
        assert f"{__file__} is a file: name a folder" in capsys.readouterr().err


def test_a_wrong_recipe_ends_with_status_2_and_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fit", "demo", "--shards", "shards", "--run", "run", "--set", "optimizer.lrr=1"]) == 2
    error = capsys.readouterr().err
    assert "did you mean 'lr'" in error and "Traceback" not in error


def test_help_does_not_import_torch() -> None:
    code = (
        "import sys; from training import cli\ntry: cli.main(['fit', '--help'])\nfinally: print('torch' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "False"
    assert "the same command again" in " ".join(shown.stdout.split()).lower()


def test_the_result_shows_figures_beside_chance() -> None:
    validation = {"text_to_audio/mAP@10": 0.25, "text_to_audio/chance_mAP@10": 0.1}
    result = {"steps": 3, "skipped": 0, "loss": 1.5, "export": "RUN/export", "validation": validation}
    assert fit.show(result).splitlines() == [
        "3 steps, loss 1.5000",
        "model: RUN/export",
        "text_to_audio/mAP@10 0.2500 (chance 0.1000)",
    ]
    assert fit.show(result | {"loss": None}).startswith("3 steps\n")
    assert fit.show(result | {"skipped": 1}).startswith("3 steps, 1 of them skipped because they were not finite, loss")
