"""How retrieval grows with data and with the model: AuroLA on 1, 10 and 100 % of the clips, in two sizes."""

from __future__ import annotations

from training.reproduce.plans import ORIGINAL, Plan, PlannedRun, Point, System

SPLITS = ("clotho/development", "audiocaps/train", "wavcaps/train", "tacos/development")
PARTS = (1, 10, 100)  # percent of the clips
PUBLISHED = {"3B": 25.6, "7B": 26.7}  # R@1 on Clotho of the released models, from text to audio


def scaling() -> Plan:
    """Every size on every part of the data, with the same number of steps."""
    runs, systems, curve = {}, {}, {}
    for size, published in PUBLISHED.items():
        for part in PARTS:
            label = f"{size}, {part} % of the clips"
            source = f"source=Qwen/Qwen2.5-Omni-{size}"
            changes = (_data(part), f"audio.{source}", f"text.{source}")
            runs[f"{size}-{part}"] = PlannedRun("aurola", changes)
            systems[label] = System((f"{size}-{part}",), {(ORIGINAL, "R@1"): published} if part == 100 else {})
            curve[label] = Point(size, part)
    return Plan(
        "AuroLA (arXiv 2602.18010) by size of the data and of the model",
        runs,
        systems,
        (
            "The published figures are those of models that learnt from AudioVerse too, after a stage on texts alone.",
            "Smaller parts of the data lie inside larger ones; they are drawn by the names of the clips.",
            "Every run takes as many steps as the one on all clips: what differs is the data and not the time.",
            "The hours are those of the dual encoder; docs/SCALING.md says what a step of a multimodal model takes.",
        ),
        curve=curve,
        axis="percent of the clips",
    )


def _data(part: int) -> str:
    more = "" if part == 100 else f", share: {part / 100:g}, repeat: {100 / part:g}"
    kinds = {"tacos/development": ", captions: [machine]"}
    items = [f"{{split: {split}{kinds.get(split, '')}{more}}}" for split in SPLITS]
    return f"data.train=[{', '.join(items)}]"
