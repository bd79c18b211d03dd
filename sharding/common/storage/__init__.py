"""Files in a folder of this machine, in an object store, or in a zip archive, behind one small interface.

``folder``: ``Storage``, the interface.  ``backend``: what a kind of storage must be able to do.  ``local``,
``object_store``: the two kinds.  ``zipped``: members of zip archives.  ``failures``: errors that name their file,
and repeated tries.
"""

from sharding.common.storage.backend import Entry
from sharding.common.storage.failures import UnreadableFile, is_full
from sharding.common.storage.folder import Storage, located
from sharding.common.storage.local import FOLLOW_LINKS, PIECE

__all__ = ["FOLLOW_LINKS", "PIECE", "Entry", "Storage", "UnreadableFile", "is_full", "located"]
