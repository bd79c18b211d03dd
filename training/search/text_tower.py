"""A dual encoder's text tower inside the index, so that a description is answered without loading the model.

Importing torch and transformers and loading both towers takes several seconds; onnxruntime takes a fraction of one.
The tower is written only if its vectors of captions equal the model's.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sharding.common.errors import InputError
from training.search.entries import values_at
from training.search.store import SoundIndex, commit, hold, write_file

if TYPE_CHECKING:  # torch takes seconds to import, and a search with the tower does without it
    from training.models.retriever import Retriever
    from training.search.models import WholeModel

LIBRARIES = ("onnx", "onnxruntime", "onnxscript")
TOLERANCE = 1e-5
COMPARED = 64  # captions of the index on which the tower is compared with the model
_ODD = ("A dog barks!", "  RAIN,  then Thunder... ", "Ein Vogel zwitschert über dem Fluß", "x " * 200)


@dataclass(frozen=True)
class TextTower:
    """A text tower that runs in onnxruntime.

    Attributes:
        session: the session of onnxruntime that runs the tower.
        tokenizer: a tokenizer of the ``tokenizers`` library; it spells texts as the model reads them.
    """

    session: Any
    tokenizer: Any

    @classmethod
    def open(cls, tower: Path, tokenizer: Path, most_tokens: int) -> TextTower:
        """The tower and the tokenizer in two files.

        Raises:
            InputError: they cannot be read.
        """
        import onnxruntime
        from tokenizers import Tokenizer

        try:
            session = onnxruntime.InferenceSession(str(tower))
            spelling = Tokenizer.from_file(str(tokenizer))
        except Exception as error:  # both libraries raise errors of many kinds
            raise InputError(f"damaged: {error}", file=tower, remedy="make the index again") from error
        spelling.enable_truncation(most_tokens)
        return cls(session, spelling)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of texts, ``[texts, d]``; one text at a time, so that none is padded."""
        return np.concatenate([self._vector(text) for text in texts])

    def _vector(self, text: str) -> np.ndarray:
        encoded = self.tokenizer.encode(text)
        read = {"input_ids": encoded.ids, "attention_mask": encoded.attention_mask}
        return np.asarray(self.session.run(None, {name: np.array([row]) for name, row in read.items()})[0])


def add_text_tower(retriever: Retriever, folder: Path) -> str | None:
    """Put the text tower of its model into an index that has none; returns why it cannot have one."""
    index = SoundIndex.open(folder)
    if "tower" in index.about:
        return None
    if index.sides:
        return "its head scores descriptions and sounds together"
    missing = [name for name in LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        return f"{', '.join(missing)} not installed (pip install earshot[search])"
    key, tokens = index.about["model"][:12], retriever.recipe.data.max_tokens
    files = (f"text-{key}.onnx", f"tokenizer-{key}.json")
    with hold(folder):
        try:
            _write(retriever, [folder / name for name in files])
            tower = TextTower.open(folder / files[0], folder / files[1], tokens)
            difference = _difference(tower, retriever, index)
        except InputError as error:
            difference, reason = float("inf"), error.what
        else:
            reason = f"its vectors would differ by {difference:.1e} from the model's"
        about = {name: value for name, value in index.about.items() if name not in ("format", "files")}
        if difference <= TOLERANCE:
            commit(folder, about | {"tower": {"files": list(files), "tokens": tokens}}, [*index.about["files"], *files])
            return None
        commit(folder, about, list(index.about["files"]))  # removes what was written of the tower
    return reason


def _write(retriever: Retriever, files: list[Path]) -> None:
    from training.models.formats.onnx_towers import export_text
    from training.models.formats.spelling import spelling_tokenizer

    if not hasattr(retriever.tokenizer, "backend_tokenizer"):
        raise InputError("the model's tokenizer runs in Python alone")
    write_file(files[0], lambda path: export_text(retriever, path))
    backend = spelling_tokenizer(retriever.tokenizer, retriever.recipe.data).backend_tokenizer
    write_file(files[1], lambda path: backend.save(str(path)))


def _difference(tower: TextTower, retriever: Retriever, index: SoundIndex) -> float:
    """The greatest difference between vectors of the tower and of the model, over captions and odd texts."""
    rows = np.unique(np.linspace(0, len(index.entries) - 1, COMPARED).astype(int))
    captions = [texts[0] for texts in values_at(index.entries["captions"], rows.tolist()) if texts]
    texts = [*captions, *_ODD]
    return float(np.abs(tower(texts) - retriever.encode_texts(texts)[0].cpu().float().numpy()).max())


class IndexModel:
    """The model of an index: its text tower, and the whole model as soon as something else is needed.

    Args:
        index: the index.
        open_whole: loads the whole model.
        tower: whether to use the text tower that the index has.
    """

    def __init__(self, index: SoundIndex, open_whole: Callable[[], WholeModel], tower: bool = True) -> None:
        self._open_whole = open_whole
        self._loaded: WholeModel | None = None
        self._tower: TextTower | None = None
        about = index.about.get("tower")
        if tower and about is not None and importlib.util.find_spec("onnxruntime") is not None:
            tower_file, tokenizer = (index.folder / name for name in about["files"])
            self._tower = TextTower.open(tower_file, tokenizer, about["tokens"])

    @property
    def exact(self) -> bool:
        """Whether dot products of vectors are the scores."""
        return self._tower is not None or self._whole.exact

    @property
    def longest_s(self) -> float:
        """The most seconds of a sound that are heard."""
        return self._whole.longest_s

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of descriptions, ``[texts, d]``."""
        return self._whole.texts(texts) if self._tower is None else self._tower(texts)

    def sound(self, wave: np.ndarray, rate: int, text: str | None = None) -> np.ndarray:
        """The vector ``[d]`` of a sound; see `WholeModel.sound`."""
        return self._whole.sound(wave, rate, text)

    def scores(self, texts: Sequence[str], rows: np.ndarray) -> np.ndarray:
        """Exact scores of some entries, ``[texts, rows]``; see `WholeModel.scores`."""
        return self._whole.scores(texts, rows)

    @property
    def _whole(self) -> WholeModel:
        if self._loaded is None:
            self._loaded = self._open_whole()
        return self._loaded
