"""Our reader of an fstab beside util-linux's own: findmnt(8) reads a file by the same library as mount(8)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rpinfs.image import fstab
from tests.tools.conftest import command

LINES = [
    "nas.local:/docker /nfs/docker nfs defaults,vers=4.1 0 0",
    "\t nas:/a\t\t/b   nfs4",
    "nas:/with\\040space /mnt/a\\011b nfs ro",
    "/nfs/docker/loop /var/lib/docker ext4,xfs loop,x-systemd.requires=/nfs/docker 0 2",
    "[fd00::10]:/x /x nfs vers=4.2",
    "nas:/ /r auto defaults",
    "UUID=0a3407de-014b-458b-b5c1-848e92a327a3 /srv auto noauto",
    "/srv/\\134back\\043hash /h none bind",
    "/swapfile none swap sw,pri=5 0 0",
    'tmpfs /tmp tmpfs size=10M,context="a,b"',
]


@pytest.mark.parametrize("line", LINES)
def test_fields(tmp_path: Path, line: str) -> None:
    file = tmp_path / "fstab"
    file.write_text(f"# a comment\n\n{line}\n  # another\n")
    columns = "SOURCE,TARGET,FSTYPE,OPTIONS"
    (theirs,) = json.loads(command("findmnt", "--tab-file", file, "--json", "--list", "-o", columns))["filesystems"]
    (ours,) = fstab.parse(file.read_text())
    assert (ours.number, ours.text) == (3, line.strip())
    assert ours.what == theirs["source"]
    # findmnt shows no mount point of swap.
    assert ours.where == (theirs["target"] or ours.where)
    assert ours.kind == theirs["fstype"] or (theirs["fstype"], ours.kind) == ("auto", "nfs")
    assert ",".join(ours.options) == (theirs["options"] or "")


def test_what_is_no_line(tmp_path: Path) -> None:
    file = tmp_path / "fstab"
    file.write_text("#nas:/a /b nfs\n\n   \n # x y z\n")
    assert fstab.parse(file.read_text()) == []
