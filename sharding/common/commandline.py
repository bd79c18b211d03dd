"""One way to be a command line: verbs as modules, ``--json`` for machines, errors without tracebacks."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from sharding.common.errors import InputError


def main(program: str, about: str, verbs: Mapping[str, tuple[str, str]], argv: Sequence[str] | None) -> int:
    """Run one verb and return the exit status.

    ``verbs`` maps a verb to (module, one line of help).  A verb's module is imported only when the verb
    is used, so ``--help`` is quick, and offers

    - ``add_arguments(parser)``,
    - ``run(args) -> dict``: does the work; the result is plain JSON, and ``result["exit"]``, where
      present, is the exit status,
    - ``show(result) -> str``: the result for a person.

    With ``--json`` the last line on standard output is the result as one JSON object, and nothing else
    is printed there.  ``InputError`` ends with status 2, an interrupt with 130 (a SIGTERM that was made one: 143).
    """
    parser = argparse.ArgumentParser(prog=program, description=about)
    subparsers = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    arguments = list(sys.argv[1:] if argv is None else argv)
    wanted = next((word for word in arguments if word in verbs), None)
    try:
        for verb, (module, help_line) in verbs.items():
            subparser = subparsers.add_parser(verb, help=help_line, description=help_line)
            if verb == wanted:
                importlib.import_module(module).add_arguments(subparser)
            subparser.add_argument("--json", action="store_true", help="print the result as one JSON object")
        args = parser.parse_args(arguments)
        verb_module = importlib.import_module(verbs[args.verb][0])
    except KeyboardInterrupt as interrupt:  # importing takes a second, in which nothing has begun
        return _status(interrupt)
    try:
        result: dict[str, Any] = verb_module.run(args)
        print(json.dumps(result, ensure_ascii=False) if args.json else verb_module.show(result), flush=True)
    except InputError as error:
        print(f"{program} {args.verb}: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if isinstance(error, BrokenPipeError):  # `... | head`: nobody reads any more
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        print(f"{program} {args.verb}: reading or writing failed: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print(f"{program} {args.verb}: interrupted; the same command goes on from here", file=sys.stderr)
        return _status(interrupt)
    return int(result.get("exit", 0))


def _status(interrupt: KeyboardInterrupt) -> int:
    return 128 + int(interrupt.args[0] if interrupt.args else signal.SIGINT)
