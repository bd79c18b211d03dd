"""``python -m sharding``."""

from sharding.cli import main
from sharding.commandline import leave

if __name__ == "__main__":
    leave(main())
