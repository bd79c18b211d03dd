"""The model card of an export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sharding.common.terminal import printable
from training.models.retriever import Retriever
from training.models.sources import Source, as_annotation


def model_card(usable: Any, config: dict[str, Any]) -> str:
    """The README of an export, in Markdown: what the model is, how it is used, and what it was trained on.

    Args:
        usable: the model, as `training.models.hub.load_any` gives it.
        config: step, plan and validation figures of its checkpoint.
    """
    recipe = usable.recipe
    data = "\n".join(f"- {item.split}, captions: {', '.join(item.captions)}" for item in recipe.data.train)
    if isinstance(usable, Retriever):
        return _retrieval_card(usable, config, data)
    figures = "\n".join(f"- {name}: {value:.4f}" for name, value in config["validation"].items())
    return f"""# {recipe.task.name.replace("_", " ").capitalize()} model

Trained with Earshot for {config["step"]} steps of {recipe.data.batch_size} samples.

```python
from training.models.hub import load_any

model = load_any("export")  # this folder
{usable.usage()}
```

Trained on

{data}

of the data `{config["plan"]}`.
{
        f'''
Validation on {recipe.validation.split}

{figures}
'''
        if figures
        else ""
    }"""


def _retrieval_card(retriever: Retriever, config: dict[str, Any], data: str) -> str:
    recipe, audio = retriever.recipe, retriever.audio_input
    count = sum(parameter.numel() for parameter in retriever.model.parameters())
    averaged = ", before they were averaged" if recipe.engine.ema else ""
    measured = {name: value for name, value in config["validation"].items() if not _is_bound(name)}
    figures = "\n".join(f"| {name} | {value:.4f} |" for name, value in measured.items())
    title = f"## Validation on {recipe.validation.split}\n\nOf the weights of that step{averaged}."
    table = f"{title}\n\n| metric | value |\n|---|---|\n{figures}\n"
    spelling = "in lower case, " if recipe.data.lower else ""
    spelling += "without punctuation, " if recipe.data.strip_punctuation else ""
    scored = f"task {recipe.task.name}" if recipe.head is None else f"head {recipe.head.name}"
    return f"""# Audio-text retrieval model

Trained with Earshot: encoders {recipe.audio.encoder} and {recipe.text.encoder}, {scored},
loss {recipe.loss.name}, {count / 1e6:.1f} M parameters, {config["step"]} steps of {recipe.data.batch_size} clips.

```python
from training.models.hub import load

retriever = load("export")  # this folder
text = retriever.encode_texts(["a dog barks"])
audio = retriever.encode_wave(wave)  # float32, mono, {audio.rate} Hz; what is beyond {audio.max_s:g} s is cut off
print(retriever.score(text, audio))
```

Trained on

{data}

of the build `{config["plan"]}`. Captions are read {spelling}up to {recipe.data.max_tokens} tokens.

{table if figures else ""}"""


def _is_bound(name: str) -> bool:
    return name.partition("/")[2].startswith(("pessimistic_", "optimistic_"))


def published_card(
    retriever: Retriever,
    origin: Mapping[str, Any],
    sources: Sequence[Source] = (),
    licence: str | None = None,
    leaks: Mapping[str, Any] | None = None,
) -> str:
    """The card of a model that is given away: that of an export, with metadata that the Hugging Face hub reads.

    Args:
        retriever: the model.
        origin: step, plan and validation figures of its checkpoint.
        sources: what it was trained on; none: the card names only splits.
        licence: the licence of the weights; None: the card says nothing of it.
        leaks: which evaluation clips the training data hold, as `earshot leaks --annotation` wrote it; None: nothing.
    """
    from huggingface_hub import ModelCardData

    data = ModelCardData(
        model_name="Earshot",
        library_name="earshot",
        license=licence,
        tags=["audio-text-retrieval", "text-to-audio-retrieval", "earshot"],
        eval_results=_results(retriever, origin) or None,
        **(leaks or {}),
        training_datasets=as_annotation(sources) if sources else [item.split for item in retriever.recipe.data.train],
    )
    body = model_card(retriever, dict(origin)).replace(
        'from training.models.hub import load\n\nretriever = load("export")  # this folder',
        'from training import Earshot\n\nretriever = Earshot.from_pretrained("OWNER/NAME")  # or this folder',
    )
    return f"---\n{data}\n---\n\n{body.rstrip()}\n{_sources_table(sources)}"


def _results(retriever: Retriever, origin: Mapping[str, Any]) -> list[Any]:
    """Validation figures as the hub lists them, each with its protocol."""
    from huggingface_hub import EvalResult

    settings = retriever.recipe.validation
    first = settings.first if retriever.model.head.embedding(retriever.encode_texts(["a sound"])) is None else 0
    protocol = {
        "candidates": f"every clip of {settings.split}",
        "relevant": "the clip that a caption was written for, and the captions that were written for a clip",
        "ties": "expected value over random orders of equal scores",
        "scored exactly": f"the first {first} candidates by vectors" if first else "every candidate",
    }
    return [
        EvalResult(
            task_type="audio-text-retrieval",
            dataset_type=str(settings.split),
            dataset_name=str(settings.split),
            metric_type=name,
            metric_value=round(value, 6),
            metric_args=protocol,
        )
        for name, value in (origin.get("validation") or {}).items()
        if not _is_bound(name)
    ]


def _sources_table(sources: Sequence[Source]) -> str:
    """The clips, hours and licences of what the model was trained on, in Markdown."""
    if not sources:
        return ""
    rows = [
        f"| {source.name} | {source.clips} | {source.hours:.2f} | {', '.join(source.captions)} | {_licences(source)} |"
        for source in sources
    ]
    head = "| split | clips | hours | captions | licences of the clips |\n|---|---|---|---|---|"
    return "\n## Training data\n\n" + "\n".join([head, *rows]) + "\n"


def _licences(source: Source) -> str:
    """Licences with their number of clips; they come from published tables, so that nothing in them is Markdown."""
    shown = []
    for licence, clips in source.licences.items():
        text = printable(licence).replace("|", "\\|").replace("<", "&lt;").replace("`", "'")
        shown.append(f"{text} ({clips})")
    return ", ".join(shown)
