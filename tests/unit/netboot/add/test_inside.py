"""The last step into an image, beside namespaces and mounts: which file a program is, and what is said of none."""

from __future__ import annotations

import ctypes
import errno
import subprocess
from pathlib import Path

import pytest

from rpinfs.netboot.add import inside
from tests.support import PYTHON, TOP, make_tree

BECOME = """\
import sys
sys.path.insert(0, sys.argv.pop(1))
from rpinfs.netboot.add.inside import _become
sys.exit(_become(sys.argv[1:]))
"""


@pytest.mark.parametrize(("argv", "status", "said"), [
    (["one", "x"], 0, "second one x"),
    (["{top}/first/one.d/../../second/one", "x"], 0, "second one x"),
    (["none", "x"], 127, "none: command not found"),
    (["{top}/none", "x"], 127, "{top}/none: command not found"),
    (["two"], 127, "two: Permission denied"),
    (["three"], 127, "three: Exec format error"),
])  # fmt: skip
def test_a_program_by_its_name(argv: list[str], status: int, said: str, tmp_path: Path) -> None:
    """In the order of $PATH, a folder in it that is none passed over."""
    make_tree(tmp_path, {
        "file": "", "first/one.d": None, "second/one": '#!/bin/sh\necho second "$(basename "$0")" "$@"\n',
        "second/two": "", "second/three": "\x7fELF", "third/two": "#!/bin/sh\necho third\n", "third/one": "#!/bin/sh\n",
    })  # fmt: skip
    for name in ("second/one", "second/three", "third/two", "third/one"):
        (tmp_path / name).chmod(0o755)
    path = ":".join(str(tmp_path / name) for name in ("file", "first", "second", "third"))
    done = subprocess.run(
        [*PYTHON, "-c", BECOME, TOP, *(word.format(top=tmp_path) for word in argv)],
        env={"PATH": f"{path}:/usr/bin:/bin"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, (done.stdout + done.stderr).strip()) == (status, said.format(top=tmp_path))


@pytest.mark.parametrize(("result", "well"), [(0, True), (1, True), (-1, False)])
def test_what_a_call_returns(result: int, well: bool) -> None:
    if well:
        inside._checked(result)
        return
    ctypes.set_errno(errno.EPERM)
    with pytest.raises(PermissionError, match="Operation not permitted"):
        inside._checked(result)
