"""``paint``: make an image of a sound."""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Any

from sharding.common.errors import InputError
from training.commands.arguments import add_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Make an image of a sound with a Stable Diffusion pipeline, which is guided by the sound in place of a prompt. "
        "The text tower that guides the pipeline must be the one that the model's sounds are read by."
    )
    add_model(parser)
    parser.add_argument("sound", type=Path, metavar="FILE", help="the sound file")
    parser.add_argument(
        "--pipeline",
        required=True,
        metavar="SOURCE",
        help="the pipeline in the format of diffusers: a folder, or a name on the Hugging Face hub",
    )
    parser.add_argument("--out", required=True, metavar="PNG", help="the image to write, local or s3://")
    parser.add_argument("--steps", type=int, default=50, metavar="N", help="how many steps of denoising (default: 50)")
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="the seed of the noise from which the image is made (default: 0)",
    )
    parser.add_argument("--size", type=int, metavar="N", help="height and width in pixels (the pipeline's own)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    import soxr
    import torch

    from sharding.common.storage import located
    from training.models.hub import open_model
    from training.models.painting import Painter
    from training.search.finding import read_sound

    if args.steps < 1 or args.seed < 0:
        raise InputError("--steps must be at least 1, and --seed 0 or more", value=(args.steps, args.seed))
    if args.size is not None and (args.size < 8 or args.size % 8):
        raise InputError("--size must be a multiple of 8 pixels", value=args.size)
    try:
        data = args.sound.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=args.sound) from error
    retriever = open_model(args.checkpoint, args.trust_code)
    wave, rate = read_sound(data, args.sound, retriever.audio_input.max_s)
    if not len(wave):
        raise InputError("the sound is empty", file=args.sound)
    painter = Painter(retriever, args.pipeline)
    if torch.cuda.is_available():
        retriever.model.to("cuda")
        painter.pipeline.to("cuda")
    image = painter.paint(soxr.resample(wave, rate, retriever.audio_input.rate), args.steps, args.seed, args.size)
    written = io.BytesIO()
    image.save(written, "PNG")
    storage, name = located(args.out)
    storage.write(name, written.getvalue())
    return {"out": args.out, "width": image.width, "height": image.height}


def show(result: dict[str, Any]) -> str:
    return f"{result['width']} x {result['height']} pixels: {result['out']}"
