"""Running an image's own programs in it: apt, useradd. They get mounts and processes of their own, and start nothing.

They are as trustworthy as the image, and are root. What keeps them from this machine: it is not mounted where they run,
the image's device nodes are none, /proc and /sys are read-only, and the capabilities are few, see inside.py; where
nothing is fetched, there is no network either. For another architecture the kernel must know whom to call
(qemu-user-static with binfmt_misc).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Iterator, Sequence

from rpinfs.errors import RpinfsError
from rpinfs.netboot.add import inside
from rpinfs.netboot.add.tree import Tree
from rpinfs.system.files import open_regular
from rpinfs.system.run import CommandError, Completed, Tell, run

POLICY = "usr/sbin/policy-rc.d"
NO_SERVICES = "#!/bin/sh\n# No service starts while rpinfs netboot add puts packages in.\nexit 101\n"
RESOLV = "etc/resolv.conf"
DEB = "/tmp/rpinfs.deb"

_FOLDERS = ("proc", "sys", "dev", "run", "tmp")
_ENTER = """\
root=$0 boot=$1 inside=$2 deb=$3; shift 3
mount -o bind,nodev "$root" "$root"
mount -t proc -o ro,nosuid,nodev,noexec proc "$root/proc"
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys" || :
mount -t tmpfs -o mode=0755,nosuid,nodev dev "$root/dev"
for name in full null random tty urandom zero; do
    : >"$root/dev/$name"
    mount --bind "/dev/$name" "$root/dev/$name"
done
mkdir "$root/dev/shm" "$root/dev/pts"
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts "$root/dev/pts" || :
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
for number in 0 1 2; do ln -s "fd/$number" "$root/dev/$(echo stdin stdout stderr | cut -d ' ' -f $((number + 1)))"; done
mount -t tmpfs -o mode=0755,nosuid,nodev run "$root/run"
mount -t tmpfs -o mode=1777,nosuid,nodev tmp "$root/tmp"
mount -o bind,nosuid,nodev "$boot" "$root/$inside"
test -z "$deb" || install -m 0644 -- "$deb" "$root/tmp/rpinfs.deb"
exec "$@"
"""
_ENVIRONMENT = {"DEBIAN_FRONTEND": "noninteractive", "HOME": "/root", "TERM": "dumb"}
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy")
_MACHINES = {0x28: "armhf", 0xB7: "arm64", 0x03: "i386", 0x3E: "amd64", 0xF3: "riscv64"}
"""e_machine of ELF, as Debian calls the architecture."""


class Image:
    """A root whose programs can be run, with its boot files mounted where it has them.

    Args:
        boot: folder with the boot files.
        inside: where they belong in the root.
    """

    def __init__(self, root: Tree, boot: str, inside: str) -> None:
        self.root = root
        self._boot = boot
        self._inside = inside

    def run(self, *argv: str, deb: str = "", network: bool = False) -> Completed:
        """Run a program in it, to which `deb` is DEB. Raises CommandError, RpinfsError, OSError."""
        for folder in (*_FOLDERS, self._inside):
            with self.root.folder(folder, make=True):
                pass
        own = ["--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--propagation=slave"]
        own += [] if network else ["--net"]
        command = ["sh", "-euc", _ENTER, self.root.top, self._boot, self._inside, deb]
        command += [sys.executable, "-I", "-S", inside.__file__, self.root.top, *argv]
        environment = _ENVIRONMENT | {name: os.environ[name] for name in _PROXIES if name in os.environ}
        return run(["unshare", *own, *command], env=environment, die_with_us=True)

    def insist_it_runs(self) -> None:
        """See that its programs run on this machine. Raises RpinfsError."""
        try:
            self.run("true")
        except CommandError as error:
            if error.returncode is None:
                raise
            said = error.stderr.strip().splitlines()[-1:] or [error.reason]
            if os.strerror(errno.ENOEXEC) in error.stderr:
                made_for = self.architecture()
                message = f"the image's programs ({made_for}) do not run on this machine"
                raise RpinfsError(message, _emulator(made_for)) from error
            raise RpinfsError(f"the image's programs do not run: {said[0]}") from error

    def architecture(self) -> str:
        """What its programs are made for, as Debian calls it; "another architecture" where that cannot be told."""
        for name in ("usr/bin/true", "bin/true"):
            if self.root.kind(name) == stat.S_IFREG:
                with open_regular(self.root.path(name), os.O_RDONLY) as fd:
                    head = os.pread(fd, 20, 0)
                return _MACHINES.get(int.from_bytes(head[18:20], "little"), "another architecture")
        return "another architecture"


def _emulator(architecture: str) -> str:
    """How a machine gets to run programs of another architecture."""
    if os.path.exists(f"/usr/lib/binfmt.d/qemu-{_QEMU.get(architecture, architecture)}.conf"):
        # No systemd was running when it was installed, or this is a container: then its host has to.
        return "qemu-user-static is installed, and the kernel was not told of it: systemctl restart systemd-binfmt"
    return "apt install qemu-user-static"


_QEMU = {"arm64": "aarch64", "armhf": "arm", "amd64": "x86_64"}
"""What QEMU calls an architecture of Debian's, where it is another name."""


@contextlib.contextmanager
def ready_for_apt(root: Tree) -> Iterator[None]:
    """No service starts, and names are resolved as on this machine; afterwards all is as it was. Raises OSError."""
    with _replaced(root, POLICY, NO_SERVICES, 0o755):
        try:
            with open("/etc/resolv.conf", encoding="utf-8", errors="surrogateescape") as file:
                resolv = file.read()
        except FileNotFoundError:
            resolv = ""
        with _replaced(root, RESOLV, resolv, 0o644):
            yield


@contextlib.contextmanager
def _replaced(root: Tree, path: str, text: str, mode: int) -> Iterator[None]:
    kept = f"{os.path.basename(path)}.rpinfs-kept"
    was_there = root.has(path)
    if was_there:
        root.rename(path, kept)
    root.write(path, text, mode)
    try:
        yield
    finally:
        root.remove(path)
        if was_there:
            root.rename(f"{os.path.dirname(path)}/{kept}", os.path.basename(path))


def install(image: Image, deb: str, names: Sequence[str], tell: Tell) -> dict[str, str]:
    """Put the package of rpinfs and Debian's packages in; returns names and versions. Raises RpinfsError, OSError.

    Args:
        deb: file of the package; empty for none.
    """
    image.insist_it_runs()
    wanted = [*([DEB] if deb else []), *names]
    argv = ["apt-get", "--yes", "--quiet", "-o", "Dpkg::Options::=--force-confold", "-o", "Dpkg::Use-Pty=0"]
    # Without being asked for, Docker is not to come as what rpinfs recommends.
    argv += [] if names else ["--no-install-recommends"]
    with ready_for_apt(image.root):
        what = ", ".join([*(["rpinfs"] if deb else []), *names])
        try:
            tell(f"installing {what}")
            # Where all is there already, no archive is asked.
            image.run(*argv, "--no-download", "install", *wanted, deb=deb)
        except CommandError:
            try:
                tell("asking the archives of the image for their packages")
                image.run(*argv, "update", deb=deb, network=True)
                tell(f"fetching and installing {what}")
                image.run(*argv, "install", *wanted, deb=deb, network=True)
            except CommandError as error:
                raise RpinfsError(f"{what} cannot be installed: {_complaint(error)}") from error
        image.run("apt-get", "clean")
    return _versions(image, [*(["rpinfs"] if deb else []), *names])


def _complaint(error: CommandError) -> str:
    """The first line of an error of apt's; its last one says only that there was one."""
    lines = [line.strip() for line in (*error.stderr.splitlines(), *error.stdout.splitlines())]
    return next((line for line in lines if line.startswith(("E: ", "dpkg: error"))), error.reason)


def _versions(image: Image, names: Sequence[str]) -> dict[str, str]:
    shown = image.run("dpkg-query", "--show", "--showformat=${Package}\t${Version}\n", *names).stdout
    return dict(line.split("\t", 1) for line in shown.splitlines() if "\t" in line)
