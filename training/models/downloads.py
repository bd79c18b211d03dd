"""Whether the Hugging Face hub answers, which is asked once and briefly.

Without a network, the libraries that download models try again for half a minute, or wait ten seconds for every file,
before they look at what they downloaded earlier.
"""

from __future__ import annotations

import functools
import threading
from pathlib import Path

ANSWER_S = 3.0  # longer than a request takes over a slow line


def only_here(source: str) -> bool:
    """Whether a model is looked for on this machine alone: it is no name on the hub, or the hub does not answer.

    Args:
        source: a local folder, or a name on the hub; for the option ``local_files_only`` of what loads it.
    """
    return not is_hub_name(source) or not hub_answers()


def is_hub_name(source: str) -> bool:
    """Whether a source is no local folder, and has the form of a name on the hub."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    if Path(source).is_dir():
        return False
    try:
        validate_repo_id(source)
    except HFValidationError:
        return False
    return True


def hub_answers() -> bool:
    """Whether the hub answers within `ANSWER_S` seconds, with whatever it says; False where offline mode is on."""
    from huggingface_hub import constants, is_offline_mode

    return not is_offline_mode() and _answers(constants.ENDPOINT)


@functools.cache
def _answers(address: str) -> bool:
    """Whether somebody answers at an address."""
    from huggingface_hub import get_session

    found: list[bool] = []

    def ask() -> None:
        try:
            get_session().head(address, timeout=ANSWER_S)
        except Exception:  # there is no network, no such host, no way through a proxy, no valid certificate, ...
            return
        found.append(True)

    asking = threading.Thread(target=ask, daemon=True)  # no timeout of a request ends the search for a host's address
    asking.start()
    asking.join(ANSWER_S + 1)
    return bool(found)
