"""What a build and training runs will cost on a cluster, before anything is started.

    python -m ray_jobs plan --catalogue OUT/catalogue --recipe dual_encoder --cluster cluster/aws.yaml

Prices are the user's, ``--price KIND=AMOUNT``: an hour of one node of a kind, or a month of 1 GB (``storage``), in any
currency.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from ray_jobs.cluster.connection import LABEL
from ray_jobs.costs import Nodes, Span, Trial, build_cost, money, sounds_of, training_cost, trial_of
from sharding import layout
from sharding.checks import read_checked
from sharding.common.errors import InputError
from sharding.common.sizes import quantity, show_hours, show_size
from sharding.common.storage import Storage
from sharding.common.terminal import page
from sharding.schema import CATALOGUE

STORAGE = "storage"  # the name of a price that is no node's


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Say how many hours, bytes and how much money a build of a catalogue and training on it will take. Spans "
        "come from what Earshot's benches measured (bench/RESULTS.md), on other machines than yours."
    )
    parser.add_argument(
        "--catalogue", required=True, metavar="DIR", help="OUT/catalogue, from `earshot catalogue` or a build"
    )
    parser.add_argument(
        "--as-published", action="store_true", help="count clips whose sound file is missing too, as before a download"
    )
    parser.add_argument("--cluster", required=True, metavar="YAML", help="the cluster's file, as `ray up` takes it")
    parser.add_argument(
        "--recipe", action="append", default=[], metavar="NAME", help="a recipe to plan; may be repeated"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of every recipe")
    parser.add_argument(
        "--trial",
        action="append",
        default=[],
        metavar="NAME=RUN",
        help="the folder of a short run of the recipe NAME on one of your GPUs (--set optimizer.steps=50), from which "
        "speed and checkpoints are known; may be repeated",
    )
    parser.add_argument("--cpus", type=int, metavar="N", help="cores of a node, if the cluster's file does not say")
    parser.add_argument(
        "--gpus", type=int, metavar="N", help="GPUs of a node, if the cluster's file does not say (default: 0)"
    )
    parser.add_argument(
        "--price",
        action="append",
        default=[],
        metavar="KIND=AMOUNT",
        help="the price of a node of this kind for an hour; storage=AMOUNT: of 1 GB for a month; may be repeated",
    )
    parser.add_argument(
        "--mean-s",
        action="append",
        default=[],
        metavar="DATASET=SECONDS",
        help="the mean length of the clips of a dataset that publishes no lengths; may be repeated",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    from training.config.loading import load_recipe

    for name, least in (("cpus", 1), ("gpus", 0)):
        if (value := getattr(args, name)) is not None and value < least:
            raise InputError(f"--{name} is too small", value=value, remedy=f"{least} or more")
    building, training, head = nodes_of(read_cluster(args.cluster), args.cpus, args.gpus, args.cluster)
    prices = _numbers("--price", args.price)
    known = sorted({building.kind, training.kind, STORAGE} | ({head} if head else set()))
    if unknown := set(prices) - set(known):
        remedy = f"this cluster has {', '.join(known)}"
        raise InputError("--price names no kind of node that is used", value=", ".join(sorted(unknown)), remedy=remedy)
    trials = {name: read_trial(folder) for name, folder in _pairs("--trial", args.trial).items()}
    if unknown := set(trials) - set(args.recipe):
        remedy = "give the same name to --recipe"
        raise InputError("--trial names a recipe that is not planned", value=", ".join(sorted(unknown)), remedy=remedy)
    sounds = sounds_of(read_catalogue(args.catalogue), _numbers("--mean-s", args.mean_s), args.as_published)
    build = build_cost(len(sounds.seconds), float(sounds.seconds.sum()), building)
    gigabytes = build["shard_bytes"].times(1e-9)
    return {
        "build": build | _on(building, build["hours"], prices, head),
        "storage_money_a_month": gigabytes.times(prices[STORAGE]) if STORAGE in prices else None,
        "recipes": {
            name: (cost := training_cost(name, load_recipe(name, args.set), sounds, training, trials.get(name)))
            | _on(training, cost["hours"], prices, head)
            for name in args.recipe
        },
    }


def _on(nodes: Nodes, hours: Span | None, prices: Mapping[str, float], head: str | None) -> dict[str, Any]:
    return {"nodes": nodes._asdict(), "money": money(hours, nodes, prices, head)}


def read_catalogue(place: str) -> pa.Table:
    """The tables of all datasets of a catalogue as one; ``place`` may also be the folder of a build, which has one.

    Raises:
        InputError: there is none, or it is damaged.
    """
    storage = Storage(place)
    if inside := storage.list(layout.CATALOGUE):
        storage, names = storage.child(layout.CATALOGUE), [name.partition("/")[2] for name in inside]
    else:
        names = storage.list()
    names = [name for name in names if name.endswith(".parquet") and "/" not in name]
    if not names:
        remedy = "name OUT/catalogue of a build, or list the clips first: `earshot catalogue --clotho DIR --out OUT`"
        raise InputError("no catalogue lies here", file=place, remedy=remedy)
    return pa.concat_tables([read_checked(storage, name, CATALOGUE) for name in names])


def read_cluster(file: str) -> dict[str, Any]:
    """The cluster's file as a plain tree."""
    from training.config.yaml_file import read_yaml

    tree, _ = read_yaml(Path(file))
    if not isinstance(tree, dict) or not isinstance(tree.get("provider"), dict):
        remedy = "name a file that `ray up` takes, such as cluster.yaml or cluster/aws.yaml"
        raise InputError("not a Ray cluster: it has no provider", file=file, remedy=remedy)
    return tree


def nodes_of(tree: Mapping[str, Any], cpus: int | None, gpus: int | None, file: str) -> tuple[Nodes, Nodes, str | None]:
    """The nodes that build, the nodes that train, and the name of the head's kind where it is another.

    A cluster of kinds has its own cores; of several kinds that fit, the one with the highest priority counts, with
    as many nodes as it may have.  A cluster of listed hosts has one kind, ``host``, the head included.

    Raises:
        InputError: nothing says how many cores a node has, or a value is no mapping or no whole number.
    """
    kinds = _mapping(tree.get("available_node_types"), "available_node_types", file)
    if not kinds:
        hosts = 1 + len(tree["provider"].get("worker_ips") or [])
        host = Nodes("host", hosts, _cores(cpus, file), gpus or 0)
        return host, host, None
    head = tree.get("head_node_type")
    every = {name: _mapping(kind, name, file) for name, kind in kinds.items()}
    found = []
    for name, kind in sorted(every.items(), key=lambda each: -_whole(each[1].get("priority", 0), "priority", file)):
        if name == head and len(kinds) > 1:
            continue
        has = _mapping(kind.get("resources"), f"{name}.resources", file)
        most = kind.get("max_workers", tree.get("max_workers", 1)) if name != head else 1
        gpus_of_one = _whole(has.get("GPU", gpus or 0), f"{name}.resources.GPU", file)
        number = max(1, _whole(most, f"{name}.max_workers", file))
        nodes = Nodes(str(name), number, _cores(has.get("CPU") or cpus, file), gpus_of_one)
        found.append((nodes, _mapping(kind.get("labels"), f"{name}.labels", file).get(LABEL)))
    building = sorted(found, key=lambda each: (each[1] != "shards", each[0].gpus > 0))[0][0]
    training = sorted(found, key=lambda each: (each[1] != "training", each[0].gpus == 0))[0][0]
    return building, training, head if len(kinds) > 1 else None


def _cores(count: Any, file: str) -> int:
    if not count:
        raise InputError("the cluster's file does not say how many cores a node has", file=file, remedy="add --cpus N")
    return _whole(count, "CPU", file)


def _mapping(value: Any, key: str, file: str) -> Mapping[Any, Any]:
    """A part of the cluster's file, empty if there is none."""
    if value is not None and not isinstance(value, Mapping):
        raise InputError(f"{key} must be a mapping of keys to values", file=file, value=value)
    return value or {}


def _whole(value: Any, key: str, file: str) -> int:
    """A whole number from the cluster's file."""
    if not isinstance(value, int) or value < 0:
        raise InputError(f"{key} must be a whole number", file=file, value=value)
    return value


def read_trial(folder: str) -> Trial:
    """Speed of each rank and size of checkpoints of a run, whose ranks may have changed at each start.

    Raises:
        InputError: there is no run, or it took fewer than 20 steps.
    """
    from training.run.log import read_records, speed_of
    from training.run.starts import read_starts

    run = Path(folder)
    starts = [each for each in read_starts(Storage(folder)) if each["what"] == "start"]
    rates = [
        rate / next((start["ranks"] for start in reversed(starts) if start["step"] <= each["step"]), 1)
        for each in read_records(run / "metrics.jsonl")
        if (rate := speed_of(each))
    ]
    if not rates:
        remedy = "name the folder of a run on this machine, which has metrics.jsonl"
        raise InputError("no step of a run is noted here", file=folder, remedy=remedy)
    sizes = [
        sum(file.stat().st_size for file in checkpoint.rglob("*") if file.is_file())
        for checkpoint in (run / "checkpoints").glob("*")
    ]
    return trial_of(rates, max(sizes, default=0))


def _pairs(option: str, words: Sequence[str]) -> dict[str, str]:
    """The values of options of the form NAME=VALUE, by name."""
    found = {}
    for word in words:
        name, _, value = word.partition("=")
        if not name or not value:
            remedy = f"for example {option} NAME=VALUE"
            raise InputError(f"{option} must read NAME=VALUE", value=word, remedy=remedy)
        found[name] = value
    return found


def _numbers(option: str, words: Sequence[str]) -> dict[str, float]:
    numbers = {}
    for name, value in _pairs(option, words).items():
        try:
            numbers[name] = float(value)
        except ValueError:
            numbers[name] = math.nan
        if not 0 <= numbers[name] < math.inf:
            raise InputError(f"{option} takes a number that is not negative", value=f"{name}={value}")
    return numbers


def show(result: dict[str, Any]) -> str:
    build = result["build"]
    lines = [
        f"{quantity(build['clips'], 'clip')}, {build['hours_of_sound']:,.1f} hours of sound. Duplicates and protected "
        "clips are counted too, since no sound was compared yet. Every node that the cluster's file allows is counted, "
        "but not its start. Spans come from other machines (bench/RESULTS.md); money is in the currency of --price.",
        "",
        f"build, {_where(build['nodes'])}",
        f"  time     {_hours(build['hours'])}, of which {show_hours(build['hours_on_one_core'])} on one core",
        f"  work     {_amounts(build['core_hours'])} core hours",
        f"  bytes    {show_sizes(build['shard_bytes'])} of shards, and as much again while it builds",
        f"  memory   {show_size(max(build['memory_bytes'].values()))} at most, of the process that starts the build",
        f"  money    {_money(build)}",
    ]
    if result["storage_money_a_month"] is not None:
        lines.append(f"  storage  {_amounts(result['storage_money_a_month'])} a month")
    for name, cost in result["recipes"].items():
        lines += ["", f"{name}, {_where(cost['nodes'])}: {quantity(cost['ranks'], 'rank')}", *_recipe_lines(name, cost)]
    return page(lines)


def _recipe_lines(name: str, cost: dict[str, Any]) -> list[str]:
    lines = [
        f"  work     {cost['steps']} steps of {cost['batch_size']} clips, {cost['epochs']:.3g} epochs",
        f"  bytes    {show_sizes(cost['bytes_read'])} read in all, "
        f"from {show_sizes(cost['bytes_of_its_shards'])} of shards",
    ]
    if cost["hours"] is None:
        where = "GPUs" if cost["nodes"]["gpus"] else "nodes"
        lines.append(
            f"  time     not known: train {name} for 50 steps on one of your {where} (--set optimizer.steps=50), and "
            f"give --trial {name}=RUN"
        )
    else:
        lines.append(
            f"  time     {_hours(cost['hours'])}, without validation"
            + (" and encoding the sound once" if cost["stored"] else "")
        )
        lines.append(f"  disk     {show_size(cost['checkpoint_bytes'])} of checkpoints")
    lines.append(f"  money    {_money(cost)}")
    if cost["missing_splits"]:
        lines.append(f"  without  {', '.join(cost['missing_splits'])}: the catalogue lacks them")
    return lines


def _where(nodes: dict[str, Any]) -> str:
    gpus = f" and {nodes['gpus']} GPUs" if nodes["gpus"] else ""
    return f"{nodes['number']} nodes ({nodes['kind']}) of {nodes['cpus']} cores{gpus}"


def _money(cost: dict[str, Any]) -> str:
    if cost["money"] is not None:
        return _amounts(cost["money"])
    return "not known" + ("" if cost["hours"] is None else f": give --price {cost['nodes']['kind']}=AMOUNT")


def _amounts(span: Sequence[float]) -> str:
    """A span of amounts of money, rounded to hundredths."""
    return _between(["under 0.01" if end < 0.01 else f"{end:.2g}" if end < 100 else f"{end:,.0f}" for end in span])


def _hours(span: Sequence[float]) -> str:
    return _between([show_hours(end) for end in span])


def show_sizes(span: Sequence[float]) -> str:
    """A span of bytes."""
    return _between([show_size(end) for end in span])


def _between(ends: Sequence[str]) -> str:
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"
