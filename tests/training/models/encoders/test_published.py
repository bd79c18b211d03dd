"""Encoders from local folders that the library's own classes saved, as published models are; and refusals."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from sharding.common.errors import InputError
from sharding.shards.manifest import Manifest
from tests.training.models.encoders.test_encoders import CAPTIONS, ONE_MODEL, audio_encoder
from tests.training.small_runs import TREE, lines, small_recipe, write_sounds
from training.data.settings import MaskingSettings
from training.data.sound.features import AudioInput, FeatureExtractor
from training.engine.launch import ranks
from training.models import hub
from training.models.encoders import AUDIO_ENCODERS, TEXT_ENCODERS, encoder_module
from training.models.encoders.text.tokenizer import train_tokenizer
from training.run.loop import fit
from training.tasks.retrieval import assemble

VOCABULARY = 300
BERT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
HTSAT = {
    "hidden_size": 64,
    "patch_embeds_hidden_size": 8,
    "depths": (1, 1, 1, 1),
    "num_attention_heads": (1, 1, 1, 2),
}
WHISPER = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_source_positions": 50,
    "vocab_size": VOCABULARY,
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 1),
}
DATA2VEC = {key: value for key, value in BERT.items() if "token" not in key} | {"conv_dim": (32,) * 7}
DEBERTA = BERT | {
    "relative_attention": True,
    "position_buckets": 8,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "position_biased_input": False,
    "type_vocab_size": 0,
}
T5 = {"vocab_size": VOCABULARY, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
T5 |= {"pad_token_id": 1, "decoder_start_token_id": 1}
VISION = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32, "patch_size": 16}

CLIP = transformers.CLIPConfig(text_config=BERT | {"projection_dim": 32}, vision_config=VISION, projection_dim=32)

# encoder: configuration, and the classes whose files are on the hub; the first is loaded in the training steps
AUDIO: dict[str, tuple[Any, tuple[str, ...]]] = {
    "ast": (
        transformers.ASTConfig(
            **{k: v for k, v in BERT.items() if "_id" not in k and k != "vocab_size"}, max_length=128
        ),
        ("ASTForAudioClassification", "ASTModel"),
    ),
    "clap": (transformers.ClapConfig(text_config=BERT, audio_config=HTSAT), ("ClapModel",)),
    "data2vec": (transformers.Data2VecAudioConfig(**DATA2VEC), ("Data2VecAudioModel", "Data2VecAudioForCTC")),
    "whisper": (transformers.WhisperConfig(**WHISPER), ("WhisperForConditionalGeneration", "WhisperModel")),
}
TEXT: dict[str, tuple[Any, tuple[str, ...]]] = {
    "bert": (transformers.BertConfig(**BERT), ("BertModel", "BertForPreTraining")),
    "bge": (transformers.BertConfig(**BERT), ("BertModel", "BertForMaskedLM")),
    "clap-text": (transformers.ClapConfig(text_config=BERT, audio_config=HTSAT), ("ClapModel",)),
    "clip": (CLIP, ("CLIPModel", "CLIPTextModelWithProjection")),
    "clip-text": (transformers.CLIPConfig(text_config=BERT, vision_config=VISION), ("CLIPModel",)),
    "deberta-v3": (transformers.DebertaV2Config(**DEBERTA), ("DebertaV2ForMaskedLM", "DebertaV2Model")),
    "gtr-t5": (transformers.T5Config(**T5), ("T5EncoderModel", "T5ForConditionalGeneration")),
    "modernbert": (
        transformers.ModernBertConfig(**BERT, cls_token_id=0, sep_token_id=2),
        ("ModernBertForMaskedLM", "ModernBertModel"),
    ),
    "mpnet": (transformers.MPNetConfig(**BERT), ("MPNetModel", "MPNetForMaskedLM")),
    "roberta": (
        transformers.RobertaConfig(**BERT | {"max_position_embeddings": 66}),
        ("RobertaForMaskedLM", "RobertaModel"),
    ),
}
ALL = AUDIO | TEXT
FILES = [(name, kind) for name, (_, kinds) in ALL.items() for kind in kinds]


def saved(name: str, kind: str, folder: Path) -> Any:
    """A small model of a published class, saved as the library saves it, with a tokenizer where it reads text."""
    torch.manual_seed(1)
    config = ALL[name][0]
    model = getattr(transformers, kind)(config.text_config if kind.startswith("CLIPText") else config)
    model.save_pretrained(folder)
    if name in TEXT:
        train_tokenizer(CAPTIONS, VOCABULARY).save_pretrained(folder)
    return model


def loaded(name: str, folder: Path, **more: Any) -> Any:
    torch.manual_seed(2)
    module = encoder_module(AUDIO_ENCODERS if name in AUDIO else TEXT_ENCODERS, name)
    settings = module.Settings(source=str(folder), **more)
    return module.build(settings) if name in AUDIO else module.build(settings, [])


@pytest.mark.parametrize(("name", "kind"), FILES, ids=lambda value: value)
def test_every_parameter_comes_from_the_file(name: str, kind: str, tmp_path: Path) -> None:
    model = saved(name, kind, tmp_path)
    published = list(model.state_dict().values())
    for key, value in loaded(name, tmp_path).net.named_parameters():
        assert any(value.shape == other.shape and torch.equal(value, other) for other in published), key


def test_every_family_that_publishes_weights_is_tested() -> None:
    assert set(AUDIO) | {"passt"} == set(AUDIO_ENCODERS) - ONE_MODEL
    assert set(TEXT) == set(TEXT_ENCODERS) - ONE_MODEL


def test_pooling_is_how_the_encoder_was_trained(tmp_path: Path) -> None:
    ways = {"bert": "mean", "bge": "first", "clip-text": "last", "gtr-t5": "mean", "mpnet": "mean", "roberta": "first"}
    for name, way in ways.items():
        saved(name, TEXT[name][1][0], tmp_path / name)
        encoder = loaded(name, tmp_path / name, dropout=0.0).eval()
        words = encoder.tokenizer(CAPTIONS, padding=True, return_tensors="pt")
        mask = words["attention_mask"].bool()
        text = encoder.encode(words["input_ids"], mask)
        for row, (vectors, real) in enumerate(zip(text.tokens, mask, strict=True)):
            expected = {"first": vectors[0], "mean": vectors[real].mean(0), "last": vectors[real][-1]}[way]
            torch.testing.assert_close(text.pooled[row], expected, msg=name)
        assert not torch.allclose(text.pooled[0], text.pooled[1]), name


def test_clip_gives_the_vectors_that_it_compares_with_images(tmp_path: Path) -> None:
    model = saved("clip", "CLIPModel", tmp_path).eval()
    encoder = loaded("clip", tmp_path).eval()
    words = encoder.tokenizer(CAPTIONS, padding=True, return_tensors="pt")
    mask = words["attention_mask"].bool()
    with torch.no_grad():
        last = model.text_model(input_ids=words["input_ids"], attention_mask=words["attention_mask"])[0]
        ends = last[torch.arange(len(CAPTIONS)), mask.sum(1) - 1]
        torch.testing.assert_close(encoder.encode(words["input_ids"], mask).pooled, model.text_projection(ends))


def test_a_hop_that_leaves_gaps_is_refused() -> None:
    with pytest.raises(InputError, match="never heard"):
        assemble(small_recipe(["audio.hop_s=1.5"]), ["a", "b"])
    with pytest.raises(InputError, match="hop_s must be positive"):
        small_recipe(["audio.hop_s=-1.0"])


def test_the_longest_caption_comes_from_the_encoder(tmp_path: Path) -> None:
    limits = {"bge": 512, "roberta": 64, "gtr-t5": None}
    for name, limit in limits.items():
        saved(name, TEXT[name][1][0], tmp_path / name)
        assert loaded(name, tmp_path / name).max_tokens == limit
    with pytest.raises(InputError, match="at most 64"):
        text = f"text={{encoder: roberta, source: {tmp_path / 'roberta'}}}"
        assemble(small_recipe([text, "data.max_tokens=65"]), [])


def test_whisper_large_v3_has_a_front_end_of_its_own(tmp_path: Path) -> None:
    transformers.WhisperModel(transformers.WhisperConfig(**WHISPER, num_mel_bins=128)).save_pretrained(tmp_path)
    encoder = loaded("whisper", tmp_path)
    assert (encoder.front_end, encoder.segment_s) == ("whisper-128", 1.0)
    transformers.WhisperModel(transformers.WhisperConfig(**WHISPER, num_mel_bins=40)).save_pretrained(tmp_path / "odd")
    with pytest.raises(InputError, match="mel bins"):
        loaded("whisper", tmp_path / "odd")


def test_a_shorter_segment_takes_the_first_positions_of_whisper(tmp_path: Path) -> None:
    saved("whisper", "WhisperModel", tmp_path)
    whole, half = loaded("whisper", tmp_path).eval(), loaded("whisper", tmp_path, segment_s=0.5).eval()
    assert (whole.segment_s, half.segment_s, half.hop_s) == (1.0, 0.5, 0.5)
    assert torch.equal(half.net.embed_positions.weight, whole.net.embed_positions.weight[:25])
    features = torch.randn(2, 80, 50)
    pooled, tokens, mask = half(features, torch.tensor([50, 20]), torch.arange(2))
    assert tokens.shape[:2] == mask.shape == (2, 25)
    assert mask.sum(1).tolist() == [25, 10]
    half.net.save_pretrained(tmp_path / "half", save_original_format=False)  # as an export does
    again = loaded("whisper", tmp_path / "half", segment_s=0.5).eval()
    assert torch.equal(again(features, torch.tensor([50, 20]), torch.arange(2))[0], pooled)
    with pytest.raises(InputError, match="at most 1 s"):
        loaded("whisper", tmp_path, segment_s=1.5)


def test_whisper_can_pool_all_layers_over_time(tmp_path: Path) -> None:
    saved("whisper", "WhisperModel", tmp_path)
    last, layers = loaded("whisper", tmp_path).eval(), loaded("whisper", tmp_path, pooled="layers").eval()
    features, frames = torch.randn(2, 80, 100), torch.tensor([100, 41])
    mean, tokens, mask = last(features, frames, torch.arange(2))
    pooled, same_tokens, same_mask = layers(features, frames, torch.arange(2))
    torch.testing.assert_close(same_tokens, tokens)
    assert torch.equal(same_mask, mask)
    width = last.dim
    assert layers.dim == pooled.shape[1] == 2 * (2 + 2) * width  # two blocks, their input, and the norm above them
    torch.testing.assert_close(pooled[:, -2 * width : -width], torch.nn.functional.layer_norm(mean, (width,)))
    deviation = torch.stack([row[real].std(0, unbiased=False) for row, real in zip(tokens, mask, strict=True)])
    expected = torch.nn.functional.layer_norm(deviation, (width,))
    torch.testing.assert_close(pooled[:, -width:], expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", ["whisper", "roberta", "clap"])
def test_weights_in_half_precision_are_trained_in_float32(name: str, tmp_path: Path) -> None:
    kind = ALL[name][1][0]
    saved(name, kind, tmp_path)
    getattr(transformers, kind).from_pretrained(tmp_path).half().save_pretrained(tmp_path)
    encoder = loaded(name, tmp_path)
    assert {p.dtype for p in (*encoder.parameters(), *encoder.buffers()) if p.is_floating_point()} == {torch.float32}


def test_clap_with_fusion_leaves_no_parameter_without_gradient(tmp_path: Path) -> None:
    config = transformers.ClapConfig(text_config=BERT, audio_config=HTSAT | {"enable_fusion": True})
    transformers.ClapModel(config).save_pretrained(tmp_path)
    encoder = loaded("clap", tmp_path)
    pooled, *_ = encoder(torch.randn(2, 64, 1001), torch.tensor([1001, 500]), torch.arange(2))
    pooled.square().sum().backward()
    assert all(p.grad is not None for p in encoder.parameters() if p.requires_grad)


def test_a_layer_between_two_stages_of_clap_is_trained_with_the_block_below() -> None:
    encoder = audio_encoder("clap")
    encoder.freeze_below(1)
    for stage in list(encoder.net.audio_encoder.layers)[1:-1]:
        assert all(parameter.requires_grad for parameter in stage.downsample.parameters())


def test_masks_of_claps_short_clips_lie_in_the_repetitions_too() -> None:
    audio = AudioInput("clap", 48000, 10.0, 10.0, 10.0)
    masking = MaskingSettings(time_masks=4, time_width=80, freq_masks=0)
    waves = torch.zeros(8, 480000)
    waves[:, :96000] = torch.randn(8, 96000)
    masked = FeatureExtractor(audio, masking, train=True)(waves, torch.full((8,), 96000), torch.arange(8))
    empty = (masked < -99).all(1)
    assert bool(empty[:, 400:].any()) and bool(empty[:, :200].any())


def test_models_that_cannot_be_loaded_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved("bge", "BertModel", tmp_path / "bert")
    saved("mpnet", "MPNetModel", tmp_path / "mpnet")
    with pytest.raises(InputError, match="is a bert, the encoder takes a roberta"):
        loaded("roberta", tmp_path / "bert")
    with pytest.raises(InputError, match="is a mpnet"):
        loaded("ast", tmp_path / "mpnet")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="as save_pretrained writes"):
        loaded("roberta", tmp_path / "empty")
    with pytest.raises(InputError, match="local folder"):
        loaded("roberta", tmp_path / "absent")
    (tmp_path / "mpnet/tokenizer.json").unlink()
    with pytest.raises(InputError, match="tokenizer"):
        loaded("mpnet", tmp_path / "mpnet")
    weights = tmp_path / "bert/model.safetensors"
    whole = load_file(weights)
    save_file({k: v for k, v in whole.items() if k != "encoder.layer.1.output.dense.weight"}, weights)
    with pytest.raises(InputError, match=r"lack 1 parameters .*layer\.1\.output\.dense\.weight"):
        loaded("bge", tmp_path / "bert")
    save_file(whole | {"encoder.layer.1.output.dense.weight": torch.zeros(3, 3)}, weights)
    with pytest.raises(InputError):
        loaded("bge", tmp_path / "bert")
    weights.write_bytes(b"broken")
    with pytest.raises(InputError):
        loaded("bge", tmp_path / "bert")
    (tmp_path / "bert/config.json").write_text("{")
    with pytest.raises(InputError):
        loaded("bge", tmp_path / "bert")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"hub does not answer(.|\n)*--set text.source=FOLDER"):
        loaded("roberta", Path("nobody/has-this-model"))


QUICK = ("clip-text", "mpnet")
PAIRS = [(audio, "roberta") for audio in AUDIO]
PAIRS += [
    pytest.param("passt", text, marks=() if text in QUICK else pytest.mark.slow, id=f"passt-{text}")  # type: ignore[misc]
    for text in TEXT
]


@pytest.mark.parametrize(("audio", "text"), PAIRS, ids=lambda value: value)
def test_encoders_of_filomeno_2025_table_1_take_a_step_from_local_folders(
    audio: str, text: str, tmp_path: Path
) -> None:
    write_sounds(tmp_path / "build", clips=4, held_out=1)
    overrides = ["optimizer.steps=1", "data.batch_size=2", "log.health=0", "checkpoint.every=1"]
    overrides += ["data.masking.time_masks=0", "data.masking.freq_masks=0", "optimizer.warmup_epochs=0"]
    if audio in AUDIO:
        saved(audio, AUDIO[audio][1][0], tmp_path / audio)
        overrides.append(f"audio={{encoder: {audio}, source: {tmp_path / audio}}}")
    saved(text, TEXT[text][1][0], tmp_path / text)
    overrides.append(f"text={{encoder: {text}, source: {tmp_path / text}}}")
    with ranks() as group:
        fit(small_recipe(overrides, TREE), Manifest.open(str(tmp_path / "build")), tmp_path / "run", group)
    (line,) = lines(tmp_path / "run")
    assert line["applied"] and line["grad_norm"] > 0
    exported = hub.open_model(tmp_path / "run")
    before = hub.open_checkpoint(hub.open_verified(hub.find(tmp_path / "run")))
    for name, value in before.model.named_parameters():
        assert torch.equal(value, exported.model.get_parameter(name)), name
    for part in (audio, text):  # an export does not need the folders that it came from
        shutil.rmtree(tmp_path / part, ignore_errors=True)
    hub.load(tmp_path / "run/export").encode_texts(["a dog barks"])


def test_pickles_are_read_only_if_the_source_names_them(tmp_path: Path) -> None:
    model = saved("bert", "BertModel", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pytorch_model\.bin"):
        loaded("bert", tmp_path)
    named = loaded("bert", tmp_path / "pytorch_model.bin")
    assert torch.equal(named.net.embeddings.word_embeddings.weight, model.embeddings.word_embeddings.weight)


def test_models_that_would_load_further_files_are_refused(tmp_path: Path) -> None:
    saved("bert", "BertModel", tmp_path)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace("{", '{"attn_implementation": "somebody/kernel",', 1))
    with pytest.raises(InputError, match="somebody/kernel"):
        loaded("bert", tmp_path)
    (tmp_path / "config.json").write_text(config)
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "somebody/model"}')
    with pytest.raises(InputError, match="adapter"):
        loaded("bert", tmp_path)


def test_code_of_a_model_never_runs(tmp_path: Path) -> None:
    saved("bert", "BertModel", tmp_path)
    (tmp_path / "evil.py").write_text("raise SystemExit('it ran')")
    named = '"auto_map": {"AutoModel": "evil.X", "AutoConfig": "evil.X", "AutoTokenizer": ["evil.X", "evil.X"]},'
    for file in ("config.json", "tokenizer_config.json"):
        text = (tmp_path / file).read_text()
        (tmp_path / file).write_text(text.replace("{", "{" + named, 1))
    loaded("bert", tmp_path)
