"""`rpinfs trim`: which images it takes, what it says, and its exit status. The trimming itself: tests/tools/image."""

from __future__ import annotations

from pathlib import Path

import pytest

from rpinfs.boot.host import Host
from rpinfs.commands import cli
from rpinfs.errors import RpinfsError
from rpinfs.image import trim
from rpinfs.image.trim import CannotTrim, Trimmed

Captured = pytest.CaptureFixture[str]
TWO = "[Image docker]\n[Image data]\nWhere=/srv/data\n"
KIB = 1024


def running(monkeypatch: pytest.MonkeyPatch, text: str, *becomes: Trimmed | RpinfsError) -> list[str]:
    """A machine with this configuration, on which trimming each image comes to that; the images that were trimmed."""
    host = Host(config_files=[("x", text)], cmdline="root=/dev/nfs nfsroot=10.0.0.1:/pi", serial="5e")
    monkeypatch.setattr(Host, "read", lambda: host)
    trimmed: list[str] = []

    def one(image: object, *_: object) -> Trimmed:
        trimmed.append(str(getattr(image, "name", "")))
        became = becomes[len(trimmed) - 1]
        if isinstance(became, Exception):
            raise became
        return became

    monkeypatch.setattr(trim, "trim", one)
    return trimmed


DONE = Trimmed("/nfs/docker/d.img", 9 * KIB, 5 * KIB, 4 * KIB)
NOTHING = Trimmed("/nfs/docker/d.img", 5 * KIB, 5 * KIB, 4 * KIB)
TAKES = "/nfs/docker/d.img takes 5 KiB on the NAS and holds 4 KiB"
CANNOT = CannotTrim("no NFS 4.2", "set Version=4.2")
BROKEN = RpinfsError("broken", "mend it", status=2)


@pytest.mark.parametrize(
    ("words", "becomes", "trimmed", "status", "out", "err"),
    [
        ("", [DONE, NOTHING], ["docker", "data"], 0,
         f"docker: 4 KiB given back; {TAKES}\ndata: nothing to give back; {TAKES}\n", ""),
        ("data", [DONE], ["data"], 0, f"data: 4 KiB given back; {TAKES}\n", ""),
        # Each has its turn, and the worst counts.
        ("", [CANNOT, DONE], ["docker", "data"], 1, f"data: 4 KiB given back; {TAKES}\n",
         "rpinfs: no NFS 4.2\nrpinfs: set Version=4.2\n"),
        ("--where-possible", [CANNOT, DONE], ["docker", "data"], 0, f"data: 4 KiB given back; {TAKES}\n",
         "rpinfs: no NFS 4.2\nrpinfs: set Version=4.2\n"),
        ("--where-possible", [BROKEN, CANNOT], ["docker", "data"], 2, "",
         "rpinfs: broken\nrpinfs: mend it\nrpinfs: no NFS 4.2\nrpinfs: set Version=4.2\n"),
        ("x", [], [], 2, "", "rpinfs: unknown image x; known are docker, data\nrpinfs: rpinfs config show\n"),
    ],
)  # fmt: skip
def test_each_image_has_its_turn(
    words: str, becomes: list[Trimmed | RpinfsError], trimmed: list[str], status: int, out: str, err: str,
    monkeypatch: pytest.MonkeyPatch, capsys: Captured,
) -> None:  # fmt: skip
    done = running(monkeypatch, TWO, *becomes)
    assert cli.main(["trim", *words.split()]) == status
    assert done == trimmed
    assert capsys.readouterr() == (out, err)


def test_where_no_image_is_in_use_there_is_nothing_to_do(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    """Seen: a traceback, as the worst of none was asked for."""
    running(monkeypatch, "[Image docker]\nEnabled=no\n")
    assert cli.main(["trim"]) == 0
    assert capsys.readouterr() == ("", "")
    assert cli.main(["trim", "docker"]) == 2
    assert "unknown image docker; known are none" in capsys.readouterr().err


def test_only_on_the_running_system(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setattr(Host, "read", lambda: Host(root=str(root), cmdline="nfsroot=10.0.0.1:/pi", serial="5e"))
    assert cli.main(["trim"]) == 1
    assert "works on the running system only" in capsys.readouterr().err
    monkeypatch.setattr(Host, "read", lambda: Host(cmdline="rpinfs=off"))
    assert cli.main(["trim"]) == 1
    assert (
        capsys.readouterr().err == "rpinfs: rpinfs is not in use here: rpinfs=off stands on the kernel command line\n"
    )
