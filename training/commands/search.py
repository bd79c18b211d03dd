"""``search``: find sounds in an index."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from sharding.common.commandline import text
from sharding.common.errors import InputError
from sharding.common.progress import clock
from sharding.common.sizes import quantity
from sharding.common.terminal import page
from training.commands.arguments import add_trust_code
from training.search import CANDIDATES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Find the sounds of an index (see `earshot index`) that fit descriptions, resemble sounds, or both, and show "
        "where in which recording they are, the best ones first."
    )
    add_index(parser)
    parser.add_argument(
        "query", type=text, metavar="TEXT", nargs="?", help='what should be heard, for example "a dog barks"'
    )
    parser.add_argument(
        "--text",
        type=text,
        action="append",
        default=[],
        metavar="TEXT",
        help="what should also be heard; may be repeated",
    )
    parser.add_argument(
        "--not",
        type=text,
        action="append",
        default=[],
        dest="without",
        metavar="TEXT",
        help="what should not be heard; may be repeated",
    )
    parser.add_argument(
        "--sound", type=Path, action="append", default=[], metavar="FILE", help="find what resembles this sound"
    )
    parser.add_argument(
        "--together",
        action="store_true",
        help="let a multimodal language model read the description while it hears --sound, and find what resembles "
        "both as one; otherwise the mean of both is looked for",
    )
    parser.add_argument(
        "--vector",
        type=Path,
        action="append",
        default=[],
        metavar="FILE.npy",
        help="find what is near this vector, such as one that a text encoder gave elsewhere; may be repeated",
    )
    parser.add_argument(
        "--dataset",
        action="append",
        default=[],
        metavar="NAME",
        help="search this dataset (clotho) or split (clotho/evaluation) only; may be repeated",
    )
    parser.add_argument(
        "--licence",
        type=text,
        action="append",
        default=[],
        metavar="TEXT",
        help="search only recordings of this licence, as the index has it (CC0); where none has exactly this one, of "
        "licences that have this in them (by/4.0); may be repeated",
    )
    parser.add_argument("--min-s", type=float, metavar="S", help="search only recordings of at least so many seconds")
    parser.add_argument("--max-s", type=float, metavar="S", help="search only recordings of at most so many seconds")
    parser.add_argument("--top", type=int, default=10, metavar="N", help="how many hits to show (default: 10)")
    parser.add_argument(
        "--first",
        type=int,
        default=CANDIDATES,
        metavar="N",
        help="a head with attention scores only the N windows exactly that are nearest by their vectors "
        f"({CANDIDATES})",
    )


def add_index(parser: argparse.ArgumentParser) -> None:
    """An index, and the model that it was made with."""
    parser.add_argument("index", metavar="INDEX", type=Path, help="the index: a folder that `earshot index` made")
    parser.add_argument(
        "--model", metavar="MODEL", help="the place of the model, if it has moved since the index was made"
    )
    add_trust_code(parser, "the model")


def open_finder(args: argparse.Namespace) -> Any:
    """The `Finder` of an index that `add_index` names; the whole model is loaded only where it is needed."""
    from training.search.finding import Finder
    from training.search.store import SoundIndex
    from training.search.text_tower import IndexModel

    index = SoundIndex.open(args.index)

    def open_whole() -> Any:
        from training.search.models import open_whole_model

        return open_whole_model(index, args.model, args.trust_code)

    return Finder(index, IndexModel(index, open_whole, tower=args.model is None))


def run(args: argparse.Namespace) -> dict[str, Any]:
    from training.search.entries import Filter
    from training.search.finding import Query

    finder = open_finder(args)
    texts = (*([args.query] if args.query is not None else []), *args.text)
    read = None
    if args.together:
        if len(texts) != 1 or not texts[0].strip() or not args.sound:
            remedy = 'for example: earshot search INDEX "in the rain" --sound FILE --together'
            raise InputError("--together needs one description and a sound", value=texts, remedy=remedy)
        read = texts[0]
    sounds = tuple(finder.sound_vector(_read(path), path, read) for path in args.sound)
    vectors = tuple(read_vector(path, finder.index.vectors.shape[1]) for path in args.vector)
    query = Query(() if read else texts, (*sounds, *vectors), tuple(args.without))
    among = Filter(tuple(args.dataset), tuple(args.licence), args.min_s, args.max_s)
    began = time.perf_counter()
    hits = finder.find(query, args.top, among, args.first)
    return {
        "texts": list(texts),
        "without": list(args.without),
        "sounds": [str(path) for path in args.sound],
        "vectors": [str(path) for path in args.vector],
        "results": [hit.as_dict() for hit in hits],
        "entries": len(finder.index.entries),
        "seconds": time.perf_counter() - began,
    }


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=path) from error


def read_vector(path: Path, width: int) -> Any:
    """The vector ``[width]``, of length 1, of a file in NumPy's format.

    Raises:
        InputError: the file holds anything else.
    """
    import numpy as np

    from training.search.finding import unit

    try:
        found = np.load(path, allow_pickle=False)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", file=path) from error
    except (ValueError, EOFError) as error:  # NumPy's own words advise to load what is no vector as a pickle
        raise InputError("it is no file of numpy.save", file=path, remedy="write it with numpy.save") from error
    if not isinstance(found, np.ndarray) or found.shape != (width,) or not np.issubdtype(found.dtype, np.floating):
        shape = getattr(found, "shape", "an archive")
        raise InputError(f"the file must hold one vector of {width} numbers", file=path, value=shape)
    if not np.isfinite(found).all() or not found.any():
        raise InputError("the numbers of the vector must be finite, and not all 0", file=path)
    return unit(found.astype(np.float32))


def _clock(seconds: float, length: float) -> str:
    """Where a hit begins or ends; in tenths of seconds where the whole hit is shorter than 10 s."""
    if length >= 10:
        return clock(seconds)
    tenths = round(10 * seconds)
    return f"{clock(tenths // 10)}.{tenths % 10}"


def show(result: dict[str, Any]) -> str:
    lines = []
    for number, hit in enumerate(result["results"], 1):
        where = "-".join(_clock(hit[name], hit["end_s"] - hit["start_s"]) for name in ("start_s", "end_s"))
        lines.append(f"{number:4}. {hit['score']:.4f}  {where}  {hit['path'] or hit['clip_id']}")
        if hit["captions"]:
            lines.append(f"      {hit['captions'][0]}")
    if not lines:
        lines.append("no recording passes the filters")
    lines.append(f"{quantity(result['entries'], 'window')} in {1000 * result['seconds']:.0f} ms")
    return page(lines)
