"""Files in a folder of this machine, in an object store, or in a zip archive, behind one small interface.

``folder``: ``Storage``, the interface.  ``backend``: what a kind of storage must be able to do.  ``local`` and
``object_store``: the two kinds.  ``zipped``: members of zip archives.  ``spool``: bytes on their way.  ``failures``:
errors that name their file, and repeated tries.
"""

from sharding.common.storage.backend import Entry
from sharding.common.storage.failures import UnreadableFile, is_full
from sharding.common.storage.folder import Storage, located
from sharding.common.storage.local import FOLLOW_LINKS, PIECE, apply_umask

__all__ = ["FOLLOW_LINKS", "PIECE", "Entry", "Storage", "UnreadableFile", "apply_umask", "is_full", "located"]
