"""PaSST (Koutini et al., Interspeech 2022): the audio encoder of papers/000 and papers/001."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sharding.errors import InputError
from training.encoders import AudioEncoder
from training.encoders.audio.hub import masked_mean
from training.encoders.quiet import quiet
from training.encoders.randomness import mix, subset

# published name: (patch stride over frequency and time, input frames, segment in seconds, front end)
VARIANTS: dict[str, tuple[int, int, float, str]] = {
    "passt_s_swa_p16_128_ap476": (10, 998, 10.0, "passt"),
    "passt_s_kd_p16_128_ap486": (10, 998, 10.0, "passt"),
    "passt_l_kd_p16_128_ap47": (10, 998, 10.0, "passt"),
    "passt_s_p16_s16_128_ap468": (16, 1000, 10.0, "passt"),
    "passt_20sec": (10, 2000, 20.0, "passt"),
    "passt_30sec": (10, 3000, 30.0, "passt"),
    "openmic": (10, 998, 10.0, "passt"),
    "fsd50k": (10, 998, 10.0, "passt"),
    "fsd50k-n": (16, 998, 10.0, "passt"),
}
CUSTOM = "custom"
FRAMES_A_SECOND = 100
PATCH = 16


@dataclass(frozen=True)
class Settings:
    """A PaSST encoder.

    Attributes:
        variant: a published model (``VARIANTS``), or ``custom`` for the sizes given here.
        source: ``published`` (downloaded by hear21passt), ``random``, or a file of weights.
        segment_s: seconds of a segment for ``custom``; a published variant has its own.
        hop_s: seconds between segments; None: segments do not overlap.
        max_s: seconds of a clip that are encoded at most.
        patchout_time, patchout_freq: columns and rows of patches left out in training, drawn for every
            segment on its own (structured patchout, section 2.2 of arXiv 2110.05069).
        patchout_any: patches left out anywhere (unstructured patchout).
        dropout: in all blocks.
        pooled: a segment's vector: ``summary``, the mean of the class and distillation tokens as published, or
            ``patches``, the mean over patches that hold sound; without pre-training the latter learns sooner.
        width, depth, heads, stride: sizes of ``custom``.
    """

    encoder: str = "passt"
    variant: str = "passt_s_p16_s16_128_ap468"
    source: str = "published"
    segment_s: float = 10.0
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


class PasstEncoder(AudioEncoder):
    """The transformer of hear21passt, with patchout drawn segment by segment.

    hear21passt's own forward draws one set of patches for the whole batch from the global generator, so a
    batch split over ranks would not train like the same batch on one; here the segment's seed decides.
    """

    def __init__(self, net: Any, settings: Settings, segment_s: float, front_end: str) -> None:
        super().__init__()
        # the classifier has no part in retrieval, and parameters without gradient are a trap under ZeRO
        net.head, net.head_dist = nn.Identity(), None
        self.net = net
        self.settings = settings
        self.front_end = front_end
        self.segment_s = segment_s
        self.hop_s = settings.hop_s or segment_s
        self.max_s = settings.max_s
        self.dim = net.embed_dim

    def blocks(self) -> list[nn.Module]:
        return list(self.net.blocks)

    def top(self) -> list[nn.Module]:
        return [self.net.norm]

    def forward(self, features: Tensor, frames: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        net = self.net
        grid = net.patch_embed.proj(features[:, None])  # [n, d, f, t]
        grid = grid + net.time_new_pos_embed[..., : grid.shape[-1]] + net.freq_new_pos_embed
        starts = torch.arange(grid.shape[-1], device=frames.device) * net.patch_embed.stride[1]
        heard = (starts[None, :] < frames[:, None])[:, None, :].expand(-1, grid.shape[2], -1)  # [n, f, t]
        tokens, mask = self._patchout(grid.permute(0, 2, 3, 1), heard, seeds)
        first = net.cls_token + net.new_pos_embed[:, :1]
        second = net.dist_token + net.new_pos_embed[:, 1:]
        summary = torch.cat([first, second], 1).expand(len(tokens), -1, -1)
        x = net.norm(net.blocks(net.pos_drop(torch.cat([summary, tokens], 1))))
        patches = x[:, 2:]
        if self.settings.pooled == "patches":
            return masked_mean(patches, mask), patches, mask
        return (x[:, 0] + x[:, 1]) / 2, patches, mask

    def _patchout(self, grid: Tensor, heard: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor]:
        """``grid [n, f, t, d]`` and ``heard [n, f, t]`` to sequences ``[n, P, d]`` and ``[n, P]``."""
        _, rows, columns, dim = grid.shape
        out_rows, out_columns = self.settings.patchout_freq, self.settings.patchout_time
        if self.training and out_columns:
            index = subset(mix(seeds, torch.zeros_like(seeds)), columns, columns - out_columns)
            grid = grid.gather(2, index[:, None, :, None].expand(-1, rows, -1, dim))
            heard = heard.gather(2, index[:, None, :].expand(-1, rows, -1))
        if self.training and out_rows:
            index = subset(mix(seeds, torch.ones_like(seeds)), rows, rows - out_rows)
            grid = grid.gather(1, index[:, :, None, None].expand(-1, -1, grid.shape[2], dim))
            heard = heard.gather(1, index[:, :, None].expand(-1, -1, heard.shape[2]))
        tokens, mask = grid.flatten(1, 2), heard.flatten(1, 2)
        out = self.settings.patchout_any
        if self.training and out:
            index = subset(mix(seeds, torch.full_like(seeds, 2)), tokens.shape[1], tokens.shape[1] - out)
            tokens = tokens.gather(1, index[:, :, None].expand(-1, -1, dim))
            mask = mask.gather(1, index)
        return tokens, mask


def build(settings: Settings) -> PasstEncoder:
    """The encoder that ``settings`` describes; a published one downloads its weights on first use."""
    from hear21passt.models import passt  # imports torchaudio and timm: seconds

    if settings.variant == CUSTOM:
        stride, segment_s, front_end = settings.stride, settings.segment_s, "passt"
        with quiet():
            net = passt.PaSST(
                img_size=(128, round(segment_s * FRAMES_A_SECOND)),
                patch_size=PATCH,
                stride=(stride, stride),
                embed_dim=settings.width,
                depth=settings.depth,
                num_heads=settings.heads,
                num_classes=1,
                distilled=True,
                drop_rate=settings.dropout,
                attn_drop_rate=settings.dropout,
            )
    else:
        if settings.variant not in VARIANTS:
            raise InputError(
                "unknown PaSST variant",
                value=settings.variant,
                remedy="one of " + ", ".join([*VARIANTS, CUSTOM]),
            )
        stride, frames, segment_s, front_end = VARIANTS[settings.variant]
        with quiet():
            net = passt.get_model(
                arch=settings.variant,
                pretrained=settings.source == "published",
                fstride=stride,
                tstride=stride,
                input_tdim=frames,
            )
        _set_dropout(net, settings.dropout)
    passt.first_RUN = False  # else the first forward prints every shape
    if settings.source not in ("published", "random"):
        _load(net, Path(settings.source))
    return PasstEncoder(net, settings, segment_s, front_end)


def _set_dropout(net: nn.Module, rate: float) -> None:
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = rate


def _load(net: nn.Module, path: Path) -> None:
    if not path.is_file():
        raise InputError(
            "no such weights",
            file=path,
            remedy="`published`, `random`, or a .pt or .safetensors",
        )
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        state = load_file(path)
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
    wanted = set(net.state_dict())
    missing = sorted(name for name in wanted - set(state) if not name.startswith("head"))
    if missing:
        raise InputError(f"weights lack {len(missing)} parameters, first {missing[0]}", file=path)
    net.load_state_dict({name: value for name, value in state.items() if name in wanted}, strict=False)
