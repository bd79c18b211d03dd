"""PaSST (Koutini et al., Interspeech 2022), the audio encoder of Calvet and Toledano 2025 and Filomeno et al. 2025."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from sharding.common.errors import InputError
from training.config.checks import check_dropout, check_multiple, check_positive, refuse_sizes
from training.models.encoders import AudioEncoder
from training.models.encoders.pooling import masked_mean
from training.models.encoders.randomness import splitmix64, subset
from training.run.quiet import quiet


@dataclass(frozen=True)
class Variant:
    """A published model.

    Attributes:
        stride: frames and bins from patch to patch.
        frames: frames of its input, which determine how many positions its file has.
        segment_s: seconds of its input.
        front_end: see `training.data.sound.spectrogram`.
        frame_rate: frames per second.
    """

    stride: int = 10
    frames: int = 998
    segment_s: float = 10.0
    front_end: str = "passt"
    frame_rate: int = 100


VARIANTS = {
    "passt_s_swa_p16_128_ap476": Variant(),
    "passt_s_kd_p16_128_ap486": Variant(),
    "passt_l_kd_p16_128_ap47": Variant(),
    "passt_s_p16_s16_128_ap468": Variant(stride=16, frames=1000),
    "passt_u600_f128_p16_s16_ap_460": Variant(stride=16, frames=1000),
    "passt_b_f128_p16_s16_ap_459": Variant(stride=16, frames=1000),
    "passt_20sec": Variant(frames=2000, segment_s=20.0),
    "passt_30sec": Variant(frames=3000, segment_s=30.0),
    "stfthop160": Variant(frames=2000, front_end="passt-hop160", frame_rate=200),
    "stfthop100": Variant(frames=3200, front_end="passt-hop100", frame_rate=320),
    "openmic": Variant(),
    "fsd50k": Variant(),
    "fsd50k-n": Variant(stride=16),
}
CUSTOM = "custom"
_SIZES = ("segment_s", "width", "depth", "heads", "stride")  # settings of a custom variant
PATCH = 16


@dataclass(frozen=True)
class Settings:
    """Settings of a PaSST encoder.

    Attributes:
        encoder: ``passt``.
        variant: a published model (``VARIANTS``), or ``custom`` for the sizes given here.
        source: ``published`` (downloaded by hear21passt), ``random``, or a file of weights.
        segment_s: seconds of a segment for ``custom``; a published variant has its own.
        interpolate_s: seconds of a segment of another length than the model was trained on; the positions over time
            are interpolated. None: the segments that the model was trained on.
        hop_s: seconds from the start of one segment to the start of the next one; None: segments do not overlap.
        max_s: the most seconds of a clip that are encoded.
        patchout_time, patchout_freq: how many columns and rows of patches are left out in training, drawn for each
            segment (structured patchout, section 2.2 of arXiv 2110.05069).
        patchout_any: how many single patches are left out as well (unstructured patchout).
        dropout: in all blocks.
        pooled: the vector of a segment: ``summary``, the mean of the class and distillation tokens as published, or
            ``patches``, the mean of the patches that hold sound, which learns sooner without pre-training.
        width, depth, heads, stride: sizes of ``custom``.
    """

    encoder: str = "passt"
    variant: str = "passt_s_p16_s16_128_ap468"
    source: str = "published"
    segment_s: float = 10.0
    interpolate_s: float | None = None
    hop_s: float | None = None
    max_s: float = 30.0
    patchout_time: int = 0
    patchout_freq: int = 0
    patchout_any: int = 0
    dropout: float = 0.0
    pooled: Literal["summary", "patches"] = "summary"
    width: int = 768
    depth: int = 12
    heads: int = 12
    stride: int = 16

    def __post_init__(self) -> None:
        refuse_sizes(self, self.variant, f"set variant to {CUSTOM}, or interpolate_s for segments of another length")
        check_positive(self, "segment_s", "interpolate_s", "hop_s", "max_s", "depth", "stride")
        check_multiple(self, "width")
        check_dropout(self, "dropout")
        if min(self.patchout_time, self.patchout_freq, self.patchout_any) < 0:
            value = (self.patchout_time, self.patchout_freq, self.patchout_any)
            raise InputError("patchout must not be negative", value=value, remedy="0 leaves nothing out")

    def decided_by_source(self) -> tuple[str, ...]:
        """The keys that hold for ``custom`` alone, where the variant is a published one."""
        return () if self.variant == CUSTOM else _SIZES


class PasstEncoder(AudioEncoder):
    """The transformer of hear21passt, with patchout drawn for each segment.

    hear21passt itself draws the patches of a whole batch from the generator of the process, so a batch that is split
    over ranks would train otherwise than on one rank.  Here the patches of a segment follow from its seed.
    """

    def __init__(self, net: Any, settings: Settings, variant: Variant) -> None:
        super().__init__()
        # Retrieval needs no classifier, and ZeRO does not expect parameters without gradient.
        net.head, net.head_dist = nn.Identity(), None
        self.net = net
        self.settings = settings
        self.front_end = variant.front_end
        self.segment_s = settings.interpolate_s or variant.segment_s
        self.hop_s = settings.hop_s or self.segment_s
        self.max_s = settings.max_s
        self.dim = net.embed_dim

    def blocks(self) -> list[nn.Module]:
        return list(self.net.blocks)

    def top(self) -> list[nn.Module]:
        return [self.net.norm]

    def forward(self, features: Tensor, frames: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        net = self.net
        grid = net.patch_embed.proj(features[:, None])  # [n, d, f, t]
        rows, columns = grid.shape[2:]
        grid = grid + net.time_new_pos_embed[..., :columns] + net.freq_new_pos_embed[:, :, :rows]
        starts = torch.arange(columns, device=frames.device) * net.patch_embed.stride[1]
        mask = (starts[None, :] < frames[:, None])[:, None, :].expand(-1, rows, -1)  # [n, f, t]
        tokens, mask = self._patchout(grid.permute(0, 2, 3, 1), mask, seeds)
        first = net.cls_token + net.new_pos_embed[:, :1]
        second = net.dist_token + net.new_pos_embed[:, 1:]
        summary = torch.cat([first, second], 1).expand(tokens.shape[0], -1, -1)  # ONNX takes len() for a constant
        x = net.norm(net.blocks(net.pos_drop(torch.cat([summary, tokens], 1))))
        patches = x[:, 2:]
        if self.settings.pooled == "patches":
            return masked_mean(patches, mask), patches, mask
        return (x[:, 0] + x[:, 1]) / 2, patches, mask

    def _patchout(self, grid: Tensor, mask: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor]:
        """The patches that are kept, ``[n, P, d]`` and ``[n, P]``, of ``grid [n, f, t, d]`` and ``mask [n, f, t]``."""
        _, rows, columns, dim = grid.shape
        out_rows, out_columns = self.settings.patchout_freq, self.settings.patchout_time
        if self.training and out_columns:
            index = subset(splitmix64(seeds, torch.zeros_like(seeds)), columns, columns - out_columns)
            grid = grid.gather(2, index[:, None, :, None].expand(-1, rows, -1, dim))
            mask = mask.gather(2, index[:, None, :].expand(-1, rows, -1))
        if self.training and out_rows:
            index = subset(splitmix64(seeds, torch.ones_like(seeds)), rows, rows - out_rows)
            grid = grid.gather(1, index[:, :, None, None].expand(-1, -1, grid.shape[2], dim))
            mask = mask.gather(1, index[:, :, None].expand(-1, -1, mask.shape[2]))
        tokens, mask = grid.flatten(1, 2), mask.flatten(1, 2)
        out = self.settings.patchout_any
        if self.training and out:
            index = subset(splitmix64(seeds, torch.full_like(seeds, 2)), tokens.shape[1], tokens.shape[1] - out)
            tokens = tokens.gather(1, index[:, :, None].expand(-1, -1, dim))
            mask = mask.gather(1, index)
        return tokens, mask


def build(settings: Settings) -> PasstEncoder:
    """The encoder that ``settings`` describes; the weights of a published one are downloaded on first use."""
    if settings.variant == CUSTOM:
        variant = Variant(settings.stride, _frames(settings.segment_s, Variant.frame_rate), settings.segment_s)
        net = _custom(settings, variant)
    elif settings.variant in VARIANTS:
        variant = VARIANTS[settings.variant]
        net = _published(settings, variant)
    else:
        known = ", ".join([*VARIANTS, CUSTOM])
        raise InputError("unknown PaSST variant", value=settings.variant, remedy=f"one of {known}")
    if settings.source not in ("published", "random"):
        _load(net, Path(settings.source))
    if settings.interpolate_s is not None:
        _interpolate(net, variant, settings.interpolate_s)
    return _check_patchout(PasstEncoder(net, settings, variant))


def _custom(settings: Settings, variant: Variant) -> Any:
    """A model of any size with random weights."""
    from hear21passt.models import passt  # takes seconds, since it imports torchaudio and timm

    passt.first_RUN = False  # otherwise the first forward prints every shape
    if settings.source == "published":
        raise InputError(
            "no custom PaSST is published", value=settings.source, remedy="name random, or a file of weights"
        )
    with quiet():
        return passt.PaSST(
            img_size=(128, variant.frames),
            patch_size=PATCH,
            stride=(variant.stride, variant.stride),
            embed_dim=settings.width,
            depth=settings.depth,
            num_heads=settings.heads,
            num_classes=1,
            distilled=True,
            drop_rate=settings.dropout,
            attn_drop_rate=settings.dropout,
        )


def _published(settings: Settings, variant: Variant) -> Any:
    """A published variant; hear21passt downloads the weights if ``source`` says so."""
    from hear21passt.models import passt

    passt.first_RUN = False
    try:
        with quiet():
            net = passt.get_model(
                arch=settings.variant,
                pretrained=settings.source == "published",
                fstride=variant.stride,
                tstride=variant.stride,
                input_tdim=variant.frames,
            )
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"the published weights cannot be downloaded: {error}",
            value=settings.variant,
            remedy="connect to a network, or set audio.source to a file that holds them",
        ) from error
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = settings.dropout
    return net


def _interpolate(net: Any, variant: Variant, segment_s: float) -> None:
    """Interpolate the positions over time ``[1, d, 1, columns]`` for segments of another length."""
    lengths = (variant.frames, _frames(segment_s, variant.frame_rate))
    before, after = (_columns(frames, variant) for frames in lengths)
    if after < 1:
        raise InputError("a segment is shorter than a patch", value=segment_s)
    with torch.no_grad():
        positions = net.time_new_pos_embed[:, :, 0, :before]
        net.time_new_pos_embed = nn.Parameter(F.interpolate(positions, after, mode="linear")[:, :, None])


def _frames(seconds: float, rate: float) -> int:
    """The number of frames that the front end computes for so many seconds; it rounds up."""
    return math.ceil(round(seconds * rate, 6))


def _columns(frames: int, variant: Variant) -> int:
    return (frames - PATCH) // variant.stride + 1


def _check_patchout(encoder: PasstEncoder) -> PasstEncoder:
    """Return the encoder; raise ``InputError`` if patchout would leave no patch."""
    settings, net = encoder.settings, encoder.net
    rows = net.freq_new_pos_embed.shape[2] - settings.patchout_freq
    columns = net.time_new_pos_embed.shape[3] - settings.patchout_time
    if min(rows, columns, rows * columns - settings.patchout_any) < 1:
        value = (settings.patchout_freq, settings.patchout_time, settings.patchout_any)
        raise InputError(
            "patchout leaves no patch",
            value=value,
            remedy=f"there are {net.freq_new_pos_embed.shape[2]} rows and {net.time_new_pos_embed.shape[3]} columns",
        )
    return encoder


def _load(net: nn.Module, path: Path) -> None:
    """Load weights from a file, except those of a classifier; ``InputError`` if they are of another model."""
    if not path.is_file():
        remedy = "name published, random, or a file such as passt.safetensors"
        raise InputError("no such file of weights", file=path, remedy=remedy)
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        state = {name: value for name, value in state.items() if not name.startswith("head")}
    except Exception as error:  # readers of damaged files raise errors of many kinds
        raise InputError(f"not a file of weights: {type(error).__name__}", file=path) from error
    for name, value in net.state_dict().items():
        if name.startswith("head"):
            continue
        if name not in state:
            raise InputError("the weights lack a parameter of the variant", file=path, value=name)
        if state[name].shape != value.shape:
            shapes = f"{tuple(state[name].shape)}, the variant's {tuple(value.shape)}"
            raise InputError(f"{name} has the shape {shapes}", file=path, remedy="name the variant of these weights")
    net.load_state_dict(state, strict=False)
