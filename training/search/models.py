"""What a search needs of a model: vectors of descriptions and of sounds, and the exact scores of some entries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soxr
import torch

from sharding.common.errors import InputError
from training.models.retriever import Retriever
from training.objectives.pairs.tiled import score_all
from training.search.store import SoundIndex
from training.search.vectors import fingerprint, first_stage, is_exact


class WholeModel:
    """The model that an index was made with.

    Args:
        index: the index.
        retriever: the model.

    Raises:
        InputError: the index was made with another model.
    """

    def __init__(self, index: SoundIndex, retriever: Retriever) -> None:
        if fingerprint(retriever) != index.about["model"]:
            raise InputError(
                "the index was made with another model",
                file=index.folder,
                value=index.about["model_path"],
                remedy="name that model with --model, or make an index with this one",
            )
        self._index, self._retriever, self._head = index, retriever, retriever.model.head
        silence = np.zeros(retriever.audio_input.segment, np.float32)
        # The first stage takes a text and a sound, and looks at each alone; these stand in for what is not given.
        self._any_sound, self._any_text = retriever.encode_wave(silence), retriever.encode_texts(["a sound"])
        self.exact = is_exact(self._head, self._any_text)
        self.longest_s = retriever.audio_input.max_s

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of descriptions, ``[texts, d]``."""
        side = self._retriever.encode_texts(list(texts))
        return np.asarray(first_stage(self._head, side, self._any_sound)[0].cpu().numpy())

    def sound(self, wave: np.ndarray, rate: int, text: str | None = None) -> np.ndarray:
        """The vector ``[d]`` of a sound: mono float ``[n]`` at ``rate`` Hz, heard up to ``longest_s``.

        With a text it is the vector of both together, which only some models can give.
        """
        audio = self._retriever.audio_input
        wave = np.asarray(wave, np.float32)[: int(audio.max_s * rate) + 1]
        if rate != audio.rate:
            wave = soxr.resample(wave, rate, audio.rate, quality="HQ")
        wave = wave if len(wave) else np.zeros(1, np.float32)
        retriever = self._retriever
        side = retriever.encode_wave(wave) if text is None else retriever.encode_together(wave, text)
        return np.asarray(first_stage(self._head, self._any_text, side)[1][0].cpu().numpy())

    def scores(self, texts: Sequence[str], rows: np.ndarray) -> np.ndarray:
        """The scores of some entries as the head computes them, ``[texts, rows]``."""
        device = self._retriever.device
        audio = tuple(torch.from_numpy(np.array(side[rows])).to(device) for side in self._index.sides)
        return np.asarray(score_all(self._head, self._retriever.encode_texts(list(texts)), audio).float().cpu().numpy())


def open_whole_model(index: SoundIndex, model: str | Path | None, trust_code: bool) -> WholeModel:
    """The model of an index, from where the index says or from ``model``."""
    from training.models.hub import open_model

    return WholeModel(index, open_model(model or index.about["model_path"], trust_code))
