"""Sounds in the space of a real CLIP: they find images, and guide a diffusion pipeline."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import transformers
from PIL import Image

from sharding.common.errors import InputError
from sharding.shards.manifest import Manifest
from tests.training.small_runs import small_recipe
from training import cli
from training.engine.distributed import Group
from training.evaluation.images import ImageTower, evaluate_images
from training.models.encoders.text.tokenizer import train_tokenizer
from training.models.hub import load
from training.run.loop import fit

SPLIT = "clotho/evaluation"
TOWER = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random CLIP, saved as the library saves it."""
    folder = tmp_path_factory.mktemp("clip")
    tokenizer = train_tokenizer(["a low hum", "a hiss"], 300)
    words = {"vocab_size": len(tokenizer), "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    text = TOWER | words | {"max_position_embeddings": 77, "projection_dim": 32}
    vision = TOWER | {"image_size": 32, "patch_size": 16, "projection_dim": 32}
    torch.manual_seed(3)
    transformers.CLIPModel(
        transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=32)
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    size = {"height": 32, "width": 32}
    transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def export(build: Path, clip: Path, group: Group, tmp_path_factory: pytest.TempPathFactory) -> Path:
    task = "task={name: collat, interaction: {blocks: 1, width: 16, heads: 2}, noise_weight: 0}"
    short = ["optimizer.steps=2", "optimizer.warmup_epochs=0", "log.health=0", "data.max_tokens=24", "head=null"]
    run = tmp_path_factory.mktemp("run")
    fit(small_recipe([task, *short, f"text={{encoder: clip, source: {clip}}}"]), Manifest.open(build), run, group)
    return run / "export"


@pytest.fixture(scope="module")
def frames(build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image for each clip, named as its sound file."""
    folder, draw = tmp_path_factory.mktemp("frames"), np.random.default_rng(0)
    for clip_id in Manifest.open(build).table["clip_id"].to_pylist():
        pixels = draw.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{clip_id.rpartition('/')[2]}.png")
    return folder


def test_sounds_and_images_are_compared_in_clips_own_space(
    export: Path, build: Path, clip: Path, frames: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["images", str(export), "--shards", str(build), "--split", SPLIT, "--frames", str(frames)]
    assert cli.main([*words, "--clip", str(clip), "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["clips"] == 9
    for direction in ("audio_to_image", "image_to_audio"):
        assert 1 / 9 <= found[direction]["MRR"] <= 1 and found[direction]["R@10"] == 1
        assert found[direction]["chance_MRR"] == pytest.approx(sum(1 / k for k in range(1, 10)) / 9)
    file = sorted(frames.iterdir())[0]
    model, processor = (
        transformers.CLIPModel.from_pretrained(clip),
        transformers.CLIPImageProcessor.from_pretrained(clip),
    )
    with torch.no_grad(), Image.open(file) as image:
        pixels = processor(images=[image.convert("RGB")], return_tensors="pt")["pixel_values"]
        expected = model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)
    torch.testing.assert_close(ImageTower(str(clip)).encode([file]), torch.nn.functional.normalize(expected, dim=-1))


def test_a_clip_without_an_image_is_named(export: Path, build: Path, clip: Path, tmp_path: Path, group: Group) -> None:
    with pytest.raises(InputError, match="9 of 9 clips have no image"):
        evaluate_images(load(export), Manifest.open(build), SPLIT, tmp_path, ImageTower(str(clip)), 4, group)
    with pytest.raises(InputError, match="no such folder"):
        evaluate_images(load(export), Manifest.open(build), SPLIT, tmp_path / "x", ImageTower(str(clip)), 4, group)


def pipeline(clip: Path, folder: Path, text: torch.nn.Module) -> None:
    """A small random Stable Diffusion that ``text`` guides."""
    import diffusers

    torch.manual_seed(5)
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=32,
        attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )
    vae = diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4)
    diffusers.StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=transformers.AutoTokenizer.from_pretrained(clip),
        unet=unet,
        scheduler=diffusers.DDIMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder, safe_serialization=True)


def test_a_sound_is_painted_by_the_pipeline_of_the_same_text_tower(
    export: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("diffusers")
    pipeline(clip, tmp_path / "same", transformers.CLIPTextModel.from_pretrained(clip))
    for name, tone in (("low", 200.0), ("high", 3000.0)):
        wave = 0.3 * np.sin(2 * np.pi * tone * np.arange(24000) / 16000)
        soundfile.write(tmp_path / f"{name}.wav", wave, 16000)
        words = [str(export), str(tmp_path / f"{name}.wav"), "--pipeline", str(tmp_path / "same"), "--steps", "2"]
        assert cli.main(["paint", *words, "--out", str(tmp_path / f"{name}.png"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["width"] == 8
    low, high = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("low", "high"))
    assert low.shape == (8, 8, 3) and low.std() > 0 and (low != high).any()
    other = transformers.CLIPTextModel(transformers.CLIPTextModel.from_pretrained(clip).config)
    pipeline(clip, tmp_path / "other", other)
    words[3] = str(tmp_path / "other")
    assert cli.main(["paint", *words, "--out", str(tmp_path / "x.png")]) == 2
    assert "guided by another text tower" in capsys.readouterr().err
