"""The nfsroot: a Debian with systemd and Docker, made by mmdebstrap, kept in a cache, copied for each Pi.

Two layers are cached: the bare Debian, by a hash of its recipe, and that Debian with one build of our package
installed by dpkg, by a hash of the .deb. An image of the bare one (box.py) is a third.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .foreign import SLOWER, is_foreign, make_runnable
from .machine import Machine
from .process import run
from .releases import release_of
from .sources import options_in_force, sources_for

PACKAGES = (
    # A machine that boots and can be looked at.
    "systemd-sysv udev dbus kmod iproute2 procps busybox-static "
    # What rpinfs depends on.
    "python3 python3-pystemd python3-psutil python3-sdnotify python3-pyroute2 e2fsprogs xfsprogs nfs-common util-linux "
    "docker.io"
)
GANESHA_PACKAGES = ("nfs-ganesha", "nfs-ganesha-vfs")
DPKG_OPTIONS = (
    "force-unsafe-io",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/doc/*",
    "path-exclude=/usr/share/locale/*",
)
# Housekeeping, logins and special file systems that would only take processor time from a test: every program started
# costs an emulated processor about half a second. What has a part in storage, network and Docker stays.
MASKED = (
    "apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service "
    "fstrim.timer man-db.timer xfs_scrub_all.timer "
    "systemd-tmpfiles-clean.timer "
    "getty.target systemd-logind.service systemd-user-sessions.service systemd-pstore.service systemd-binfmt.service "
    "systemd-random-seed.service systemd-udev-load-credentials.service nfs-blkmap.service "
    "modprobe@drm.service modprobe@efi_pstore.service proc-sys-fs-binfmt_misc.automount proc-sys-fs-binfmt_misc.mount "
    "dev-hugepages.mount dev-mqueue.mount sys-fs-fuse-connections.mount sys-kernel-config.mount sys-kernel-debug.mount "
    "sys-kernel-tracing.mount"
)
# What reads none of what a netbooted Pi has: its command line, /etc/fstab, and rpinfs's configuration.
GENERATORS = (
    *("cryptsetup", "getty", "gpt-auto", "hibernate-resume", "integritysetup", "rc-local", "run", "ssh"),
    *("system-update", "tpm2", "veritysetup"),
)
# Of 235 devices, 67 of them terminals, udev looks at those that storage and network are made of: a tenth of a boot.
COLDPLUG = """\
[Service]
ExecStart=
ExecStart=udevadm trigger --type=devices --action=add --subsystem-match=block --subsystem-match=net \
--subsystem-match=pci --subsystem-match=virtio
"""
# The interface keeps its name eth0, as on Raspberry Pi OS. dpkg's exclusions must not hit our own package later. The
# two .updated files say that this root has run with this /usr before: the rebuilding of caches at a very first boot is
# not what a lab wants to wait for.
FINISH = f"""set -e
cd "$1"
mkdir -p boot/firmware
ln -sf /dev/null etc/systemd/network/99-default.link
for unit in {MASKED}; do ln -sf /dev/null "etc/systemd/system/$unit"; done
mkdir -p etc/systemd/system-generators
for name in {" ".join(GENERATORS)}; do
    ln -s /dev/null "etc/systemd/system-generators/systemd-$name-generator"
done
mkdir -p etc/systemd/system/systemd-udev-trigger.service.d
cat >etc/systemd/system/systemd-udev-trigger.service.d/lab.conf <<EOF
{COLDPLUG}EOF
rm -f etc/dpkg/dpkg.cfg.d/99mmdebstrap etc/machine-id var/lib/dbus/machine-id
: > etc/machine-id
chroot . ldconfig
touch -r usr etc/.updated var/.updated
"""
BOOTSTRAP_SECONDS = 1800.0
KEPT = 3
DIGITS = 12

Progress = Callable[[str], None]


def say(line: str) -> None:
    """Progress, as it comes."""
    print(line, flush=True)


def quiet(_line: str) -> None:
    """Progress that nobody wants to see."""


def cache_folder() -> Path:
    """Where roots are kept from run to run."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "rpinfs" / "lab"


def root_with(release: str, machine: Machine, deb: Path | None, progress: Progress, more: str = "") -> Path:
    """The cached root of a release, with the package installed if there is one; made when it is missing."""
    base = base_root(release, machine, progress, more)
    return base if deb is None else deb_layer(base, deb, progress)


def base_root(release: str, machine: Machine, progress: Progress, more: str = "") -> Path:
    """The bare Debian, about a minute of work when it is not in the cache; with more packages than all have."""
    packages = f"{PACKAGES} {release_of(release).packages} {machine.kernel_package} {more}".split()
    return _root_of(release, release, machine, packages, progress)


def ganesha_root(release: str, machine: Machine, progress: Progress) -> Path:
    """The nfs-ganesha of a release, with the libraries that it needs: half a minute when it is not in the cache."""
    # It never boots, and has nothing of systemd's that could be finished.
    return _root_of(f"ganesha-{release}", release, machine, list(GANESHA_PACKAGES), progress, finish="")


def _root_of(
    kind: str, release: str, machine: Machine, packages: list[str], progress: Progress, finish: str = FINISH
) -> Path:
    """A cached root with these packages, by a hash of its recipe."""
    make_runnable(machine.architecture)
    recipe = hashlib.sha256(repr((release, machine.architecture, packages, DPKG_OPTIONS, finish)).encode()).hexdigest()
    root = cache_folder() / f"{kind}-{machine.architecture}-{recipe[:DIGITS]}"

    def make(folder: Path) -> None:
        progress(f"making a Debian {release} root, once: {len(packages)} packages and what they need")
        bootstrap(folder, release, machine.architecture, packages, finish)

    found = cached(root, make)
    forget_old(found, f"{kind}-{machine.architecture}-{'?' * DIGITS}")
    return found


def deb_layer(base: Path, deb: Path, progress: Progress) -> Path:
    """The bare Debian with the package installed in it by dpkg, as in a real nfsroot on a NAS."""
    digest = hashlib.sha256(deb.read_bytes()).hexdigest()
    root = base.with_name(f"{base.name}+deb-{digest[:DIGITS]}")

    def make(folder: Path) -> None:
        progress(f"installing {deb.name} in the root")
        copy_root(base, folder)
        install(deb, folder)

    found = cached(root, make)
    forget_old(found, f"{base.name}+deb-*")
    return found


def copy_root(source: Path, target: Path) -> None:
    """A copy of a whole root, with reflinks where the file system has them (ext4 has not: 1.6 s)."""
    run(["cp", "-a", "--reflink=auto", f"{source}/.", target])


def bootstrap(folder: Path, release: str, architecture: str, packages: list[str], finish: str = FINISH) -> None:
    """mmdebstrap from the machine's own apt sources; `finish`: commands at its end, with the root as $1.

    A package of another architecture is written with that, as apt has it: linux-image-cloud-arm64:arm64.
    """
    architectures = dict.fromkeys([architecture, *(name.partition(":")[2] for name in packages if ":" in name)])
    with tempfile.TemporaryDirectory(prefix="rpinfs-lab-apt-") as name:
        work = Path(name)
        (work / "sources.list").write_text(sources_for(release))
        (work / "apt.conf").write_text(options_in_force() + 'APT::Install-Recommends "false";\n')
        (work / "finish").write_text(f"#!/bin/sh\n{finish}")
        (work / "finish").chmod(0o755)
        run(
            [
                "mmdebstrap",
                "--mode=root",
                "--variant=apt",
                f"--architectures={','.join(architectures)}",
                f"--aptopt={work}/apt.conf",
                *(f"--dpkgopt={option}" for option in DPKG_OPTIONS),
                f"--include={','.join(packages)}",
                f"--customize-hook={work}/finish",
                release,
                folder,
                work / "sources.list",
            ],
            timeout=BOOTSTRAP_SECONDS * (SLOWER if is_foreign(architecture) else 1),
            # The lab has an initramfs of its own: the kernel's hook would spend half a minute on another.
            env={"INITRD": "No"},
        )


def install(deb: Path, root: Path) -> None:
    """dpkg -i in a chroot with no systemd running."""
    inside = root / "tmp" / deb.name
    shutil.copyfile(deb, inside)
    try:
        run(
            ["chroot", root, "dpkg", "--force-unsafe-io", "-i", f"/tmp/{deb.name}"],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive"},
        )
    finally:
        inside.unlink()


def cached(path: Path, make: Callable[[Path], None]) -> Path:
    """The folder at path; if it is not there, made by make() under another name first: never half made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(f".{path.name}.lock")):
        if path.is_dir():
            return path
        unfinished = path.with_name(f".{path.name}.making")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o755)
        try:
            make(unfinished)
            unfinished.rename(path)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        return path


def forget_old(used: Path, pattern: str) -> None:
    """Every recipe and every build of the package makes a folder of 550 MB: only the last used of a kind are kept."""
    os.utime(used)
    last_used = {path: path.stat().st_mtime for path in used.parent.glob(pattern)}
    for path in sorted(last_used, key=lambda path: last_used[path])[:-KEPT]:
        for folder in (path, *path.parent.glob(f"{path.name}+*")):
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One at a time, between processes."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
