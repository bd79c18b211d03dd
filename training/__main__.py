"""``python -m training``."""

from sharding.commandline import leave
from training.cli import main

if __name__ == "__main__":
    leave(main())
