"""``earshot``, the installed command, and ``python -m earshot``."""

from typing import NoReturn

from earshot.cli import main
from sharding.common.processes import run_program


def program() -> NoReturn:
    """Run the command line and end the process with its status."""
    run_program(main)


if __name__ == "__main__":
    program()
