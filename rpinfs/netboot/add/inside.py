"""Going into an image for good: what becomes of this process has the image as all there is, and few capabilities.

Run by itself, as `inside.py ROOT PROGRAM ARGUMENT ...`, in namespaces of its own, where ROOT is a mount with all the
mounts that the program is to see. A chroot is no prison for root (chroot(2) says how to leave it), so the old root is
unmounted. Between that and the program there is nothing that could be the image's: all is imported before.
"""

import ctypes
import os
import sys

_KEPT = {"chown": 0, "dac_override": 1, "fowner": 3, "fsetid": 4, "kill": 5, "setgid": 6, "setuid": 7, "setpcap": 8,
         "net_bind_service": 10, "audit_write": 29, "setfcap": 31}  # fmt: skip
"""What dpkg, apt and useradd need, and what they start. See capabilities(7)."""

_MNT_DETACH = 2
_PR_CAPBSET_READ, _PR_CAPBSET_DROP = 23, 24
_CAPABILITY_VERSION_3 = 0x20080522


def main(root: str, argv: list[str]) -> int:
    """Become a program of an image; returns only where there is none that can be run."""
    libc = ctypes.CDLL(None, use_errno=True)
    # A terminal that is shared could be typed into (TIOCSTI).
    os.setsid()
    os.chdir(root)
    # The old root lies on the new one for a moment, see pivot_root(2).
    _checked(libc.pivot_root(b".", b"."))
    _checked(libc.umount2(b".", _MNT_DETACH))
    os.chdir("/")
    _drop(libc)
    return _become(argv)


def _drop(libc: ctypes.CDLL) -> None:
    number = 0
    while libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0) >= 0:
        if number not in _KEPT.values():
            _checked(libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0))
        number += 1
    # What is inheritable gets past the bounding set when root executes something.
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()
    _checked(libc.capget(header, sets))
    sets[2] = sets[5] = 0
    _checked(libc.capset(header, sets))


def _become(argv: list[str]) -> int:
    complaint = "command not found"
    for folder in os.environ["PATH"].split(":"):
        path = argv[0] if "/" in argv[0] else f"{folder}/{argv[0]}"
        try:
            os.execve(path, argv, os.environ)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            complaint = os.strerror(error.errno or 0)
            break
    os.write(2, f"{argv[0]}: {complaint}\n".encode(errors="surrogateescape"))
    return 127


def _checked(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
