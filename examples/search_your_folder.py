"""From a folder of sounds to a search: build, train, index and search.

    python examples/search_your_folder.py WORK "a whistle"

The sounds are those of ``your_own_sounds.py``.  The model is small and starts from random weights, so that this
takes seconds.  For sounds of the real world, start from pre-trained encoders: see the recipes in ``training/recipes``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from examples import your_own_sounds
from training.config.loading import load_recipe
from training.engine.launch import ranks
from training.models.hub import load
from training.run.loop import fit
from training.search.building import make_index, usual_windows
from training.search.finding import Finder, Query
from training.search.models import WholeModel
from training.search.parts import Source
from training.search.store import SoundIndex

CHANGES = [
    "data.train=[{split: mine/train}]",
    "data.batch_size=8",
    "data.workers=0",
    "validation.split=null",
    "optimizer.steps=60",
    "optimizer.warmup_epochs=0",
]


def main(work: Path, query: str) -> list[str]:
    """Build, train, index and search; returns the captions of the clips that fit the query best, best first."""
    manifest = your_own_sounds.main(work)
    recipe = load_recipe("demo", CHANGES)
    with ranks() as group:
        result = fit(recipe, manifest, work / "run", group)
    retriever = load(result["export"])
    source = Source(str(result["export"]), False, manifest.storage.url, (), usual_windows(retriever))
    make_index(retriever, manifest, source, work / "index")
    index = SoundIndex.open(work / "index")
    found = Finder(index, WholeModel(index, retriever)).find(Query((query,)), top=3)
    for hit in found:
        print(f"{hit.score:.3f}  {hit.start_s:.1f}-{hit.end_s:.1f} s  {hit.facts['path']}  {hit.facts['captions'][0]}")
    return [hit.facts["captions"][0] for hit in found]


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
