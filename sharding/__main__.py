"""``python -m sharding``."""

from sharding.cli import main
from sharding.common.processes import run_program

if __name__ == "__main__":
    run_program(main)
