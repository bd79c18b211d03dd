from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from sharding.common.errors import InputError
from tests.training.small_runs import small_recipe
from training.models.retriever import Retriever
from training.tasks.retrieval import assemble


@pytest.fixture(scope="module")
def retriever() -> Retriever:
    recipe = small_recipe()
    model, loss = assemble(recipe, ["a low hum", "a whistle", "some hiss"])
    return Retriever(model.eval(), loss.eval(), recipe)


def test_a_recording_beyond_the_longest_input_is_cut_off(retriever: Retriever) -> None:
    audio = retriever.audio_input
    wave = np.sin(np.arange(round(2 * audio.max_s * audio.rate)) / 9)
    whole, first = retriever.encode_wave(wave), retriever.encode_wave(wave[: len(wave) // 2])
    assert torch.equal(whole[0], first[0])


def test_tensors_and_arrays_of_any_precision_are_recordings(retriever: Retriever) -> None:
    wave = np.sin(np.arange(40000) / 9).astype(np.float32)
    expected = retriever.encode_wave(wave)[0]
    for same in (wave.astype(np.float64), torch.from_numpy(wave)):
        torch.testing.assert_close(retriever.encode_wave(same)[0], expected)


def test_captions_are_spelled_as_the_recipe_says(retriever: Retriever) -> None:
    plain, loud = retriever.encode_texts(["a low hum", "A LOW, hum!"])[0]
    torch.testing.assert_close(plain, loud)


def test_every_text_is_scored_against_every_recording(retriever: Retriever) -> None:
    texts = retriever.encode_texts(["a", "b", "c"])
    scores = retriever.score(texts, retriever.encode_wave(np.ones(9000)))
    assert scores.shape == (3, 1) and bool(scores.abs().max() <= 1 + 1e-6)


@pytest.mark.parametrize("wave", [np.zeros((2, 100)), np.full(100, np.nan), np.zeros(100, np.int16)])
def test_anything_but_one_row_of_finite_samples_is_refused(wave: Any, retriever: Retriever) -> None:
    with pytest.raises(InputError, match="one row of finite"):
        retriever.encode_wave(wave)
