"""A trained model as a plain folder that loads in one call, without DeepSpeed or Ray.

config.json        the resolved recipe and where the model comes from
model.safetensors  weights by name, float32
tokenizer/         in the format of transformers
text/, audio/      encoders that came from the hub, in transformers' own format (their weights are not in
                   model.safetensors then)
text_encoder.py, audio_encoder.py
                   the files of encoders from outside of Earshot
README.md          the model card
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from sharding.common.errors import InputError
from sharding.common.storage import apply_umask
from training.config import resolved
from training.config.loading import load_recipe, parse_recipe
from training.config.sections import Recipe
from training.data.captions import normalise, tokenise
from training.data.features import AudioInput, FeatureExtractor, segment_seeds
from training.engine.checkpoint import MODEL, Checkpoint, find, read_tensors, restore, writing
from training.engine.checkpoint import load as open_verified
from training.engine.optimizers import AVERAGE
from training.models.encoders.lora import LoraSettings, merge
from training.models.encoders.outside import carried, is_outside
from training.models.retrieval import RetrievalModel
from training.objectives.pairs.base import PairLoss
from training.objectives.pairs.tiled import score_all
from training.tasks.retrieval import TOKENIZER, assemble, with_tokenizer

FORMAT = 1
CONFIG = "config.json"
EXPORT = "export"  # the folder of a run that holds one


@dataclass(frozen=True)
class Retriever:
    """A trained model with all that it takes to use it: ``retriever = training.models.hub.load(folder)``."""

    model: RetrievalModel
    loss: PairLoss
    recipe: Recipe

    @property
    def tokenizer(self) -> Any:
        """The text encoder's tokenizer."""
        return self.model.text.tokenizer

    @property
    def audio_input(self) -> AudioInput:
        """Rate, segments and longest input of the audio encoder."""
        return AudioInput.of(self.model.audio)

    @property
    def device(self) -> torch.device:
        """Where the model is; sides come on it."""
        return next(self.model.parameters()).device

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> tuple[Tensor, ...]:
        """The text side of captions in any spelling; for a dual encoder one tensor ``[texts, dim]``."""
        data = self.recipe.data
        spelled = [normalise(text, data) for text in texts]
        tokens, mask = tokenise(self.tokenizer, spelled, data)
        return self.model.text_side(tokens.to(self.device), mask.to(self.device))

    @torch.inference_mode()
    def encode_wave(self, wave: Tensor | np.ndarray) -> tuple[Tensor, ...]:
        """The audio side (a batch of 1) of a mono recording ``[samples]``: floating point, ``audio_input.rate`` Hz.

        A tensor, or an array as soundfile reads it; full scale is 1.  Raises ``InputError`` where it is none.
        """
        audio = self.audio_input
        heard = torch.as_tensor(wave)
        if heard.ndim != 1 or not heard.is_floating_point() or not heard.isfinite().all():
            what = "a recording is one row of finite floating-point samples"
            value = f"{heard.dtype} {tuple(heard.shape)}"
            raise InputError(what, value=value, remedy="mix channels to one; divide integers by full scale")
        heard = heard[: round(audio.max_s * audio.rate)].float().cpu()
        segments = torch.from_numpy(audio.cut(heard.numpy()))
        lengths = torch.from_numpy(audio.segment_lengths(len(heard)))
        features = FeatureExtractor(audio, self.recipe.data.masking, train=False)
        values = features(segments, lengths, torch.from_numpy(segment_seeds(0, len(segments))))
        batch = values[None], features.frames(lengths)[None], torch.zeros(1, dtype=torch.int64)
        return self.model.audio_side(*(tensor.to(self.device) for tensor in batch))

    def score(self, text: tuple[Tensor, ...], audio: tuple[Tensor, ...]) -> Tensor:
        """Similarity of every text to every recording, ``[texts, recordings]``."""
        return score_all(self.model.head, text, audio)


def load(folder: str | Path) -> Retriever:
    """Load an export; ``InputError`` where it is none."""
    path = Path(folder)
    try:
        config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
        version, tree = config["format"], config["recipe"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError("not an export: it has no readable config.json", file=path) from error
    if version != FORMAT:
        raise InputError(f"an export of format {version}; this version reads {FORMAT}", file=path)
    recipe = parse_recipe(tree, path / CONFIG)
    model, loss = assemble(_here(recipe, path), ())
    kept = read_tensors(path / MODEL)
    for part in ("audio", "text"):
        if (path / part).is_dir():  # its weights came with the encoder
            kept |= {f"{part}.{name}": value for name, value in getattr(model, part).state_dict().items()}
    restore(model, loss, kept)
    return Retriever(model.eval(), loss.eval(), recipe)


def _here(recipe: Recipe, path: Path) -> Recipe:
    """The recipe with everything that an export brings along in place of what would be downloaded."""
    changed = {}
    for part in ("audio", "text"):
        settings = getattr(recipe, part)
        source = str(path / part) if (path / part).is_dir() else "random"
        values = {"source": source, "tokenizer": str(path / TOKENIZER)}
        known = {each.name for each in fields(settings)}
        changed[part] = replace(settings, **{name: value for name, value in values.items() if name in known})
    return replace(recipe, **changed)


def open_checkpoint(checkpoint: Checkpoint) -> Retriever:
    """The model of a checkpoint inside its run's folder, its averaged weights where the recipe keeps them."""
    run = checkpoint.folder.resolve().parent.parent
    recipe = load_recipe(run / "recipe.yaml")
    if not (run / TOKENIZER).is_dir():
        raise InputError("the run's folder has no tokenizer", file=run, remedy="keep checkpoints inside their run")
    model, loss = assemble(with_tokenizer(recipe, run), ())
    restore(model, loss, checkpoint.model() | checkpoint.moments().get(AVERAGE, {}))
    return Retriever(model.eval(), loss.eval(), recipe)


def open_model(path: Path) -> Retriever:
    """The model of an export, a checkpoint, or a run's folder (its export, else its newest checkpoint)."""
    for folder in (path, path / EXPORT):
        if (folder / CONFIG).is_file():
            return load(folder)
    return open_checkpoint(open_verified(find(path)))


def save(checkpoint: Checkpoint, target: Path) -> Path:
    """Write a checkpoint's model as a plain folder, whole or not at all; an earlier one there is replaced.

    Raises ``InputError`` where it cannot be written.
    """
    retriever = open_checkpoint(checkpoint)
    with writing(target):
        draft = _draft(retriever, checkpoint, target)
        former = target.with_name(f".{target.name}.former")
        shutil.rmtree(former, ignore_errors=True)
        if target.exists():
            target.rename(former)  # removed where it stands, a kill would leave half of it under its name
        draft.rename(target)
        shutil.rmtree(former, ignore_errors=True)
    return target


def _draft(retriever: Retriever, checkpoint: Checkpoint, target: Path) -> Path:
    """The folder with everything in it, beside its place."""
    draft = target.with_name(f".{target.name}.writing")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    retriever = _self_contained(retriever, draft)
    retriever.tokenizer.save_pretrained(draft / TOKENIZER)
    weights = dict(retriever.model.named_parameters())  # tied ones once
    parameters = {name for name, _ in retriever.model.named_parameters(remove_duplicate=False)}
    weights |= {name: value for name, value in retriever.model.state_dict().items() if name not in parameters}
    weights |= {f"loss.{name}": value for name, value in retriever.loss.state_dict().items()}
    for part in ("audio", "text"):
        net: Any = getattr(getattr(retriever.model, part), "net", None)
        settings = getattr(retriever.recipe, part)
        published = not is_outside(settings.encoder) and settings.source != "random"
        if published and hasattr(net, "save_pretrained"):
            net.save_pretrained(draft / part, save_original_format=False)
            weights = {name: value for name, value in weights.items() if not name.startswith(f"{part}.")}
    save_file({name: value.detach().contiguous() for name, value in weights.items()}, draft / MODEL)
    config = {
        "format": FORMAT,
        "recipe": resolved.to_tree(retriever.recipe),
        "step": checkpoint.step,
        "plan": checkpoint.state.get("plan"),
        "validation": checkpoint.state.get("validation", {}),
    }
    (draft / CONFIG).write_text(json.dumps(config, indent=1, ensure_ascii=False), encoding="utf-8")
    (draft / "README.md").write_text(_card(retriever, config), encoding="utf-8")
    apply_umask(*(path for path in draft.rglob("*") if path.is_file()))
    return draft


def _self_contained(retriever: Retriever, folder: Path) -> Retriever:
    """The same model without adapters, and with the files of encoders from outside in the export's own folder."""
    recipe = retriever.recipe
    for part in ("audio", "text"):
        if getattr(recipe.lora, part) is not None:
            merge(getattr(retriever.model, part))
        recipe = replace(recipe, **{part: carried(getattr(recipe, part), part, folder)})
    return replace(retriever, recipe=replace(recipe, lora=LoraSettings()))


def _card(retriever: Retriever, config: dict[str, Any]) -> str:
    recipe, audio = retriever.recipe, retriever.audio_input
    count = sum(parameter.numel() for parameter in retriever.model.parameters())
    averaged = ", before they were averaged" if recipe.engine.ema else ""
    measured = {name: value for name, value in config["validation"].items() if not _bound(name)}
    figures = "\n".join(f"| {name} | {value:.4f} |" for name, value in measured.items())
    title = f"## Validation on {recipe.validation.split}\n\nOf the weights of that step{averaged}."
    table = f"{title}\n\n| metric | value |\n|---|---|\n{figures}\n"
    spelling = "in lower case, " if recipe.data.lower else ""
    spelling += "without punctuation, " if recipe.data.strip_punctuation else ""
    data = "\n".join(f"- {item.split}, captions: {', '.join(item.captions)}" for item in recipe.data.train)
    return f"""# Audio-text retrieval model

Trained with Earshot: encoders {recipe.audio.encoder} and {recipe.text.encoder}, head {recipe.head.name},
loss {recipe.loss.name}, {count / 1e6:.1f} M parameters, {config["step"]} steps of {recipe.data.batch_size} clips.

```python
from training.models.hub import load

retriever = load("export")  # this folder
text = retriever.encode_texts(["a dog barks"])
audio = retriever.encode_wave(wave)  # float32, mono, {audio.rate} Hz, up to {audio.max_s:g} s are heard
print(retriever.score(text, audio))
```

Trained on

{data}

of the build `{config["plan"]}`. Captions are read {spelling}up to {recipe.data.max_tokens} tokens.

{table if figures else ""}"""


def _bound(name: str) -> bool:
    return name.partition("/")[2].startswith(("pessimistic_", "optimistic_"))
