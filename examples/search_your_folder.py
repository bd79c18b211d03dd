"""Search a folder of your own sounds by describing them, with a published model and without training.

    python examples/search_your_folder.py FOLDER WORK "a dog barks" [MODEL]

FOLDER may hold sounds of any kind and number, in folders of any depth, with or without a table ``clips.csv``.  A build
and an index of it are written below WORK.  Run it again after sounds have come or gone: what it has read and encoded
before is not read and encoded again.  MODEL is a model that others have published (its weights are downloaded once),
or a run or an export of your own, such as one of ``earshot fit own_sounds``.

The commands ``earshot build``, ``earshot index`` and ``earshot search`` do the same, and ``earshot serve WORK/index``
shows a page on which the sounds can be heard.
"""

from __future__ import annotations

import sys
from pathlib import Path

from sharding.build.run import build
from sharding.common.errors import InputError
from sharding.common.runners import LocalRunner
from sharding.settings import BuildSettings
from sharding.shards.manifest import Manifest
from training.models.hub import open_model
from training.search.building import make_index, usual_windows
from training.search.finding import Finder, Query
from training.search.models import WholeModel
from training.search.parts import Source
from training.search.store import SoundIndex
from training.search.text_tower import add_text_tower

MODEL = "laion/clap-htsat-unfused"


def main(folder: Path, work: Path, query: str, model: str = MODEL) -> list[str]:
    """Build, index and search a folder of sounds; returns the files that fit the query best, best first."""
    settings = BuildSettings(sources={"mine": str(folder.resolve())})
    built = build(settings, str(work.resolve() / "shards"), LocalRunner(1), new_plan=True)
    print(f"{built['samples']} sounds can be found; what became of every file: {built['fates']}")

    manifest, retriever = Manifest.open(built["out"]), open_model(model)
    place = str(Path(model).resolve()) if Path(model).exists() else model
    made = make_index(
        retriever, manifest, Source(place, False, built["out"], (), usual_windows(retriever)), work / "index"
    )
    why_slow = add_text_tower(retriever, work / "index")  # with it, `earshot search` answers without loading the model
    print(f"{made['entries']} windows, {made['encoded']} of them encoded now" + (f" ({why_slow})" if why_slow else ""))

    index = SoundIndex.open(work / "index")
    found = Finder(index, WholeModel(index, retriever)).find(Query((query,)), top=5)
    for hit in found:
        print(f"{hit.score:.3f}  {hit.start_s:.1f}-{hit.end_s:.1f} s  {hit.facts['path']}")
    return [hit.facts["path"] for hit in found]


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:5])
    except InputError as error:
        sys.exit(str(error))
