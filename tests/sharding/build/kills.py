"""Deaths that tests bring about: of a build, at a change of its files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sharding.dedup import findings, spreading


class Killed(BaseException):
    """Stands for SIGKILL: nothing in Earshot may catch it and go on."""


def killed(*args: Any, **options: Any) -> Any:
    raise Killed


class Death:
    """Ends the process that it watches at the n-th change that is made to files."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 0
        for owner, name in ((Path, "replace"), (Path, "unlink"), (shutil, "rmtree")):
            monkeypatch.setattr(owner, name, self._counted(getattr(owner, name)))

    def _counted(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                raise Killed
            return original(*args, **options)

        return step


def keep_every_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let comparing keep each finding in a file of its own, as if it had taken long."""
    for module, name in ((findings, "LEAST_S"), (findings, "SHARE"), (findings, "JOIN_H"), (spreading, "PIECE_S")):
        monkeypatch.setattr(module, name, 0.0)
