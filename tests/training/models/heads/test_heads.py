"""Heads against their papers' definitions written out plainly, and what padding may do to them: nothing."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sharding.common.errors import InputError
from tests.training.engine.test_equivalence import variants
from training.models.encoders import EncodedAudio, EncodedText
from training.models.heads import HEADS, build_head, coattention, dual, sentence_attention, token_attention
from training.models.heads import text_aware_pooling as tap
from training.models.heads.pooling import AttentionPool
from training.objectives.pairs import tiling
from training.objectives.pairs.tiled import score_all

AUDIO, TEXT = 6, 8


def encoded(dtype: torch.dtype, texts: int = 5, audios: int = 4) -> tuple[EncodedText, EncodedAudio]:
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    token_mask = torch.arange(7) < torch.tensor([7, 1, 3, 5, 2])[:texts, None]
    segment_mask = torch.arange(3) < torch.tensor([3, 1, 2, 3])[:audios, None]
    patch_mask = segment_mask.repeat_interleave(4, 1) & (torch.arange(12) % 4 < 3)
    text = EncodedText(random(texts, 7, TEXT), token_mask)
    return text, EncodedAudio(random(audios, 3, AUDIO), segment_mask, random(audios, 12, AUDIO), patch_mask)


def vectors(head: Any, audio: EncodedAudio) -> tuple[Tensor, Tensor]:
    if not head.uses_patches:
        return audio.segments, audio.segment_mask
    assert audio.tokens is not None and audio.token_mask is not None
    return audio.tokens, audio.token_mask


def plain_attention(head: Any, text: EncodedText, audio: EncodedAudio, sentence: bool) -> Tensor:
    """Calvet and Toledano 2025 eqs. 1-7 pair by pair with torch.nn.MultiheadAttention, whose weights are the head's."""
    dim = head.query.out_features
    bias = head.query.bias is not None
    attention = nn.MultiheadAttention(dim, head.heads, bias=bias, batch_first=True).double()
    pack = {
        "in_proj_weight": torch.cat([m.weight for m in (head.query_in, head.key_in, head.value_in)]),
        "out_proj.weight": head.output.inner_weight,
    }
    if bias:
        pack["in_proj_bias"] = torch.cat([m.bias for m in (head.query_in, head.key_in, head.value_in)])
        pack["out_proj.bias"] = head.output.inner_bias
    sounds, mask = vectors(head, audio)
    rows = []
    for tokens, real in zip(text.tokens, text.token_mask, strict=True):
        tokens = tokens[:1] if sentence else tokens[real]
        scores = []
        for sound, valid in zip(sounds, mask, strict=True):
            query, key, value = head.query(tokens), head.key(sound[valid]), head.value(sound[valid])
            out, _ = torch.func.functional_call(attention, pack, (query[None], key[None], value[None]))
            refined = F.linear(out[0], head.output.outer_weight, head.output.outer_bias)
            compared = tokens if head.compares_text else query
            scores.append(F.cosine_similarity(compared, refined, dim=-1).mean())
        rows.append(torch.stack(scores))
    return torch.stack(rows)


def plain_pooling(head: Any, text: EncodedText, audio: EncodedAudio) -> Tensor:
    """arXiv 2303.05681 pair by pair, with torch's layer norms."""
    sounds, mask = vectors(head, audio)
    gain, shift = head.output_norm()
    rows = []
    for tokens in text.tokens:
        caption = head.text_projection(tokens[0])
        scores = []
        for sound, valid in zip(sounds, mask, strict=True):
            source = head.input_norm(head.audio_projection(sound[valid]))
            query = head.query(head.input_norm(caption))
            weights = (head.key(source) @ query / math.sqrt(len(query))).softmax(0)
            pooled = head.output(weights @ head.value(source))
            scores.append(F.cosine_similarity(caption, F.layer_norm(pooled, pooled.shape, gain, shift), dim=0))
        rows.append(torch.stack(scores))
    return torch.stack(rows)


def agree(head: Any, plain: Tensor, text: EncodedText, audio: EncodedAudio) -> None:
    """Scores and the gradients of inputs and parameters agree to 1e-12."""
    scores = head.score(head(text), head(audio))
    torch.testing.assert_close(scores, plain, rtol=0, atol=1e-12)
    weights = torch.randn(scores.shape, dtype=torch.float64)
    asked = [text.tokens, vectors(head, audio)[0], *head.parameters()]
    got = torch.autograd.grad((scores * weights).sum(), asked)
    wanted = torch.autograd.grad((plain * weights).sum(), asked)
    scale = max(float(w.abs().max()) for w in wanted)
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12 * max(scale, 1))


def randomised(head: Any) -> Any:
    """Biases and norms away from their start, so that a forgotten one shows."""
    with torch.no_grad():
        for parameter in head.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) / 2)
    return head.double()


@pytest.mark.parametrize("audio_form", ["segments", "patches"])
@pytest.mark.parametrize(
    ("compare", "dim", "bias"),
    [
        ("auto", TEXT, True),
        ("query", TEXT, True),
        ("auto", 12, True),
        ("auto", TEXT, False),
        ("auto", 64, True),  # fewer words, and fewer values of heads, than the width
        ("auto", 64, False),
    ],
)
@pytest.mark.parametrize("few", [False, True])
def test_token_attention_is_the_plain_definition(
    audio_form: str, compare: str, dim: int, bias: bool, few: bool
) -> None:
    settings = token_attention.Settings(dim=dim, heads=2, audio=audio_form, compare=compare, bias=bias)  # type: ignore[arg-type]
    head = randomised(build_head(settings, AUDIO, TEXT))
    head.global_batch = int(few)
    assert head.moves_layers == (few and audio_form == "segments")
    text, audio = encoded(torch.float64)
    agree(head, plain_attention(head, text, audio, sentence=False), text, audio)


@pytest.mark.parametrize("audio_form", ["segments", "patches"])
def test_sentence_attention_is_the_plain_definition(audio_form: str) -> None:
    settings = sentence_attention.Settings(dim=TEXT, heads=2, audio=audio_form)  # type: ignore[arg-type]
    head = randomised(build_head(settings, AUDIO, TEXT))
    text, audio = encoded(torch.float64)
    agree(head, plain_attention(head, text, audio, sentence=True), text, audio)


@pytest.mark.parametrize("audio_form", ["segments", "patches"])
def test_text_aware_pooling_is_the_plain_definition(audio_form: str) -> None:
    settings = tap.Settings(dim=10, audio=audio_form, dropout=0.0)  # type: ignore[arg-type]
    head = randomised(build_head(settings, AUDIO, TEXT))
    text, audio = encoded(torch.float64)
    agree(head, plain_pooling(head, text, audio), text, audio)


def plain_module(head: coattention.CoAttention, number: int, text: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
    """One module on one pair, ``[1, N, d]`` and ``[1, M, d]``, with torch's own layers."""
    settings, dim = head.settings, text.shape[-1]
    steps: Any = head.cascade.module.steps
    weights: Any = dict(steps[0 if settings.shared_weights else number].named_parameters())

    def attend(name: str, queries: Tensor, source: Tensor) -> Tensor:
        attention = nn.MultiheadAttention(dim, settings.heads, batch_first=True).double()
        pack = {
            "in_proj_weight": weights[f"{name}.in_weight"],
            "in_proj_bias": weights[f"{name}.in_bias"],
            "out_proj.weight": weights[f"{name}.out_weight"],
            "out_proj.bias": weights[f"{name}.out_bias"],
        }
        out, _ = torch.func.functional_call(attention, pack, (queries, source, source))
        return F.layer_norm(queries + out, (dim,), weights[f"{name}.norm_weight"], weights[f"{name}.norm_bias"])

    def feed(name: str, x: Tensor) -> Tensor:
        hidden = F.linear(x, weights[f"{name}.up_weight"], weights[f"{name}.up_bias"]).relu()
        x = x + F.linear(hidden, weights[f"{name}.down_weight"], weights[f"{name}.down_bias"])
        return F.layer_norm(x, (dim,), weights[f"{name}.norm_weight"], weights[f"{name}.norm_bias"])

    if settings.self_attention:
        text, audio = attend("text_self", text, text), attend("audio_self", audio, audio)
    text, audio = attend("text_cross", text, audio), attend("audio_cross", audio, text)
    if settings.feed_forward:
        text, audio = feed("text_forward", text), feed("audio_forward", audio)
    return text, audio


def plain_coattention(head: coattention.CoAttention, tokens: Tensor, sound: Tensor) -> Tensor:
    """One pair through all modules."""
    start = head.text_projection(tokens)[None], head.audio_projection(sound)[None]
    if head.settings.wiring == "parallel":
        results = [plain_module(head, number, *start) for number in range(head.settings.modules)]
        text, audio = (torch.stack(parts).mean(0) for parts in zip(*results, strict=True))
    else:
        text, audio = start
        for number in range(head.settings.modules):
            text, audio = plain_module(head, number, text, audio)
    return F.cosine_similarity(text.mean(1), audio.mean(1))[0]


COATTENTION = [coattention.Settings(dim=8, heads=2), coattention.Settings(dim=8, heads=2, modules=1)]
COATTENTION += variants(HEADS["co-attention"])[1:]


@pytest.mark.parametrize("settings", COATTENTION, ids=str)
def test_coattention_is_the_plain_definition(settings: coattention.Settings) -> None:
    head = randomised(build_head(settings, AUDIO, TEXT))
    text, audio = encoded(torch.float64)
    sounds, mask = vectors(head, audio)
    plain = torch.stack(
        [
            torch.stack([plain_coattention(head, t[real], s[valid]) for s, valid in zip(sounds, mask, strict=True)])
            for t, real in zip(text.tokens, text.token_mask, strict=True)
        ]
    )
    agree(head, plain, text, audio)


ALL = [settings for module in HEADS.values() for settings in variants(module)]
FEW = [(settings, 0) for settings in ALL] + [(settings, 1) for settings in variants(HEADS["token-attention"])]


def test_a_model_in_use_scores_as_for_many_clips() -> None:
    """Because it meets any number of clips: layers are moved in training alone, and never for single vectors."""
    for module, moves in ((token_attention, True), (sentence_attention, False)):
        head: Any = build_head(module.Settings(dim=TEXT, heads=2), AUDIO, TEXT)
        assert not head.moves_layers
        head.global_batch = 1
        assert head.moves_layers == moves
        assert not head.eval().moves_layers
        head.train().global_batch = 200
        assert not head.moves_layers


@pytest.mark.parametrize("rubbish", [100.0, math.nan])
@pytest.mark.parametrize(("settings", "global_batch"), FEW, ids=str)
def test_padding_changes_nothing(settings: Any, global_batch: int, rubbish: float) -> None:
    """Neither scores nor gradients, whatever stands there."""
    head = build_head(settings, AUDIO, TEXT).train(global_batch > 0)
    head.global_batch = global_batch
    text, audio = encoded(torch.float32)
    assert audio.tokens is not None and audio.token_mask is not None
    before = head.score(head(text), head(audio))
    tokens = torch.cat((text.tokens, torch.full((5, 4, TEXT), rubbish)), 1)
    tokens = torch.where(F.pad(text.token_mask, (0, 4))[..., None], tokens, rubbish)
    segments = F.pad(audio.segments, (0, 0, 0, 2))
    segments = torch.where(F.pad(audio.segment_mask, (0, 2))[..., None], segments, rubbish)
    patches = torch.where(audio.token_mask[..., None], audio.tokens, rubbish)
    padded_text = EncodedText(tokens, F.pad(text.token_mask, (0, 4)))
    padded_audio = EncodedAudio(
        segments,
        F.pad(audio.segment_mask, (0, 2)),
        F.pad(patches, (0, 0, 0, 8), value=rubbish),
        F.pad(audio.token_mask, (0, 8)),
    )
    after = head.score(head(padded_text), head(padded_audio))
    torch.testing.assert_close(after, before, rtol=0, atol=1e-5)
    parameters = list(head.parameters())
    gradients = [torch.autograd.grad(scores.square().sum(), parameters) for scores in (after, before)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dim", [8, 64])
@pytest.mark.parametrize("global_batch", [0, 1])
@pytest.mark.parametrize("module", [token_attention, sentence_attention])
def test_captions_without_words_and_clips_without_sound_have_scores_and_gradients(
    module: Any, global_batch: int, dim: int
) -> None:
    """They stand in batches for samples that could not be read."""
    head = build_head(module.Settings(dim=dim, heads=2), AUDIO, TEXT)
    head.global_batch = global_batch
    text, audio = encoded(torch.float32)
    no_words = EncodedText(text.tokens, torch.zeros_like(text.token_mask))
    no_sound = EncodedAudio(audio.segments, torch.zeros_like(audio.segment_mask))
    for words, sounds in ((no_words, audio), (text, no_sound), (no_words, no_sound)):
        scores = head.score(head(words), head(sounds))
        gradients = torch.autograd.grad(scores.sum(), list(head.parameters()), allow_unused=True)
        assert scores.isfinite().all()
        assert all(gradient is None or bool(gradient.isfinite().all()) for gradient in gradients)


@pytest.mark.parametrize("compare", ["text", "query"])
@pytest.mark.parametrize("global_batch", [0, 1])
@pytest.mark.parametrize("module", [token_attention, sentence_attention])
def test_the_scores_of_an_infinite_token_are_not_numbers(module: Any, global_batch: int, compare: str) -> None:
    """A model that has diverged must not look like one that scores."""
    head = build_head(module.Settings(dim=TEXT, heads=2, compare=compare), AUDIO, TEXT)
    head.global_batch = global_batch
    text, audio = encoded(torch.float32)
    with torch.no_grad():
        text.tokens[1, 0, 0] = torch.inf
    scores = head.score(head(text), head(audio))
    assert scores[1].isnan().all()
    assert scores[[0, 2, 3, 4]].isfinite().all()


@pytest.mark.parametrize(("settings", "global_batch"), FEW, ids=str)
def test_gradients_are_ready_in_an_order_that_no_size_decides(settings: Any, global_batch: int) -> None:
    """ZeRO 2 sums them over ranks in that order, and ranks have different numbers of samples."""
    orders = []
    for texts, audios in ((5, 4), (1, 1), (5, 1), (1, 4)):
        head, order = build_head(settings, AUDIO, TEXT).train(global_batch > 0), list[str]()
        head.global_batch = global_batch
        for name, parameter in head.named_parameters():
            parameter.register_post_accumulate_grad_hook(lambda _, name=name, order=order: order.append(name))
        text, audio = encoded(torch.float32, texts, audios)
        head.score(head(text), head(audio)).sum().backward()
        orders.append(order)
    assert orders == [orders[0]] * len(orders)


@pytest.mark.parametrize(("settings", "global_batch"), FEW, ids=str)
def test_scores_in_tiles_are_the_scores(settings: Any, global_batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiling, "tile_elements", lambda *_: 1)
    head = build_head(settings, AUDIO, TEXT).train(global_batch > 0)
    head.global_batch = global_batch
    text, audio = encoded(torch.float32)
    whole = head.score(head(text), head(audio))
    torch.testing.assert_close(score_all(head, head(text), head(audio)), whole, atol=1e-5, rtol=0)
    assert bool((whole.abs() <= 1 + 1e-5).all())


def test_attention_pool_is_equation_3() -> None:
    pool = AttentionPool(AUDIO)
    first, last = pool.score[0], pool.score[2]
    z = torch.randn(1, 4, AUDIO)
    alpha = (torch.tanh(z[0] @ first.weight.t() + first.bias) @ last.weight[0]).softmax(0)
    torch.testing.assert_close(pool(z, torch.ones(1, 4, dtype=torch.bool))[0], alpha @ z[0])


def test_dual_encoder_scores_are_dot_products_of_embeddings() -> None:
    head = build_head(dual.Settings(dim=16), AUDIO, TEXT)
    text, audio = encoded(torch.float32)
    sides = head(text), head(audio)
    one, other = (head.embedding(side) for side in sides)
    assert one is not None and other is not None
    torch.testing.assert_close(one @ other.t(), head.score(*sides))
    torch.testing.assert_close(one.norm(dim=1), torch.ones(5))


def test_settings_that_cannot_work_say_why() -> None:
    with pytest.raises(InputError, match="multiple of heads"):
        build_head(token_attention.Settings(dim=9, heads=2), AUDIO, TEXT)
    with pytest.raises(InputError, match="same width"):
        build_head(token_attention.Settings(dim=16, heads=2, compare="text"), AUDIO, TEXT)
    with pytest.raises(InputError, match="all compute the same"):
        build_head(coattention.Settings(dim=8, wiring="parallel", shared_weights=True), AUDIO, TEXT)


def test_captions_that_are_not_projected_keep_the_vectors_of_their_encoder() -> None:
    text, audio = encoded(torch.float32)
    head = build_head(dual.Settings(dim=TEXT, project_text=False, text_pooling="mean"), AUDIO, TEXT)
    (captions,), (clips,) = head.text_side(text), head.audio_side(audio)
    mean = torch.stack([tokens[real].mean(0) for tokens, real in zip(text.tokens, text.token_mask, strict=True)])
    torch.testing.assert_close(captions, F.normalize(mean, dim=-1))
    assert clips.shape[1] == TEXT
    assert not any(name.startswith("text_projection") for name, _ in head.named_parameters())
    with pytest.raises(InputError, match="not projected must have the width") as caught:
        build_head(dual.Settings(dim=5, project_text=False), AUDIO, TEXT)
    assert f"head.dim to {TEXT}" in str(caught.value.remedy)
