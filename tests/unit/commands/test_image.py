"""What `rpinfs image grow` says of the configuration. On real files: tests/tools/commands/test_image.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from rpinfs.commands import cli, image
from rpinfs.commands.image import _tell_of_smaller_setting
from rpinfs.errors import printable
from rpinfs.image import grow
from rpinfs.image.grow import Grown
from rpinfs.image.probe import Kind, Probe
from tests.support import make_pi

GIB = 1 << 30
SAYS = "Size=10G in the configuration is less, which the next boot refuses: set Size={} in [Image docker]\n"


@pytest.mark.parametrize(
    ("config", "cmdline", "name", "size", "said"),
    [
        ("Size=10G\n", "", "docker.img", 20 * GIB, SAYS.format("20G")),
        ("Size=10G\n", "", "link.img", 20 * GIB, SAYS.format("20G")),
        # A length that is no multiple of a block is no Size=: the next one that is.
        ("Size=10G\n", "", "docker.img", 10 * GIB + 1, SAYS.format("10485764K")),
        ("Size=10G\n", "", "docker.img", 10 * GIB, ""),
        ("Size=20G\n", "", "docker.img", 10 * GIB, ""),
        ("", "", "docker.img", 20 * GIB, ""),
        ("Size=10G\n", "", "other.img", 20 * GIB, ""),
        ("Size=10G\n", "rpinfs=off", "docker.img", 20 * GIB, ""),
        ("Size=x\n", "", "docker.img", 20 * GIB, ""),
    ],
)
def test_a_setting_that_is_less_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    config: str, cmdline: str, name: str, size: int, said: str,
) -> None:  # fmt: skip
    share = f"[Share]\nWhere={tmp_path}/share\n[Image docker]\nFile=docker.img\n"
    monkeypatch.setenv("RPINFS_ROOT", str(make_pi(tmp_path / "pi", share + config, cmdline=cmdline)))
    (tmp_path / "share").mkdir()
    (tmp_path / "share/link.img").symlink_to("docker.img")
    _tell_of_smaller_setting(f"{tmp_path}/share/{name}", size)
    assert capsys.readouterr().out == said


@pytest.mark.parametrize(
    ("before", "where", "said"),
    [
        (10, "", "/x.img: grown from 10 GiB to 20 GiB\n"),
        (10, "/var/lib/docker", "/x.img: grown from 10 GiB to 20 GiB, mounted at /var/lib/docker\n"),
        (20, "", "/x.img: has 20 GiB already\n"),
    ],
)
def test_what_was_grown(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], before: int, where: str, said: str
) -> None:
    asked: list[object] = []

    def grown(path: str, size: int, **_: object) -> Grown:
        asked.append((path, size))
        return Grown(path="/x.img", before=before * GIB, after=20 * GIB, where=where)

    monkeypatch.setenv("RPINFS_ROOT", str(root))
    monkeypatch.setattr(grow, "grow_by_hand", grown)
    assert cli.main(["image", "grow", "/x.img", "--size", "20G"]) == 0
    assert (asked, capsys.readouterr().out) == ([("/x.img", 20 * GIB)], said)


def test_what_is_in_a_file_is_a_table() -> None:
    found = Probe(
        "/i", Kind.EXT4, "an ext4 file system", 64 << 20, 4096, "u", "lab\nel", 32 << 20, 1024,
        errors_recorded=3, obstacles=("a", "b"), remedy="do it",
    )  # fmt: skip
    rows = [line.split("  ", 1) for line in image._table(found).splitlines()]
    assert {name: value.strip() for name, value in rows} == {
        "File": "/i", "Holds": "an ext4 file system", "Length": "64 MiB (67108864 bytes)",
        "Allocated": "4 KiB (4096 bytes)", "Size of the file system": "32 MiB (33554432 bytes)",
        "Block size": "1024 bytes", "Label": printable("lab\nel"), "UUID": "u", "Errors recorded": "3",
        "Cannot be mounted here": "a, b", "What to do": "do it",
    }  # fmt: skip
    bare = image._table(Probe("/i", Kind.EXT4, "x"))
    assert [line.split("  ")[0] for line in bare.splitlines()] == ["File", "Holds", "Length", "Allocated"]
