"""Errors of a share with a known cause."""

from __future__ import annotations

import errno
import os

import pytest

from rpinfs.image.errors import ShareFailedError, as_image_error
from rpinfs.system.trouble import REMEDIES, remedy_of


def test_what_is_known_is_said() -> None:
    assert "nfsv4.directory_delegations=0" in remedy_of(OSError(errno.EREMOTEIO, "Remote I/O error"))
    assert "no_root_squash" in remedy_of(PermissionError(errno.EACCES, "Permission denied"))
    assert remedy_of(OSError(errno.EIO, "I/O error")) == remedy_of(ValueError("x")) == ""
    known = {"EACCES", "EDQUOT", "ENOLCK", "ENOSPC", "EREMOTEIO", "EROFS", "ESTALE"}
    assert known <= {errno.errorcode[number] for number in REMEDIES}


def test_the_boot_says_it_too() -> None:
    """What prepare meets on the share, on its way to the agent."""
    with pytest.raises(ShareFailedError, match="Remote I/O error") as caught, as_image_error("/nfs/docker/x", "look"):
        raise OSError(errno.EREMOTEIO, os.strerror(errno.EREMOTEIO))
    assert caught.value.remedy == REMEDIES[errno.EREMOTEIO]
