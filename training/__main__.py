"""``python -m training``."""

from sharding.common.processes import leave
from training.cli import main

if __name__ == "__main__":
    leave(main())
