"""Docker: an image of thousands of files loaded, run and removed, where people could keep it.

The Pi and the NAS of storage.py, with its hard disk. For each column there is a Docker with all that is its own below
one folder. Straight on NFS there are vfs, which copies for each layer all of those below it, and fuse-overlayfs.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.lab.container import container_tar, tar_of
from tests.lab.root import Progress
from tests.lab.traffic import traffic

from .report import Area, Row
from .storage import BY_HAND, EXT4, FOLDERS, HARD_DISK, ISCSI, NBD, XFS, Bench, bench

VFS, FUSE = "vfs on NFS", "fuse-overlayfs on NFS"
SHARE = "/nfs/docker"
DRIVERS = {
    **dict.fromkeys((BY_HAND, EXT4, XFS, ISCSI, NBD), "overlay2"),
    FUSE: "fuse-overlayfs",
    VFS: "vfs",
}
OVER_NFS = (BY_HAND, EXT4, XFS, VFS, FUSE)
FILES = {BY_HAND: "byhand", EXT4: "ext4", XFS: "xfs"}
"""The image files on the share, by column."""

IMAGE = "bench"
LAYERS, FILES_OF_A_LAYER, LARGEST_FILE = 3, 700, 8192
ARCHIVE = "/run/image.tar"
SECONDS = 3600.0
DOCKER = "docker --host unix:///run/bench.sock"
# Its own containerd as well, below the same folder.
START = """\
set -e
mkdir -p {folder}
dockerd --data-root {folder} --exec-root /run/bench --pidfile /run/bench.pid --host unix:///run/bench.sock \
    --storage-driver {driver} --bridge none --iptables=false --ip6tables=false >/run/bench.log 2>&1 &
for try in $(seq 600); do
    if {docker} info >/dev/null 2>&1; then exit 0; fi
    kill -0 $! || {{ tail -n 3 /run/bench.log; exit 1; }}
    sleep 0.5
done
exit 1
"""
STOP = "pid=$(cat /run/bench.pid); kill $pid; while [ -e /proc/$pid ]; do sleep 0.5; done"

LOAD, RUN = f"load an image of {LAYERS * FILES_OF_A_LAYER:,} files", "run a container"
LEFT = "removed and trimmed: bytes left on the NAS"
COMMANDS = {LOAD: f"{DOCKER} load --quiet --input {ARCHIVE}; sync", RUN: f"{DOCKER} run --rm {IMAGE} true"}


def measure(deb: Path, say: Progress) -> Iterator[Area]:
    """Each column once: what is counted repeats, and the times are far apart.

    The table comes anew with each: the last one takes longer than all others, and who does not wait for it keeps these.
    """
    with bench(deb, say) as on:
        on.disk.take(HARD_DISK)
        image = archive(container_tar(on.pi.root), on.pi.machine.architecture)
        on.pi.path("/root/image.tar").write_bytes(image)
        on.pi.run(f"cp /root/image.tar {ARCHIVE}", SECONDS)
        found: dict[str, dict[str, float]] = {}
        for column, driver in DRIVERS.items():
            found[column] = of_column(on, column, driver)
            say(f"{column}: {json.dumps(found[column])}")
            if len(found) > 1:
                yield Area(f"docker, {HARD_DISK:g} ms a flush", tuple(found), rows(found))


def of_column(on: Bench, column: str, driver: str) -> dict[str, float]:
    """Load, run, remove; times in seconds."""
    pi, folder = on.pi, f"{FOLDERS.get(column, SHARE)}/daemon"
    if column in FILES:
        before = on.nas.space(FILES[column]).allocated
    pi.run(START.format(folder=folder, driver=driver, docker=DOCKER), SECONDS)
    figures: dict[str, float] = {}
    for name, command in COMMANDS.items():
        requests, flushes, begun = traffic(pi).requests.total(), on.disk.flushes, time.monotonic()
        pi.run(command, SECONDS)
        figures[f"{name}: time"] = time.monotonic() - begun
        figures[f"{name}: flushes"] = on.disk.flushes - flushes
        if column in OVER_NFS:
            figures[f"{name}: requests"] = traffic(pi).requests.total() - requests
    pi.run(f"{DOCKER} image rm {IMAGE}; {STOP}; sync", SECONDS)
    if column in (EXT4, XFS):
        pi.run("rpinfs trim", SECONDS)
    if column in FILES:
        figures[LEFT] = on.nas.space(FILES[column]).allocated - before
    return figures


def rows(found: Mapping[str, Mapping[str, float]]) -> list[Row]:
    """Of a time, only the ratio to that by hand means anything."""
    lines = []
    for name in found[BY_HAND]:
        values = {column: figures[name] for column, figures in found.items() if name in figures}
        ratio = name.endswith(": time")
        lines.append(Row(name, {c: value / (values[BY_HAND] if ratio else 1) for c, value in values.items()}, ratio))
    return lines


def archive(base: bytes, architecture: str) -> bytes:
    """What `docker load` takes: layers of small files on a first one, each other's neighbours in some folders."""
    chance = random.Random(3)
    layers = [base, *(_layer(chance, number) for number in range(LAYERS))]
    config = json.dumps({
        "architecture": architecture, "os": "linux", "config": {"Cmd": ["true"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]},
        "history": [{"created_by": "make bench"} for _ in layers],
    }).encode()  # fmt: skip
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    manifest = json.dumps([{"Config": name, "RepoTags": [f"{IMAGE}:latest"], "Layers": names}]).encode()
    files = {name: config, "manifest.json": manifest, **dict(zip(names, layers, strict=True))}
    return tar_of(files)


def _layer(chance: random.Random, number: int) -> bytes:
    sizes = (chance.randrange(1, LARGEST_FILE) for _ in range(FILES_OF_A_LAYER))
    return tar_of({f"layer{number}/{one % 20}/{one}": chance.randbytes(size) for one, size in enumerate(sizes)})
