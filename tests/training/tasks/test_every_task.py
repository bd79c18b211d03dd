"""Every registered task trains, resumes bit for bit, exports, and gives on several ranks what it gives on one.

Each case is one line here, so that a new task enters these proofs with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from sharding.common.errors import InputError
from tests.training.small_runs import figures, lines, run_ranks, small_recipe, write_sounds
from training.engine import checkpoint
from training.engine.distributed import Group
from training.models.hub import load, load_any, open_any
from training.run.loop import fit
from training.tasks import TASKS, task_module

AUDIO_ONLY = ["text=null", "head=null", "loss=null"]
ATTENTION = "head={name: token-attention, dim: 16, heads: 2, audio: KIND}"
VALIDATED = "validation.split=clotho/evaluation"
CASES: dict[str, list[str]] = {
    "retrieval": [VALIDATED],
    "retrieval with tokens aligned": ["alignment.weight=0.3", VALIDATED],
    "collat": [
        *("task={name: collat, interaction: {blocks: 2, width: 16, heads: 2, dropout: 0.1}}", "head=null"),
        *(VALIDATED, "data.max_tokens=24"),
    ],
    "collat at a layer with everything predicted": [
        "task={name: collat, interaction: {blocks: 1, width: 16, heads: 2, start: redrawn, self_attention: true},"
        " ends: predicted, place: after, layer: 1, matching: optimal, padding: true, unit: mean, noise_weight: 1.0}",
        *("head=null", VALIDATED, "data.max_tokens=24"),
    ],
    "text_pairs": [
        *("task={name: text_pairs}", "audio=null", "head=null", "text.dropout=0.1"),
        *("data={texts: {sounds: PAIRS}, train: [{split: sounds}], batch_size: 6, workers: 0}",),
        *("validation={split: held, metric: anchor_to_match/R@1}", "data.texts.held=HELD"),
    ],
    "classification": [
        *("task={name: classification}", *AUDIO_ONLY),
        *(VALIDATED, "validation.metric=accuracy", "optimizer.freeze=['audio.*']"),
    ],
    "classification by a decoder": [
        *("task={name: classification, probe: decoder, kind: multiple, heads: 2, dropout: 0.1}", *AUDIO_ONLY),
        *(VALIDATED, "validation.metric=mAP"),
    ],
    "moments": ["task={name: moments, weight: 0.5}", VALIDATED],
    "moments of segments": ["task={name: moments}", ATTENTION.replace("KIND", "segments"), VALIDATED],
    "moments of patches": [  # two stages of validation too, in which ranks score different numbers of queries
        *("task={name: moments}", ATTENTION.replace("KIND", "patches")),
        *(VALIDATED, "validation.first=4"),
    ],
    "reranking": [
        "task={name: reranking}",
        "audio={encoder: multimodal, source: random, segment_s: 1, max_s: 3, width: 8, depth: 1, heads: 2}",
        "text={encoder: multimodal, source: random, width: 16, depth: 1, heads: 2, vocabulary: 280}",
        *("head.dim=null", "optimizer.freeze=['audio.net.*']"),
        *(VALIDATED, "validation.metric=accuracy"),
    ],
    "captioning": [
        *("task={name: captioning, width: 16, heads: 2, vocabulary: 280}", *AUDIO_ONLY),
        *(VALIDATED, "validation.metric=log_likelihood", "optimizer.freeze=['audio.*']"),
    ],
}
SHORT = ["optimizer.steps=3", "optimizer.warmup_epochs=0", "log.health=0"]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("labelled")
    write_sounds(root / "build", labels=True, times=True)
    for name, first, count in (("pairs", 0, 24), ("held", 100, 8)):
        rows = [
            f"sound {n % 6} is heard {n},one hears sound {n % 6} {n},{'' if n % 3 else f'silence {n}'}"
            for n in range(first, first + count)
        ]
        (root / f"{name}.csv").write_text("\n".join(["sent0,sent1,hard_neg", *rows]) + "\n")
    return root


def overrides(case: str, root: Path, *more: str) -> list[str]:
    files = {"PAIRS": str(root / "pairs.csv"), "HELD": str(root / "held.csv")}
    found = [*CASES[case], *more]
    for name, file in files.items():
        found = [override.replace(name, file) for override in found]
    return found


def train(case: str, root: Path, run: Path, group: Group, *more: str) -> dict[str, Any]:
    recipe = small_recipe(overrides(case, root, *more))
    source = task_module(recipe).open_source(recipe, None if recipe.data.texts else str(root / "build"))
    return fit(recipe, source, run, group)


def test_every_task_has_a_case() -> None:
    assert {case.split()[0] for case in CASES} == set(TASKS)


@pytest.mark.parametrize("case", CASES)
def test_a_task_learns_validates_and_exports(case: str, labelled: Path, group: Group, tmp_path: Path) -> None:
    more = ("optimizer.epochs=6", "optimizer.lr=5e-3", "optimizer.clip=0", "validation.every=1000")
    result = train(case, labelled, tmp_path, group, *more)
    losses = [line["loss"] for line in lines(tmp_path)]
    assert sum(losses[-4:]) < sum(losses[:4])
    counted = "pairs_per_s" if case.startswith("text_pairs") else "clips_per_s"
    assert [name for name in lines(tmp_path)[0] if name.endswith("_per_s")] == [counted]
    assert result["validation"]
    exported, trained = load_any(tmp_path / "export"), open_any(checkpoint.find(tmp_path))
    for (name, value), other in zip(
        exported.model.state_dict().items(), trained.model.state_dict().values(), strict=True
    ):
        assert value.shape == other.shape, name


@pytest.mark.parametrize("case", ["collat", "text_pairs", "classification", "captioning", "moments", "reranking"])
def test_a_killed_run_of_a_task_resumes_bit_for_bit(case: str, labelled: Path, group: Group, tmp_path: Path) -> None:
    more = ("checkpoint.every=2", "optimizer.steps=5", "optimizer.warmup_epochs=0")
    train(case, labelled, tmp_path / "whole", group, *more)
    run_ranks(1, labelled / "build", {"killed": overrides(case, labelled, *more)}, tmp_path, die_after=2)
    assert train(case, labelled, tmp_path / "killed", group, *more)["resumed_from"] == 2
    assert figures(tmp_path / "killed") == figures(tmp_path / "whole")
    whole, killed = (checkpoint.load(checkpoint.find(tmp_path / name)).model() for name in ("whole", "killed"))
    assert all(torch.equal(value, killed[name]) for name, value in whole.items())


def courses(case: str, root: Path, world: int, ways: Sequence[tuple[int, int]], out: Path) -> dict[str, list[float]]:
    """The losses of three steps in each way (ZeRO stage and chunk), on ``world`` ranks."""
    cases = {
        f"{zero}-{chunk}": overrides(case, root, *SHORT, f"engine.zero={zero}", f"engine.chunk={chunk}")
        for zero, chunk in ways
    }
    run_ranks(world, root / "build", cases, out / str(world))
    return {name: [line["loss"] for line in lines(out / str(world) / name)] for name in cases}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_ranks_stages_and_chunks_change_no_loss(case: str, labelled: Path, tmp_path: Path) -> None:
    """The order, the masks and dropout are functions of the sample, so a loss depends on none of them."""
    expected = courses(case, labelled, 1, [(0, 0)], tmp_path)["0-0"]
    ways = {
        1: [(1, 2), (2, 0), (3, 2)],
        2: [(0, 2), (1, 0), (2, 2), (3, 0)],
        3: [(0, 0), (1, 2), (2, 0), (3, 2)],
    }
    for world, chosen in ways.items():
        found = courses(case, labelled, world, chosen, tmp_path / "all")
        for name, losses in found.items():
            assert losses == pytest.approx(expected, rel=2e-5), (world, name)


@pytest.mark.parametrize(
    "case",
    [
        "collat",
        "text_pairs",
        "classification by a decoder",
        "captioning",
        "moments of patches",
        "reranking",
    ],
)
def test_two_ranks_give_the_losses_of_one(case: str, labelled: Path, tmp_path: Path) -> None:
    expected = courses(case, labelled, 1, [(0, 0)], tmp_path)["0-0"]
    for losses in courses(case, labelled, 2, [(1, 2), (3, 0)], tmp_path).values():
        assert losses == pytest.approx(expected, rel=2e-5)


def test_a_classifier_is_no_retrieval_model(labelled: Path, group: Group, tmp_path: Path) -> None:
    train("classification", labelled, tmp_path, group, *SHORT)
    with pytest.raises(InputError, match="does not score captions"):
        load(tmp_path / "export")


def test_recipes_name_the_sections_of_their_task() -> None:
    with pytest.raises(InputError, match="task classification has no text"):
        small_recipe(["task={name: classification}", "head=null", "loss=null"])
    with pytest.raises(InputError, match="'text' is missing"):
        small_recipe(["text=null"])
    with pytest.raises(InputError, match="unknown task name"):
        small_recipe(["task={name: retrival}"])
