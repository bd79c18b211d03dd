from __future__ import annotations

import io
import os
import resource
import subprocess
import sys
import threading

import numpy as np
import pytest
import soundfile

from sharding.audio import decode_segment
from sharding.audio.memory_file import descriptor_of
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has files in memory")


def flac(value: float, samples: int) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, np.full(samples, value), 8000, format="FLAC")
    return out.getvalue()


def content(descriptor: int | None) -> bytes:
    assert descriptor is not None
    return os.read(descriptor, 1000)


def test_a_shorter_content_leaves_nothing_of_the_one_before() -> None:
    assert content(descriptor_of(b"a long content")) == b"a long content"
    assert content(descriptor_of(b"short")) == b"short"


def test_threads_and_forked_processes_do_not_share_a_file() -> None:
    held = descriptor_of(b"mine")
    assert held is not None
    other = threading.Thread(target=descriptor_of, args=(b"a thread's",))
    other.start()
    other.join()
    child = os.fork()
    if child == 0:
        descriptor_of(b"a child's")
        os._exit(0)
    os.waitpid(child, 0)
    assert os.pread(held, 100, 0) == b"mine"


def test_a_thread_that_ends_leaves_no_file_open() -> None:
    def decode() -> None:
        decode_segment(flac(0.5, 100))

    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(5):
        thread = threading.Thread(target=decode)
        thread.start()
        thread.join()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_a_large_content_is_not_held_in_memory() -> None:
    assert descriptor_of(bytes(9 << 20)) is None


LIMITED = """
import resource, sys
resource.setrlimit(getattr(resource, sys.argv[1]), (int(sys.argv[2]),) * 2)
import io, numpy, soundfile
from sharding.audio import decode_segment
file = io.BytesIO()
soundfile.write(file, numpy.random.default_rng(0).normal(size=9000), 8000, format="FLAC")
print(len(decode_segment(file.getvalue())[0]))
"""


@pytest.mark.parametrize(("limit", "value"), [("RLIMIT_FSIZE", "1000")])
def test_a_process_that_may_not_write_large_files_decodes_all_the_same(limit: str, value: str) -> None:
    assert hasattr(resource, limit)
    found = subprocess.run(
        [sys.executable, "-B", "-c", LIMITED, limit, value], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert found.stdout == "9000\n", found.stderr
