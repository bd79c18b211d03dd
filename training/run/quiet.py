"""Libraries that print or report their use without being asked are made silent.

DeepSpeed, transformers, hear21passt and torch's warnings print.  onnxruntime sends to its makers which models it opens,
and leaves a file of its session in TMPDIR; the Hugging Face libraries tell the hub what calls them.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator

LIBRARIES = ("DeepSpeed", "deepspeed", "transformers", "torch.distributed", "numexpr", "matplotlib", "fsspec")


def silence_libraries() -> None:
    """Let libraries print errors only, and report nothing; this must run before they are imported."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    for name in LIBRARIES:  # a filter instead of a level, because some libraries set their own level when imported
        logging.getLogger(name).addFilter(_only_errors)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"(torch|deepspeed|transformers|hear21passt)\b.*")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Discard prints and warnings; hear21passt prints its whole model and every shape."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _only_errors(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR
