"""Storage: what containers wait for, on a NAS with a disk that takes its time to flush.

One emulated Pi, one NAS (the kernel's nfsd, `sync`), and on its disk side by side what people could have: an image
mounted by hand, images of rpinfs with ext4, the same by DirectIO=no, and with xfs, an iSCSI LUN, a network block
device. The limit is a disk of the Pi's own that flushes as slowly. They take turns, round by round.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rpinfs.boot.units import mount_unit
from tests.lab.kernel_nas import KernelNas
from tests.lab.lab import Lab
from tests.lab.pi import Pi
from tests.lab.process import run
from tests.lab.root import Progress
from tests.lab.slow_disk import SlowDisk
from tests.lab.sources import options_in_force
from tests.lab.traffic import traffic

from .report import Area, Row

WORK = Path(__file__).with_name("work.py")
SIZE = 2 << 30
ROUNDS = 3
HARD_DISK = 6.0
"""Milliseconds of a flush."""

CASES = ((HARD_DISK, 0.0), (1.0, 0.0), (1.0, 1.0))
"""Milliseconds of a flush, and of the way to the NAS: a hard disk, an SSD, this behind a bridge or a busy switch."""

SECONDS = 1800.0
BY_HAND, EXT4, BUFFERED, XFS = "by hand", "rpinfs, ext4", "ext4, DirectIO=no", "rpinfs, xfs"
ISCSI, NBD, LOCAL = "iSCSI LUN", "NBD", "local disk"
FOLDERS = {
    BY_HAND: "/var/lib/byhand",
    EXT4: "/var/lib/docker",
    BUFFERED: "/var/lib/buffered",
    XFS: "/var/lib/xfs",
    ISCSI: "/var/lib/iscsi",
    NBD: "/var/lib/nbd",
    LOCAL: "/var/lib/local",
}
OVER_NFS = (BY_HAND, EXT4, BUFFERED, XFS)
"""Columns whose requests the kernel counts."""

CONFIG = f"""\
[Server]
Address={{address}}
Version=4.2
[Boot]
Export=
[Image docker]
File=ext4
Size={SIZE}
FileSystem=ext4
[Image buffered]
File=buffered
Size={SIZE}
FileSystem=ext4
DirectIO=no
Where={FOLDERS[BUFFERED]}
[Image xfs]
File=xfs
Size={SIZE}
FileSystem=xfs
Where={FOLDERS[XFS]}
"""
ROWS = {
    "append": "append 4 KiB and fsync",
    "threads": "the same by four threads",
    "create": "create 4 KiB and fsync",
    "overwrite": "overwrite 4 KiB anywhere and fdatasync",
    "sqlite": "SQLite commit",
    "postgresql": "PostgreSQL commit",
    "untar": "untar 2,000 files, folder by folder, and sync",
    "scatter": "the same, 50 folders in turn",
    "stall": "worst fsync beside a write of 150 MiB",
    "write": "write 64 MiB and fsync",
    "read": "read 64 MiB",
}
TARGET, INITIATOR = "iqn.2026-01.lab:nas", "iqn.2026-01.lab:pi"
NAS_MODULES = ("target_core_file", "iscsi_target_mod")
# The kernel's own target (Documentation/target/scripts.rst): a file with its write cache on, as such LUNs are.
EXPORT_LUN = f"""\
mkdir -p /sys/kernel/config && mount -t configfs configfs /sys/kernel/config
truncate -s {SIZE} /srv/lun
cd /sys/kernel/config/target
mkdir -p core/fileio_0/lun
echo fd_dev_name=/srv/lun,fd_dev_size={SIZE},fd_buffered_io=1 >core/fileio_0/lun/control
echo 1 >core/fileio_0/lun/enable
echo 1 >core/fileio_0/lun/attrib/emulate_write_cache
mkdir -p iscsi/{TARGET}/tpgt_1/lun/lun_0 iscsi/{TARGET}/tpgt_1/np/{{address}}:3260
ln -s /sys/kernel/config/target/core/fileio_0/lun iscsi/{TARGET}/tpgt_1/lun/lun_0/lun
for attribute in authentication demo_mode_write_protect; do echo 0 >iscsi/{TARGET}/tpgt_1/attrib/$attribute; done
for attribute in generate_node_acls cache_dynamic_acls; do echo 1 >iscsi/{TARGET}/tpgt_1/attrib/$attribute; done
echo 1 >iscsi/{TARGET}/tpgt_1/enable
"""
USE_LUN = f"""\
set -e
modprobe iscsi_tcp
iscsistart -i {INITIATOR} -t {TARGET} -g 1 -a {{address}} >/dev/null
udevadm settle
disk=$(ls /dev/disk/by-path/*-iscsi-{TARGET}-lun-0)
mkfs.ext4 -q -F $disk
mkdir -p {FOLDERS[ISCSI]}
mount $disk {FOLDERS[ISCSI]}
"""
# With the two commands by which such a server keeps what it promises.
EXPORT_NBD = f"""\
truncate -s {SIZE} /srv/nbd
printf '[generic]\\n[nbd]\\nexportname = /srv/nbd\\nflush = true\\nfua = true\\n' >/nbd.conf
{{loader}} --library-path /bin /bin/nbd-server -C /nbd.conf
"""
# While udev still looks at the new device, it is in use.
USE_NBD = f"""\
set -e
modprobe nbd
udevadm settle
nbd-client -N nbd {{address}} /dev/nbd0 >/dev/null
mkfs.ext4 -q -F /dev/nbd0
mkdir -p {FOLDERS[NBD]}
mount /dev/nbd0 {FOLDERS[NBD]}
"""
USE_LOCAL = f"""\
set -e
modprobe virtio_blk
udevadm settle
mkfs.ext4 -q -F /dev/vda
mkdir -p {FOLDERS[LOCAL]}
mount /dev/vda {FOLDERS[LOCAL]}
"""
LONGER_WIRE = "modprobe sch_netem; tc qdisc replace dev eth0 root netem delay {milliseconds}ms"
PROGRAMS = ("open-iscsi", "nbd-client", "nbd-server", "postgresql", "fuse-overlayfs")
# As the author of the recipe has it.
MOUNT_BY_HAND = f"""\
set -e
truncate -s {SIZE} /nfs/docker/byhand
mkfs.ext4 -q -F /nfs/docker/byhand
mkdir -p {FOLDERS[BY_HAND]}
mount -o loop /nfs/docker/byhand {FOLDERS[BY_HAND]}
"""


@dataclass(frozen=True)
class Found:
    """One run of a row, for each operation: milliseconds, requests to the NAS, and how often its disk flushed."""

    milliseconds: float
    requests: float
    flushes: float


@dataclass(frozen=True)
class Bench:
    """A Pi that is on, with all of FOLDERS mounted, the NAS, and the disk behind that and behind the Pi's own."""

    pi: Pi
    nas: KernelNas
    disk: SlowDisk


@contextmanager
def bench(deb: Path, say: Progress) -> Iterator[Bench]:
    """Make it, and end it."""
    with Lab(deb=deb, progress=say) as lab:
        nas = lab.kernel_nas(modules=NAS_MODULES)
        disk = nas.slow_disk = SlowDisk(lab.folder)
        pi = lab.pi("bench")
        prepare_root(pi, nas)
        loader = install_nbd_server(nas, pi.root)
        add_local_disk(pi, disk, lab.folder / "local.img")
        nas.start()
        for script in (EXPORT_LUN, EXPORT_NBD):
            nas.run(script.format(address=nas.address, loader=loader))
        pi.boot()
        # Nobody wants them at the boot, where Docker is masked.
        images = (EXT4, BUFFERED, XFS)
        pi.run(f"systemctl start {' '.join(mount_unit(FOLDERS[name]) for name in images)}", timeout=SECONDS)
        for script in (MOUNT_BY_HAND, USE_LUN, USE_NBD, USE_LOCAL):
            pi.run(script.format(address=nas.address), timeout=SECONDS)
        yield Bench(pi, nas, disk)


def measure(deb: Path, say: Progress) -> Iterator[Area]:
    """All rows in each of CASES."""
    with bench(deb, say) as on:
        for flush, wire in CASES:
            on.disk.take(flush)
            on.pi.run(LONGER_WIRE.format(milliseconds=wire))
            found = [row for name in ROWS for row in rows(name, measured(on.pi, on.disk, name, say))]
            yield Area(
                f"storage, {flush:g} ms a flush{f', {wire:g} ms of wire' if wire else ''}", tuple(FOLDERS), found
            )


def prepare_root(pi: Pi, nas: KernelNas) -> None:
    """The config, no Docker that would move under what is measured, and PROGRAMS."""
    pi.write("/etc/rpinfs/rpinfs.conf", CONFIG.format(address=nas.address))
    pi.mask(
        *("docker.service", "docker.socket", "containerd.service", "iscsid.service", "iscsid.socket"),
        *("open-iscsi.service", "nbd-server.service", "postgresql.service"),
    )
    # Only the programs of it: no cluster of its own.
    pi.write("/etc/postgresql-common/createcluster.conf", "create_main_cluster = false\n")
    shutil.copyfile(WORK, pi.path("/root/work.py"))
    resolver = pi.read("/etc/resolv.conf")
    for name in ("/etc/resolv.conf", "/etc/hosts"):
        shutil.copyfile(name, pi.path(name))
    pi.write("/etc/apt/apt.conf.d/99bench", options_in_force())
    for words in (("update",), ("install", "--yes", "--no-install-recommends", *PROGRAMS)):
        run(
            ["chroot", pi.root, "apt-get", "--quiet", *words], env={"DEBIAN_FRONTEND": "noninteractive", "INITRD": "No"}
        )
    pi.write("/etc/resolv.conf", resolver)


def install_nbd_server(nas: KernelNas, root: Path) -> str:
    """Put it into the NAS, from a root that has it, with its libraries, of which it returns the loader's path."""
    said = run(["chroot", root, "ldd", "/bin/nbd-server"])
    libraries = [word for line in said.splitlines() for word in line.split() if word.startswith("/")]
    for path in ("/bin/nbd-server", *libraries):
        nas.install(f"/bin/{Path(path).name}", (root / path.lstrip("/")).read_bytes())
    return next(f"/bin/{Path(path).name}" for path in libraries if Path(path).name.startswith("ld-"))


def add_local_disk(pi: Pi, disk: SlowDisk, file: Path) -> None:
    """Give the Pi a disk that flushes as that of the NAS does, from its next boot on."""
    with file.open("xb") as image:
        image.truncate(SIZE)
    pi.slow_disk = disk
    pi.qemu_options += [
        *("-drive", f"if=none,id=disk,format=raw,cache=writeback,file={file}"),
        *("-device", "virtio-blk-pci,drive=disk"),
    ]


def measured(pi: Pi, disk: SlowDisk, row: str, say: Progress) -> Mapping[str, list[Found]]:
    """Some rounds of a row, each column once in a round."""
    found: dict[str, list[Found]] = {name: [] for name in FOLDERS}
    for _ in range(ROUNDS):
        for name, where in FOLDERS.items():
            folder = f"{where}/bench"
            pi.run(
                f"rm -rf {folder}.*; mkdir -p {folder}; python3 /root/work.py prepare {row} {folder}", timeout=SECONDS
            )
            requests, flushes = traffic(pi).requests.total(), disk.flushes
            took, count = map(float, pi.run(f"python3 /root/work.py measure {row} {folder}", timeout=SECONDS).split())
            requests, flushes = traffic(pi).requests.total() - requests, disk.flushes - flushes
            found[name].append(Found(took, requests / count, flushes / count))
            pi.run(f"mv {folder} {folder}.old && rm -r {folder}.old && sync", timeout=SECONDS)
    say(f"{row}: {json.dumps({name: [round(one.milliseconds, 1) for one in runs] for name, runs in found.items()})}")
    return found


def rows(name: str, found: Mapping[str, list[Found]]) -> list[Row]:
    """Lines of the table: time as a ratio to that by hand, requests and flushes as counts."""
    title = ROWS[name]
    took = {column: median(one.milliseconds for one in runs) for column, runs in found.items()}
    lines = [Row(f"{title}: time", {column: took[column] / took[BY_HAND] for column in took}, ratio=True)]
    if name != "stall":
        requests = {
            column: median(one.requests for one in runs) for column, runs in found.items() if column in OVER_NFS
        }
        lines.append(Row(f"{title}: requests", requests))
        lines.append(Row(f"{title}: flushes", {c: median(one.flushes for one in runs) for c, runs in found.items()}))
    return lines
