"""The images that containerd has for each of its namespaces, from the file in which it keeps its books.

Docker sees those of one namespace alone, which its settings choose (rules.py). containerd's folders do not tell the
namespaces apart, and containerd need not run, so its file is read: a bbolt database. containerd may write to it
meanwhile: a version that was whole stays so until two more are written; and whoever can write to the image can write
anything there. So what does not fit is a ValueError, and nothing else comes of it.

Source: bbolt's page.go, bucket.go and db.go; containerd's core/metadata/buckets.go: v1/NAMESPACE/images/NAME.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

DATABASE = "io.containerd.metadata.v1.bolt/meta.db"
LARGEST = 64 << 20
"""Bytes that are read of it, at most: those of a Pi have less than one MiB."""

_MAGIC, _VERSION = 0xED0CDAED, 2
_HEADER, _META = struct.Struct("<QHHI"), struct.Struct("<IIIIQQQQQ")
_LEAF, _BRANCH = struct.Struct("<IIII"), struct.Struct("<IIQ")
_IS_BRANCH, _IS_LEAF = 1, 2
_IS_BUCKET = 1
_INLINE = 16
"""Bytes before a bucket's page where that is no page of the file's, but stands where the bucket does."""
_DEEPEST = 16


def images(folder: str) -> dict[str, int]:
    """Count the images of each namespace, for the containerd whose folder this is; none where it never ran.

    Raises:
        ValueError: it is no such database.
        OSError: it cannot be read.
    """
    try:
        with open(f"{folder}/{DATABASE}", "rb") as file:
            data = memoryview(file.read(LARGEST + 1))
    except FileNotFoundError:
        return {}
    if len(data) > LARGEST:
        raise ValueError(f"{folder}/{DATABASE}: expected at most {LARGEST} bytes")
    try:
        database = _Database(data)
        first = dict(database.buckets(database.root)).get(b"v1")
        found = {name.decode(): dict(database.buckets(one)) for name, one in database.buckets(first)} if first else {}
        return {name: database.count(one[b"images"]) for name, one in found.items() if b"images" in one}
    except struct.error as error:
        raise ValueError(f"{folder}/{DATABASE}: {error}") from error


class _Database:
    """A bbolt database; a bucket is the bytes from the beginning of its first page on."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        _, _, size, *_ = _META.unpack_from(data, _HEADER.size)
        metas = [meta for at in (0, size) if (meta := self._meta(at))]
        if not metas:
            raise ValueError("no database of bbolt")
        # The later of two versions; the other one may be half written.
        _, self._size, top = max(metas)
        self.root = self._page(top)

    def buckets(self, bucket: memoryview) -> Iterator[tuple[bytes, memoryview]]:
        """The names of the buckets in a bucket, and these."""
        for kind, name, value in self._members(bucket):
            if kind & _IS_BUCKET:
                (page,) = struct.unpack_from("<Q", value)
                yield name, self._page(page) if page else value[_INLINE:]

    def count(self, bucket: memoryview) -> int:
        """The number of what is in a bucket."""
        return sum(1 for _ in self._members(bucket))

    def _members(self, page: memoryview, depth: int = 0) -> Iterator[tuple[int, bytes, memoryview]]:
        _, flags, count, _ = _HEADER.unpack_from(page)
        if depth > _DEEPEST or not flags & (_IS_BRANCH | _IS_LEAF):
            raise ValueError("a page of no known kind")
        for number in range(count):
            at = _HEADER.size + number * _LEAF.size
            if flags & _IS_BRANCH:
                yield from self._members(self._page(_BRANCH.unpack_from(page, at)[2]), depth + 1)
            else:
                kind, position, name, value = _LEAF.unpack_from(page, at)
                begin = at + position
                end = begin + name
                yield kind, bytes(page[begin:end]), page[end : end + value]

    def _page(self, number: int) -> memoryview:
        return self._data[number * self._size :]

    def _meta(self, at: int) -> tuple[int, int, int] | None:
        """Which version it is, the size of a page, and the page of the first bucket; None for what is not whole."""
        magic, version, size, _, root, _, _, _, written = _META.unpack_from(self._data, at + _HEADER.size)
        end = at + _HEADER.size + _META.size
        (checksum,) = struct.unpack_from("<Q", self._data, end)
        whole = checksum == _fnv1a(self._data[at + _HEADER.size : end])
        return (written, size, root) if (magic, version) == (_MAGIC, _VERSION) and whole else None


def _fnv1a(data: memoryview) -> int:
    """The 64-bit FNV-1a hash."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 % (1 << 64)
    return value
