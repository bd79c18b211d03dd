from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sharding.common.errors import InputError
from sharding.shards.manifest import Manifest
from tests.training.search.indexes import untrained
from training.evaluation.whole_clips import encode_build


def test_every_clip_of_the_build_or_of_a_split_is_encoded(build: Path) -> None:
    retriever, manifest = untrained([]), Manifest.open(build)
    encoded = encode_build(retriever, manifest)
    assert sorted(encoded.clips) == sorted(manifest.table["clip_id"].to_pylist())
    part = encode_build(retriever, manifest, "clotho/evaluation")
    assert len(part.clips) == 9
    rows = [encoded.clips.index(clip) for clip in part.clips]
    torch.testing.assert_close(encoded.sides[0][rows], part.sides[0])
    with pytest.raises(InputError, match="no such split"):
        encode_build(retriever, manifest, "clotho/nowhere")
