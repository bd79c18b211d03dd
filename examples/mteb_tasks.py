"""Clotho and TACOS as tasks of mteb, read from the folders that their authors publish.

    python -m examples.mteb_tasks MODEL --clotho DIR --relevance metadata_eval.csv --tacos DIR

MODEL is a folder that ``earshot convert --to sentence-transformers`` or ``--to clap`` wrote, or any other model of
sentence-transformers that takes texts and audio.  The tasks of mteb itself split the captions of Clotho at full stops;
these have the 5,225 captions as published, and the challenge's table of several relevant clips (DCASE 2025 task 6).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import mteb
from datasets import Dataset
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models.sentence_transformer_wrapper import MultiVectorWrapper, SentenceTransformerEncoderWrapper

from sharding.audio import decode_segment
from sharding.catalogue.table import build_catalogue
from sharding.common.errors import InputError
from sharding.common.storage import Storage
from training.evaluation.relevance import read_relevance

SPLIT = "test"  # mteb's name of the split


class CaptionTask(AbsTaskRetrieval):
    """Captions as queries, recordings as documents."""

    k_values: Sequence[int] = (1, 5, 10, 16)

    def __init__(self, storage: Storage, sounds: Mapping[str, str], queries: Iterable[tuple[str, list[str]]]) -> None:
        """Arguments: the dataset's folder; the path of each clip; texts, each with its relevant clips."""
        super().__init__()
        self._storage, self._sounds, self._queries = storage, dict(sounds), list(queries)

    def load_data(self, *args: Any, **kwargs: Any) -> None:
        names = [f"query-{number}" for number in range(len(self._queries))]
        relevant = {name: dict.fromkeys(clips, 1) for name, (_, clips) in zip(names, self._queries, strict=True)}
        queries = Dataset.from_dict({"id": names, "text": [text for text, _ in self._queries]})
        corpus = Dataset.from_dict({"id": list(self._sounds), "audio": list(self._sounds.values())})
        split = {
            "corpus": corpus.with_transform(self._decoded),  # a recording is decoded when it is encoded
            "queries": queries,
            "relevant_docs": relevant,
            "top_ranked": None,
        }
        self.dataset = {"default": {SPLIT: split}}
        self.data_loaded = True

    def _decoded(self, rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        if "audio" not in rows:
            return rows
        sounds = [decode_segment(self._storage.read(path)) for path in rows["audio"]]
        return rows | {"audio": [{"array": wave, "sampling_rate": rate} for wave, rate in sounds]}


def _metadata(name: str, about: str, main_score: str) -> TaskMetadata:
    return TaskMetadata(
        name=name,
        description=about,
        dataset={"path": "local", "revision": "as-published"},
        type="Any2AnyRetrieval",
        category="t2a",
        modalities=["text", "audio"],
        eval_splits=[SPLIT],
        eval_langs=["eng-Latn"],
        main_score=main_score,
    )


class Clotho(CaptionTask):
    """The evaluation split of Clotho: each caption finds the clip that it was written for."""

    metadata = _metadata(
        "ClothoAsPublishedT2A", "Clotho v2.1, evaluation: every caption, one relevant clip each.", "map_at_10"
    )


class ClothoMultiple(CaptionTask):
    """The evaluation split of Clotho with several relevant clips a query, as DCASE 2025 task 6 ranks by mAP@16."""

    metadata = _metadata(
        "ClothoMultiplePositivesT2A", "Clotho v2.1, evaluation: the queries of DCASE 2025 task 6.", "map_at_16"
    )


class Tacos(CaptionTask):
    """The test split of TACOS: each caption that a person wrote finds its clip."""

    metadata = _metadata("TacosT2A", "TACOS, test: captions of parts of clips, as people wrote them.", "map_at_10")


def clotho_tasks(folder: str, relevance: Path | None) -> list[CaptionTask]:
    """The tasks of Clotho's evaluation split.

    Args:
        folder: as published.
        relevance: DCASE 2025's ``metadata_eval.csv``; None: there is no task of several relevant clips.
    """
    sounds, captions = _split("clotho", folder, "evaluation", "human")
    storage = Storage(folder)
    tasks: list[CaptionTask] = [Clotho(storage, sounds, ((text, [clip]) for clip, text in captions))]
    if relevance is not None:
        table = read_relevance(relevance.read_text(encoding="utf-8-sig"), relevance)
        ids = {clip.removeprefix("clotho/evaluation/"): clip for clip in sounds}
        queries = [(query, [_clip(name, ids, relevance) for name in names]) for query, names in table.items()]
        tasks.append(ClothoMultiple(storage, sounds, queries))
    return tasks


def tacos_task(folder: str) -> CaptionTask:
    """The task of the test split of TACOS, as published."""
    sounds, captions = _split("tacos", folder, "test", "human")
    return Tacos(Storage(folder), sounds, ((text, [clip]) for clip, text in captions))


def _clip(name: str, ids: Mapping[str, str], file: Path) -> str:
    clip = ids.get(name) or ids.get(name.rpartition(".")[0])
    if clip is None:
        raise InputError("a clip of the relevance table is not in the evaluation split", file=file, value=name)
    return clip


def _split(dataset: str, folder: str, split: str, kind: str) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """The path of each clip of a published split, and its captions of one kind."""
    sounds: dict[str, str] = {}
    captions: list[tuple[str, str]] = []
    for row in build_catalogue({dataset: folder}).table.to_pylist():
        if row["split"] != split:
            continue
        if row["path"] is None:
            raise InputError("the recording of a clip is missing", file=folder, value=row["clip_id"])
        sounds[row["clip_id"]] = row["path"]
        captions += [(row["clip_id"], caption["text"]) for caption in row["captions"] if caption["kind"] == kind]
    if not captions:
        raise InputError("no clip of the split has a caption", file=folder, value=f"{dataset}/{split}")
    return sounds, captions


def evaluate(model: Any, tasks: Sequence[CaptionTask], rate: int) -> dict[str, dict[str, float]]:
    """The scores of a model by task.

    Args:
        model: a ``SentenceTransformer`` or a ``MultiVectorEncoder``.
        tasks: what is measured.
        rate: the sample rate in Hz that the model hears; mteb's own choice would be 16,000.
    """
    import sentence_transformers

    single = isinstance(model, sentence_transformers.SentenceTransformer)
    wrapper = SentenceTransformerEncoderWrapper if single else MultiVectorWrapper
    wrapped = wrapper(model, target_sampling_rate=rate)
    # mteb takes a model without an entry in its list for one of texts alone
    wrapped.mteb_model_meta = wrapped.mteb_model_meta.model_copy(update={"modalities": ["text", "audio"]})
    result = mteb.evaluate(wrapped, list(tasks), cache=None, show_progress_bar=False, co2_tracker=False)
    return {found.task_name: found.scores[SPLIT][0] for found in result.task_results}


def main(arguments: Sequence[str] | None = None) -> dict[str, dict[str, float]]:
    from sentence_transformers import MultiVectorEncoder, SentenceTransformer

    parser = argparse.ArgumentParser(
        description="Measure a model of sentence-transformers on Clotho and TACOS with mteb."
    )
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("--rate", type=int, default=32000, help="the sample rate that the model hears (32000)")
    parser.add_argument("--clotho", metavar="DIR")
    parser.add_argument("--relevance", type=Path, metavar="CSV", help="metadata_eval.csv of DCASE 2025 task 6")
    parser.add_argument("--tacos", metavar="DIR")
    parser.add_argument("--trust-remote-code", action="store_true", help="as models that need Earshot require")
    args = parser.parse_args(arguments)
    tasks = [] if args.clotho is None else clotho_tasks(args.clotho, args.relevance)
    tasks += [] if args.tacos is None else [tacos_task(args.tacos)]
    settings = Path(args.model) / "config_sentence_transformers.json"
    several = settings.is_file() and json.loads(settings.read_text()).get("model_type") == "MultiVectorEncoder"
    model = (MultiVectorEncoder if several else SentenceTransformer)(
        args.model, trust_remote_code=args.trust_remote_code
    )
    scores = evaluate(model, tasks, args.rate)
    for task in tasks:
        name, main_score = task.metadata.name, task.metadata.main_score
        print(f"{name}: {main_score} {scores[name][main_score]:.4f}")
    return scores


if __name__ == "__main__":
    main()
