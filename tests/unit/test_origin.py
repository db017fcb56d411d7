"""What tests may start: tests/origin.py."""

import os
import subprocess
from pathlib import Path

import pytest

from tests import origin

# As `dpkg-query --show --showformat=STATUS` prints it.
STATUS = """\
installed\tbash\tyes\trequired\t, base-files (>= 2.1.12)\t
installed\tbase-files\tyes\trequired\t, awk\t
installed\tmawk\tno\toptional\t, libc6 (>= 2.36)\tawk
installed\tlibc6\tno\toptional\t, \t
installed\tgit\tno\toptional\tlibc6 (>= 2.36), perl, curl | wget, \t
deinstalled\tcurl\tno\toptional\t, \t
installed\twget\tno\toptional\t, libssl3:any [amd64]\t
installed\tlibssl3\tno\toptional\t, \t
installed\tperl\tno\toptional\t, \t
installed\tpython3-pytest\tno\toptional\t, perl\t
"""


def test_closure() -> None:
    """By Depends and Pre-Depends, by what is provided, and by the alternative that is there."""
    base = {"bash", "base-files", "mawk", "libc6"}
    assert origin.closure([], STATUS) == base
    assert origin.closure(["git"], STATUS) == {*base, "git", "perl", "wget", "libssl3"}


def test_listed() -> None:
    for path in ("/usr/bin/python3", "/bin/sh", "/usr/bin/strace", "/sbin/mkfs.ext4", "/usr/sbin/mkfs.ext4"):
        assert origin.is_listed(Path(path)), path
    assert not origin.is_listed(Path("/usr/local/bin/python3"))


def test_a_stranger_is_named(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path_factory.mktemp("somebody") / "bin"
    folder.mkdir()
    for name in ("helper", "other"):
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    monkeypatch.setattr(origin, "is_ours", lambda _: False)
    origin.strangers()
    subprocess.run(["helper"], env={"PATH": f"{folder}:/usr/bin:/bin"}, check=True)
    subprocess.run(["sh", "-c", ":"], env={"PATH": "/usr/bin:/bin"}, check=True)
    os.waitpid(os.posix_spawn(folder / "other", ["other"], {}), 0)
    assert origin.strangers() == [str(folder / "helper"), str(folder / "other")]
    assert origin.strangers() == []
