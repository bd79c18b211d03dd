"""A model in one line: ``Earshot.from_pretrained(NAME_OR_FOLDER)``, and its way to the Hugging Face hub."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import ModelHubMixin, snapshot_download
from torch import Tensor

from sharding.common.errors import InputError
from training.engine.checkpoint import writing
from training.models import hub
from training.models.card import published_card
from training.models.downloads import only_here
from training.models.encoders.published import unavailable
from training.models.retriever import Retriever
from training.models.sources import Source


class Earshot(ModelHubMixin, library_name="earshot"):
    """A retrieval model.

    ::

        model = Earshot.from_pretrained("OWNER/NAME")  # or a folder: an export, a run, a published ClapModel
        texts = model.encode_texts(["a dog barks"])
        sounds = model.encode_wave(wave)  # float32, mono, at model.rate Hz
        print(model.score(texts, sounds))

    Args:
        retriever: the model.
        origin: where its checkpoint comes from, as `training.models.hub.origin_of` reads it; None: it cannot be saved.
    """

    def __init__(self, retriever: Retriever, origin: dict[str, Any] | None = None) -> None:
        self.retriever = retriever
        self.origin = origin
        self.sources: list[Source] = []
        self.licence: str | None = None
        self.leaks: dict[str, Any] | None = None

    @property
    def rate(self) -> int:
        """The sample rate in Hz of the recordings that it hears."""
        return self.retriever.audio_input.rate

    def encode_texts(self, texts: Sequence[str]) -> tuple[Tensor, ...]:
        """See `Retriever.encode_texts`."""
        return self.retriever.encode_texts(texts)

    def encode_wave(self, wave: Tensor | np.ndarray) -> tuple[Tensor, ...]:
        """See `Retriever.encode_wave`."""
        return self.retriever.encode_wave(wave)

    def score(self, texts: tuple[Tensor, ...], sounds: tuple[Tensor, ...]) -> Tensor:
        """See `Retriever.score`."""
        return self.retriever.score(texts, sounds)

    @classmethod
    def open(cls, place: str | Path, trust_code: bool = False) -> Earshot:
        """The model of a folder or an address, as every command opens it, with where it comes from if it is an export.

        ``trust_code`` says whether to run the Python files of encoders that come with the model.
        """
        return cls(hub.open_model(place, trust_code), _origin(Path(place)))

    def publish(self, name: str, private: bool = False) -> str:
        """Upload the model to the hub, and return the address of the commit.

        Raises:
            InputError: it is no export, or the hub refuses it.
        """
        self._require_origin()
        try:
            return str(self.push_to_hub(name, private=private, commit_message="Publish a model of Earshot"))
        except Exception as error:  # the library raises errors of many kinds
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            remedy = "connect to a network, and log in with `hf auth login`; or write it into a folder with --out"
            raise InputError(f"the hub refused the upload: {reason}", file=name, remedy=remedy) from error

    def save_whole(self, folder: Path) -> str:
        """Write what `publish` would upload into a new folder, whole or not at all."""
        self._require_origin()
        draft = folder.with_name(f".{folder.name}.writing")
        shutil.rmtree(draft, ignore_errors=True)
        try:
            with writing(folder):
                self.save_pretrained(draft)
                draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return str(folder)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> Earshot:
        """The model of a folder, or of a name on the hub.

        Args:
            pretrained_model_name_or_path: a folder (an export, a run, a published ``ClapModel``), or ``OWNER/NAME``.
            options: those of `huggingface_hub.ModelHubMixin`, such as ``revision`` and ``token``; and ``trust_code``,
                which says whether to run the Python files of encoders that come with the model.

        Raises:
            InputError: there is no such model, or no model can be made of it.
        """
        if only_here(str(pretrained_model_name_or_path)):
            options["local_files_only"] = True
        try:
            return super().from_pretrained(pretrained_model_name_or_path, **options)
        except InputError:
            raise
        except Exception as error:  # the library raises errors of many kinds
            raise unavailable("model", str(pretrained_model_name_or_path), error) from error

    def _require_origin(self) -> dict[str, Any]:
        if self.origin is None:
            raise InputError("only an export can be saved or published", remedy="name an export or a finished run")
        return self.origin

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write an export whose card says what the model was trained on and how it was measured."""
        origin = self._require_origin()
        hub.write(self.retriever, origin, save_directory)
        card = published_card(self.retriever, origin, self.sources, self.licence, self.leaks)
        (save_directory / hub.CARD).write_text(card, encoding="utf-8")

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        trust_code: bool = False,
        **unused: Any,
    ) -> Earshot:
        """Open a folder, or download one.

        ``trust_code`` says whether to run the Python files of encoders that come with the model.
        """
        place = Path(model_id)
        if not place.is_dir():
            downloaded = snapshot_download(
                model_id,
                revision=revision,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
                token=token,
            )
            place = Path(downloaded)
        return cls.open(place, trust_code)


def _origin(place: Path) -> dict[str, Any] | None:
    try:
        return hub.origin_of(hub.find_export(place))
    except InputError:
        return None  # a checkpoint, or a model of others
