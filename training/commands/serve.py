"""``serve``: a page on which an index is searched."""

from __future__ import annotations

import argparse
import contextlib
import socket
import sys
from typing import Any

from sharding.common.errors import InputError
from sharding.common.sizes import quantity
from training.commands.search import add_index, open_finder

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Show a page on which the sounds of an index are found by describing them, or by dropping a sound, and are "
        "played where they answer. Only this machine can see it, unless --host names another address."
    )
    add_index(parser)
    parser.add_argument(
        "--shards", metavar="OUT", help="the build that holds the sound, if it has moved since the index was made"
    )
    parser.add_argument(
        "--port", type=int, default=8765, metavar="N", help="the port (default: 8765); 0: any that is free"
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="the address to listen on (default: 127.0.0.1, for this machine alone), such as 192.168.1.5; whoever "
        "reaches another address can search and listen: there is no password",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    try:
        import uvicorn

        from training.search.page.web import application, listen
    except ModuleNotFoundError as error:
        raise InputError(f"the page needs {error.name}", remedy="pip install earshot[search]") from error

    from training.search.page.serving import Service

    listening = listen(args.host, args.port)
    finder = open_finder(args)

    from sharding.common.storage import Storage

    service = Service(finder, Storage(args.shards or finder.index.about["shards"]))
    try:
        service.stored(0)
    except InputError as error:  # it can still be searched
        print(f"sounds cannot be played: {error}", file=sys.stderr)
    names = dict.fromkeys([*LOOPBACK, args.host, socket.gethostname(), socket.getfqdn()])
    config = uvicorn.Config(application(service, names), log_level="warning", access_log=False, server_header=False)
    address = f"http://{args.host}:{listening.getsockname()[1]}/"
    windows = quantity(len(finder.index.entries), "window")
    print(f"{windows} to search: {address}  (Ctrl-C ends)", file=sys.stderr, flush=True)
    with contextlib.suppress(KeyboardInterrupt):  # how people end it
        uvicorn.Server(config).run(sockets=[listening])
    return {"address": address}


def show(result: dict[str, Any]) -> str:
    return "the page has ended"
