"""Changing one of Docker's settings: what it will do, and daemon.json with it.

A change of daemon.json leaves either the old file or the new one, whole, wherever it is interrupted: a temporary file
beside it, synced, validated by dockerd where it can, and then renamed.
"""

from __future__ import annotations

from rpinfs.boot.values import dataclass, replace
from rpinfs.docker import jsonedit, rules
from rpinfs.docker.daemonjson import BYTE_ORDER_MARK
from rpinfs.docker.settings import DOCKERD_SECONDS, Installed, expect, read_file, stored, with_text
from rpinfs.errors import RpinfsError
from rpinfs.system.replace import replace_file
from rpinfs.system.run import CommandError, run

KEY = "userns-remap"
NONE = "none"
"""Word for: not remapped, the key taken out."""


@dataclass(frozen=True)
class Change:
    """What setting userns-remap will do.

    `hidden`: what Docker does not see any more afterwards, for a person; "" is nothing. `text` is the new daemon.json.
    """

    installed: Installed
    before: rules.Expected
    after: rules.Expected
    text: str
    hidden: str

    @property
    def is_none(self) -> bool:
        """Whether all is so already."""
        return self.text == (self.installed.text or "")


def plan(installed: Installed, wanted: str) -> Change:
    """What setting userns-remap to `wanted` ("default", USER, USER:GROUP or "none") will do. Nothing is changed.

    Raises:
        RpinfsError: Docker would not start so.
    """
    before = expect(installed)
    if not before.is_told:
        raise RpinfsError(before.problems[-1].message, before.problems[-1].remedy)
    text = _edited(installed.text or "", wanted)
    settings = with_text(installed.settings, text or installed.text, installed.version)
    after = expect(replace(installed, text=text, settings=settings))
    new = next((problem for problem in after.problems if problem.fatal and problem not in before.problems), None)
    if new and text != (installed.text or ""):
        raise RpinfsError(new.message, new.remedy)
    return Change(installed, before, after, text, _hidden(installed, before, after))


def apply(change: Change) -> None:
    """Write daemon.json.

    Raises:
        RpinfsError: dockerd refuses it, or somebody changed it meanwhile; the file is as it was.
        OSError: it cannot be written; the file is as it was.
    """
    installed = change.installed
    file = installed.settings.file

    def validate(temporary: str) -> None:
        if read_file(installed.path, file) != installed.text:
            raise RpinfsError(f"{file} was changed by somebody else meanwhile", "do it again")
        if change.after.rules.validate and not installed.host.root:
            _validate(temporary, file)

    replace_file(installed.path, change.text.encode(), validate)


def _edited(text: str, wanted: str) -> str:
    mark = BYTE_ORDER_MARK if text.startswith(BYTE_ORDER_MARK) else ""
    text = text.removeprefix(mark)
    return mark + (jsonedit.remove_member(text, KEY) if wanted == NONE else jsonedit.set_member(text, KEY, wanted))


def _hidden(installed: Installed, before: rules.Expected, after: rules.Expected) -> str:
    """What Docker does not find any more: userns-remap has another data folder and another namespace of containerd."""
    if before.root == after.root and before.snapshotter == after.snapshotter:
        return ""
    try:
        there = stored(installed, before)
    except (RpinfsError, OSError):
        return f"whatever is in {before.root}, which cannot be looked at now"
    return f"{there} in {before.image_folder}" if str(there) else ""


def _validate(temporary: str, file: str) -> None:
    """Have dockerd look at it. With userns-remap=default it makes the user dockremap, with ranges, as a start does."""
    try:
        run(["dockerd", "--validate", "--config-file", temporary], timeout=DOCKERD_SECONDS)
    except CommandError as error:
        raise RpinfsError(
            f"{file} is left as it was, dockerd refuses the new one: {error.reason.replace(temporary, file)}", status=2
        ) from error
