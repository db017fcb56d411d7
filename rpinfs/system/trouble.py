"""What it means when a share answers with an error, and what to do about it: one table for all who meet one."""

from __future__ import annotations

import errno

REMEDIES = {
    errno.ENOSPC: "free some space on the share, or choose another one",
    errno.EDQUOT: "raise the quota on the share, or free some space",
    errno.EFBIG: "choose a size that the file system of the share can hold in one file",
    errno.EROFS: "export and mount the share read-write",
    errno.EACCES: "let this host write to the export as root (no_root_squash), or as the owner of the folder",
    errno.EPERM: "let this host write to the export as root (no_root_squash), or as the owner of the folder",
    errno.ESTALE: "it was replaced on the NAS, which shows here within a minute; if not, mount the share anew",
    errno.ENOENT: "make the folder, or mount the share that has it",
    errno.ENOLCK: "start the lock service of the NAS (NFS 3: rpc.statd there and here), or set Version=4.1 in [Server]",
    # nfs-ganesha before 9.11 calls GET_DIR_DELEGATION illegal (nfs-ganesha#1385), which Linux asks for from 6.19 on.
    errno.EREMOTEIO: "Linux 6.19 and later do not get on with nfs-ganesha before 9.11; update that, or add"
    " nfsv4.directory_delegations=0 to the kernel command line, then reboot: rpinfs boot edit",
}


def remedy_of(error: BaseException) -> str:
    """What to do about an error of a share; empty where nothing is known."""
    return REMEDIES.get(error.errno or 0, "") if isinstance(error, OSError) else ""
