"""``python -m sharding``."""

import signal
import sys


def _as_interrupt(number: int, frame: object) -> None:
    """SIGTERM ends a command as Ctrl-C does: workers first, and nothing stays in TMPDIR."""
    raise KeyboardInterrupt(number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _as_interrupt)
    try:
        from sharding.cli import main
        from sharding.commandline import leave

        status = main()
    except KeyboardInterrupt as interrupt:  # importing takes a second, in which nothing has begun
        sys.exit(128 + (interrupt.args[0] if interrupt.args else signal.SIGINT))
    leave(status)
