"""The model card of an export."""

from __future__ import annotations

from typing import Any

from training.models.retriever import Retriever


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
    return f"""# Audio-text retrieval model

Trained with Earshot: encoders {recipe.audio.encoder} and {recipe.text.encoder}, head {recipe.head.name},
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
