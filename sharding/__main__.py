"""``python -m sharding``."""

import signal

from sharding.cli import main
from sharding.common.processes import leave


def _as_interrupt(number: int, frame: object) -> None:
    """SIGTERM ends a command as Ctrl-C does: workers first, and nothing stays in TMPDIR."""
    raise KeyboardInterrupt(number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _as_interrupt)
    leave(main())
