"""What a file on the share is, told by its name alone. Pure.

Beside an image NAME there may be:

    NAME.snapshot-YYYYMMDDTHHMMSSZ    a snapshot of it, or what a restore has replaced (snapshots.py)
    NAME.replaced                     what the first version's restore has replaced
    .NAME.rpinfs-lock                 the lock
    .NAME.rpinfs-owner, -replaced     records: whose it is, a restore in progress; .SNAPSHOT.rpinfs-replaced: what for
    .NAME.rpinfs-*                    anything else: working files, which come and go
"""

import os
import re
from enum import Enum

from rpinfs.boot.settings import REPLACED, SNAPSHOT_MARK, is_kept_name


class Role(Enum):
    """What a file is, by its name. IMAGE is also what is not of our making: anybody may name an image as he likes."""

    IMAGE = "image"
    SNAPSHOT = "snapshot"
    REPLACED = "replaced"
    LOCK = "lock"
    RECORD = "record"
    WORKING = "working file"


_HIDDEN = re.compile(r"\..+\.rpinfs-([a-z]+)(-.*)?", re.DOTALL)
_HIDDEN_ROLES = {"lock": Role.LOCK, "owner": Role.RECORD, "replaced": Role.RECORD}


def role_of(name: str) -> Role:
    """Tell what a file of this name is; only an IMAGE grows by what is written in it."""
    hidden = _HIDDEN.fullmatch(name)
    if hidden:
        return Role.WORKING if hidden[2] else _HIDDEN_ROLES.get(hidden[1], Role.WORKING)
    if not is_kept_name(name):
        return Role.IMAGE
    return Role.REPLACED if name.endswith(REPLACED) else Role.SNAPSHOT


def snapshot_form(image: str) -> re.Pattern[str]:
    """The names of snapshots of an image, given its path or name; group 1 is the time."""
    return re.compile(re.escape(os.path.basename(image) + SNAPSHOT_MARK) + r"(\d{8}T\d{6}Z)", re.ASCII)


def record_of(path: str) -> str:
    """Path of the record of a restore: beside an image, of one in progress; beside a snapshot, of what made it one."""
    folder, name = os.path.split(path)
    return f"{folder}/.{name}.rpinfs-replaced"
