"""``rerank``: let a multimodal language model judge the best candidates of any scores."""

from __future__ import annotations

import argparse
from typing import Any

from sharding.common.errors import InputError
from training.commands.arguments import add_model, add_shards
from training.commands.fit import only_first_rank

WRITTEN = {"scores": "measured", "tune": "tuned"}  # below --out: the new scores, and what they are of
NO_FIGURES = (
    "No clip is known to be right for these queries, so there are no figures. Where a table says which are, run "
    "`evaluate` on the scores with --relevance CSV."
)
ROWS = {"first": "first stage", "reranked": "re-ranked", "oracle": "always right"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Ask a multimodal language model of each query's best candidates whether they match, in both directions, and "
        "add the probability of yes to the scores of all of them. The weight of this probability is chosen on a "
        "validation split. The new scores of both splits are written too, one folder for each direction, which "
        "`evaluate`, `compare`, `ensemble` and `submit` read. If it is killed, the same command continues."
    )
    add_model(parser)
    add_shards(parser)
    parser.add_argument(
        "--scores",
        required=True,
        metavar="FOLDER",
        help="what `scores` wrote for the split to measure, or for queries of yours (its --queries), which have no "
        "figures and only one direction",
    )
    parser.add_argument(
        "--tune", required=True, metavar="FOLDER", help="what `scores` wrote for a validation split, of the same model"
    )
    parser.add_argument(
        "--top", type=int, default=50, metavar="K", help="how many candidates of each query are judged (default: 50)"
    )
    parser.add_argument("--out", required=True, metavar="FOLDER", help="a new folder, local or s3://")
    parser.add_argument(
        "--batch", type=int, default=32, metavar="N", help="how many candidates are read at once (default: 32)"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    import torch

    from sharding.common.storage import Storage
    from sharding.shards.manifest import Manifest
    from training.engine.launch import ranks
    from training.evaluation.scores.files import ScoreFile
    from training.models.hub import open_model
    from training.reranking.run import (
        begin,
        compare,
        directions_of,
        judge,
        open_reranker,
        write_scores,
    )
    from training.search.vectors import fingerprint

    if args.top < 1 or args.batch < 1:
        raise InputError("--top and --batch must be at least 1", value=(args.top, args.batch))
    files = {"measured": ScoreFile.open(args.scores), "tuned": ScoreFile.open(args.tune)}
    measured = files["measured"].questions
    directions = directions_of(files["measured"], files["tuned"])
    if measured.captions and measured.split == files["tuned"].questions.split:
        raise InputError("--tune is the split that is measured", value=args.tune, remedy="name a validation split")
    if files["measured"].head["fingerprint"] != files["tuned"].head["fingerprint"]:
        remedy = "score the validation split with the model whose scores are re-ranked"
        raise InputError("these scores are of another model than those of --scores", file=args.tune, remedy=remedy)
    manifest = Manifest.open(args.shards)
    retriever = open_model(args.checkpoint, args.trust_code)
    judge_is = {"model": str(args.checkpoint), "fingerprint": fingerprint(retriever), "top": args.top}
    known = ("model", "fingerprint", "contents")
    identity = judge_is | {name: {key: file.head.get(key) for key in known} for name, file in files.items()}
    with ranks() as group:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        reranker = open_reranker(retriever, device, args.batch)
        if group.rank == 0:
            begin(Storage(args.out), identity)
        group.barrier("folder of judgements")
        out = args.out.rstrip("/")
        judged = {
            name: judge(retriever, reranker, manifest, file, args.top, Storage(f"{out}/{name}"), group, directions)
            for name, file in files.items()
        }
        result = {"split": measured.split} | compare(judged["measured"], judged["tuned"])
        for direction in directions if group.rank == 0 else ():
            for folder, name in WRITTEN.items():
                own, place = judged[name][direction], Storage(f"{out}/{folder}/{direction}")
                write_scores(own, result[direction]["weight"], files[name], direction, judge_is, place)
            result[direction]["scores"] = f"{out}/scores/{direction}"
    return only_first_rank(result, group)


def show(result: dict[str, Any]) -> str:
    from training.evaluation.metrics import DIRECTIONS, MEASURED

    lines = [f"{result['split']}:", f"{'':32}" + "".join(f"{name:>9}" for name in MEASURED)]
    if "first" not in result["text_to_audio"]:
        lines = [f"{result['split']}, {result['text_to_audio']['queries']} queries:", NO_FIGURES]
    for direction in DIRECTIONS:
        found = result.get(direction)
        if found is None:
            continue
        for row, label in ROWS.items() if "first" in found else ():
            values = "".join(f"{100 * found[row][name]:9.2f}" for name in MEASURED)
            lines.append(f"{direction.replace('_', ' ') + ', ' + label:32}{values}")
        cost = (
            f"{found['candidates']} candidates, {found['seconds_per_query']:.3f} s a query, weight {found['weight']:g}"
        )
        lines += [f"{'':4}{cost}", f"{'':4}scores: {found['scores']}"]
    return "\n".join(lines)
