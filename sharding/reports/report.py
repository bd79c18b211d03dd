"""A page about a build: what went in, what came out, and why the rest did not.

``OUT/report/index.html`` needs nothing beside itself: pictures and players are inside.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import soundfile as sf

from sharding import layout
from sharding.audio import ERROR_CLASSES, AudioError, decode_segment
from sharding.catalogue.overview import read_overview
from sharding.common.storage import Storage
from sharding.dedup.grouping import Relation, relations
from sharding.fates.decide import REASONS
from sharding.reports.excerpts import excerpt, player, spectrogram
from sharding.reports.facts import finished_facts
from sharding.reports.stats import dataset_stats, ranked_counts, source_rates
from sharding.shards.manifest import Manifest

FATE_NAMES = ("written", "duplicate", "withheld", "filtered", "failed")
PAIRS = 8  # shown of a kind
SAMPLES = 6
EXCERPT_S = 6.0  # of each sound: a page stays below about 5 MB
_OF_CLIP = ["clip_id", "dataset", "split", "path", "captions", "notes"]
_OF_SAMPLE = ["key", "clip_id", "dataset", "split", "shard", "audio_offset", "audio_bytes", "start_s", "duration_s",
              "captions", "licence"]  # fmt: skip
TEMPLATES = Path(__file__).parent / "templates"


def environment(*folders: Path) -> jinja2.Environment:
    """Templates of these folders, then Earshot's own; whatever is put in is escaped."""
    loader = jinja2.FileSystemLoader([*folders, TEMPLATES])
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)


def write_report(out_url: str | PathLike[str]) -> str:
    """Write ``report/index.html`` into the finished build at ``out_url`` and return its full name.

    Sounds come from the shards; those of clips that were dropped come from the datasets, while these lie
    where they were when the build was made.  Raises ``InputError`` where there is no finished build.
    """
    build = Build(Manifest.open(out_url))
    page = environment().get_template("report.html").render(describe(build))
    build.storage.write(f"{layout.REPORT}/index.html", page.encode())
    return build.storage.name(f"{layout.REPORT}/index.html")


class Build:
    """Everything that a page shows of a build.  Clips stay in tables: half a million of them fill gigabytes as dicts.

    Attributes:
        fates: FATES.
        catalogue: what the published tables say of every clip.
        first: the first sample of every clip that was written.
    """

    def __init__(self, manifest: Manifest) -> None:
        self.manifest, self.storage = manifest, manifest.storage
        self.dataset, self.table = manifest.dataset, manifest.table
        self.fates = self.storage.read_table(layout.FATES)
        matches = self.storage.read_table(layout.MATCHES)
        self.relations = {(one.a, one.b): one for one in relations(matches)}
        self.methods: dict[tuple[str, str], set[str]] = defaultdict(set)
        for row in matches.to_pylist():
            if row["outcome"] != "different":
                self.methods[row["a"], row["b"]].add(row["method"])
        self.catalogue = pa.concat_tables(self.storage.read_table(name, _OF_CLIP) for name in manifest.catalogue())
        self.details = finished_facts(self.storage, ["clip_id", "detail"])
        self.first = self.table.filter(pc.equal(self.table["window"], 0)).select(_OF_SAMPLE)
        self.overview = read_overview(self.storage)
        self.roots = self._roots()

    def _roots(self) -> dict[str, Storage]:
        """Where the datasets lay."""
        work = layout.work_of(self.storage)
        if not work.exists(layout.Work.SETTINGS):
            return {}
        settings = work.read_json(layout.Work.SETTINGS)
        roots = {**settings.get("roots", {}), **settings.get("sources", {})}
        return {name: Storage(root) for name, root in roots.items()}

    def wave(self, clip_id: str, seconds: float = EXCERPT_S, start_s: float = 0.0) -> tuple[np.ndarray, int] | None:
        """A part of a clip as mono float32 [n] and its rate; None where no sound can be had."""
        try:
            row = _row(self.first, clip_id)
            inside = -1.0 if row is None else start_s - row["start_s"]
            if row is not None and 0 <= inside < row["duration_s"]:
                shard = layout.shard_name(row["shard"])
                contents = self.storage.read(shard, row["audio_offset"], row["audio_bytes"])
                return decode_segment(contents, inside, seconds)
            clip = _row(self.catalogue, clip_id)
            if clip is None or clip["path"] is None or clip["dataset"] not in self.roots:
                return None
            with self.roots[clip["dataset"]].open(clip["path"]) as source:
                return excerpt(source, seconds, start_s)
        except (OSError, AudioError, sf.LibsndfileError, zipfile.BadZipFile, zlib.error):
            return None

    def side(self, clip_id: str, start_s: float = 0.0) -> dict[str, Any]:
        """A clip as a page shows it: its name, a caption, a player from ``start_s`` on."""
        sound, clip = self.wave(clip_id, start_s=start_s), _row(self.catalogue, clip_id)
        return {
            "clip_id": clip_id,
            "caption": first_caption(clip["captions"] if clip else ()),
            "sound": player(*sound) if sound else None,
            "picture": spectrogram(*sound, columns=240) if sound else None,
        }


def _row(table: pa.Table, clip_id: str) -> dict[str, Any] | None:
    """A clip's first row of a table; None where it has none."""
    found: list[dict[str, Any]] = table.slice(max(0, pc.index(table["clip_id"], clip_id).as_py()), 1).to_pylist()
    return found[0] if found and found[0]["clip_id"] == clip_id else None


def describe(build: Build) -> dict[str, Any]:
    """Everything that the template ``report.html`` fills in."""
    fates = fate_counts(build)
    undecided = [one for one in build.relations.values() if one.by_waveform == "undecided"]
    return {
        "title": "Earshot build report",
        "clips": build.fates.num_rows,
        "fates": fates,
        "plan": build.dataset["plan"][:16],
        "tiles": _tiles(build, fates),
        "splits": splits_of(build),
        "reasons": reasons_of(build),
        "withheld": fates["withheld"],
        "leaks": _leak_methods(build),
        "leak_pairs": _pairs(build, "withheld"),
        "trimmed": _trimmed(build),
        "duplicate_pairs": _pairs(build, "duplicate"),
        "undecided": len(undecided),
        "undecided_pairs": [_pair(build, one.a, one.b, "undecided") for one in undecided[:PAIRS]],
        "samples": _samples(build),
        "datasets": _datasets(build),
        "parts": _parts(build),
        "remarks": [(name, notes) for name, notes in build.overview["notes"].items() if notes],
        "lists": build.overview["lists"],
        "listed": sorted(build.overview["listed"].items()),
        "shared": build.overview["shared_captions"],
        "differences": _differences(build),
        "notes": _notes(build),
        "settings": _settings(build.dataset),
    }


def fate_counts(build: Build) -> dict[str, int]:
    counts = _counts(build.fates.select(["fate"]))
    return {name: counts.get((name,), 0) for name in FATE_NAMES}


def _counts(table: pa.Table) -> dict[tuple[Any, ...], int]:
    """How often each row occurs."""
    found = table.group_by(table.column_names).aggregate([([], "count_all")])
    values = (found[name].to_pylist() for name in table.column_names)
    return dict(zip(zip(*values, strict=True), found["count_all"].to_pylist(), strict=True))


def first_caption(captions: Sequence[dict[str, Any]]) -> str:
    return captions[0]["text"] if captions else "(no caption)"


def ranked(values: Iterable[str] | Mapping[str, int], most: int = 10) -> list[tuple[str, int]]:
    """Values, or their counts, as rows of value and count, the most frequent first; at least one row."""
    return sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))[:most] or [("none", 0)]


def histogram(values: Sequence[float] | np.ndarray, top: float, bins: int = 24) -> dict[str, Any]:
    """Counts in equal bins from 0 to ``top``; what lies beyond stands in the last, and ``beyond`` says so."""
    counts, edges = np.histogram(np.minimum(values, top), bins=bins, range=(0, top))
    marks = [round(edge, 1) for edge in edges.tolist()]
    return {"counts": counts.tolist(), "edges": marks, "beyond": bool(np.any(np.asarray(values) > top))}


def _datasets(build: Build) -> list[dict[str, Any]]:
    """What the shards hold of each dataset."""
    found = []
    for name, about in dataset_stats(build.manifest, source_rates(build.manifest)).items():
        durations = np.array(about["durations"])
        captions = build.first.filter(pc.equal(build.first["dataset"], name))["captions"]
        kinds = _kinds(pc.list_flatten(captions))
        rates = {f"{int(rate) / 1000:g} kHz": count for rate, count in about["source_rates"].items()}
        found.append(
            {
                "name": name,
                "clips": len(durations),
                "captions": sum(kinds.values()),
                "hours": f"{durations.sum() / 3600:,.2f}",
                "durations": histogram(durations, _ceiling(durations)),
                "words": histogram(about["words"], 30, 30),
                "rates": ranked_counts(rates, 5),
                "kinds": ranked(kinds),
                "licences": ranked_counts(about["licences"], 5),
            }
        )
    return found


def _parts(build: Build) -> list[dict[str, Any]]:
    """What each part of a dataset lists, and what of it is there."""
    parts = []
    for part in build.overview["parts"]:
        lost = part["missing"] + part["out_of_root"]
        share = lost / part["clips"] if part["clips"] else 0.0
        parts.append({**part, "name": f"{part['dataset']}/{part['part']}", "lost": lost, "share": share})
    return parts


def _differences(build: Build) -> dict[str, Any] | None:
    """Old clips about which a build of all datasets would have decided otherwise; None where nothing was appended."""
    if layout.DIFFERENCES not in build.dataset["tables"]:
        return None
    table = build.storage.read_table(layout.DIFFERENCES)
    return {"count": table.num_rows, "rows": table.slice(0, 12).to_pylist()}


def _ceiling(durations: np.ndarray) -> float:
    return float(max(10, 10 * np.ceil(np.percentile(durations, 99) / 10))) if len(durations) else 10.0


def _tiles(build: Build, fates: dict[str, int]) -> list[tuple[str, str]]:
    seconds = pc.sum(build.table["duration_s"], min_count=0).as_py()
    size = sum(shard["bytes"] for shard in build.dataset["shards"])
    return [
        (f"{fates['written']:,}", "clips written"),
        (f"{build.table.num_rows:,}", "samples"),
        (f"{seconds / 3600:,.2f} h", "of sound in them"),
        (f"{len(build.dataset['shards']):,}", f"shards, {size / 1e6:,.1f} MB"),
        (f"{fates['duplicate'] + fates['withheld']:,}", "duplicates and leaks"),
        *([(f"{fates['filtered']:,}", "filtered")] if fates["filtered"] else []),
        (f"{fates['failed']:,}", "broken"),
    ]


def splits_of(build: Build) -> list[dict[str, Any]]:
    """Fates of the clips of every dataset and split."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    joined = build.fates.select(["clip_id", "fate"]).join(build.catalogue.select(_OF_CLIP[:3]), "clip_id")
    for (dataset, split, fate), count in _counts(joined.select(["dataset", "split", "fate"])).items():
        counts[f"{dataset}/{split}"][fate] += count
    protect = {"/".join(split) for split in build.dataset["settings"]["fates"]["protect"]}
    return [
        {
            "name": name,
            "total": count.total(),
            "protected": name in protect,
            "fates": [(fate, count[fate]) for fate in FATE_NAMES if count[fate]],
        }
        for name, count in sorted(counts.items())
    ]


def reasons_of(build: Build) -> list[dict[str, Any]]:
    """Why clips were dropped: fate, reason, sentence, count and an example, by fate and falling count."""
    dropped = build.fates.filter(pc.not_equal(build.fates["fate"], "written"))
    ordered = dropped.group_by(["fate", "reason"], use_threads=False)  # for the first clip of each
    rows = ordered.aggregate([([], "count_all"), ("clip_id", "first")]).to_pylist()
    return [
        {
            "fate": row["fate"],
            "reason": row["reason"],
            "sentence": REASONS.get(row["reason"], row["reason"]),
            "count": row["count_all"],
            "example": row["clip_id_first"],
            "detail": _detail(build, row["clip_id_first"]) if row["reason"] in ERROR_CLASSES else None,
        }
        for row in sorted(rows, key=lambda row: (FATE_NAMES.index(row["fate"]), -row["count_all"]))
    ]


def _detail(build: Build, clip_id: str) -> str | None:
    """What the probe said of a clip, in words."""
    row = _row(build.details, clip_id)
    return row["detail"] if row else None


def _leak_methods(build: Build) -> list[tuple[str, int]]:
    """How many withheld clips each kind of evidence ties to a protected one."""
    withheld = _with_fate(build, "withheld")
    methods = (build.methods.get(_key(row["clip_id"], row["other"]), {row["reason"]}) for row in withheld)
    return ranked(method for some in methods for method in some) if withheld else []


def _with_fate(build: Build, fate: str) -> list[dict[str, Any]]:
    rows = build.fates.filter(pc.equal(build.fates["fate"], fate))
    return list(rows.select(["clip_id", "other", "reason"]).to_pylist())


def _trimmed(build: Build) -> list[dict[str, Any]]:
    """Clips of which a stretch alone was written, for the sake of a protected one."""
    fates = build.fates.filter(pc.equal(build.fates["reason"], "trimmed"))
    chosen = dict(zip(fates["clip_id"].to_pylist(), fates["other"].to_pylist(), strict=True))
    rows = build.table.filter(pc.is_in(build.table["clip_id"], fates["clip_id"].combine_chunks()))
    names = ("clip_id", "start_s", "duration_s")
    ends: dict[str, list[float]] = defaultdict(list)
    for clip_id, start, duration in zip(*(rows[name].to_pylist() for name in names), strict=True):
        ends[clip_id] += [start, start + duration]
    return [
        {"clip_id": clip_id, "other": chosen[clip_id], "times": f"{min(times):.2f} to {max(times):.2f} s"}
        for clip_id, times in sorted(ends.items())
    ]


def _key(a: str, b: str | None) -> tuple[str, str]:
    """The pair as tables have it: the smaller clip_id first."""
    return (a, b or "") if a < (b or "") else (b or "", a)


def _pairs(build: Build, fate: str) -> list[dict[str, Any]]:
    """Some pairs of a dropped clip and the one that it yielded to, of as many kinds of evidence as there are."""
    kinds: dict[tuple[str, ...], list[tuple[str, str]]] = defaultdict(list)
    for row in _with_fate(build, fate):
        if row["other"]:
            methods = build.methods.get(_key(row["clip_id"], row["other"]), set())
            kinds[tuple(sorted(methods))].append((row["clip_id"], row["other"]))
    chosen = [pairs[turn] for turn in range(PAIRS) for _, pairs in sorted(kinds.items()) if turn < len(pairs)]
    return [_pair(build, a, b, fate) for a, b in chosen[:PAIRS]]


def _pair(build: Build, a: str, b: str, label: str) -> dict[str, Any]:
    """Both sides, played from where they coincide."""
    key = _key(a, b)
    relation = build.relations.get(key, Relation(*key))
    starts = {relation.a: max(0.0, relation.offset_s), relation.b: max(0.0, -relation.offset_s)}
    words = ", ".join(sorted(build.methods.get(key, set()))) or "through other clips"
    if relation.overlap_s:
        words += f": {relation.overlap_s:.1f} s in common, shifted by {abs(relation.offset_s):.2f} s"
    return {"label": label, "words": words, "a": build.side(a, starts[a]), "b": build.side(b, starts[b])}


def _samples(build: Build) -> list[dict[str, Any]]:
    """One clip a dataset and split, in turn, with its picture."""
    names = pc.binary_join_element_wise(build.first["dataset"], build.first["split"], "/")
    places = [pc.indices_nonzero(pc.equal(names, name))[:SAMPLES] for name in sorted(pc.unique(names).to_pylist())]
    families = [build.first.take(some).to_pylist() for some in places]
    turns = [rows[turn] for turn in range(SAMPLES) for rows in families if turn < len(rows)]
    samples = []
    for row in turns[:SAMPLES]:
        sound = build.wave(row["clip_id"], seconds=12.0, start_s=row["start_s"])
        if sound is not None:
            samples.append(
                {
                    "clip_id": row["clip_id"],
                    "caption": first_caption(row["captions"]),
                    "seconds": f"{row['duration_s']:.1f}",
                    "licence": row["licence"],
                    "picture": spectrogram(*sound),
                    "sound": player(*sound),
                }
            )
    return samples


def _kinds(captions: pa.ChunkedArray) -> dict[str, int]:
    """Captions by how they came about."""
    parts = {name: pc.struct_field(captions, name) for name in ("kind", "onset", "source")}
    marks = {name: parts[name].is_valid() for name in ("onset", "source")}
    return {
        f"{kind}{', with times' * timed}{', taken over' * taken}": count
        for (kind, timed, taken), count in _counts(pa.table({"kind": parts["kind"], **marks})).items()
    }


def _notes(build: Build) -> list[tuple[str, int]]:
    """Kinds of remarks and how many clips have them; what differs from clip to clip is left out."""
    notes: Counter[str] = Counter()
    for (note,), count in _counts(pa.table({"note": pc.list_flatten(build.catalogue["notes"])})).items():
        notes[note.partition(":")[0].partition(" (")[0]] += count
    return ranked(notes) if notes else []


def _settings(dataset: dict[str, Any]) -> list[tuple[str, str]]:
    plain = [(name, json.dumps(value, ensure_ascii=False)) for name, value in sorted(dataset["settings"].items())]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(dataset["versions"].items()))
    return [*plain, ("versions", versions), ("format", str(dataset["format"]))]
