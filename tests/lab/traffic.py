"""What a Pi has sent to a NAS and got from it, by the kernel's own count."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from .pi import Pi
from .process import LabError


@dataclass(frozen=True)
class Traffic:
    """Of one NFS mount since it was made: requests by their kind (READ, COPY), and bytes of files read and written."""

    requests: Counter[str]
    read: int
    written: int

    def since(self, before: Traffic) -> Traffic:
        """What has come since an earlier count."""
        return Traffic(self.requests - before.requests, self.read - before.read, self.written - before.written)


def traffic(pi: Pi, where: str = "/nfs/docker") -> Traffic:
    """What has gone through the mount at a mount point.

    Asked by a program in memory: one of the root would be counted with its files.
    The form of /proc/PID/mountstats: nfs_show_stats() in fs/nfs/super.c, rpc_clnt_show_stats() in net/sunrpc/stats.c.
    """
    for block in pi.run("cat /proc/1/mountstats", from_memory=True).split("device ")[1:]:
        if f" mounted on {where} with fstype nfs" not in block:
            continue
        lines = [line.split() for line in block.splitlines()]
        (sizes,) = [line[1:] for line in lines if line[:1] == ["bytes:"]]
        kinds = lines[lines.index(["per-op", "statistics"]) + 1 :]
        requests = Counter({line[0].rstrip(":"): int(line[1]) for line in kinds if len(line) > 1})
        return Traffic(requests, read=int(sizes[4]), written=int(sizes[5]))
    raise LabError(f"{pi.name}: no NFS mount at {where}")
