"""Thaws what a test has frozen and hangs on: a process that waits for a file system cannot be killed, nor can pytest.

Run as a program with a folder and a number of seconds: unless its standard input ends before, it thaws everything that
is mounted at and below the folder, until its input ends, and says so.
"""

import errno
import fcntl
import os
import select
import sys

FITHAW = 0xC0045878  # ioctl_fsfreeze(2); not by the code under test


def mount_points(folder: str) -> list[str]:
    """What is mounted at and below a folder, the last one first; elsewhere other programs come and go."""
    with open("/proc/self/mountinfo") as table:
        found = [line.split()[4].encode().decode("unicode_escape") for line in table]
    return [where for where in reversed(found) if f"{where}/".startswith(f"{folder}/")]


def thaw(where: str) -> bool:
    """Whether it was frozen. To ask this way hangs nobody."""
    fd = os.open(where, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, FITHAW, 0)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTTY):
            raise
        return False
    finally:
        os.close(fd)
    return True


def main(folder: str, seconds: float) -> None:
    """See above."""
    while not select.select([sys.stdin], [], [], seconds)[0]:
        for where in mount_points(folder):
            if thaw(where):
                print(f"thawed {where}", flush=True)
        seconds = 1.0


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
