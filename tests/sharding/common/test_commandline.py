from __future__ import annotations

import argparse
import json
import os
import sys
from types import ModuleType
from typing import Any

import pytest

from sharding.common.commandline import Command, main, text
from sharding.common.errors import InputError


@pytest.fixture
def outcome(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Decides what the command ``work`` does: it returns ``result``, or raises ``error``."""
    outcome: dict[str, Any] = {"result": {"count": 3}, "error": None}
    module = ModuleType("work_command")

    def add_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--number", type=int, default=0)

    def run(args: argparse.Namespace) -> dict[str, Any]:
        if outcome["error"] is not None:
            raise outcome["error"]
        return outcome["result"] | {"number": args.number}

    module.add_arguments, module.run = add_arguments, run  # type: ignore[attr-defined]
    module.show = lambda result: f"{result['count']} done"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "work_command", module)
    return outcome


def work(*words: str, extend: Any = lambda parser: None) -> int:
    commands = {"work": Command("Work", "work_command", "do the work"), "rest": Command("Rest", "absent", "rest")}
    return main("program", "A program.", commands, ["work", *words], extend)


def test_a_person_gets_words_and_a_machine_json(outcome: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert work() == 0
    assert capsys.readouterr().out == "3 done\n"
    assert work("--number=4", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"count": 3, "number": 4}


def test_a_result_decides_the_exit_status(outcome: dict[str, Any]) -> None:
    outcome["result"] = {"count": 0, "exit": 1}
    assert work() == 1


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (InputError("no such split", value="x", remedy="name another"), 2, "program work: no such split (found 'x')"),
        (OSError(5, "Input/output error", "/data/a.wav"), 2, "/data/a.wav: reading or writing failed: Input"),
        (
            OSError(28, "No space left on device", "/data/a"),
            2,
            "left on device\n  remedy: make room there and run the same",
        ),
        (KeyboardInterrupt(), 130, "run the same command again"),
        (KeyboardInterrupt(15), 143, "interrupted"),
    ],
)
def test_failures_have_a_status_and_one_message_without_a_traceback(
    error: BaseException, status: int, message: str, outcome: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    outcome["error"] = error
    assert work() == status
    shown = capsys.readouterr()
    assert message in shown.err and "Traceback" not in shown.err and shown.out == ""


def test_a_defect_of_the_program_keeps_its_traceback(outcome: dict[str, Any]) -> None:
    outcome["error"] = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        work()


def test_a_reader_that_ends_early_is_no_failure(outcome: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    kept = os.dup(1)
    outcome["error"] = BrokenPipeError()
    try:
        assert work() == 0
    finally:
        os.dup2(kept, 1)
    assert capfd.readouterr().err == ""


def test_only_the_module_of_the_used_command_is_imported(outcome: dict[str, Any]) -> None:
    assert work() == 0  # the other command's module does not exist


def test_a_program_can_add_arguments_to_the_used_command(outcome: dict[str, Any]) -> None:
    seen = []

    def extend(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--more")
        seen.append(parser.prog)

    assert work("--more=1", extend=extend) == 0
    assert seen == ["program work"]


@pytest.mark.parametrize(
    ("words", "what", "remedy"),
    [
        (["work", "--numbr", "4"], "program work: there is no such option (found '--numbr')", "did you mean --number?"),
        (["work", "--xyz=4"], "program work: there is no such option (found '--xyz')", "`program work --help` lists"),
        (["work", "a", "dog"], "program work: there are more words than arguments (found 'a dog')", "in quotes"),
        (["work", "--number=x"], "program work: --number: invalid int value: 'x'", "`program work --help` explains"),
        (["wrok"], "program: there is no such command (found 'wrok')", "did you mean work?"),
        ([], "program: the following arguments are required: COMMAND", "`program --help` explains"),
    ],
)
def test_words_that_cannot_be_meant_are_refused_in_two_lines(
    outcome: dict[str, Any], capsys: pytest.CaptureFixture[str], words: list[str], what: str, remedy: str
) -> None:
    commands = {"work": Command("Work", "work_command", "do the work")}
    with pytest.raises(SystemExit) as end:
        main("program", "A program.", commands, words)
    said = capsys.readouterr().err.splitlines()
    assert end.value.code == 2
    assert len(said) == 2 and said[0] == what and said[1].startswith("  remedy: ") and remedy in said[1]


def test_texts_are_utf8_in_every_locale() -> None:
    assert text(os.fsdecode("é dog".encode())) == "é dog"
    with pytest.raises(argparse.ArgumentTypeError):
        text(os.fsdecode(b"\xff"))
