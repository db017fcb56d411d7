"""Images by namespace, from a database like containerd's: bbolt's pages, here made by hand, whole and not."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest

from rpinfs.docker import namespaces, rules, unseen
from rpinfs.docker.told import Choice, Settings

PAGE = 4096
Tree = Mapping[str, Any]
"""Buckets are mappings, and everything else is bytes."""

NAMES = {"one": b"", "two": b"", "three": b""}
BOOKS: Tree = {
    "v1": {
        "moby": {"images": NAMES, "content": {"blob": {}}},
        "moby-100000.100000": {"images": {"four": b""}},
        "k8s.io": {"images": {"five": b""}},
        "empty": {"leases": {}},
        "version": b"4",
    }
}


def leaf(members: Tree) -> bytes:
    """A leaf page, with all buckets in it inline."""
    heads, bodies = b"", b""
    for name, value in sorted(members.items()):
        body = value if isinstance(value, bytes) else struct.pack("<QQ", 0, 0) + leaf(value)
        position = 16 * (len(members) - len(heads) // 16) + len(bodies)
        heads += struct.pack("<IIII", not isinstance(value, bytes), position, len(name), len(body))
        bodies += name.encode() + body
    return struct.pack("<QHHI", 0, 2, len(members), 0) + heads + bodies


def branch(pages: Mapping[str, int]) -> bytes:
    heads = b"".join(
        struct.pack("<IIQ", 16 * (len(pages) - number), 0, page) for number, page in enumerate(pages.values())
    )
    return struct.pack("<QHHI", 0, 1, len(pages), 0) + heads


def meta(version: int, root: int) -> bytes:
    text = struct.pack("<IIIIQQQQQ", 0xED0CDAED, 2, PAGE, 0, root, 0, 0, 9, version)
    return struct.pack("<QHHI", 0, 4, 0, 0) + text + struct.pack("<Q", namespaces._fnv1a(memoryview(text)))


def database(*pages: bytes) -> bytes:
    return b"".join(page.ljust(PAGE, b"\0") for page in pages)


def put(folder: Path, content: bytes) -> str:
    path = folder / namespaces.DATABASE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return str(folder)


FOUND = {"moby": 3, "moby-100000.100000": 1, "k8s.io": 1}
WHOLE = database(meta(6, 3), meta(7, 2), leaf(BOOKS), leaf({}))


def test_images_of_each_namespace(tmp_path: Path) -> None:
    """By the later version, which is the second here."""
    assert namespaces.images(put(tmp_path, WHOLE)) == FOUND


def test_a_version_that_is_half_written_does_not_count(tmp_path: Path) -> None:
    torn = bytearray(database(meta(8, 3), meta(7, 2), leaf(BOOKS), leaf({})))
    torn[16 + 40] ^= 1
    assert namespaces.images(put(tmp_path, bytes(torn))) == FOUND


def test_a_bucket_of_more_than_one_page(tmp_path: Path) -> None:
    pages = (leaf({"v1": {}}), leaf(BOOKS))
    assert namespaces.images(put(tmp_path, database(meta(1, 2), meta(0, 2), branch({"a": 3, "b": 4}), *pages))) == FOUND


def test_where_containerd_never_ran(tmp_path: Path) -> None:
    assert namespaces.images(str(tmp_path)) == {}
    assert namespaces.images(put(tmp_path, database(meta(0, 2), meta(1, 2), leaf({})))) == {}


@pytest.mark.parametrize("content", [b"", b"x" * 2 * PAGE, database(meta(0, 9), meta(1, 9)), WHOLE[: 2 * PAGE]])
def test_what_is_none_is_an_error(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ValueError):
        namespaces.images(put(tmp_path, content))


def test_a_file_of_any_size_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespaces, "LARGEST", len(WHOLE))
    assert namespaces.images(put(tmp_path, WHOLE)) == FOUND
    with pytest.raises(ValueError, match="expected at most"):
        namespaces.images(put(tmp_path, WHOLE + b"\0"))


def test_a_page_that_leads_to_itself_comes_to_an_end(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no known kind"):
        namespaces.images(put(tmp_path, database(meta(0, 2), meta(1, 2), branch({"a": 2}))))


@hypothesis.given(at=st.integers(2 * PAGE, 2 * PAGE + len(leaf(BOOKS))), byte=st.integers(0, 255))
def test_of_whatever_stands_there_comes_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, at: int, byte: int
) -> None:
    content = bytearray(WHOLE)
    content[at] = byte
    with contextlib.suppress(ValueError):
        namespaces.images(put(tmp_path_factory.mktemp("books"), bytes(content)))


STORE: dict[str, object] = {"features": {"containerd-snapshotter": True}}


def hidden(folder: Path, keys: dict[str, Any]) -> list[str]:
    """What is not seen of a containerd whose folder is /c in a root."""
    settings = Settings({**STORE, **keys}, containerd_root=Choice("/c", "a test"))
    expected = rules.expected("28.5.2", settings, remapped=(100000, 100000) if "userns-remap" in keys else None)
    return [one.what for one in unseen._look(str(folder), expected)]


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        ({}, "1 image of containerd"),
        ({"userns-remap": "default"}, "3 images of containerd"),
        # It remaps nothing.
        ({"userns-remap": "root"}, "1 image of containerd"),
        ({"userns-remap": "default", "containerd-namespace": "moby"}, "1 image of containerd"),
        ({"containerd-namespace": "mine"}, "4 images of containerd"),
    ],
)
def test_what_docker_does_not_see(tmp_path: Path, keys: dict[str, Any], what: str) -> None:
    """Images of its own other namespaces; what Kubernetes has there is none of its business."""
    put(tmp_path / "c", WHOLE)
    assert hidden(tmp_path, keys) == [what]


def test_books_that_cannot_be_read_are_said_to_be_so(tmp_path: Path) -> None:
    put(tmp_path / "c", b"x" * 2 * PAGE)
    assert hidden(tmp_path, {}) == ["perhaps images of containerd"]
