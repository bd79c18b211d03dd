"""Re-ranks the best candidates of any scores, and measures what it brings; what a killed run has written is kept."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save

from sharding.common.errors import InputError
from sharding.common.storage import Storage
from training.data.features import AudioInput
from training.data.loader import Loader
from training.data.order import SequentialOrder
from training.engine.distributed import Group
from training.evaluation.encoding import refuse_damaged
from training.evaluation.metrics import DIRECTIONS
from training.evaluation.score_files import ScoreFile
from training.evaluation.split import clips_of
from training.models.multimodal.language import LanguageModel
from training.models.multimodal.listening import Listener
from training.models.retriever import Retriever
from training.reranking.fusion import Bools, Floats, Ints, best_items, choose_weight, fuse, measure, oracle
from training.reranking.model import Reranker, RerankModel, Sounds

QUERIES = 32  # of a part
IDENTITY = "reranking.json"
FORWARD, BACKWARD = DIRECTIONS


@dataclass(frozen=True)
class Judged:
    """One direction of a split with what the re-ranker says of every candidate.

    Attributes:
        scores: ``[queries, items]`` of the first stage.
        relevant: ``[queries, items]`` bool.
        candidates: ``[queries, K]`` items.
        probabilities: ``[queries, K]`` of Yes.
        seconds: that one query took.
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
    report: Callable[[str, int, int], None],
) -> dict[str, Judged]:
    """Let the re-ranker judge the candidates of every caption and of every clip of a split.

    Args:
        retriever: the model, for its recipe.
        reranker: the same as a re-ranker.
        manifest: of the build that was scored.
        scores: of the split, by any retriever.
        top: candidates of each query.
        out: a folder, which keeps what is finished.
        group: the ranks; each judges its share of the queries.
        report: called with a direction, how many of its parts this rank has done, and how many there are.
    """
    asked = scores.questions
    matrix = np.concatenate([block for _, block in scores.blocks()])[: asked.captions]
    own = asked.clip_of[:, None] == np.arange(len(asked.clips))[None]
    settings = retriever.recipe.data
    texts = retriever.tokenizer.cut(asked.read[: asked.captions], settings.max_tokens)
    sounds = _sounds(retriever, reranker, manifest, asked.split, asked.clips)
    found = {}
    for direction, values, relevant in ((FORWARD, matrix, own), (BACKWARD, matrix.T.copy(), own.T.copy())):
        candidates = best_items(values, top)

        def ask(query: int, direction: str = direction, candidates: Ints = candidates) -> torch.Tensor:
            chosen = candidates[query].tolist()
            if direction == FORWARD:
                return reranker.sounds(texts[query], _stacked([sounds[clip] for clip in chosen]))
            return reranker.captions(_stacked([sounds[query]]), [texts[caption] for caption in chosen])

        parts = -(-len(values) // QUERIES)
        mine = range(group.rank, parts, group.size)
        for done, part in enumerate(mine, 1):
            _judge_part(out, f"{direction}-{part:06d}.safetensors", range(len(values))[_rows(part)], candidates, ask)
            report(direction, done, len(mine))
        group.barrier(direction)
        names = [f"{direction}-{part:06d}.safetensors" for part in range(parts)]
        read, clocks = [_read(out, name) for name in names], [out.read_json(_clock_of(name)) for name in names]
        for part, tensors in enumerate(read):
            if not np.array_equal(tensors["candidates"], candidates[_rows(part)]):
                remedy = "remove the folder, or name another one for --out"
                raise InputError("the folder holds judgements of other candidates", file=out.name(""), remedy=remedy)
        probabilities = np.concatenate([tensors["probabilities"] for tensors in read])
        seconds = sum(each["seconds"] for each in clocks) / sum(each["queries"] for each in clocks)
        found[direction] = Judged(values, relevant, candidates, probabilities, seconds)
    return found


def _rows(part: int) -> slice:
    return slice(part * QUERIES, (part + 1) * QUERIES)


def _judge_part(out: Storage, name: str, queries: range, candidates: Ints, ask: Callable[[int], torch.Tensor]) -> None:
    if out.exists(name):
        return
    began = time.perf_counter()
    found = np.stack([ask(query).float().cpu().numpy() for query in queries])
    taken = {"seconds": time.perf_counter() - began, "queries": len(queries)}
    some = candidates[queries.start : queries.stop]
    out.write(_clock_of(name), json.dumps(taken).encode())  # beside the part, whose bytes are always the same
    out.write(name, save({"probabilities": found, "candidates": some.copy()}))


def _clock_of(part: str) -> str:
    return f"{part.removesuffix('.safetensors')}.json"


def _read(out: Storage, name: str) -> dict[str, Any]:
    try:
        found = load(out.read(name))
        return {key: found[key] for key in ("probabilities", "candidates")}
    except (SafetensorError, KeyError, FileNotFoundError) as error:
        remedy = "remove this file and run the same command again"
        raise InputError(f"missing or damaged: {error}", file=out.name(name), remedy=remedy) from error


def require_captions(scores: ScoreFile) -> None:
    """``InputError`` where the scores are of queries that are no captions, so that nobody knows what is right."""
    if not scores.questions.captions:
        remedy = "score the captions of a split: `scores` without --queries"
        raise InputError("these scores are of no captions", file=scores.storage.name(""), remedy=remedy)


def _sounds(retriever: Retriever, reranker: Reranker, manifest: Any, split: str, clips: list[str]) -> list[Sounds]:
    """The tokens of every clip of a split, ``[1, A, d]`` on the CPU."""
    settings, model = retriever.recipe.data, reranker.model
    device = next(model.parameters()).device
    order = SequentialOrder(manifest.table, split, settings, reranker.batch)
    names = clips_of(order)
    if names != clips:
        raise InputError("the scores are of other clips than the build has", value=split, remedy="score this build")
    loader = Loader(manifest, order, settings, AudioInput.of(model.audio), retriever.tokenizer, train=False)
    return [sound for batch in loader.epoch(0) for sound in _heard(model, batch, device)]


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

    Args:
        judged: the split that is measured.
        tuned: a validation split, on which the weight of the re-ranker is chosen.
        metric: by which it is chosen.
    """
    result: dict[str, Any] = {}
    for direction, found in judged.items():
        own = tuned[direction]
        weight = choose_weight(own.scores, own.candidates, own.probabilities, own.relevant, metric)
        fused = fuse(found.scores, found.candidates, found.probabilities, weight)
        result[direction] = {
            "weight": weight,
            "candidates": found.candidates.shape[1],
            "seconds_per_query": found.seconds,
            "first": measure(found.scores, found.relevant),
            "reranked": measure(fused, found.relevant),
            "oracle": measure(oracle(found.scores, found.candidates, found.relevant), found.relevant),
        }
    return result


def begin(out: Storage, identity: dict[str, Any]) -> None:
    """Make a folder one of these judgements; ``InputError`` if it holds others."""
    if out.exists(IDENTITY):
        known = out.read_json(IDENTITY)
        changed = sorted(key for key in known | identity if known.get(key) != identity.get(key))
        if changed:
            what = "the folder holds other judgements: " + ", ".join(changed) + " differ"
            raise InputError(what, file=out.name(IDENTITY), remedy="name another folder for --out")
    elif out.list():
        raise InputError("the folder holds something else", file=out.name(""), remedy="name a new folder for --out")
    out.write(IDENTITY, json.dumps(identity, indent=1).encode())
