"""A folder and what is below it: no link is followed, nothing that is in the way is written through."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest

from rpinfs.netboot.add.tree import LARGEST, Tree
from rpinfs.system.files import OddFileError
from tests.support import make_tree

ME = (os.geteuid(), os.getegid())


@pytest.fixture
def top(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "root", {
        "a/file": "text\udcff".encode("utf-8", "surrogateescape"), "a/folder": None, "link": Path("a"),
        "a/link": Path("file"), "a/gone": Path("nowhere"),
    })  # fmt: skip


@pytest.mark.parametrize(("path", "kind"), [
    ("a", stat.S_IFDIR), ("a/file", stat.S_IFREG), ("a/folder", stat.S_IFDIR), ("link", stat.S_IFLNK),
    ("a/link", stat.S_IFLNK), ("a/gone", stat.S_IFLNK), ("b", 0), ("a/b", 0), ("b/c/d", 0),
])  # fmt: skip
def test_what_has_a_name(path: str, kind: int, top: Path) -> None:
    tree = Tree(str(top))
    assert tree.kind(path) == kind
    assert tree.has(path) is (kind != 0)
    assert tree.path(path) == f"{top}/{path}"


@pytest.mark.parametrize(("way", "found"), [("link", "a symbolic link"), ("a/file", "a file")])
def test_a_way_that_is_no_folder(way: str, found: str, top: Path) -> None:
    tree = Tree(str(top))
    for use in (tree.kind, tree.read, tree.remove, lambda path: tree.write(path, "", owner=ME)):
        with pytest.raises(OddFileError, match=re.escape(f"{top}/{way}: expected a folder, found {found}")):
            use(f"{way}/inner")
    with pytest.raises(OddFileError):
        tree.names(way)


def test_the_top_is_no_link(tmp_path: Path, top: Path) -> None:
    (tmp_path / "other").symlink_to(top)
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"), Tree(str(tmp_path / "other")).folder(""):
        pass


def test_names_and_texts(top: Path) -> None:
    tree = Tree(str(top))
    assert tree.names("a") == ["file", "folder", "gone", "link"]
    assert tree.names("") == ["a", "link"]
    assert (tree.names("a/folder"), tree.names("b")) == ([], [])
    assert [tree.read(name) for name in ("a/file", "a/link", "a/folder", "b")] == ["text\udcff", "", "", ""]
    (top / "most").write_bytes(b"x" * LARGEST)
    assert len(tree.read("most")) == LARGEST
    (top / "more").write_bytes(b"x" * (LARGEST + 1))
    with pytest.raises(OSError, match=f"expected a text of at most {LARGEST} bytes") as caught:
        tree.read("more")
    assert caught.value.filename == f"{top}/more"


def test_written_in_the_place_of_a_link(top: Path) -> None:
    tree = Tree(str(top))
    tree.write("a/link", "new\udcff", 0o640, ME)
    assert ((top / "a/link").read_bytes(), (top / "a/file").read_bytes()) == (b"new\xff", b"text\xff")
    assert stat.S_IMODE((top / "a/link").lstat().st_mode) == 0o640
    tree.write("c/d/e", "deep", owner=ME)
    assert ((top / "c/d/e").read_text(), stat.S_IMODE((top / "c/d/e").stat().st_mode)) == ("deep", 0o644)
    (top / "c/d/f.rpinfs-new").symlink_to(top / "a/file")  # What an interrupted one may have left.
    tree.write("c/d/f", "again", owner=ME)
    assert sorted(os.listdir(top / "c/d")) == ["e", "f"]
    assert (top / "a/file").read_bytes() == b"text\xff"


def test_linked_renamed_and_removed(top: Path) -> None:
    tree = Tree(str(top))
    tree.link("a/file", "elsewhere")
    tree.link("x/y", "z")
    assert ((top / "a/file").readlink(), (top / "x/y").readlink()) == (Path("elsewhere"), Path("z"))
    tree.rename("a/file", "other")
    assert [tree.remove(name) for name in ("a/other", "a/other", "a/link", "b/c")] == [True, False, True, False]
    assert tree.names("a") == ["folder", "gone"]
    tree.make_folder("m/n", 0o700, ME)
    assert stat.S_IMODE((top / "m/n").stat().st_mode) == 0o700
    for use in (tree.remove, lambda path: tree.link(path, "x")):
        with pytest.raises(OSError, match="irectory") as caught:
            use("a/folder")
        assert caught.value.filename.startswith(f"{top}/")


@pytest.mark.root
def test_owners(top: Path) -> None:
    tree = Tree(str(top))
    tree.write("one", "", owner=(1000, 1001))
    tree.make_folder("two", 0o755, (1002, 1003))
    tree.write("three", "")
    owners = [((top / name).stat().st_uid, (top / name).stat().st_gid) for name in ("one", "two", "three")]
    assert owners == [(1000, 1001), (1002, 1003), (0, 0)]
