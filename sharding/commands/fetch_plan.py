"""``fetch-plan``: where each published dataset lies, and the commands that fetch it."""

from __future__ import annotations

import argparse
import hashlib
import shlex
from pathlib import Path
from typing import Any

from sharding.commands.arguments import describe, on_this_machine
from sharding.common.errors import InputError
from sharding.common.terminal import page
from sharding.sources.origins import ORIGINS, File

_ABOUT = """Say where the authors of each dataset publish it, with sizes, licences and checksums, and the commands.

Nothing is downloaded.  With --check, the files that lie in the folders are compared with the published sizes and
checksums; the exit status is 1 if any of them differs."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    describe(parser, _ABOUT)
    parser.add_argument(
        "datasets", nargs="*", metavar="DATASET", help=f"of {', '.join(ORIGINS)}; by default all of them"
    )
    parser.add_argument(
        "--to",
        type=on_this_machine,
        default=Path("data"),
        metavar="DIR",
        help="the folder in which each dataset gets a folder of its name (default: data)",
    )
    parser.add_argument(
        "--check", action="store_true", help="compare the files that are already there with the published ones"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    for name in args.datasets:
        if name not in ORIGINS:
            raise InputError("no such published dataset", value=name, remedy="one of " + ", ".join(ORIGINS))
    plans = {name: _plan(name, args.to / name, args.check) for name in dict.fromkeys(args.datasets or ORIGINS)}
    differs = any(file["state"] == "differs" for plan in plans.values() for file in plan["files"])
    return {"datasets": plans, "exit": 1 if differs else 0}


def show(result: dict[str, Any]) -> str:
    lines: list[str] = []
    for name, plan in result["datasets"].items():
        lines += [name, f"  published: {plan['publisher']}", f"  licence:   {plan['licence']}"]
        lines += [f"  size:      {plan['size']}"]
        lines += [_file_line(file) for file in plan["files"]]
        lines += [f"  {remark}" for remark in plan["remarks"]]
        lines += ["", *(f"    {command}" for command in plan["commands"]), ""]
    return page(lines)


def _plan(name: str, folder: Path, check: bool) -> dict[str, Any]:
    origin = ORIGINS[name]
    place = shlex.quote(str(folder))
    folders = sorted({(folder / file.name).parent for file in origin.files} | {folder})
    commands = [f"mkdir -p {shlex.quote(str(path))}" for path in folders]
    commands += [_fetch(folder / file.name, file.address) for file in origin.files]
    commands += [f"(cd {place} && {command})" for file in origin.files if (command := file.unpack)]
    commands += [f"(cd {place} && {command})" for command in origin.commands]
    commands.append(f"earshot build --{name} {place} --out OUT")
    files = [file._asdict() | {"state": _state(folder / file.name, file) if check else None} for file in origin.files]
    return {
        "publisher": origin.publisher,
        "licence": origin.licence,
        "size": origin.size,
        "files": files,
        "remarks": list(origin.remarks),
        "commands": commands,
    }


def _fetch(path: Path, address: str) -> str:
    """The command that downloads a file, and continues where it was interrupted."""
    return f"curl --location --fail --continue-at - --output {shlex.quote(str(path))} {shlex.quote(address)}"


def _file_line(file: dict[str, Any]) -> str:
    size = "" if file["bytes"] is None else f"  {file['bytes']:,} bytes"
    md5 = "" if file["md5"] is None else f"  md5 {file['md5']}"
    state = "" if file["state"] is None else f"  {file['state']}"
    return f"    {file['name']}{size}{md5}{state}"


def _state(path: Path, file: File) -> str:
    """``missing``, ``whole``, ``differs``, or ``there`` where neither size nor checksum is published."""
    try:
        if not path.is_file():
            return "missing"
        if file.bytes is not None and path.stat().st_size != file.bytes:
            return "differs"
        if file.md5 is None:
            return "there"
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=path) from error
    return "whole" if found == file.md5 else "differs"
