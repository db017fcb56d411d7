"""What the tests of images share."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.tools.conftest import command
from tests.tools.image.pi import Pi


@pytest.fixture
def pi(tmp_path: Path) -> Pi:
    return Pi(tmp_path)


@pytest.fixture
def changed(pi: Pi) -> tuple[Pi, Path]:
    """An image and a snapshot of it before it was changed, told apart by their labels."""
    command("e2label", pi.path, "then")
    taken = pi.take()
    command("e2label", pi.path, "now")
    return pi, taken


@pytest.fixture
def names_given(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is synced and named from then on, in the order in which it is; working files by what they are for."""
    done: list[str] = []

    def called(name: str) -> str:
        base = os.path.basename(name)
        if os.path.isdir(name):
            return "folder"
        if "-replaced-new-" in base:
            return "new record"
        return "new copy" if re.search(r"\.rpinfs-new-", base) else base

    fsync, link, rename = os.fsync, os.link, os.rename

    def logged_fsync(fd: int) -> None:
        done.append(f"sync {called(os.readlink(f'/proc/self/fd/{fd}'))}")
        fsync(fd)

    def logged_link(source: str, target: str, **options: bool) -> None:
        done.append(f"link {called(source)} -> {called(target)}")
        link(source, target, **options)

    def logged_rename(source: str, target: str) -> None:
        done.append(f"rename {called(source)} -> {called(target)}")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", logged_fsync)
    monkeypatch.setattr(os, "link", logged_link)
    monkeypatch.setattr(os, "rename", logged_rename)
    return done
