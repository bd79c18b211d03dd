"""Scores and metrics of large splits: time, and the most memory that is in use.

    python -m bench.evaluation           # 100,000 captions and 20,000 clips; parts for 100,000 clips
    python -m bench.evaluation --quick   # a hundredth of it

``metrics``: all figures of 100,000 captions against 20,000 clips, five captions a clip, in both directions, from scores
on disk (8 GB).  ``parts``: some parts of the scores of 100,000 captions against 100,000 clips, as `scores` computes and
writes them from vectors of 1,024 numbers; all sides are in memory as there, so the peak is that of the whole matrix.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from sharding.common.storage import Storage
from training.evaluation.counting import comparable
from training.evaluation.figures import Questions, figures, rank_all
from training.evaluation.run import scored_side
from training.evaluation.scores.files import ScoreFile, ScoreWriter
from training.models.encoders import EncodedAudio, EncodedText
from training.models.heads.base import Head, Side
from training.objectives.pairs.tiled import score_all

WIDTH = 1024
PARTS = 3


class Vectors(Head):
    """Dot products of given vectors."""

    def audio_side(self, audio: EncodedAudio) -> Side:
        return (audio.segments[:, 0],)

    def text_side(self, text: EncodedText) -> Side:
        return (text.tokens[:, 0],)

    def pair_scores(self, text: Side, audio: Side, shared: Side) -> torch.Tensor:
        return text[0] @ audio[0].t()


def questions(captions: int, clips: int) -> Questions:
    texts = [f"caption {number}" for number in range(captions)]
    return Questions("any/split", [f"any/split/{n}" for n in range(clips)], texts, texts, np.arange(captions) % clips)


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def parts(captions: int, clips: int, folder: Path) -> None:
    sounds = scored_side(Vectors(), (torch.nn.functional.normalize(torch.randn(clips, WIDTH), dim=1),))
    writer = ScoreWriter(Storage(folder), questions(captions, clips), {}, 32)
    writer.begin()
    started = time.perf_counter()
    for part in range(min(PARTS, writer.parts)):
        rows = writer.rows_of(part)
        texts = (torch.randn(rows.stop - rows.start, WIDTH),)
        writer.write(part, comparable(score_all(Vectors(), scored_side(Vectors(), texts), sounds).float().numpy()))
    took = (time.perf_counter() - started) / min(PARTS, writer.parts)
    print(
        f"parts: {captions} x {clips}: {took:.1f} s a part of {writer.rows} rows, {writer.parts} parts, "
        f"{took * writer.parts / 60:.0f} min in all, peak {peak_gib():.2f} GiB"
    )


def metrics(captions: int, clips: int, folder: Path) -> None:
    asked = questions(captions, clips)
    writer = ScoreWriter(Storage(folder), asked, {}, 32)
    writer.begin()
    draw = np.random.default_rng(0)
    for part in range(writer.parts):
        rows = writer.rows_of(part)
        scores = draw.standard_normal((rows.stop - rows.start, clips), np.float32)
        own = np.arange(rows.start, rows.stop)
        scores[own - rows.start, own % clips] += 3
        writer.write(part, scores)
    writer.finish()
    scores_file = ScoreFile.open(folder)
    started, used = time.perf_counter(), time.process_time()
    found = figures(rank_all(scores_file.blocks, asked), asked)
    took, used = time.perf_counter() - started, time.process_time() - used
    mean = found["text_to_audio"]["mAP@10"]
    print(
        f"metrics: {captions} x {clips}: {took:.1f} s ({used:.1f} s of CPU), "
        f"mAP@10 {mean:.4f}, peak {peak_gib():.2f} GiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    share = 100 if parser.parse_args().quick else 1
    with tempfile.TemporaryDirectory() as folder:
        metrics(100_000 // share, 20_000 // share, Path(folder) / "metrics")
    with tempfile.TemporaryDirectory() as folder:
        parts(100_000 // share, 100_000 // share, Path(folder) / "parts")


if __name__ == "__main__":
    main()
