"""What the NAS exports, as exports(5), and in the words of the appliances."""

from __future__ import annotations

from rpinfs.netboot.model import Plan
from rpinfs.netboot.render.text import Rendered, comment

_OPTIONS = "rw,sync,no_subtree_check,no_root_squash"


def exports(plan: Plan) -> Rendered:
    """/etc/exports of a Linux NAS."""
    nas, subnet = plan.nas, plan.network.subnet
    lines = [
        *comment("Made by rpinfs netboot render; then: exportfs -ra"),
        *comment(
            "no_root_squash: a Pi's root is root of its own files. sync: with async a power cut of the NAS loses what"
            " the Pis were told is safe, and damages their images. Per network, never for the whole world: who mounts"
            " this is root on every Pi."
        ),
        *(f"{path}  {subnet}({_OPTIONS})" for path in dict.fromkeys((nas.root, nas.boot, nas.share))),
    ]
    return Rendered("exports", "/etc/exports.d/rpi-netboot.exports", "the NAS", "\n".join(lines) + "\n")


def appliance(plan: Plan) -> Rendered:
    """The settings of the same exports, where the NAS has a web page for them."""
    nas = plan.nas
    folders = ", ".join(dict.fromkeys((nas.root, nas.boot, nas.share)))
    text = _WORDS[nas.kind].format(folders=folders, subnet=plan.network.subnet, boot=nas.boot)
    return Rendered(f"nfs-{nas.kind}.txt", "", "the NAS", text)


_WORDS = {
    "linux": "Put the file exports in its place, then: exportfs -ra\n",
    "synology": """\
Synology DSM, for each of the shared folders {folders} (in DSM their paths begin with the volume, such as /volume1):
- Control Panel > File Services > NFS: enable NFS, maximum protocol NFSv4.1. There is no 4.2 in DSM: rpinfs trim cannot
  give freed blocks back, and extended attributes (capabilities of ping and its like) are not kept. Models of the
  platforms Alpine, Alpine4k, armada38x, Avoton, Braswell, Bromolow, Grantley and Monaco stop at less: version = "3".
- Shared Folder > Edit > NFS Permissions > Create:
    Hostname or IP        {subnet}
    Privilege             Read/Write
    Squash                No mapping           (else root of the Pi is nobody on the NAS, and the root does not boot)
    Security              sys
    Enable asynchronous   no                   (with it a power cut of the NAS damages images)
    Allow connections from non-privileged ports   only if a mount is refused without
- An encrypted shared folder cannot be exported.
- File Services > Advanced > TFTP: enable, root folder {boot}. DSM keeps port 69 for it: no other TFTP server beside it.
""",
    "truenas": """\
TrueNAS, Shares > Unix (NFS) Shares, for each of {folders}:
- Networks             {subnet}
- Maproot User         root    (empty means that root is squashed, and the Pi does not boot)
- Maproot Group        wheel on CORE, root on SCALE
- Services > NFS: enable NFSv4; version 4.2 needs SCALE.
- The dataset: sync=standard or always, never disabled.
""",
    "omv": """\
OpenMediaVault, Services > NFS > Shares, for each of {folders}:
- Client               {subnet}
- Permission           Read/Write
- Extra options        sync,no_subtree_check,no_root_squash
  The default, subtree_check,insecure, squashes root: the Pi does not boot from it.
- OMV exports below a pseudo root, /export, which is read-only: the paths of the plan are those that
  `showmount -e` prints.
""",
    "qnap": """\
QNAP QTS, for each of {folders}:
- Control Panel > Network & File Services > NFS Service: enable v4, and v4.1 where it is offered.
- Shared Folders > Edit permissions > NFS host access:
    Allowed IP            {subnet}
    Access right          Read/Write
    Squash option         No mapping (no_root_squash)
    Sync                  sync    (QTS warns that it is slower; with async a power cut of the NAS damages images)
""",
}
