"""What a recipe may not say: keys of other trainers, and combinations that train something else."""

from __future__ import annotations

from training.config.checks import nearest
from training.config.origin import Location
from training.config.sections import Recipe, ValidationSettings
from training.tasks import task_module

# Keys of other trainers, or of former versions, and why Earshot does not have them.
REFUSED_KEYS = {
    "gradient_accumulation_steps": "accumulating small batches is not a bigger contrastive batch: each would "
    "see only its own negatives; set engine.chunk, which encodes in chunks and scores the whole batch",
    "gather_with_grad": "negatives always carry gradient across ranks; there is no other setting",
    "local_loss": "every pair is scored by exactly one rank, always; there is no other setting",
    "fp16": "float16 overflows in the attention of these encoders; set engine.dtype to bf16",
    "checksum": "every sample is compared with the manifest's checksum, always; remove the key from the recipe, "
    "the run's recipe.yaml or the export's config.json",
    "hostfile": "the launcher takes the hostfile: deepspeed --hostfile FILE --module training fit ...",
}
REFUSED_KEYS |= dict.fromkeys(
    ("accum_freq", "grad_accum", "accumulate_grad_batches", "gas"), REFUSED_KEYS["gradient_accumulation_steps"]
)


def refuse_dangerous(recipe: Recipe, location: Location) -> None:
    """Raise ``InputError`` for settings that would train, but not what the recipe seems to say."""
    metrics = task_module(recipe).METRICS
    checks: list[tuple[bool, str, str, str]] = [  # whether it is wrong, key, reason, remedy
        (
            recipe.optimizer.name == "adam" and recipe.optimizer.weight_decay > 0,
            "optimizer.weight_decay",
            "Adam adds weight decay to the gradient, where its own scaling undoes it",
            "set optimizer.name to adamw, or weight_decay to 0",
        ),
        (
            recipe.validation.metric not in metrics and recipe.validation != ValidationSettings(),
            "validation.metric",
            f"{recipe.validation.metric!r} is not measured, so no checkpoint would be the best",
            nearest(recipe.validation.metric, metrics) + "valid: " + ", ".join(metrics),
        ),
        (
            recipe.loss is not None and recipe.data.batch_size < 2,
            "data.batch_size",
            "a batch of one clip has no negatives, and its loss is constant",
            "set data.batch_size to 2 or more; engine.chunk bounds the memory of large batches",
        ),
    ]
    for wrong, key, reason, remedy in checks:
        if wrong:
            raise location.at(*key.split(".")).error(f"{key} is refused: {reason}", remedy=remedy)
