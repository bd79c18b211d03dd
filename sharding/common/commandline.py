"""The command lines' shared part: one module for each command, ``--json`` for machines, errors without tracebacks."""

from __future__ import annotations

import argparse
import difflib
import importlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from sharding.common.errors import InputError
from sharding.common.processes import number_of
from sharding.common.terminal import accept_any_text, page


class Command(NamedTuple):
    """A command of a program.

    Attributes:
        group: the heading under which ``--help`` lists it.
        module: the module that implements it; imported only when the command is used, so that ``--help`` is quick.
            It offers ``add_arguments(parser)``, ``run(args) -> dict``, whose result is plain JSON with the exit status
            in ``"exit"`` where that is not 0, and ``show(result) -> str``, the result for a person.
        summary: one line of help.
    """

    group: str
    module: str
    summary: str


def main(
    program: str,
    about: str,
    commands: Mapping[str, Command],
    argv: Sequence[str] | None,
    extend: Callable[[argparse.ArgumentParser], None] = lambda parser: None,
    carry_out: Callable[[Any, argparse.Namespace], dict[str, Any]] = lambda command, args: command.run(args),
) -> int:
    """Run one command and return the exit status.

    With ``--json``, the last line on standard output is the result as one JSON object, and nothing else is printed
    there.  ``InputError`` ends with status 2, an interrupt with 128 plus the signal's number.

    Args:
        program: the program's name in messages.
        about: one sentence of help.
        commands: by name, in the order in which ``--help`` lists them.
        argv: the words after the program's name; None: this process's own.
        extend: adds arguments to the parser of the command that is used.
        carry_out: runs the command's module with its arguments, here or elsewhere.
    """
    accept_any_text()
    try:  # importing a command's module takes a second, in which nothing has begun
        args = _parse(program, about, commands, list(sys.argv[1:] if argv is None else argv), extend)
        command = importlib.import_module(commands[args.command].module)
    except KeyboardInterrupt as interrupt:
        return _status(interrupt)
    try:
        result = carry_out(command, args)
        # JSON of ASCII alone, which no terminal takes for anything else and every encoding can hold
        print(json.dumps(result) if args.json else page(command.show(result).split("\n")), flush=True)
    except InputError as error:
        _complain(program, args.command, str(error))
        return 2
    except BrokenPipeError:  # the reader of a pipe such as `... | head` has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        _complain(program, args.command, str(_explained(error)))
        return 2
    except KeyboardInterrupt as interrupt:
        _complain(program, args.command, "interrupted; run the same command again to continue")
        return _status(interrupt)
    return int(result.get("exit", 0))


def _explained(error: OSError) -> InputError:
    from sharding.common.storage.failures import is_full  # takes long to import

    remedy = "make room there and run the same command again" if is_full(error) else None
    what = f"reading or writing failed: {error.strerror or error}"
    return InputError(what, file=error.filename or None, remedy=remedy)


def text(word: str) -> str:
    """An argument that is text and no path, for ``add_argument(type=text)``.

    In a locale without UTF-8, Python keeps the bytes of other characters as surrogates; they are read as UTF-8 here.
    """
    try:
        return os.fsencode(word).decode("utf-8")
    except UnicodeError as error:
        raise argparse.ArgumentTypeError("the text is not UTF-8") from error


def _complain(program: str, command: str, what: str) -> None:
    print(page(f"{program} {command}: {what}".split("\n")), file=sys.stderr)


class _Parser(argparse.ArgumentParser):
    """Refuses words as commands refuse bad input: what is wrong and what to do, without the usage of all options."""

    def error(self, message: str) -> NoReturn:
        self.refuse(message.removeprefix("argument "), remedy=f"`{self.prog} --help` explains the arguments")

    def refuse(self, what: str, value: object = None, remedy: str | None = None) -> NoReturn:
        self.exit(2, page(f"{self.prog}: {InputError(what, value=value, remedy=remedy)}".split("\n")) + "\n")

    def refuse_unknown(self, words: Sequence[str]) -> NoReturn:
        """Refuse words that no argument takes: a mistyped option, or a text that lacks its quotes."""
        option = next((word.partition("=")[0] for word in words if word.startswith("-")), None)
        if option is None:
            advice = f"put a text of several words in quotes; `{self.prog} --help` explains the arguments"
            self.refuse("there are more words than arguments", " ".join(words), advice)
        options = re.findall(r"(?<![\w-])--?[a-z][\w-]*", self.format_usage())
        self.refuse("there is no such option", option, f"{_guess(option, options)}`{self.prog} --help` lists all")


def _guess(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, known, 1)
    return f"did you mean {near[0]}? " if near else ""


def _parse(
    program: str,
    about: str,
    commands: Mapping[str, Command],
    argv: list[str],
    extend: Callable[[argparse.ArgumentParser], None],
) -> argparse.Namespace:
    parser = _Parser(
        prog=program,
        usage=f"{program} COMMAND ...",
        description=f"{about}\n\n{_overview(commands)}\n`{program} COMMAND --help` explains a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", help=argparse.SUPPRESS)
    completing = "_ARGCOMPLETE" in os.environ  # the shell asks how its line may go on
    words = os.environ.get("COMP_LINE", "").split() if completing else argv
    used = next((word for word in words if word in commands), None)
    if argv and argv[0] not in commands and not argv[0].startswith("-") and not completing:
        parser.refuse("there is no such command", argv[0], f"{_guess(argv[0], commands)}`{program} --help` lists all")
    for name, command in commands.items():
        # the program's own name, for argparse would put the usage line above into each command's
        subparser = subparsers.add_parser(name, prog=f"{program} {name}", description=command.summary)
        if name == used:
            importlib.import_module(command.module).add_arguments(subparser)
            extend(subparser)
        subparser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    if completing:
        import argcomplete

        argcomplete.autocomplete(parser)
    args, unknown = parser.parse_known_args(argv)
    if unknown:  # said by the command's own parser, with its name
        subparsers.choices[args.command].refuse_unknown(unknown)
    return args


def _overview(commands: Mapping[str, Command]) -> str:
    """The commands by group."""
    width = max(len(name) for name in commands)
    lines = []
    for group in dict.fromkeys(command.group for command in commands.values()):
        lines.append(f"{group}:")
        lines += [f"  {name:{width}}  {one.summary}" for name, one in commands.items() if one.group == group]
        lines.append("")
    return "\n".join(lines)


def _status(interrupt: KeyboardInterrupt) -> int:
    return 128 + number_of(interrupt)
