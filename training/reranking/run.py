"""Re-ranks the best candidates of any scores, and measures what it brings; what a killed run has written is kept.

The new ranking is written as scores too, one folder for each direction, because what a re-ranker says of the candidates
of a caption does not rank the captions of a clip.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import xxhash
from safetensors import SafetensorError
from safetensors.numpy import load, save

from sharding.common.errors import InputError
from sharding.common.storage import Storage
from training.data.loader import Loader
from training.data.sampling.order import SequentialOrder
from training.data.sound.features import AudioInput
from training.engine.distributed import Group
from training.evaluation.counting import comparable
from training.evaluation.encoding import refuse_damaged
from training.evaluation.figures import BACKWARD, FORWARD, Questions
from training.evaluation.metrics import DIRECTIONS
from training.evaluation.scores.files import ScoreFile, ScoreWriter
from training.evaluation.split import captioned, clips_of
from training.models.multimodal.language import LanguageModel
from training.models.multimodal.listening import Listener
from training.models.retriever import Retriever
from training.reranking.fusion import Bools, Floats, Ints, best_items, choose_weight, fuse, measure, oracle
from training.reranking.model import Reranker, RerankModel, Sounds
from training.run.progress import StatusLine

QUERIES = 32  # of a part
IDENTITY = "reranking.json"


@dataclass(frozen=True)
class Judged:
    """One direction of a split with what the re-ranker says of every candidate.

    Attributes:
        scores: ``[queries, items]`` of the first stage.
        relevant: ``[captions or clips, items]`` bool, of the queries whose items are known, which come first; there may
            be none.
        candidates: ``[queries, K]`` items.
        probabilities: ``[queries, K]`` of Yes.
        seconds: how long one query took.
    """

    scores: Floats
    relevant: Bools
    candidates: Ints
    probabilities: Floats
    seconds: float


def open_reranker(retriever: Retriever, device: torch.device, batch: int) -> Reranker:
    """The re-ranker of a model; ``InputError`` if its encoders are no multimodal language model."""
    audio, text = retriever.model.audio, retriever.model.text
    if not (isinstance(audio, Listener) and isinstance(text, LanguageModel)):
        remedy = "name a model whose recipe has audio.encoder and text.encoder multimodal"
        raise InputError("this model cannot re-rank", value=retriever.recipe.text.encoder, remedy=remedy)
    return Reranker(RerankModel(audio, text).eval().to(device), batch)


def judge(
    retriever: Retriever,
    reranker: Reranker,
    manifest: Any,
    scores: ScoreFile,
    top: int,
    out: Storage,
    group: Group,
    directions: Sequence[str],
) -> dict[str, Judged]:
    """Let the re-ranker judge the candidates of every query and, in the other direction, of every clip of a split.

    Args:
        retriever: the model, for its recipe.
        reranker: the same as a re-ranker.
        manifest: the manifest of the build that was scored.
        scores: the scores of the split, by any retriever.
        top: candidates of each query.
        out: a folder, which keeps what is finished.
        group: the ranks; each judges its share of the queries.
        directions: those that are judged, of `directions_of` the scores.
    """
    asked = scores.questions
    matrix = np.concatenate([block for _, block in scores.blocks()])
    own = asked.clip_of[:, None] == np.arange(len(asked.clips))[None]
    texts = retriever.tokenizer.cut(asked.read, retriever.recipe.data.max_tokens)
    order = _order(retriever, reranker, manifest, asked)
    sounds: list[Sounds] = []
    found = {}
    for direction in directions:
        is_forward = direction == FORWARD
        values, relevant = (matrix, own) if is_forward else (matrix[: asked.captions].T.copy(), own.T.copy())
        candidates = best_items(values, top)

        def ask(query: int, is_forward: bool = is_forward, candidates: Ints = candidates) -> torch.Tensor:
            chosen = candidates[query].tolist()
            if is_forward:
                return reranker.sounds(texts[query], _stacked([sounds[clip] for clip in chosen]))
            return reranker.captions(_stacked([sounds[query]]), [texts[caption] for caption in chosen])

        starts = range(0, len(values), QUERIES)
        queries = [range(len(values))[start : start + QUERIES] for start in starts]
        parts = {f"{direction}-{number:06d}.safetensors": some for number, some in enumerate(queries)}
        there = set(out.list())
        missing = [name for name in parts if name not in there]
        group.barrier(f"parts of {direction}")
        mine = missing[group.rank :: group.size]
        if mine and not sounds:  # before the clocks run
            sounds.extend(_sounds(retriever, reranker, manifest, order, quiet=group.rank > 0))
        done = len(values) - sum(len(parts[name]) for name in missing)
        what = f"queries of {asked.split}, {direction.replace('_', ' ')}"
        line = StatusLine(what, len(values), done, quiet=group.rank > 0)
        for name in mine:
            for _ in _judge_part(out, name, parts[name], candidates, ask):
                done += group.size
                line.update(min(done, len(values)))
        group.barrier(direction)
        found[direction] = Judged(values, relevant, candidates, *_judgements(out, parts, candidates))
    return found


def _judgements(out: Storage, parts: Mapping[str, range], candidates: Ints) -> tuple[Floats, float]:
    """The probabilities of all parts ``[queries, K]``, and the seconds that a query took."""
    found, seconds = [], 0.0
    for name, queries in parts.items():
        tensors = _read(out, name)
        if not np.array_equal(tensors["candidates"], candidates[queries.start : queries.stop]):
            remedy = "remove the folder, or name another one for --out"
            raise InputError("the folder holds judgements of other candidates", file=out.name(""), remedy=remedy)
        found.append(tensors["probabilities"])
        seconds += out.read_json(_clock_of(name))["seconds"]
    return np.concatenate(found), seconds / len(candidates)


def _judge_part(
    out: Storage, name: str, queries: range, candidates: Ints, ask: Callable[[int], torch.Tensor]
) -> Iterator[int]:
    """Judge some queries and write the probabilities; yields each query when it is judged."""
    found, seconds = [], 0.0
    for query in queries:
        began = time.perf_counter()
        found.append(ask(query).float().cpu().numpy())
        seconds += time.perf_counter() - began
        yield query
    some = candidates[queries.start : queries.stop]
    # beside the part, whose bytes are always the same
    out.write(_clock_of(name), json.dumps({"seconds": seconds, "queries": len(queries)}).encode())
    out.write(name, save({"probabilities": np.stack(found), "candidates": some.copy()}))


def _clock_of(part: str) -> str:
    return f"{part.removesuffix('.safetensors')}.json"


def _read(out: Storage, name: str) -> dict[str, Any]:
    try:
        found = load(out.read(name))
        return {key: found[key] for key in ("probabilities", "candidates")}
    except (SafetensorError, KeyError, FileNotFoundError) as error:
        remedy = "remove this file and run the same command again"
        raise InputError(f"missing or damaged: {error}", file=out.name(name), remedy=remedy) from error


def directions_of(measured: ScoreFile, tuned: ScoreFile) -> tuple[str, ...]:
    """The directions in which scores can be re-ranked: of queries without captions, only from text to audio.

    Raises:
        InputError: some of them are re-ranked already, or no clip is known to be right for the queries of ``tuned``,
            so that the weight of the re-ranker cannot be chosen on them.
    """
    for scores in (measured, tuned):
        if scores.questions.direction is not None:
            what, remedy = "these scores are re-ranked already", "name those of the first stage"
            raise InputError(what, file=scores.storage.name(""), value=scores.questions.direction, remedy=remedy)
    if not tuned.questions.captions:
        raise InputError(
            "the weight of the re-ranker is chosen by queries whose clips are known, and these scores have none",
            file=tuned.storage.name(""),
            remedy="score the captions of a validation split for --tune: `scores` without --queries",
        )
    return DIRECTIONS if measured.questions.captions else (FORWARD,)


def _order(retriever: Retriever, reranker: Reranker, manifest: Any, asked: Questions) -> SequentialOrder:
    """The clips of the scores; ``InputError`` if the build has others."""
    table = manifest.table if asked.captions else captioned(manifest.table)
    order = SequentialOrder(table, asked.split, retriever.recipe.data, reranker.batch)
    if clips_of(order) != asked.clips:
        what = "the scores are of other clips than the build has"
        raise InputError(what, value=asked.split, remedy="score this build")
    return order


def _sounds(
    retriever: Retriever, reranker: Reranker, manifest: Any, order: SequentialOrder, quiet: bool
) -> list[Sounds]:
    """The tokens of every clip, ``[1, A, d]`` on the CPU."""
    model, settings = reranker.model, retriever.recipe.data
    device = next(model.parameters()).device
    loader = Loader(manifest, order, settings, AudioInput.of(model.audio), retriever.tokenizer, train=False)
    line = StatusLine("batches of clips", order.steps_per_epoch, quiet=quiet)
    found: list[Sounds] = []
    for number, batch in enumerate(loader.epoch(0), 1):
        found += _heard(model, batch, device)
        line.update(number)
    return found


def _heard(model: RerankModel, batch: Any, device: torch.device) -> Iterator[Sounds]:
    refuse_damaged(batch)
    with torch.inference_mode():
        found = model.listen(batch.features.to(device), batch.frames.to(device))
    for tokens, heard in zip(found.tokens.cpu(), found.heard.cpu(), strict=True):
        kept = tokens[heard]
        yield Sounds(kept[None], torch.ones(1, len(kept), dtype=torch.bool))


def _stacked(sounds: list[Sounds]) -> Sounds:
    """Sounds as one batch."""
    longest = max(sound.heard.shape[1] for sound in sounds)
    tokens = [torch.nn.functional.pad(s.tokens, (0, 0, 0, longest - s.tokens.shape[1])) for s in sounds]
    heard = [torch.nn.functional.pad(s.heard, (0, longest - s.heard.shape[1])) for s in sounds]
    return Sounds(torch.cat(tokens), torch.cat(heard))


def compare(judged: dict[str, Judged], tuned: dict[str, Judged], metric: str = "mAP@10") -> dict[str, Any]:
    """Figures of each direction: of the first stage, re-ranked, and of a re-ranker that is always right.

    Where no query has a clip that is known to be right, there are no figures: only ``weight``, ``candidates``,
    ``queries`` and ``seconds_per_query``.

    Args:
        judged: the split that is measured.
        tuned: a validation split, on which the weight of the re-ranker is chosen.
        metric: by which it is chosen.
    """
    result: dict[str, Any] = {}
    for direction, found in judged.items():
        own, known = tuned[direction], slice(len(found.relevant))
        some = slice(len(own.relevant))
        weight = choose_weight(own.scores[some], own.candidates[some], own.probabilities[some], own.relevant, metric)
        scores, candidates = found.scores[known], found.candidates[known]
        result[direction] = {
            "queries": len(found.scores),
            "weight": weight,
            "candidates": candidates.shape[1],
            "seconds_per_query": found.seconds,
        }
        if not len(found.relevant):
            continue
        fused = fuse(scores, candidates, found.probabilities[known], weight)
        result[direction] |= {
            "first": measure(scores, found.relevant),
            "reranked": measure(fused, found.relevant),
            "oracle": measure(oracle(scores, candidates, found.relevant), found.relevant),
        }
    return result


def write_scores(
    judged: Judged, weight: float, first: ScoreFile, direction: str, identity: dict[str, Any], out: Storage
) -> None:
    """Write the new ranking of a direction in the form of `training.evaluation.scores.files`.

    Args:
        judged: the direction.
        weight: how much the re-ranker counts.
        first: the scores of the first stage.
        direction: ``text_to_audio`` or ``audio_to_text``, of which alone these scores are.
        identity: ``model`` and ``fingerprint`` of the re-ranker, and ``top``, the candidates that it was asked for.
        out: the folder, of this direction alone.
    """
    matrix = fuse(judged.scores, judged.candidates, judged.probabilities, weight)
    asked = first.questions
    if direction == BACKWARD:
        texts, read = asked.texts[: asked.captions], asked.read[: asked.captions]
        matrix, asked = np.ascontiguousarray(matrix.T), replace(asked, texts=texts, read=read)
    parts = (first.head.get("fingerprint"), identity["fingerprint"], identity["top"], weight)
    own = {
        "model": f"{first.head.get('model')}, re-ranked by {identity['model']}",
        "fingerprint": xxhash.xxh3_128_hexdigest(" ".join(map(str, parts)).encode()),
        "build": str(first.head.get("build")),
    }
    writer = ScoreWriter(out, replace(asked, direction=direction), own)
    if writer.begin():
        for part in writer.missing():
            writer.write(part, comparable(matrix[writer.rows_of(part)]))
        writer.finish()


def begin(out: Storage, identity: dict[str, Any]) -> None:
    """Mark a folder as that of these judgements; ``InputError`` if it holds others."""
    if out.exists(IDENTITY):
        known = out.read_json(IDENTITY)
        changed = sorted(key for key in known | identity if known.get(key) != identity.get(key))
        if changed:
            what = "the folder holds other judgements: " + ", ".join(changed) + " differ"
            raise InputError(what, file=out.name(IDENTITY), remedy="name another folder for --out")
    elif out.list():
        raise InputError("the folder holds something else", file=out.name(""), remedy="name a new folder for --out")
    out.write(IDENTITY, json.dumps(identity, indent=1).encode())
