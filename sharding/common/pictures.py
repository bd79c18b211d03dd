"""Pictures that matplotlib draws, written whole or not at all."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from sharding.common.errors import InputError
from sharding.common.storage import Storage

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_figure(figure: Figure, path: Path) -> None:
    """Write a picture and close it.

    Args:
        figure: the picture.
        path: its suffix chooses the format.

    Raises:
        InputError: the file cannot be written, or its suffix names no known format.
    """
    from matplotlib import pyplot

    try:
        image = io.BytesIO()
        kind = path.suffix[1:] or "png"
        plain = {"Software": None} if kind == "png" else None  # the version of matplotlib is no part of the picture
        figure.savefig(image, format=kind, dpi=110, metadata=plain)
        Storage(path.parent).write(path.name, image.getvalue())
    except (OSError, ValueError) as error:  # matplotlib raises ValueError for a suffix that it does not know
        what = getattr(error, "strerror", None) or str(error)
        raise InputError(what, file=path, remedy="choose another --plot, with a name that ends in .png") from error
    finally:
        pyplot.close(figure)
