from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sharding.common.errors import InputError
from tests.training.small_runs import REPOSITORY, small_recipe
from training.engine.distributed import LocalGroup
from training.run import lock

HOLDER = """
import sys, time
from pathlib import Path
from tests.training.small_runs import small_recipe
from training.run.lock import hold_run_folder
from training.engine.distributed import LocalGroup

with hold_run_folder(small_recipe(), Path(sys.argv[1]), LocalGroup()):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_trainer_is_kept_out_until_the_first_one_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        monkeypatch.setattr(lock, "PATIENCE_S", 0.1)
        with (
            pytest.raises(InputError, match="another process trains in this folder"),
            lock.hold_run_folder(small_recipe(), tmp_path, LocalGroup()),
        ):
            pass
        monkeypatch.setattr(lock, "PATIENCE_S", 60)
        holder.kill()
    with lock.hold_run_folder(small_recipe(), tmp_path, LocalGroup()):
        assert (tmp_path / "recipe.yaml").is_file()


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(OSError, match="file"),
        lock.hold_run_folder(small_recipe(), tmp_path / "file" / "run", LocalGroup()),
    ):
        pass


def test_code_in_the_folder_of_a_run_does_not_run(tmp_path: Path) -> None:
    with lock.hold_run_folder(small_recipe(), tmp_path, LocalGroup()):
        (tmp_path / "checkpoints/step-000000001").mkdir(parents=True)
    ran = tmp_path / "it-ran"
    (tmp_path / "audio_encoder.py").write_text(f"from pathlib import Path\nPath({str(ran)!r}).touch()\n")
    recipe = yaml.safe_load((tmp_path / "recipe.yaml").read_text())
    recipe["audio"] = {"encoder": "audio_encoder.py:Mine"}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    with (
        pytest.raises(InputError, match=r"another recipe: audio\.encoder: 'Mine of a file"),
        lock.hold_run_folder(small_recipe(), tmp_path, LocalGroup()),
    ):
        pass
    assert not ran.exists()
