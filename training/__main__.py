"""``python -m training``."""

from sharding.common.processes import run_program
from training.cli import main

if __name__ == "__main__":
    run_program(main)
