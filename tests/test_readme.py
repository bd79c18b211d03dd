"""What the README shows works: every command line parses, and the examples run on a small corpus."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import sharding.cli
import training.cli
from ray_jobs import train
from ray_jobs.earshot import main
from tests.conftest import REPOSITORY

COMMANDS = sharding.cli.COMMANDS | training.cli.COMMANDS
BLOCK = re.compile(r"(?:^    .*\n|^\n)+", re.MULTILINE)


def blocks() -> list[str]:
    """The indented blocks of the README without their indentation."""
    text = (REPOSITORY / "README.md").read_text()
    found = (re.sub(r"(?m)^    ", "", block).strip("\n") for block in BLOCK.findall(text))
    return [block for block in found if block]


def lines() -> list[str]:
    return [line for block in blocks() for line in block.splitlines()]


def words(line: str) -> list[str]:
    """The words of a command line without its comment; an argument in brackets counts as given."""
    return [word.strip("[]") for word in shlex.split(line, comments=True)]


COMMAND_LINES = [words(line)[1:] for line in lines() if line.startswith("earshot ")]
LAUNCHED = [words(line) for line in lines() if re.match(r"torchrun|deepspeed|ray job", line)]
PAGES = [page for page in sorted((REPOSITORY / "docs").glob("*.md")) if "\n    earshot " in page.read_text()]


def parse(command: str, arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(exit_on_error=False)
    importlib.import_module(COMMANDS[command].module).add_arguments(parser)
    return parser.parse_args(arguments)


def test_the_readme_shows_every_command_but_the_one_for_trying_things_out() -> None:
    assert {command for command, *_ in COMMAND_LINES} == set(COMMANDS) - {"demo-corpus"}


@pytest.mark.parametrize("line", COMMAND_LINES, ids=" ".join)
def test_every_command_line_is_accepted(line: list[str]) -> None:
    parse(line[0], line[1:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_line_of_a_page_is_accepted(page: Path) -> None:
    for block in re.findall(r"(?m)^    (earshot .+)$", page.read_text()):
        for line in block.split("; "):
            command, *arguments = words(line)[1:]
            parse(command, arguments)


@pytest.mark.parametrize("line", LAUNCHED, ids=" ".join)
def test_every_launched_command_line_is_accepted(line: list[str]) -> None:
    if "training" in line:
        command, *arguments = line[line.index("training") + 1 :]
        parse(command, arguments)
        return
    script = next(word for word in line if word.startswith("ray_jobs/"))
    assert (REPOSITORY / script).is_file()
    arguments = line[line.index(script) + 1 :]
    if script == "ray_jobs/train.py":
        parser = argparse.ArgumentParser()
        train.add_arguments(parser)
        parser.parse_args(arguments)
    else:
        named = {"ray_jobs/build_shards.py": "build", "ray_jobs/evaluate.py": "evaluate"}
        parse(*((named[script], arguments) if script in named else (arguments[0], arguments[1:])))


def test_the_readme_names_every_page_and_only_files_that_exist() -> None:
    named = re.findall(r"`((?:docs|bench|tests|ray_jobs)/[\w/.]+)`", (REPOSITORY / "README.md").read_text())
    assert {f"docs/{page.name}" for page in (REPOSITORY / "docs").glob("*.md")} <= set(named)
    assert [name for name in named if not (REPOSITORY / name).exists()] == []


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build of a small synthesised corpus, made with the command line that the README shows."""
    folder = tmp_path_factory.mktemp("readme")
    corpus = folder / "corpus"
    assert main(["demo-corpus", str(corpus), "--clips", "40"]) == 0
    line = next(line for line in COMMAND_LINES if line[0] == "build" and "--clotho" in line)
    datasets = iter(("clotho", "audiocaps", "wavcaps", "tacos"))
    known = {"OUT": str(folder / "out"), "8": "1"}
    assert main([str(corpus / next(datasets)) if word == "DIR" else known.get(word, word) for word in line]) == 0
    return folder / "out"


def value_of(word: str, build: Path, folder: Path) -> str:
    """What stands for a placeholder of the README."""
    sounds = sorted((build.parent / "corpus/clotho/evaluation").glob("*.wav"))
    known: dict[str, Callable[[], object]] = {
        "OUT": lambda: build,
        "NEW": lambda: folder / "new",
        "PNG": lambda: folder / "plot.png",
        "DIR": lambda: folder / "dir",
        "CLIP": lambda: f"clotho/evaluation/{sounds[0].stem}",
        "KEY": lambda: f"clotho/evaluation/{sounds[0].stem}",
        "A": lambda: sounds[0],
        "B": lambda: sounds[1],
    }
    return str(known[word]()) if word in known else word


@pytest.mark.slow
@pytest.mark.parametrize("command", ["verify", "inspect", "stats", "explain", "matches", "report", "export", "reshard"])
def test_the_commands_that_look_into_a_build_run(command: str, build: Path, tmp_path: Path) -> None:
    line = next(line for line in COMMAND_LINES if line[0] == command)
    assert main([value_of(word, build, tmp_path) for word in line]) == 0


@pytest.mark.slow
def test_the_example_of_the_loader_runs(build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "a": 2, "dog": 3, "rain": 4}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    fast.save_pretrained(tmp_path / "tokenizer")
    (example,) = (block for block in blocks() if "import" in block)
    known = {'"OUT"': repr(str(build)), '"TOKENIZER"': repr(str(tmp_path / "tokenizer"))}
    known |= {"batch_size=32": "batch_size=4", "workers=2": "workers=0"}
    for placeholder, value in known.items():
        assert example.count(placeholder) == 1
        example = example.replace(placeholder, value)
    exec(compile(example, "README.md", "exec"), {})
    assert "torch.Size([4, " in capsys.readouterr().out
