"""How what went wrong becomes words."""

from __future__ import annotations

import errno
import os
import subprocess

import pytest

from rpinfs.errors import RpinfsError, reason_of


@pytest.mark.parametrize(("error", "reason"), [
    (FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "/etc/x"), "No such file or directory"),
    (OSError(errno.EIO, "Input/output error"), "Input/output error"),
    (TimeoutError("timed out"), "timed out"),
    (OSError(), "OSError"),
    (ValueError("of no kind"), "of no kind"),
    (RpinfsError("a line"), "a line"),
    (ConnectionResetError(), "ConnectionResetError"),
    (subprocess.SubprocessError(), "SubprocessError"),
])  # fmt: skip
def test_a_reason_is_never_empty_and_has_no_path(error: Exception, reason: str) -> None:
    assert reason_of(error) == reason
