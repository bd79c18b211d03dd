"""One language model as both encoders: what it computes is what transformers' own classes compute."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from sharding.common.errors import InputError
from tests.training.models.multimodal.families import CAPTIONS, FAMILIES, SOUND, write
from tests.training.models.test_hub import write_run
from tests.training.small_runs import small_recipe
from training.models import hub
from training.models.multimodal import language, listening
from training.models.multimodal.prompts import OF_TEXT, PromptedTokenizer, sound_marks
from training.tasks.retrieval import RetrievalTask, assemble

TINY = [
    "audio={encoder: multimodal, source: random, segment_s: 1.0, max_s: 3.0, width: 8, depth: 1, heads: 2}",
    "text={encoder: multimodal, source: random, width: 16, depth: 2, heads: 2, vocabulary: 280}",
    "head={name: dual, dim: null}",
    "data.masking={}",
]


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def published(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("model")
    return folder, write(request.param, folder)


def load(folder: Path | str, **more: Any) -> tuple[listening.Listener, language.LanguageModel]:
    text = language.build(language.Settings(source=str(folder), **more), ())
    audio = listening.build(listening.Settings(source=str(folder)))
    audio.connect(text)
    return audio.eval(), text.eval()


@torch.no_grad()
def test_vectors_are_the_hidden_states_of_the_published_classes(published: tuple[Path, Any]) -> None:
    folder, whole = published
    audio, text = load(folder, system="You are a helpful assistant.")
    encoded = text.tokenizer(["a dog barks", "rain"], max_length=20)
    tokens, mask = encoded["input_ids"], encoded["attention_mask"]
    states = whole(input_ids=tokens, attention_mask=mask, output_hidden_states=True).hidden_states[-1]
    expected = states[torch.arange(2), mask.sum(1) - 1]
    torch.testing.assert_close(text.encode(tokens, mask.bool()).pooled, expected, rtol=0, atol=1e-5)
    features, frames = torch.randn(2, 128, 3000), torch.tensor([700, 2999])
    pooled, sound, heard = audio(features, frames, torch.zeros(2))
    for number, count in enumerate(heard.sum(1).tolist()):
        prompt = torch.tensor([[*audio.before, *[SOUND] * count, *audio.after]])
        attended = (torch.arange(3000) < frames[number])[None].long()
        states = whole(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            input_features=features[number : number + 1],
            feature_attention_mask=attended,
            output_hidden_states=True,
        ).hidden_states[-1][0]
        torch.testing.assert_close(pooled[number], states[-1], rtol=0, atol=1e-5)
        first = len(audio.before)
        torch.testing.assert_close(sound[number, :count], states[first : first + count], rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_sound_and_a_text_together_are_one_prompt_of_the_published_classes(published: tuple[Path, Any]) -> None:
    folder, whole = published
    audio, text = load(folder)
    features, frames = torch.randn(1, 128, 3000), torch.tensor([900])
    pooled, _, heard = audio.together(features, frames, "a dog barks")
    start, end = sound_marks(text.tokenizer.plain)
    words = f"{end}a dog barks\nSummarize above audio and sentence in one word: {text.chat[1]}"
    prompt = torch.tensor([[*text.numbers(text.chat[0] + start), *[SOUND] * int(heard.sum()), *text.numbers(words)]])
    states = whole(
        input_ids=prompt,
        attention_mask=torch.ones_like(prompt),
        input_features=features,
        feature_attention_mask=(torch.arange(3000) < 900)[None].long(),
        output_hidden_states=True,
    ).hidden_states[-1]
    torch.testing.assert_close(pooled, states[:, -1], rtol=0, atol=1e-5)


def test_a_retriever_encodes_a_sound_and_a_text_together(tmp_path: Path) -> None:
    both = hub.open_checkpoint(write_run(tmp_path / "run", TINY))
    wave = np.sin(np.arange(40000) / 9)  # three segments
    (plain,), (rain,), (dog,) = both.encode_wave(wave), *(both.encode_together(wave, t) for t in ("rain", "a dog"))
    assert plain.shape == rain.shape == (1, 16)
    assert (rain - plain).abs().max() > 1e-4 and (rain - dog).abs().max() > 1e-5, "the text is read, and the sound"
    (long,) = both.encode_together(wave, "rain " * 500)
    assert torch.isfinite(long).all()
    other = hub.open_checkpoint(write_run(tmp_path / "other", []))
    with pytest.raises(InputError, match="cannot read a description together with a sound"):
        other.encode_together(wave, "rain")


def test_nothing_of_the_vision_tower_is_loaded_or_stored(published: tuple[Path, Any], tmp_path: Path) -> None:
    folder, _ = published
    source = f"source: {folder}"
    run = tmp_path / "run"
    overrides = [f"audio={{encoder: multimodal, {source}, max_s: 2.0}}", f"text={{encoder: multimodal, {source}}}"]
    checkpoint = write_run(run, [*overrides, *TINY[2:], "lora={audio: {rank: 2}, text: {rank: 2}}"])
    names = list(checkpoint.model())
    assert not any("visual" in name or "audio.language" in name for name in names)
    export = hub.save(checkpoint, tmp_path / "export")
    kept, loaded = hub.open_checkpoint(checkpoint), hub.load(export)
    wave = np.sin(np.arange(20000) / 9)
    torch.testing.assert_close(loaded.encode_wave(wave)[0], kept.encode_wave(wave)[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(loaded.encode_texts(["a dog"])[0], kept.encode_texts(["a dog"])[0], rtol=1e-4, atol=1e-5)


def test_the_parts_may_be_of_two_models_with_a_projector_between(tmp_path: Path) -> None:
    checkpoint = write_run(tmp_path / "run", [*TINY, "lora={text: {rank: 2}}", "optimizer.freeze=['audio.net.*']"])
    kept, loaded = hub.open_checkpoint(checkpoint), hub.load(hub.save(checkpoint, tmp_path / "export"))
    wave = np.sin(np.arange(40000) / 9)
    torch.testing.assert_close(loaded.encode_wave(wave)[0], kept.encode_wave(wave)[0], rtol=1e-4, atol=1e-5)
    assert kept.encode_wave(wave)[0].shape == (1, 16)


def test_an_export_of_published_parts_keeps_the_projector(tmp_path: Path) -> None:
    """The tower and the language model are saved as models of transformers, and what joins them beside them."""
    torch.manual_seed(1)
    audio, text = assemble(small_recipe(TINY), CAPTIONS)[0].children(), None
    tower, text = list(audio)[:2]
    tower.net.save_pretrained(tmp_path / "tower")
    text.net.save_pretrained(tmp_path / "language")
    text.tokenizer.save_pretrained(tmp_path / "language")
    sources = [
        f"audio={{encoder: multimodal, source: {tmp_path}/tower, max_s: 2.0}}",
        f"text={{encoder: multimodal, source: {tmp_path}/language}}",
    ]
    checkpoint = write_run(tmp_path / "run", [*sources, *TINY[2:], "seed=5"])
    export = hub.save(checkpoint, tmp_path / "export")
    assert {name.split(".")[1] for name in load_file(export / "model.safetensors") if name.startswith("audio.")} == {
        "projector"
    }
    wave = np.sin(np.arange(20000) / 9)
    kept, loaded = hub.open_checkpoint(checkpoint), hub.load(export)
    torch.testing.assert_close(loaded.encode_wave(wave)[0], kept.encode_wave(wave)[0], rtol=1e-5, atol=1e-6)


def test_adapters_leave_the_projector_trainable_and_the_rest_frozen() -> None:
    model, _ = assemble(small_recipe([*TINY, "lora={audio: {rank: 2}, text: {rank: 2}}"]), CAPTIONS)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name.split(".")[1] for name in trained if "lora" not in name} == {"projector"}
    assert any(name.startswith("text.net.model.layers.1") for name in trained)
    assert any(name.startswith("audio.net.layers.0") for name in trained)


@torch.no_grad()
@pytest.mark.parametrize("family", ["qwen2.5-omni"])
def test_padding_changes_nothing(family: str, tmp_path: Path) -> None:
    write(family, tmp_path)
    audio, _ = load(tmp_path)
    features, frames = torch.randn(3, 128, 1200), torch.tensor([1200, 30, 500])
    together = audio(features, frames, torch.zeros(3))[0]
    alone = torch.cat([audio(features[n : n + 1], frames[n : n + 1], torch.zeros(1))[0] for n in range(3)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


PLAIN = assemble(small_recipe(TINY), CAPTIONS)[0].text.tokenizer.plain


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=30), min_size=1, max_size=4), st.integers(2, 12))
def test_only_the_text_is_cut_and_never_its_prompt(texts: list[str], longest: int) -> None:
    tokenizer = PromptedTokenizer(PLAIN, "<", OF_TEXT)
    found = tokenizer(texts, max_length=longest)
    end = PLAIN(OF_TEXT, add_special_tokens=False)["input_ids"]
    for row, mask in zip(found["input_ids"], found["attention_mask"], strict=True):
        count = int(mask.sum())
        assert mask[:count].all() and row[count - len(end) + 1 : count].tolist() == end[1:]
        assert count <= longest + len(end) + 4


def test_a_text_encoder_that_is_no_language_model_is_refused() -> None:
    with pytest.raises(InputError, match="needs a language model"):
        assemble(small_recipe([TINY[0], "data.masking={}"]), CAPTIONS)


def test_vectors_that_a_trained_language_model_gives_are_not_stored() -> None:
    """Freezing the tower alone does not fix them."""
    model, loss = assemble(small_recipe([*TINY, "optimizer.freeze=['audio.*']"]), CAPTIONS)
    why = RetrievalTask(model, loss).why_not_stored("audio", "")
    assert why is not None and "language model" in why


def test_other_models_are_refused_by_kind(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vits"}))
    with pytest.raises(InputError, match=r"no language model is known of a model of this kind"):
        language.build(language.Settings(source=str(tmp_path)), ())


def test_the_state_before_the_answer_does_not_see_it(tmp_path: Path) -> None:
    """The published code appends the token of the embedding and reads the state before it; leaving it out is equal."""
    write("qwen2.5-omni", tmp_path)
    _, text = load(tmp_path)
    found = text.tokenizer(["a dog barks"], max_length=9)["input_ids"]
    more: Tensor = torch.cat((found, torch.tensor([[5, 6]])), 1)
    with torch.no_grad():
        states = text(more, torch.ones_like(more, dtype=torch.bool))
        alone = text.encode(found, torch.ones_like(found, dtype=torch.bool)).pooled
    torch.testing.assert_close(states[:, found.shape[1] - 1], alone, rtol=0, atol=1e-6)
