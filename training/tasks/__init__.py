"""The tasks that a recipe can name: what a run trains, validates and exports.

A module has

- `Settings`: a frozen dataclass whose first field is `name`;
- `SECTIONS`: the component sections that its recipes have, of `audio`, `text`, `head` and `loss`;
- `METRICS`: the names of the figures by which the best checkpoint can be chosen;
- `open_source(recipe, shards) -> Source`: the data of the recipe (`training.data.sources`);
- `complete(recipe, source) -> Recipe`: the recipe with what the data decide, such as the labels of a classifier;
- `make_task(recipe, source, trust_code=False) -> RunTask`: what the engine trains; `trust_code` says whether to run the
  Python files of encoders that come with other models, such as teachers;
- `blank(recipe, texts) -> Usable`: what an export of the task is loaded into, with random weights; a tokenizer is
  trained on the texts where the recipe names none.
"""

from __future__ import annotations

import importlib
from typing import Any

TASKS: dict[str, str] = {
    "captioning": "training.tasks.captioning",
    "classification": "training.tasks.classification",
    "collat": "training.tasks.collat",
    "moments": "training.tasks.moments",
    "reranking": "training.tasks.reranking",
    "retrieval": "training.tasks.retrieval",
    "text_pairs": "training.tasks.text_pairs",
}


def task_module(recipe: Any) -> Any:
    """The module of a recipe's task."""
    return importlib.import_module(TASKS[recipe.task.name])
