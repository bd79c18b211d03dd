"""Exports in the formats of other libraries.

A format is one module with ``LIBRARIES`` (what must be installed) and three functions.  ``write(retriever, origin,
folder)`` raises ``InputError`` if the format cannot hold the model.  ``prove(retriever, folder, clips) -> Proof``
loads what was written with the other library, and compares it with Earshot.  ``usage(retriever) -> str`` says in
Markdown how the result is used.
"""

from __future__ import annotations

FORMATS: dict[str, str] = {
    "sentence-transformers": "training.models.formats.sentence_transformer",
    "clap": "training.models.formats.clap",
    "onnx": "training.models.formats.onnx_towers",
}
EXTRA = "clients"  # the extra of the package that installs the libraries of all formats
