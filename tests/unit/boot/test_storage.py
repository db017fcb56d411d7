"""What is mounted and attached, read from tables of the kernel."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpinfs.boot.host import read_text
from rpinfs.boot.storage import (
    ext4_errors,
    followed,
    identity,
    loop_of,
    loop_state,
    loops,
    loops_on,
    mount_at,
    parse_mountinfo,
    sequence,
)
from tests.support import Content, make_tree

TABLE = (
    "22 1 0:20 / / rw,relatime shared:1 - nfs4 10.0.0.1:/pi rw,vers=4.1,addr=10.0.0.1\n"
    "40 22 0:40 / /nfs/docker rw,noatime shared:9 master:3 - nfs 10.0.0.1:/docker rw,vers=3,hard\n"
    "41 22 7:3 / /var/lib/docker rw,noatime - ext4 /dev/loop3 rw\n"
    "42 22 7:3 /.rpinfs/srv-a\\134x2db /srv/a-b rw,noatime - ext4 /dev/loop3 rw\n"
    "43 22 0:50 / /srv/my\\040data ro,relatime - tmpfs tmpfs rw\n"
    "44 43 0:51 / /srv/my\\040data rw,relatime - tmpfs second\\011name ro,size=1k\n"
)
LOOP3: dict[str, Content] = {
    "loop/backing_file": "/nfs/docker/a b.img\n",
    "loop/dio": "1\n",
    "loop/autoclear": "1\n",
    "loop/offset": "0\n",
    "queue/logical_block_size": "4096\n",
    "size": "131072\n",
}


def make_loops(root: Path) -> Path:
    """loop3 and loop10 attached, loop4 not, and what only looks like one."""
    make_tree(root, {f"sys/block/loop3/{name}": content for name, content in LOOP3.items()})
    make_tree(root, {
        "sys/block/loop4/queue/logical_block_size": "512\n",
        "sys/block/sda/size": "1\n",
        "sys/block/loop-control/loop/backing_file": "/x\n",
        "sys/block/loop10/loop/backing_file": "/nfs/docker/b.img\n",
        "sys/dev/block/7:3": Path("../../block/loop3"),
        "sys/dev/block/7:4": Path("../../block/loop4"),
    })  # fmt: skip
    return root


def test_the_fields_of_a_mount() -> None:
    mount = parse_mountinfo(TABLE)[1]
    assert (mount.device, mount.top, mount.where, mount.options) == ((0, 40), "/", "/nfs/docker", ["rw", "noatime"])
    assert (mount.kind, mount.source, mount.super_options) == ("nfs", "10.0.0.1:/docker", ["rw", "vers=3", "hard"])


def test_escaped_names() -> None:
    mounts = parse_mountinfo(TABLE)
    assert (mounts[3].top, mounts[4].where, mounts[5].source) == (
        "/.rpinfs/srv-a\\x2db",
        "/srv/my data",
        "second\tname",
    )


def test_the_last_mount_is_on_top() -> None:
    mounts = parse_mountinfo(TABLE)
    assert mount_at(mounts, "/srv/my data") is mounts[5]
    assert mount_at(mounts, "/srv") is None and mount_at([], "/") is None


@pytest.mark.parametrize(
    ("line", "hidden"),
    [
        ("50 22 0:60 / /srv rw - tmpfs tmpfs rw\n", True),
        ("50 22 0:60 / / rw - tmpfs tmpfs rw\n", True),
        ("50 22 0:60 / /srv/my rw - tmpfs tmpfs rw\n", False),
        # Inside of it, and on top of another.
        ("50 44 0:60 / /srv/my\\040data/x rw - tmpfs tmpfs rw\n", False),
        ("50 40 0:60 / /srv rw - tmpfs tmpfs rw\n", False),
    ],
)
def test_a_mount_over_a_folder_above_hides_it(line: str, hidden: bool) -> None:
    assert (mount_at(parse_mountinfo(TABLE + line), "/srv/my data") is None) == hidden


def test_kinds_and_whether_writable() -> None:
    mounts = parse_mountinfo(TABLE)
    assert [mount.is_nfs for mount in mounts] == [True, True, False, False, False, False]
    # Read-only by its own options, and by those of its file system, as ext4 makes itself after an error.
    assert [mount.writable for mount in mounts] == [True, True, True, True, False, False]


def test_lines_that_are_no_mounts_are_left_out() -> None:
    assert parse_mountinfo("\n22 1 0:20 / / rw\n22 1 0:20 / / rw - nfs4 x\n - \n") == []
    (mount,) = parse_mountinfo("22 1 0:20 / / rw\n23 1 0:21 / /x rw - nfs4 x rw\n")
    assert mount.where == "/x"


def test_a_name_with_a_line_separator_that_is_none_of_the_kernels() -> None:
    (mount,) = parse_mountinfo("22 1 0:20 / /a\x0cb\x85\u2028 rw - ext4 /dev/sda1 rw\n")
    assert mount.where == "/a\x0cb\x85\u2028"


@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\n \\"), min_size=1),
        min_size=3,
        max_size=3,
    )
)
def test_any_names(names: list[str]) -> None:
    top, where, source = f"/{names[0]}", f"/{names[1]}", names[2]
    (mount,) = parse_mountinfo(f"1 1 259:65535 {top} {where} rw shared:1 - ext4 {source} rw\n")
    assert (mount.device, mount.top, mount.where, mount.source) == ((259, 65535), top, where, source)


def test_the_table_of_this_machine_as_findmnt_reads_it(tmp_path: Path) -> None:
    # A copy: what other tests mount in between would be in one of the two tables alone.
    text = read_text("/proc/self/mountinfo")
    (tmp_path / "mountinfo").write_text(text, "utf-8", "surrogateescape")
    command = ["findmnt", "--tab-file", str(tmp_path / "mountinfo"), "--list", "--json"]
    done = subprocess.run([*command, "--output", "TARGET,FSTYPE,MAJ:MIN"], capture_output=True, text=True, check=True)
    theirs = [(row["target"], row["fstype"], row["maj:min"]) for row in json.loads(done.stdout)["filesystems"]]
    mounts = parse_mountinfo(text)
    assert [(mount.where, mount.kind, "{}:{}".format(*mount.device)) for mount in mounts] == theirs


def test_the_loop_device_of_a_mount(root: Path) -> None:
    loop = loop_of(parse_mountinfo(TABLE)[2], str(make_loops(root)))
    assert loop and (loop.name, loop.path, loop.backing_file) == ("loop3", "/dev/loop3", "/nfs/docker/a b.img")
    assert (loop.direct_io, loop.autoclear, loop.block_size, loop.offset) == (True, True, 4096, 0)
    # sysfs counts in sectors of 512 bytes, whatever the block size.
    assert loop.size == 64 << 20


def test_a_mount_from_something_else_has_none(root: Path) -> None:
    make_loops(root)
    assert [loop_of(mount, str(root)) for mount in parse_mountinfo(TABLE)[:2]] == [None, None]
    (gone,) = parse_mountinfo("1 1 7:4 / /x rw - ext4 /dev/loop4 rw\n")
    assert loop_of(gone, str(root)) is None


@pytest.mark.parametrize(
    ("name", "text", "attribute", "value"),
    [
        ("loop/dio", "0\n", "direct_io", False),
        ("loop/autoclear", "0\n", "autoclear", False),
        ("loop/offset", "1048576\n", "offset", 1048576),
        ("queue/logical_block_size", "512\n", "block_size", 512),
        ("queue/logical_block_size", "", "block_size", 0),
        ("loop/backing_file", "/x (deleted)\n", "backing_file", "/x (deleted)"),
    ],
)
def test_states_of_a_loop_device(root: Path, name: str, text: str, attribute: str, value: object) -> None:
    make_tree(make_loops(root), {f"sys/block/loop3/{name}": text})
    assert getattr(loop_state("loop3", str(root)), attribute) == value


@pytest.mark.parametrize(("text", "errors"), [("0\n", 0), ("12\n", 12), ("", None), ("?\n", None)])
def test_errors_that_ext4_has_recorded(root: Path, text: str, errors: int | None) -> None:
    make_tree(root, {"sys/fs/ext4/loop3/errors_count": text})
    assert ext4_errors("loop3", str(root)) == errors
    assert ext4_errors("loop4", str(root)) is None


@pytest.mark.parametrize(
    ("source", "same"),
    [("10.0.0.1:/docker", True), ("10.0.0.1:/docker/", True), ("10.0.0.1:/docke", False), ("10.0.0.2:/docker", False)],
)
def test_whether_a_mount_is_from_an_export(source: str, same: bool) -> None:
    assert parse_mountinfo(TABLE)[1].is_from(source) is same


def test_all_that_is_attached(root: Path) -> None:
    make_loops(root)
    assert [loop.name for loop in loops(str(root))] == ["loop3", "loop10"]
    assert [loop.name for loop in loops_on("/nfs/docker/a b.img", str(root))] == ["loop3"]
    assert loops_on("/nfs/docker/a", str(root)) == []
    assert loops(str(root / "nowhere")) == []


@pytest.mark.parametrize(
    ("path", "leads_to"),
    [
        ("/srv/x", "/srv/x"),
        ("/", "/"),
        ("//srv/./x/", "/srv/x"),
        ("/link/y", "/srv/x/y"),
        ("/relative/y", "/srv/z/y"),
        ("/chain", "/srv/x"),
        ("/up/../y", "/srv/y"),
        ("/above", "/srv"),
        # What lies on the mount of another server is not looked at: that could hang for ever.
        ("/nfs/docker/link/y", "/nfs/docker/link/y"),
        ("/to-share/y", "/nfs/docker/link/y"),
    ],
)
def test_links_are_followed_as_far_as_that_cannot_hang(root: Path, path: str, leads_to: str) -> None:
    make_tree(root, {
        "srv/x": None,
        "srv/y": Path("z"),
        "link": Path("/srv/x"),
        "relative": Path("srv/y"),
        "chain": Path("link"),
        "up": Path("srv/x"),
        "above": Path("/../../srv"),
        "nfs/docker/link": Path("/srv/x"),
        "to-share": Path("/nfs/docker/link"),
    })  # fmt: skip
    assert followed(parse_mountinfo(TABLE), path, str(root)) == leads_to.replace("/srv/y", "/srv/z")


def test_a_circle_of_links_ends(root: Path) -> None:
    make_tree(root, {"a": Path("b"), "b": Path("/a")})
    assert followed([], "/a/x", str(root)) in ("/a/x", "/b/x")


def test_the_number_of_an_attachment(root: Path) -> None:
    make_tree(root, {"sys/block/loop3/diskseq": "945\n"})
    assert (sequence("loop3", str(root)), sequence("loop4", str(root))) == ("945", "")


def test_the_identity_of_what_is_no_loop_device(root: Path) -> None:
    make_tree(root, {"x": b"XFSB".ljust(4096, b"\0")})
    assert identity(str(root / "x")) == ("00000000-0000-0000-0000-000000000000", None)
    assert identity(str(root / "nowhere")) == ("", None)
