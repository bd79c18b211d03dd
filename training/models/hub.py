"""A trained model as a plain folder that loads in one call, without DeepSpeed or Ray.

config.json        the resolved recipe, where the model comes from, and the size and SHA-256 of every other file
model.safetensors  weights by name, float32
tokenizer/         in the format of transformers
text/, audio/      encoders that came from the Hugging Face hub, in the format of transformers; model.safetensors does
                   not have their weights
text_encoder.py, audio_encoder.py
                   the files of a user's own encoders; they run only if the caller trusts them
README.md          the model card; it may be changed
"""

from __future__ import annotations

import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Protocol

from safetensors.torch import save_file

from sharding.common.errors import InputError
from training.config import resolved
from training.config.extending import read_recipe
from training.config.loading import parse_recipe
from training.config.sections import Recipe
from training.engine.checkpoint import MODEL, Checkpoint, check_recipe_digest, find, read_tensors, restore, writing
from training.engine.checkpoint import load as open_verified
from training.engine.optimizers import AVERAGE
from training.engine.remote import CONFIG, EXPORT, model_folder
from training.engine.sealed import sealed, unsealed
from training.models.build import TOKENIZER, with_tokenizer
from training.models.card import model_card
from training.models.encoders.lora import LoraSettings, merge
from training.models.encoders.outside import carried, is_outside
from training.models.published import is_published, open_published
from training.models.retriever import Retriever
from training.models.untrusted import (
    PARTS,
    AllocationBudget,
    check_files,
    check_weights,
    describe_files,
    permit_code,
    refusing_malformed,
)
from training.tasks import task_module

FORMAT = 2
CARD = "README.md"
LOADED = (MODEL, TOKENIZER, *PARTS, *(f"{part}_encoder.py" for part in PARTS))  # what `load` reads beside CONFIG


class Usable(Protocol):
    """A trained model with what is needed to use it: a `Retriever`, a `Classifier`, a `Captioner`, ..."""

    model: Any
    loss: Any
    recipe: Recipe

    @property
    def tokenizer(self) -> Any:
        """The tokenizer; None: the model reads no text."""
        ...

    def try_out(self) -> None:
        """Run the model once; fail if the parts that were loaded do not fit together."""
        ...


def load(folder: str | Path, trust_code: bool = False) -> Retriever:
    """Load the export of a retrieval model; arguments and errors as of `load_any`."""
    return _retriever(load_any(folder, trust_code), folder)


def load_any(folder: str | Path, trust_code: bool = False) -> Any:
    """Load an export of any task.

    Args:
        folder: the export.
        trust_code: whether to run the Python files of encoders that the export brings along.

    Returns:
        what the task makes of it, a `Usable`: a `Retriever`, `training.models.classifier.Classifier`,
        `training.models.captioner.Captioner` or `training.models.sentences.SentenceEncoder`.

    Raises:
        InputError: it is no export, a file is missing, additional or changed, it has code that is not trusted, or no
            model can be made of it.
    """
    path = Path(folder)
    config = _read_config(path)
    files_bytes = check_files(path, config.get("files"), LOADED)
    tree = permit_code(config.get("recipe"), path, trust_code)
    with refusing_malformed(path):
        recipe = parse_recipe(tree, path / CONFIG)
        with AllocationBudget(files_bytes):
            usable = task_module(recipe).blank(_bundled(recipe, path), ())
        model, loss = usable.model, usable.loss
        values = read_tensors(path / MODEL)
        own = dict(model.state_dict()) | {f"loss.{name}": value for name, value in loss.state_dict().items()}
        check_weights(values, own, path / MODEL)
        for part in PARTS:
            if (path / part).is_dir():  # its weights came with the encoder
                values |= {f"{part}.net.{name}": value for name, value in getattr(model, part).net.state_dict().items()}
        restore(model.eval(), loss.eval(), values)
        usable = replace(usable, recipe=recipe)
        usable.try_out()
    return usable


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = unsealed((path / CONFIG).read_bytes().decode())
    except OSError as error:
        raise InputError("not an export: it has no readable config.json", file=path) from error
    except ValueError as error:
        if is_published(path):
            remedy = "name a run, or an export of one"
            raise InputError("a model of another library, not an export of Earshot", file=path, remedy=remedy) from None
        raise InputError(
            f"config.json is damaged, or of an earlier version: {error}",
            file=path / CONFIG,
            remedy="copy the export again; or run the training command again, which exports the finished run anew",
        ) from error
    if config.get("format") != FORMAT:
        raise InputError(
            f"the export has format {config.get('format')}, and this version of Earshot reads {FORMAT}", file=path
        )
    return config


def _bundled(recipe: Recipe, path: Path) -> Recipe:
    """The recipe, in which files of the export replace everything that would be downloaded."""
    changed = {}
    for part in PARTS:
        settings = getattr(recipe, part)
        if settings is None:
            continue
        source = str(path / part) if (path / part).is_dir() else "random"
        values = {"source": source, "tokenizer": str(path / TOKENIZER)}
        known = {each.name for each in fields(settings)}
        changed[part] = replace(settings, **{name: value for name, value in values.items() if name in known})
    if hasattr(recipe.task, "tokenizer"):
        changed["task"] = replace(recipe.task, tokenizer=str(path / TOKENIZER))
    return replace(recipe, **changed)


def open_checkpoint(checkpoint: Checkpoint, trust_code: bool = False) -> Any:
    """The model of a checkpoint inside its run's folder, with averaged weights if the recipe keeps them.

    ``trust_code`` says whether to run the Python files of encoders in the run's folder.
    """
    run = checkpoint.folder.resolve().parent.parent
    file = run / "recipe.yaml"
    if not file.is_file():
        raise InputError(
            "the checkpoint is not in the folder of a run, which has recipe.yaml",
            file=run,
            remedy="keep checkpoints inside their run",
        )
    tree, origins = read_recipe(file)
    recipe = parse_recipe(permit_code(tree, run, trust_code), file, origins)
    check_recipe_digest(checkpoint, resolved.digest(recipe), file)
    usable = task_module(recipe).blank(with_tokenizer(recipe, run), ())
    restore(usable.model.eval(), usable.loss.eval(), checkpoint.model() | checkpoint.moments().get(AVERAGE, {}))
    return replace(usable, recipe=recipe)


def open_model(place: str | Path, trust_code: bool = False) -> Retriever:
    """The retrieval model of an export, of a checkpoint, or of a run's folder; arguments as of `open_any`."""
    return _retriever(open_any(place, trust_code), place)


def open_any(place: str | Path, trust_code: bool = False) -> Any:
    """The model, of any task, of an export, of a checkpoint, or of a run: its export, or else its newest checkpoint.

    A published model is opened too: the folder, or the name on the Hugging Face hub, of a ``ClapModel`` or of a
    sentence-transformers model that takes audio; see `training.models.published`.

    Args:
        place: a folder or a name, or an address such as ``s3://bucket/run``, which is copied to this machine first.
        trust_code: whether to run the Python files of encoders that come with the model.
    """
    with model_folder(place) as path:
        if is_published(path):
            return open_published(path)
        for folder in (path, path / EXPORT):
            if (folder / CONFIG).is_file():
                return load_any(folder, trust_code)
        return open_checkpoint(open_verified(find(path)), trust_code)


def _retriever(usable: Any, path: str | Path) -> Retriever:
    if not isinstance(usable, Retriever):
        task = usable.recipe.task.name
        raise InputError("the model does not score captions against clips", file=path, value=f"its task is {task}")
    return usable


def save(checkpoint: Checkpoint, target: Path, trust_code: bool = False) -> Path:
    """Write a checkpoint's model as an export, whole or not at all; an export that is there is replaced.

    ``trust_code`` says whether to run the Python files of encoders in the run's folder.

    Raises ``InputError`` if it cannot be written.
    """
    usable = open_checkpoint(checkpoint, trust_code)
    with writing(target):
        draft = _draft(usable, checkpoint, target)
        former = target.with_name(f".{target.name}.former")
        shutil.rmtree(former, ignore_errors=True)
        if target.exists():
            target.rename(former)  # a killed removal would leave a part of it under its name
        draft.rename(target)
        shutil.rmtree(former, ignore_errors=True)
    return target


def _draft(usable: Any, checkpoint: Checkpoint, target: Path) -> Path:
    """A hidden folder next to ``target`` that holds the whole export."""
    draft = target.with_name(f".{target.name}.writing")
    shutil.rmtree(draft, ignore_errors=True)
    state = checkpoint.state
    origin = {"step": checkpoint.step, "plan": state.get("plan"), "validation": state.get("validation", {})}
    write(usable, origin, draft)
    return draft


def write(usable: Any, origin: dict[str, Any], folder: Path) -> None:
    """Write the files of an export into a new or empty folder.

    Args:
        usable: the model, as `load_any` gives it.
        origin: the step, the plan and the validation figures of its checkpoint, as `origin_of` reads them.
        folder: where to write; a killed call leaves a part.
    """
    folder.mkdir(parents=True, exist_ok=True)
    usable = _self_contained(usable, folder)
    if usable.tokenizer is not None:
        usable.tokenizer.save_pretrained(folder / TOKENIZER)
    _write_weights(usable, folder)
    config = {"format": FORMAT, "recipe": resolved.to_tree(usable.recipe), **origin}
    config["files"] = describe_files(folder, frozenset((CONFIG, CARD)))
    (folder / CONFIG).write_text(sealed(config), encoding="utf-8")
    (folder / CARD).write_text(model_card(usable, origin), encoding="utf-8")


def find_export(path: Path) -> Path:
    """The export that a path means: a folder that is one, or the export of a run's folder.

    Raises:
        InputError: there is no export.
    """
    for folder in (path, path / EXPORT):
        if (folder / CONFIG).is_file():
            return folder
    remedy = "name an export, or the folder of a finished run, which holds one"
    raise InputError("there is no export", file=path, remedy=remedy)


def origin_of(export: Path) -> dict[str, Any]:
    """The step, the plan and the validation figures of the checkpoint from which an export was made."""
    config = _read_config(export)
    return {name: config.get(name) for name in ("step", "plan", "validation")}


def _write_weights(usable: Any, draft: Path) -> None:
    weights = dict(usable.model.named_parameters())  # weights that share memory once
    parameters = {name for name, _ in usable.model.named_parameters(remove_duplicate=False)}
    weights |= {name: value for name, value in usable.model.state_dict().items() if name not in parameters}
    weights |= {f"loss.{name}": value for name, value in usable.loss.state_dict().items()}
    for part in PARTS:
        settings = getattr(usable.recipe, part)
        if settings is None:
            continue
        net: Any = getattr(getattr(usable.model, part), "net", None)
        published = not is_outside(settings.encoder) and settings.source != "random"
        if published and hasattr(net, "save_pretrained"):
            net.save_pretrained(draft / part, save_original_format=False)
            weights = {name: value for name, value in weights.items() if not name.startswith(f"{part}.net.")}
    save_file({name: value.detach().contiguous() for name, value in weights.items()}, draft / MODEL)


def _self_contained(usable: Any, folder: Path) -> Any:
    """The same model without adapters, and with the files of a user's own encoders copied into ``folder``."""
    recipe = usable.recipe
    for part in PARTS:
        if getattr(recipe, part) is None:
            continue
        if getattr(recipe.lora, part) is not None:
            merge(getattr(usable.model, part))
        recipe = replace(recipe, **{part: carried(getattr(recipe, part), part, folder)})
    return replace(usable, recipe=replace(recipe, lora=LoraSettings()))
