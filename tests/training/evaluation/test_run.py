from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from sharding.common.errors import InputError
from sharding.common.processes import leave
from sharding.shards.manifest import Manifest
from tests.training.ranks import on_ranks
from tests.training.small_runs import small_recipe
from training.engine.distributed import Group, LocalGroup
from training.evaluation.encoding import SideEncoder, side_encoder
from training.evaluation.metrics import DIRECTIONS, MEASURED
from training.evaluation.run import EvaluationSettings, evaluate
from training.tasks.retrieval import assemble

SPLIT = "clotho/evaluation"
RELEVANCE = {
    "A whistle is heard.": {"clip 1001.x.wav": 1.0, "clip 1007.x": 1.0},
    "A hiss is heard.": {"clip 1002.x": 1.0},
}
ATTENTION = ["head={name: token-attention, dim: 16, heads: 2}"]


def untrained(overrides: list[str] | None = None) -> SideEncoder:
    recipe = small_recipe(overrides or [])
    model, _ = assemble(recipe, ["a low hum", "a whistle", "some hiss"])
    return side_encoder(model, recipe.data, torch.device("cpu"))


def figures(result: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if isinstance(value, dict)}


def test_a_collapsed_model_is_at_chance(build: Path) -> None:
    encoder = untrained()
    with torch.no_grad():
        for projection in (encoder.model.head.audio_projection, encoder.model.head.text_projection):
            projection.weight.zero_()
            projection.bias.fill_(1.0)
    result = evaluate(encoder, Manifest.open(build), EvaluationSettings(SPLIT, relevance=RELEVANCE), LocalGroup())
    for direction in (*DIRECTIONS, "text_to_audio_multiple"):
        for name in MEASURED:
            assert result[direction][name] == pytest.approx(result[direction]["chance_" + name]), (direction, name)
    assert (result["clips"], result["captions"], result["queries"]) == (9, 18, 2)


def test_figures_do_not_depend_on_the_batch_size(build: Path) -> None:
    encoder, manifest = untrained(), Manifest.open(build)
    one, many = (
        evaluate(encoder, manifest, EvaluationSettings(SPLIT, batch_size), LocalGroup()) for batch_size in (1, 32)
    )
    assert figures(one) == figures(many)


def test_as_many_candidates_as_items_give_the_exact_figures(build: Path) -> None:
    encoder, manifest = untrained(ATTENTION), Manifest.open(build)
    everything, some, few = (
        evaluate(encoder, manifest, EvaluationSettings(SPLIT, candidates=candidates), LocalGroup())
        for candidates in (0, 18, 1)
    )
    assert figures(everything) == figures(some)
    assert few["text_to_audio"]["chance_R@1"] == everything["text_to_audio"]["chance_R@1"]


def test_a_table_of_another_split_is_refused_before_anything_is_encoded(build: Path) -> None:
    def refuse(*_: object) -> Any:
        raise AssertionError("something was encoded")

    encoder = untrained()
    idle = SideEncoder(encoder.model, encoder.settings, refuse, refuse)
    settings = EvaluationSettings(SPLIT, relevance={"rain": {"clip 1.x.wav": 1.0}})
    with pytest.raises(InputError, match="not in the split"):
        evaluate(idle, Manifest.open(build), settings, LocalGroup())


@pytest.mark.slow
def test_three_ranks_find_the_same_figures_as_one(build: Path, group: Group, tmp_path: Path) -> None:
    on_ranks(_evaluate_rank, 3, str(build), str(tmp_path))
    manifest = Manifest.open(build)
    for name, overrides in (("dual", []), ("attention", ATTENTION)):
        alone = evaluate(
            untrained(overrides), manifest, EvaluationSettings(SPLIT, 2, relevance=RELEVANCE), LocalGroup()
        )
        for rank in range(3):
            assert json.loads((tmp_path / f"{name}{rank}.json").read_text()) == alone


def _evaluate_rank(rank: int, build: str, out: str) -> None:
    from training.engine.launch import ranks

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{out}/store", rank=rank, world_size=3)
    with ranks() as group:
        for name, overrides in (("dual", []), ("attention", ATTENTION)):
            settings = EvaluationSettings(SPLIT, 2, relevance=RELEVANCE)
            result = evaluate(untrained(overrides), Manifest.open(build), settings, group)
            (Path(out) / f"{name}{rank}.json").write_text(json.dumps(result))
    dist.destroy_process_group()
    leave(0)
