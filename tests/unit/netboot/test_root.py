"""What is said of each kind of root on a NAS. The NAS here is a table; real ones are in tools/netboot/test_nfs.py."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from rpinfs.netboot import clock, nfs, root
from rpinfs.netboot.finding import Gravity
from rpinfs.netboot.nfs import FILE, FOLDER, LINK, Attributes, StatusError
from rpinfs.netboot.rpc import NoPortError, RpcError

SOURCE = root.Source("192.168.1.10", "/nfsroot/pi1", "4.1")
WHERE = "192.168.1.10:/nfsroot/pi1"
EXPORT = "on 192.168.1.10: /nfsroot/pi1  NETWORK(rw,sync,no_subtree_check,no_root_squash)"
ARM_64, ARM, X86_64 = (b"\x7fELF".ljust(18, b"\0") + bytes([number, 0]) for number in (183, 40, 62))
NOT_THERE, NOT_ALLOWED, GRACE = 2, 13, 10013


def entry(kind: int, mode: int = 0o755, of_root: bool = True, owner: str = "0") -> Attributes:
    return Attributes(kind, mode, of_root, owner, 0.0)


@dataclass
class Nas:
    """Answers of a NAS: what has which path, where links lead, what the first program begins with."""

    entries: dict[str, Attributes]
    links: dict[str, str] = field(default_factory=dict)
    head: bytes | Exception = ARM_64
    rights: int = nfs.MODIFY | nfs.READ
    delegations: bool = True

    def handle(self, path: str, top: bytes = b"") -> bytes:
        inside = [*top.decode().split("/"), *path.split("/")] if top else []
        here = "/".join(filter(None, inside))
        if top and self.entries[here.rpartition("/")[0]].kind != FOLDER:
            raise StatusError(SOURCE.server, path, 20)
        if here not in self.entries:
            raise StatusError(SOURCE.server, path, NOT_THERE)
        if self.entries[here].kind == 0:
            raise StatusError(SOURCE.server, path, NOT_ALLOWED)
        return f"/{here}".encode()

    def attributes(self, handle: bytes) -> Attributes:
        return self.entries[handle.decode()[1:]]

    def target(self, handle: bytes) -> str:
        return self.links[handle.decode()[1:]]

    def access(self, _: bytes) -> int:
        return self.rights

    def beginning(self, _: bytes, size: int) -> bytes:
        if isinstance(self.head, Exception):
            raise self.head
        return self.head[:size]

    def knows_folder_delegations(self, _: bytes) -> bool:
        return self.delegations


FOLDERS = dict.fromkeys(("", "etc", "usr", "usr/sbin", "usr/lib", "usr/lib/systemd"), entry(FOLDER))
WHOLE = Nas(
    {**FOLDERS, "sbin": entry(LINK), "usr/sbin/init": entry(LINK), "usr/lib/systemd/systemd": entry(FILE),
     "etc/shadow": entry(FILE, 0o640)},
    {"sbin": "usr/sbin", "usr/sbin/init": "../lib/systemd/systemd"},
)  # fmt: skip


def without(*names: str, **more: Attributes) -> dict[str, Attributes]:
    return {**{name: one for name, one in WHOLE.entries.items() if name not in names}, **more}


def said_of(nas: Nas, source: root.Source = SOURCE) -> list[tuple[str, str, str]]:
    shown: Any = nas
    return [(one.gravity.name, one.message, one.remedy) for one in root._look_inside(shown, source) if one.rule == 30]


def test_a_root_of_which_nothing_is_said() -> None:
    assert said_of(WHOLE) == []
    assert said_of(replace(WHOLE, head=b"#!/bin/sh\n")) == []
    assert said_of(replace(WHOLE, head=ARM)) == []


COPY = "on 192.168.1.10: copy the root of the image to /nfsroot/pi1, with its links (cp -a keeps them)"
NONE = f"{WHERE}: /sbin/init is not in it: the kernel has nothing to start, and panics"


@pytest.mark.parametrize(("nas", "message", "remedy"), [
    *((replace(WHOLE, entries=without(name)), f"{WHERE} holds no root: etc or usr is not in it",
       "on 192.168.1.10: copy the root of the image to /nfsroot/pi1") for name in ("etc", "usr")),
    *((replace(WHOLE, entries=without(name)), NONE, COPY) for name in
      ("sbin", "usr/sbin", "usr/sbin/init", "usr/lib/systemd/systemd")),
    (replace(WHOLE, links={**WHOLE.links, "usr/sbin/init": "init"}), NONE, COPY),
    (replace(WHOLE, links={**WHOLE.links, "usr/sbin/init": "../lib"}), NONE, COPY),
    *((replace(WHOLE, entries={**WHOLE.entries, "usr/lib/systemd/systemd": entry(FILE, mode)}),
       f"{WHERE}: /sbin/init may not be executed (mode {mode:04o}): the kernel panics", COPY)
      for mode in (0o644, 0o4644)),
    (replace(WHOLE, head=X86_64), f"{WHERE}: /sbin/init is for another processor (x86-64) than a Pi's",
     "on 192.168.1.10: put a root for arm64 there, of a Pi's image"),
    (replace(WHOLE, head=X86_64[:18] + b"\x09\x01"),
     f"{WHERE}: /sbin/init is for another processor (265) than a Pi's",
     "on 192.168.1.10: put a root for arm64 there, of a Pi's image"),
    (replace(WHOLE, head=RpcError("timed out")),
     f"{WHERE}: short answers come, and one of 4096 bytes does not (timed out)",
     "look for what takes no frames of 1500 bytes: an MTU below 1500 at a port of the switch, the NAS or this machine"),
    (replace(WHOLE, rights=nfs.READ), f"{WHERE}: is read-only, or not root's (0)", EXPORT),
    (replace(WHOLE, rights=nfs.MODIFY),
     f"{WHERE}: root is squashed: user 0 of a Pi is somebody else there, and the Pi does not boot", EXPORT),
    (replace(WHOLE, rights=0, entries=without("etc/shadow")),
     f"{WHERE}: root is squashed: user 0 of a Pi is somebody else there, and the Pi does not boot; or it is read-only",
     EXPORT),
    (replace(WHOLE, rights=0, entries={**without("etc/shadow"), "": entry(FOLDER, of_root=False, owner="me")}),
     f"{WHERE}: is read-only, or not root's (me)", EXPORT),
])  # fmt: skip
def test_what_keeps_a_board_from_its_root(nas: Nas, message: str, remedy: str) -> None:
    assert said_of(nas) == [("FAULT", message, remedy)]


@pytest.mark.parametrize(("secrets", "tells"), [
    ({"etc/shadow": entry(FILE, 0o640)}, True),
    ({"etc/shadow": entry(FILE, 0o644), "etc/gshadow": entry(FILE, 0o600)}, True),
    ({"etc/shadow": entry(0), "etc/sudoers": entry(FILE, 0o440)}, True),
    ({"etc/shadow": entry(FILE, 0o640, of_root=False)}, None),
    ({"etc/shadow": entry(FILE, 0o641)}, None),
    ({}, None),
])  # fmt: skip
def test_whose_secrets_tell_that_root_is_root(secrets: dict[str, Attributes], tells: bool | None) -> None:
    """Only a file that nobody but root may read tells it."""
    nas: Any = replace(WHOLE, entries={**without("etc/shadow"), **secrets}, rights=nfs.READ)
    assert root._reads_what_is_roots(nas, b"/") is tells
    nas = replace(nas, rights=nfs.MODIFY)
    assert root._reads_what_is_roots(nas, b"/") is (tells and False)


def test_a_nas_that_knows_no_delegations() -> None:
    nas = replace(WHOLE, delegations=False)
    ((gravity, message, remedy),) = said_of(nas)
    assert gravity == "NOTE"
    assert "from Linux 6.19 on a Pi fails at folders there by NFS 4.1" in message
    assert remedy.startswith("write nfsv4.directory_delegations=0 into cmdline.txt, or vers=4.0;")
    assert said_of(nas, replace(SOURCE, delegations=False)) == []


def test_what_is_not_allowed_is_not_missing() -> None:
    with pytest.raises(StatusError, match="not allowed"):
        said_of(replace(WHOLE, entries={**WHOLE.entries, "etc": entry(0)}))
    with pytest.raises(StatusError):
        said_of(replace(WHOLE, head=StatusError(SOURCE.server, "x", NOT_ALLOWED)))


@pytest.mark.parametrize(("target", "there"), [
    ("/usr/lib/systemd/systemd", True), ("../../usr/lib/systemd/systemd", True), ("../lib/./systemd//systemd", True),
    ("../../../../../usr/lib/systemd/systemd", True), ("/lib/systemd/systemd", False), ("systemd", False),
    ("/usr/lib/systemd/systemd/", True), ("../../sbin/../lib/systemd/systemd", True),
])  # fmt: skip
def test_links_lead_inside_the_root(target: str, there: bool) -> None:
    assert (said_of(replace(WHOLE, links={**WHOLE.links, "usr/sbin/init": target})) == []) is there


@pytest.mark.parametrize(("count", "there"), [(40, True), (41, False)])
def test_as_many_links_as_linux_follows(count: int, there: bool) -> None:
    names = [f"usr/sbin/{number}" for number in range(count)]
    entries = {**WHOLE.entries, **dict.fromkeys(names, entry(LINK)), "usr/sbin/end": entry(FILE)}
    links = {name: following.rpartition("/")[2] for name, following in zip(names, [*names[1:], "end"], strict=True)}
    nas: Any = replace(WHOLE, entries=entries, links=links)
    assert (root._followed(nas, b"/", "/usr/sbin/0") is not None) is there


WRITTEN = nfs.Written(entry(FILE), 0.5)


@pytest.mark.parametrize(("written", "said"), [
    (WRITTEN, [("NOTE", f"{WHERE}: a file of 4096 bytes is made, and on the disk by the NAS's word, within 500.0 ms")]),
    (nfs.Written(entry(FILE), 0.5001),
     [("WARNING", f"{WHERE}: a file of 4096 bytes is made, and on the disk by the NAS's word, within 500.1 ms")]),
    (nfs.Written(entry(FILE, of_root=False, owner="nobody"), 0.001),
     [("FAULT", f"{WHERE}: what user 0 makes belongs to nobody: root is squashed, and the Pi does not boot"),
      ("NOTE", f"{WHERE}: a file of 4096 bytes is made, and on the disk by the NAS's word, within 1.0 ms")]),
    (StatusError("n", "x", GRACE), [("NOTE", f"{WHERE}: a file cannot be written in it: in its time of grace")]),
    (StatusError("n", "x", 30), [("FAULT", f"{WHERE}: a file cannot be written in it: read-only")]),
    (RpcError("timed out"), [("FAULT", f"{WHERE}: a file cannot be written in it: timed out")]),
    (nfs.LeftError(".f", RpcError("timed out"), None),
     [("WARNING", f"{WHERE}: .f was made in it to try that, and may be there still: timed out")]),
    (nfs.LeftError(".f", RpcError("gone"), StatusError("n", "x", 30)),
     [("FAULT", f"{WHERE}: a file cannot be written in it: read-only"),
      ("WARNING", f"{WHERE}: .f was made in it to try that, and may be there still: gone")]),
])  # fmt: skip
def test_a_file_that_is_made_to_try_it(
    written: nfs.Written | Exception, said: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(_: Nas, handle: bytes, name: str) -> nfs.Written:
        assert (handle, name[:15], len(name)) == (b"/", ".rpinfs-doctor-", 23)
        if isinstance(written, Exception):
            raise written
        return replace(written, attributes=replace(written.attributes, modified=time.time()))

    monkeypatch.setattr(nfs, "written", write)
    nas: Any = WHOLE
    found = list(root._on_writing(nas, SOURCE))
    assert [(one.gravity.name, one.message) for one in found] == said
    remedies = {one.gravity: one.remedy for one in found}
    assert remedies.get(Gravity.WARNING) in (None, "", "on 192.168.1.10: rm /nfsroot/pi1/.f")


@pytest.mark.parametrize(("skew", "said"), [
    (None, ""), (60.0, ""), (-60.0, ""), (61.0, "the clock of n is 61 s ahead of this machine's"),
    (-61.0, "the clock of n is 61 s behind this machine's"),
])  # fmt: skip
def test_the_clock(skew: float | None, said: str) -> None:
    found = list(root._on_clock("n", skew))
    assert [one.message.partition(":")[0] for one in found] == ([said] if said else [])
    assert [one.gravity for one in found] == ([Gravity.WARNING] if said else [])


def look_at(
    source: root.Source, offers: list[str] | Exception, opened: Nas | Exception, monkeypatch: pytest.MonkeyPatch,
    write: bool = False,
) -> tuple[list[str], list[str]]:  # fmt: skip
    """What is said, and the versions that were spoken."""
    spoken: list[str] = []

    class Opened:
        def __init__(self, source: root.Source, *_: object) -> None:
            spoken.append(source.version)

        def __enter__(self) -> Nas:
            if isinstance(opened, Exception):
                raise opened
            return opened

        def __exit__(self, *_: object) -> None:
            pass

    def offered(*_: object) -> list[str]:
        if isinstance(offers, Exception):
            raise offers
        return offers

    monkeypatch.setattr(nfs, "offered", offered)
    monkeypatch.setattr(nfs, "written", lambda *_: replace(WRITTEN, attributes=entry(FILE)))
    monkeypatch.setattr(root, "_opened", Opened)
    monkeypatch.setattr(clock, "skew", lambda *_: 3600.0)
    return [one.message for one in root.look_at(source, write=write)], spoken


ALL = ["3", "4.0", "4.1", "4.2"]
LATE = "the clock of 192.168.1.10 is 3600 s ahead of this machine's: certificates, make and the times of files go wrong"


@pytest.mark.parametrize(("version", "offers", "opened", "said"), [
    ("4.1", ALL, WHOLE, []),
    ("4.2", ["3"], WHOLE, ["192.168.1.10 serves NFS, but not version 4.2 (it offers 3)"]),
    ("4.2", [], WHOLE, ["192.168.1.10 serves NFS, but not version 4.2 (it offers none that a Pi speaks)"]),
    ("4.1", ALL, StatusError("n", "x", NOT_ALLOWED),
     ["192.168.1.10 does not give /nfsroot/pi1 to this machine: n: x: not allowed"]),
    ("4.1", RpcError("refused"), WHOLE, ["refused"]),
    ("4.1", ALL, NoPortError(), [NoPortError().message]),
])  # fmt: skip
def test_in_the_order_of_a_boot(
    version: str, offers: list[str] | Exception, opened: Nas | Exception, said: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    found, _ = look_at(replace(SOURCE, version=version), offers, opened, monkeypatch)
    not_offered = any("serves NFS" in one for one in said)
    assert found == [*said, *([] if not_offered else [LATE])]


def test_a_name_instead_of_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    found, spoken = look_at(replace(SOURCE, server="nas"), ALL, WHOLE, monkeypatch)
    assert (found, spoken) == (["nfsroot= names 'nas': a kernel without an initramfs knows no names"], [])


@pytest.mark.parametrize(("version", "offers", "able"), [
    ("4.0", ALL, "4.1"), ("4.2", ["3", "4.2"], "4.2"), ("4.0", ["3", "4.0"], "3"), ("4.0", ["4.0"], "4.0"),
])  # fmt: skip
def test_by_which_version_it_is_written(
    version: str, offers: list[str], able: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, spoken = look_at(replace(SOURCE, version=version), offers, WHOLE, monkeypatch, write=True)
    assert spoken == [version, able]
    assert any("a file of 4096 bytes is made" in one for one in found)


def test_of_which_minor_version() -> None:
    assert [replace(SOURCE, version=version).minor for version in ("4.0", "4.1", "4.2", "3")] == [0, 1, 2, 0]
