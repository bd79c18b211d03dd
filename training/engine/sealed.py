"""JSON files that hold their own SHA-256, so that no byte of them can change unnoticed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

SEAL = "sha256"  # the key of the checksum


def sealed(tree: Mapping[str, Any]) -> str:
    """``tree`` as JSON whose last key is the SHA-256 of the JSON without it."""
    bare = json.dumps(tree, indent=1)
    return json.dumps({**tree, SEAL: hashlib.sha256(bare.encode()).hexdigest()}, indent=1)


def unsealed(text: str) -> dict[str, Any]:
    """The tree of a text that `sealed` wrote; ``ValueError`` if it is anything else."""
    try:
        tree = json.loads(text)
        if not isinstance(tree, dict) or SEAL not in tree:
            raise ValueError("it has no checksum of its own")
        del tree[SEAL]
        if sealed(tree) != text:
            raise ValueError("it is not as it was written")
    except (RecursionError, UnicodeEncodeError) as error:
        raise ValueError("it is not as it was written") from error
    return tree
