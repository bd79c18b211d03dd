"""``rewrite``: write captions in other words with a language model, beside the shards."""

from __future__ import annotations

import argparse
from typing import Any

from sharding.common.errors import InputError
from sharding.common.runners import add_runner, runner_of
from sharding.common.sizes import quantity
from training.commands.arguments import add_shards


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from training.curation.rewrites import PROMPT

    parser.description = (
        "Write the captions of a split in other words with a language model, as a table beside the shards, which do "
        "not change: each alternative with its clip, its caption, the model, the prompt and the time. A recipe reads "
        "it with data.annotations, for the items of its mixture whose captions name the kind rewritten. What is not "
        "worth keeping is left out and counted. If it is killed, the same command continues."
    )
    add_shards(parser)
    parser.add_argument(
        "--split", required=True, metavar="SPLIT", help="the split, for example clotho/development, or clotho"
    )
    parser.add_argument(
        "--model",
        required=True,
        metavar="SOURCE",
        help="a causal language model of transformers, by name or folder, such as HuggingFaceTB/SmolLM2-135M-Instruct",
    )
    parser.add_argument("--out", required=True, metavar="FOLDER", help="a new folder, local or s3://")
    parser.add_argument(
        "--prompt", default=PROMPT, metavar="TEXT", help=f"what is asked, with {{}} where the caption stands ({PROMPT})"
    )
    parser.add_argument(
        "--count",
        type=int,
        default=1,
        metavar="N",
        help="how many alternatives of each caption: the most probable, and others that are drawn (default: 1)",
    )
    parser.add_argument(
        "--batch",
        type=int,
        default=16,
        metavar="N",
        help="of how many clips captions are rewritten at once (default: 16)",
    )
    add_runner(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from training.curation.rewriting import Rewriting, rewrite

    if args.batch < 1 or args.count < 1:
        raise InputError("--batch and --count must be at least 1", value=(args.batch, args.count))
    if args.prompt.count("{}") != 1:
        raise InputError("--prompt must have {} once, where the caption stands", value=args.prompt)
    work = Rewriting(args.shards, args.split, args.model, args.out, args.prompt, args.count, args.batch)
    return rewrite(work, runner_of(args))


def show(result: dict[str, Any]) -> str:
    from training.curation.rewrites import REASONS

    lines = [f"{quantity(result['kept'], 'alternative')} of {quantity(result['captions'], 'caption')}: {result['out']}"]
    lines += [f"  {count} left out: {REASONS[reason]}" for reason, count in sorted(result["removed"].items())]
    if result["labels"]:
        labels = quantity(result["labels"], "label was", "labels were")
        lines.append(f"  {labels} skipped: labels name classes and are not rewritten")
    return "\n".join(lines)
