"""Rules 22, 23 and 34 on what the NAS exports. Source: exports(5)."""

from __future__ import annotations

import os
from collections.abc import Iterator

from rpinfs.netboot.finding import Finding, Gravity
from rpinfs.netboot.read.bootfiles import nfs_version, words
from rpinfs.netboot.read.exports import Export, path_text
from rpinfs.netboot.read.source import text_inside
from rpinfs.netboot.seen import Seen


def _of_ours(seen: Seen) -> Iterator[Export]:
    """Exports that the plan names or that hold one of its folders; without a plan all."""
    paths = [seen.plan.nas.root, seen.plan.nas.boot, seen.plan.nas.share] if seen.plan else None
    for export in seen.exports:
        if paths is None or any(f"{path}/".startswith(export.path.rstrip("/") + "/") for path in paths):
            yield export


def _right(seen: Seen, export: Export) -> str:
    """The whole line, each of its clients as it must be."""
    clients = [one for one in seen.exports if (one.file, one.line, one.path) == (export.file, export.line, export.path)]
    return f"{path_text(export.path)}  {' '.join(dict.fromkeys(_client(seen, one) for one in clients))}"


def _client(seen: Seen, export: Export) -> str:
    boards = str(seen.plan.network.subnet) if seen.plan else "192.168.1.0/24"
    options = ["rw", "sync", "no_subtree_check", "no_root_squash"]
    options += [one for one in dict.fromkeys(export.options) if one not in (*options, *_WRONG)]
    return f"{boards if export.client == '*' else export.client}({','.join(options)})"


_WRONG = ("ro", "async", "subtree_check", "root_squash", "all_squash", "no_all_squash")
"""What a board's export must not say; what else stands there, such as fsid=, stays."""


def exports(seen: Seen) -> Iterator[Finding]:
    """async, root_squash, ro, the whole world, subtree_check."""
    for export in _of_ours(seen):
        write = _right(seen, export)
        here = (export.file, export.line)
        if export.client == "*" and export.written.startswith("("):
            message = f"{export.path} {export.written}: the space in front of ( exports it to the whole world"
            yield Finding(22, Gravity.FAULT, *here, message, write)
        elif export.client == "*":
            yield Finding(
                22,
                Gravity.WARNING,
                *here,
                f"{export.path} is for the whole world: who mounts it is root on every Pi",
                write,
            )
        if not export.has("no_root_squash", "root_squash", False) or "all_squash" in export.options:
            message = f"{export.path}: root is squashed: root of the Pi is nobody on the NAS, and the Pi does not boot"
            yield Finding(22, Gravity.FAULT, *here, message, write)
        if not export.has("rw", "ro", False):
            yield Finding(22, Gravity.FAULT, *here, f"{export.path}: is read-only (ro is the default)", write)
        flavours = next((one for one in reversed(export.options) if one.startswith("sec=")), "sec=sys")
        if "sys" not in flavours.removeprefix("sec=").split(":"):
            message = f"{export.path}: {flavours}: a kernel that mounts its root has no tickets of Kerberos"
            yield Finding(22, Gravity.FAULT, *here, message, write.replace(flavours, "sec=sys"))
        if export.has("async", "sync", False):
            message = f"{export.path}: async: a power cut of the NAS loses what was told is safe, and damages images"
            yield Finding(22, Gravity.WARNING, *here, message, write)
        if export.has("subtree_check", "no_subtree_check", False):
            message = f"{export.path}: subtree_check gives stale file handles where a file in use is renamed"
            yield Finding(22, Gravity.WARNING, *here, message, write)


def version(seen: Seen) -> Iterator[Finding]:
    """An NFS version that is asked for and that the NAS does not speak."""
    kind = seen.plan.nas.kind if seen.plan else ""
    for file, asked in _versions(seen):
        if asked == "4.2" and kind in _MOST:
            message = f"a {_MOST[kind]} stops at NFS 4.1 or below: nfsroot= with vers=4.2 is then refused"
            yield Finding(23, Gravity.WARNING, file, 0, message, _older(file))
        # The last line counts; a minor version needs its major one, too.
        for key in dict.fromkeys((f"vers{asked[0]}", f"vers{asked}")):
            last = next((switch for switch in reversed(seen.nfsd) if switch.key == key), None)
            if last and not last.on:
                message = f"{key} is off, and {file} asks for NFS {asked}: the Pi's mount is refused"
                yield Finding(23, Gravity.FAULT, last.file, last.line, message, f"{key}=y")
                break


def _older(file: str) -> str:
    if file == _PLAN:
        return 'write version = "4.1" into [nas] of the plan'
    line = text_inside(os.path.dirname(file), os.path.basename(file)).partition("\n")[0]
    return line.replace("vers=4.2", "vers=4.1")


_PLAN = "the plan"
_MOST = {"synology": "Synology", "qnap": "QNAP"}
"""Appliances that do not speak NFS 4.2, at least not all of them (the makers' own pages)."""


def _versions(seen: Seen) -> Iterator[tuple[str, str]]:
    """Who asks for which version: the plan, and each command line."""
    if seen.plan:
        yield _PLAN, seen.plan.nas.version
    for folder in seen.boots:
        line = words(text_inside(folder.path, "cmdline.txt"))
        if asked := nfs_version(next((value for name, value in line if name == "nfsroot"), "")):
            yield f"{folder.path}/cmdline.txt", asked


def one_export_two_rights(seen: Seen) -> Iterator[Finding]:
    """Share and root in one export tree with other squashing: the inner one decides for what lies in it."""
    if seen.plan is None:
        return
    ours = list(_of_ours(seen))
    for outer in ours:
        for inner in ours:
            below = inner.path != outer.path and f"{inner.path}/".startswith(outer.path.rstrip("/") + "/")
            differ = inner.has("no_root_squash", "root_squash", False) != outer.has(
                "no_root_squash", "root_squash", False
            )
            if below and differ:
                message = (
                    f"{inner.path} lies in {outer.path} and squashes root otherwise: what counts depends on the mount"
                )
                yield Finding(34, Gravity.WARNING, inner.file, inner.line, message, _right(seen, inner))


RULES = (exports, version, one_export_two_rights)
