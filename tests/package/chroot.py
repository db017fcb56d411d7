"""A Debian of a release of our choice in a folder, with no systemd running: what an nfsroot on a NAS is to dpkg.

Made once by the lab's bootstrapping from the machine's own apt sources and kept in the cache; each user gets a copy.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab.root import FINISH, bootstrap, cache_folder, cached, copy_root

PACKAGES = (
    # What rpinfs depends on, so that dpkg finds every dependency; systemd-sysv, so that it can also be booted.
    "systemd-sysv",
    "python3",
    "python3-pystemd",
    "python3-psutil",
    "python3-sdnotify",
    "python3-pyroute2",
    "e2fsprogs",
    "kmod",
    "mount",
    "nfs-common",
    "util-linux",
    # What an image of xfs is made and grown with.
    "xfsprogs",
    # What building rpinfs needs.
    "build-essential",
    "debhelper",
    "dh-python",
)
SECONDS = 600.0
KEPT = 2
# /sys is for systemd-analyze, which looks at the control groups.
ENTER = (
    "unshare --mount --pid --fork --kill-child --mount-proc={root}/proc"
    " sh -euc 'mount --rbind /sys $0/sys; exec chroot $0 \"$@\"' {root}"
)


class Chroot:
    """A root folder, and the way to run programs in it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, *argv: str, ok: tuple[int, ...] = (0,), seconds: float = SECONDS) -> subprocess.CompletedProcess[str]:
        """Run a program in the root, in namespaces of its own so that no process and no mount outlives it."""
        done = subprocess.run(
            [*shlex.split(ENTER.format(root=self.root)), *argv],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
        )
        if done.returncode not in ok:
            raise AssertionError(f"{shlex.join(argv)}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def put(self, source: Path, inside: str) -> None:
        """Copy a file or a folder from this machine into the root."""
        target = self.path(inside)
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-a", str(source), str(target)], check=True)

    def path(self, inside: str) -> Path:
        """Where a path of the root is on this machine."""
        return self.root / inside.lstrip("/")


def base(release: str) -> Path:
    """The cached root of a release; a minute of work when it is not there or its recipe has changed."""
    architecture = subprocess.run(
        ["dpkg", "--print-architecture"], check=True, capture_output=True, text=True
    ).stdout.strip()
    recipe = hashlib.sha256(repr((release, architecture, PACKAGES, FINISH)).encode()).hexdigest()
    path = cache_folder().parent / "package" / f"{release}-{architecture}-{recipe[:12]}"
    found = cached(path, lambda folder: bootstrap(folder, release, architecture, list(PACKAGES)))
    os.utime(found)
    forget_old(found.parent, f"{release}-{architecture}-")
    return found


def forget_old(folder: Path, prefix: str) -> None:
    """Every change of the recipe leaves a root of 700 MB: only the last used ones are kept."""
    roots = sorted(folder.glob(f"{prefix}*"), key=lambda path: path.stat().st_mtime)
    for root in roots[:-KEPT]:
        shutil.rmtree(root, ignore_errors=True)


@contextmanager
def chroot(release: str) -> Iterator[Chroot]:
    """A root of a release that may be spoiled."""
    source = base(release)
    # Beside the cache, not in /tmp: that may be a small tmpfs.
    with tempfile.TemporaryDirectory(prefix=f".{release}-", dir=source.parent) as folder:
        root = Path(folder) / "root"
        root.mkdir(mode=0o755)
        if overlaid(source, root, Path(folder)):
            try:
                yield Chroot(root)
            finally:
                subprocess.run(["umount", root], check=True)
        else:
            copy_root(source, root)
            yield Chroot(root)


def overlaid(source: Path, root: Path, folder: Path) -> bool:
    """Mount an overlay over a root, which spares copying it; False where that cannot be, as on another overlay."""
    changes, work = folder / "changes", folder / "work"
    changes.mkdir(mode=0o755)
    work.mkdir()
    options = f"lowerdir={source},upperdir={changes},workdir={work}"
    done = subprocess.run(
        ["mount", "-t", "overlay", "-o", options, "rpinfs-test", root], capture_output=True, check=False
    )
    return done.returncode == 0


def files_below(root: Path) -> set[str]:
    """Every path below a root, relative to it, without following links."""
    found: set[str] = set()
    for folder, folders, files in os.walk(root):
        below = os.path.relpath(folder, root)
        found.update(os.path.normpath(os.path.join(below, name)) for name in [*folders, *files])
    return found
