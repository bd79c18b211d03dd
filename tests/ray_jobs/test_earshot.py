"""The one command that has the commands of both halves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ray_jobs.earshot import COMMANDS, main
from sharding import cli as sharding_cli
from tests.conftest import REPOSITORY
from training import cli as training_cli


def test_it_has_every_command_of_both_halves_once() -> None:
    assert not sharding_cli.COMMANDS.keys() & training_cli.COMMANDS.keys()
    assert set(COMMANDS) == {*sharding_cli.COMMANDS, *training_cli.COMMANDS}


def test_help_lists_the_commands_by_what_a_person_wants_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    shown = capsys.readouterr().out
    assert left.value.code == 0
    headings = ["Build a data set:", "Look into a data set:", "Train a model:", "Use a model:"]
    assert [line for line in shown.splitlines() if line in headings] == headings
    assert all(f"\n  {name} " in shown for name in COMMANDS)


def test_commands_that_runners_serve_can_run_over_ray(capsys: pytest.CaptureFixture[str]) -> None:
    for name, over_ray in (("build", True), ("verify", True), ("inspect", False)):
        with pytest.raises(SystemExit):
            main([name, "--help"])
        assert ("--ray ADDRESS" in capsys.readouterr().out) == over_ray
    with pytest.raises(SystemExit):
        sharding_cli.main(["build", "--help"])
    assert "--ray" not in capsys.readouterr().out  # `sharding` knows nothing of Ray


def test_help_imports_neither_arrow_nor_torch() -> None:
    words = "import sys; from ray_jobs.earshot import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    words += "print(sorted({'pyarrow', 'torch', 'ray', 'numpy'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", words], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"


def completions(line: str, folder: Path) -> list[str]:
    """What a shell offers at the end of ``line``; argcomplete answers on file descriptor 8."""
    answer = folder / "answer"
    environment = os.environ | {
        "_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_TYPE": "9", "IFS": "\n",
        "_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_STDOUT_FILENAME": str(answer), "PYTHONPATH": str(REPOSITORY),
    }  # fmt: skip
    command = [sys.executable, "-c", "from ray_jobs.earshot import program; program()"]
    subprocess.run(command, env=environment, check=True, timeout=60)
    return [word.strip() for word in answer.read_text().split("\n")]


@pytest.mark.parametrize(
    ("line", "offered"),
    [("earshot sea", "search"), ("earshot verify --de", "--decode"), ("earshot build --leaks tr", "trim")],
)
def test_shells_complete_commands_options_and_choices(line: str, offered: str, tmp_path: Path) -> None:
    assert completions(line, tmp_path) == [offered]
