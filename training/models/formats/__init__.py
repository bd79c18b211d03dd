"""Exports in the formats of other libraries.

A format is one module with ``LIBRARIES`` (what must be installed), ``write(retriever, origin, folder) -> dict``, which
raises ``InputError`` where the format cannot hold the model, and ``prove(retriever, folder, clips) -> Proof``, which
loads what was written with the other library and compares it with Earshot.
"""

from __future__ import annotations

FORMATS: dict[str, str] = {
    "sentence-transformers": "training.models.formats.sentence_transformer",
    "clap": "training.models.formats.clap",
    "onnx": "training.models.formats.onnx_towers",
}
EXTRA = "clients"  # the extra of the package that installs the libraries of all formats
