"""Every wrong value gives one line that names file, line, key, value and rule, and exit status 2; right ones are taken.

The first table stands for itself: a line is a title, a configuration, where the error is, what is quoted, the rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from rpinfs.boot.config import Config, examine
from rpinfs.boot.host import COMMAND_LINE, MAIN_FILE, Host
from rpinfs.boot.settings import SETTINGS
from rpinfs.commands import cli
from tests.support import SERIAL, Content, Installed, make_pi

MAIN = MAIN_FILE
ETC = "/etc/rpinfs/rpinfs.conf.d"
RUN = "/run/rpinfs/rpinfs.conf.d"
USR = "/usr/lib/rpinfs/rpinfs.conf.d"


class Wrong(NamedTuple):
    title: str
    text: Content
    place: str
    """File and line; or the line alone, in the main file."""
    what: str
    """Section, key and value as the message quotes them."""
    rule: str
    """A part of the rule."""
    files: Mapping[str, Content] = {}
    cmdline: str = ""

    @property
    def where(self) -> str:
        return f"{MAIN}:{self.place}" if self.place.isdigit() else self.place


def single(section: str, key: str, value: str, rule: str, title: str = "") -> Wrong:
    """One wrong value alone, in line 3."""
    text = f"# One value\n[{section}]\n{key}={value}\n"
    quoted = value if len(value) <= 200 else value[:197] + "..."
    return Wrong(title or f"{section} {key} {value[:40]}", text, "3", f"[{section}] {key}={quoted}", rule)


def server(key: str, *values: str, rule: str) -> list[Wrong]:
    return [single("Server", key, value, rule) for value in values]


def boot(key: str, *values: str, rule: str) -> list[Wrong]:
    return [single("Boot", key, value, rule) for value in values]


def share(key: str, *values: str, rule: str) -> list[Wrong]:
    return [single("Share", key, value, rule) for value in values]


def image(key: str, *values: str, rule: str) -> list[Wrong]:
    return [single("Image docker", key, value, rule) for value in values]


def notify(key: str, *values: str, rule: str) -> list[Wrong]:
    return [single("Notify", key, value, rule) for value in values]


ADDRESS = "expected an IP address or a host name"
SYSTEM = "expected a mount point that is not a system folder"
POWER_CUT = "would not survive a power cut"
COMMENT = 'expected a value without " #" and " ;": comments stand on lines of their own'
FSTAB_ONLY = "it is for fstab"

SINGLE = [
    *server("Address", "nas local", "nas:/docker", "nfs://nas", "nas!", "-nas", "nas-", "nas..local", "nas..", ".",
            "192.168.1", "192.168.1.256", "010.0.0.1", "1.2.3.4.5", "fe80:::1", "1:2:3:4:5:6:7:8:9", "12345::",
            "fe80::1%",
            "[nas]", "[fe80::1", "a" * 64, "größe", rule=ADDRESS),
    *server("Version", "4", "2", "4.3", "v4.1", "four", rule="expected 3, 4.0, 4.1 or 4.2"),
    *server("Options", "soft", "hard,soft", "softerr", "timeo=600, soft",
            rule="turns a pause of the NAS into I/O errors"),
    *server("Options", "vers=3", "nfsvers=4", "minorversion=1", "v4.2", "v3", rule="say it with Version="),
    *server("Options", "ro", rule="the share must be writable"),
    *server("Options", "bg", rule="rpinfs waits for a late NAS itself"),
    *server("Options", "noauto", rule="rpinfs=off"),
    *server("Options", "x-systemd.automount", rule="Docker would start before"),
    *server("Options", "x-systemd.requires=/srv", "x-systemd.mount-timeout=5", rule=FSTAB_ONLY),
    *server("Options", "a", "acl,b", "pquota", "size=1M", "hard=1", "retrans", "fcs", rule="nfs(5) has no such mount"),
    *server("Options", "timeo=ten", "rsize=64k", rule="expected a number, see nfs(5)"),
    *server("Options", "proto=sctp", "sec=krb", "lookupcache=some", "local_lock=both", rule="is refused: expected "),
    *server("Options", "udp", "timeo=600,proto=udp", "proto=udp6", rule="NFS 4.1 goes over TCP"),
    *server("Options", "timeo 600", '"timeo=600"', "a\\040b", rule="separated by commas, without spaces, quotes"),
    *boot("Export", "tftpboot", "nas:/tftpboot", rule="expected an absolute path"),
    *boot("Export", "/srv/../etc", rule='expected a path without ".."'),
    *boot("Where", "/", "/etc", "/usr/lib", "/nfs", rule=SYSTEM),
    *boot("Where", "boot", rule="expected an absolute path"),
    *boot("Where", "/dev/boot", "/run/boot", rule="expected a mount point that is not below /dev, /proc, /run, /sys"),
    *boot("Options", "ro,soft", rule="soft is refused"),
    *boot("Options", "ro,udp", rule="NFS 4.1 goes over TCP"),
    *boot("Options", "vers=4", rule="say it with Version="),
    *share("Export", "docker", "nas.local:/docker", rule="expected an absolute path"),
    *share("Export", "/srv/a\\b", "'/docker'x/", rule="expected a"),
    *share("Export", "/" + "x" * 256, rule="at most 255 bytes"),
    *share("Where", "nfs/docker", rule="expected an absolute path"),
    *share("Where", "/nfs", "//nfs/./", "/var/lib", "/boot/firmware", "/tmp/", rule=SYSTEM),
    *share("Where", "/proc/docker", rule="not below"),
    *share("Where", "/nfs/../etc", rule='without ".."'),
    *share("Where", '/nfs/"docker"', rule="without quotes and backslashes"),
    *share("Where", "/nfs/" + "ä" * 100, "/nfs/" + "-" * 70, "/nfs" + "/x" * 130, rule="unit name has at most 255"),
    *image("File", "/docker.img", "images/", rule="expected a file name below the share"),
    *image("File", "../docker.img", "a/../b", "./a", "a//b", rule='without "." and ".." in it'),
    *image("File", "{board}.img", "{serial.img", "serial}.img", "{}", "{{serial}}", "{serial}{x}",
           rule="only the fields"),
    *image("File", "docker.img.snapshot-20261122T201500Z", "docker.img.replaced", rule="not a snapshot or what a"),
    *image("File", ".rpinfs/docker", "docker.rpinfs-new", rule="which rpinfs keeps for its own files"),
    *image("File", "it's.img", "a\\b", rule="without quotes and backslashes"),
    *image("File", "x" * 201, rule="at most 200 bytes"),
    *image("Size", "big", "10 G", "10g", "10GB", "1.5G", "-10G", "10P", "10G big", "G", "0x10G", "٣G",
           rule="expected a size such as 20G"),
    *image("Size", "67108865", "67109376", "100000001", rule="a multiple of 4096"),
    *image("Size", "0", "4096", "63M", rule="at least 64M"),
    *image("Size", "16T", "17592186044416", "9999T", rule="less than 16T"),
    *image("FileSystem", "btrfs", "EXT4", "auto", rule="expected ext4 or xfs"),
    *image("Where", "/", "/var/lib/dpkg", "/home", rule=SYSTEM),
    *image("Where", "/sys/docker", rule="not below"),
    *image("Options", "loop", "loop=/dev/loop0", rule="the agent attaches the loop device itself"),
    *image("Options", "offset=4096", "sizelimit=1G", rule="an image holds its file system"),
    *image("Options", "ro", "noatime,ro", rule="Docker must write"),
    *image("Options", "noload", "norecovery", "nobarrier", "barrier=0", "journal_async_commit", rule=POWER_CUT),
    *image("Options", "noauto", rule="remove the section"),
    *image("Options", "x-systemd.automount", rule="Docker would start before"),
    *image("Options", "x-systemd.requires=/nfs/docker", rule=FSTAB_ONLY),
    *image("Options", "vers=4.1", "umask=0", "bind", "remount", "commit", "nouuid=1", rule="neither ext4 nor xfs has"),
    *image("Options", "commit=5,nouuid", "nouuid,acl", rule="no file system has all of them: "),
    *image("Options", "noatime discard", rule="separated by commas"),
    *image("Bind", "containerd", "/srv/a srv/b", '""', rule="expected an absolute path"),
    *image("Bind", "/usr", "/var/lib/docker-x /var/lib", rule=SYSTEM),
    *image("Bind", '"/srv/a', "/srv/it's", rule="expected a closing quote"),
    *image("Before", "docker", "docker.service podman", "k3s.unit", rule="with their ending, such as"),
    *image("Before", "podman.socket", "docker.service local-fs.target", "x.mount", "x.timer", rule="expected services"),
    *image("Before", ".service", "a!.service", "x" * 250 + ".service", rule="cannot be the name of a unit"),
    *image("Before", "rpinfs-agent.service", "rpinfs-gate.service", rule="a unit of rpinfs cannot wait for itself"),
    *image("Before", "'docker.service", rule="expected a closing quote"),
    *image("Enabled", "maybe", "never", "-1", rule="expected yes or no"),
    *image("DirectIO", "maybe", "2", "ja", rule="expected yes or no"),
    *image("Fence", "none", "lease,mmp", "LEASE", rule="expected lease, mmp or both"),
    *notify("Command", "notify", "curl -d @- https://ntfy.sh/x", "./notify", "/usr/bin/", "'' a",
            rule="expected a program with its whole path"),
    *notify("Command", "/usr/bin/notify 'to the phone", rule="expected a closing quote"),
]  # fmt: skip

SYNTAX = [
    Wrong("no equals sign", "[Server]\nAddress\n", "2", "Address", "expected Key=value, a [Section] or a comment"),
    Wrong("no section", "# x\n\nAddress=nas\nVersion=4.2\n", "3", "Address=nas", "expected a [Section] before"),
    Wrong("header not closed", "[Server\nAddress=nas\n", "1", "[Server", "expected a closing ]"),
    Wrong("comment after a header", "[Server] # nas\n", "1", "[Server] # nas", "expected a closing ]"),
    Wrong("unknown section", "[Sever]\nAddress=nas\nVersion=9\n", "1", "[Sever]", "did you mean [Server]?"),
    Wrong("section in lower case", "[boot]\nExport=/x\n", "1", "[boot]", "did you mean [Boot]?"),
    Wrong("section in the plural", "[Images docker]\n", "1", "[Images docker]", "did you mean [Image]?"),
    Wrong("section like nothing", "[Mountpoints]\n", "1", "[Mountpoints]",
          "known are [Server], [Boot], [Share], [Image]"),
    Wrong("empty header", "[]\n", "1", "[]", "unknown section"),
    Wrong("image without a name", "[Image]\nSize=20G\n", "1", "[Image]", "expected a name, such as [Image docker]"),
    Wrong("image in upper case", "[Image Docker]\n", "1", "[Image Docker]", "32 lower-case letters"),
    Wrong("image of two words", "[Image a b]\n", "1", "[Image a b]", "32 lower-case letters"),
    Wrong("image beginning with a dash", "[Image -a]\n", "1", "[Image -a]", "begins with a letter or digit"),
    Wrong("image with a slash", "[Image ../x]\n", "1", "[Image ../x]", "32 lower-case letters"),
    Wrong("image of 33 letters", f"[Image {'a' * 33}]\n", "1", f"[Image {'a' * 33}]", "at most 32"),
    Wrong("section that has no name", "[Server nas]\nAddress=nas\n", "1", "[Server nas]",
          "expected [Server] without a name"),
    Wrong("unknown key", "[Server]\nAdress=nas\n", "2", "[Server] Adress=nas", "unknown key; did you mean Address=?"),
    Wrong("key in lower case", "[Server]\naddress=nas\n", "2", "[Server] address=nas", "did you mean Address=?"),
    Wrong("key of a mount unit", "[Boot]\nWhat=/x\n", "2", "[Boot] What=/x", "unknown key"),
    Wrong("key like nothing", "[Share]\nColour=red\n", "2", "[Share] Colour=red", "known are Export=, Where="),
    Wrong("key of another section", "[Share]\nSize=20G\n", "2", "[Share] Size=20G", "Size= belongs to [Image]"),
    Wrong("key of the image in [Server]", "[Server]\nFence=mmp\n", "2", "[Server] Fence=mmp",
          "Fence= belongs to [Image]"),
    Wrong("no key", "[Server]\n=nas\n", "2", "[Server] =nas", "unknown key"),
    Wrong("indented continuation that is none", "[Image docker]\nBefore=a.service\n  b.service\n", "3", "b.service",
          "Key=value"),
    Wrong("bytes that are no UTF-8", b"[Server]\nAddress=na\xff\n", "2", "Address=na?", "expected UTF-8 text"),
    Wrong("a header that is no UTF-8", b"[Server]\n[Image d\xff]\nSize=20G\n", "2", "[Image d?]",
          "expected UTF-8 text"),
    Wrong("a zero byte", b"[Server]\nAddress=n\0s\n", "2", "Address=n?s", "expected UTF-8 text"),
    Wrong("UTF-16", "[Server]".encode("utf-16-le"), "1", "[?S?e?r?v?e?r?]?", "expected UTF-8 text"),
    Wrong("terminal escapes", "[Share]\nWhere=/srv/\x1b[31m\n", "2", "[Share] Where=/srv/?[31m", "expected printable"),
    Wrong("a tab in a path", "[Share]\nWhere=/srv/a\tb\n", "2", "[Share] Where=/srv/a?b", "expected printable"),
    Wrong("a second error behind a first continuation", "[Server]\nOptions=rsize=1,\\\n# not this\n  soft\n\n", "2",
          "[Server] Options=rsize=1, soft", "soft is refused"),
    Wrong("line numbers go on behind a continuation", "[Server]\nOptions=rsize=1,\\\n  acl\nVersion=9\n", "4",
          "[Server] Version=9", "expected 3"),
    Wrong("an empty line ends a continuation", "[Server]\nAddress=nas\\\n\n.local\n", "4", ".local",
          "expected Key=value"),
    Wrong("Windows line ends", "[Server]\r\nVersion=9\r\n", "2", "[Server] Version=9", "expected 3"),
    Wrong("other line separators are no line ends", "[Server]\n# \x0c \u2028 \x85\nVersion=9\n", "3",
          "[Server] Version=9", "expected 3"),
    Wrong("a wrong value that a later one replaces", "[Server]\nVersion=9\nVersion=4.2\n", "2", "[Server] Version=9",
          "expected"),
    *(Wrong(f"a comment behind {what}", f"[{section}]\n{text}\n", "2", f"[{section}] {quoted}", COMMENT)
      for what, section, text, quoted in (
          ("a file", "Image docker", "File=docker.img # the old one", "File=docker.img # the old one"),
          ("a size", "Image docker", "Size=20G ; more", "Size=20G ; more"),
          ("a tab", "Image docker", "Enabled=no\t# for now", "Enabled=no?# for now"),
          ("an option", "Server", "Options=timeo=600,retrans=2 #,udp", "Options=timeo=600,retrans=2 #,udp"),
          ("no value", "Boot", "Export= # none", "Export=# none"),
          ("a quoted folder", "Image docker", 'Bind="/srv/a #1"', 'Bind="/srv/a #1"'),
          ("a continued line", "Server", "Options=acl,\\\n  retrans=2 # why", "Options=acl, retrans=2 # why"),
      )),
    Wrong("a wrong value after a right one", "[Image docker]\nSize=20G\nSize=20X\n", "3", "[Image docker] Size=20X",
          "20G"),
    Wrong("a long value", f"[Server]\nAddress={'x' * 4000}\n", "2", f"[Server] Address={'x' * 197}...", ADDRESS),
    Wrong("a long line", "x" * 4000, "1", "x" * 197 + "...", "expected Key=value"),
    Wrong("a folder instead of a file", None, MAIN, "", "cannot be read: Is a directory"),
    Wrong("a link to nowhere", Path("/nonexistent/rpinfs.conf"), MAIN, "", "cannot be read: No such file"),
    Wrong("a link to itself", Path("rpinfs.conf"), MAIN, "", "cannot be read: Too many levels of symbolic links"),
]  # fmt: skip

TWO = "[Image docker]\n[Image data]\nWhere=/srv/data\n"
NOT_ON_NFS = {"proc/cmdline": "root=/dev/mmcblk0p2\n"}
NAMELESS = {"proc/device-tree/serial-number": b""}

BETWEEN = [
    Wrong("image on the share", "[Image docker]\nWhere=/nfs/docker\n", "2", "[Image docker] Where=/nfs/docker",
          "two mounts at /nfs/docker: [Share] Where=/nfs/docker"),
    Wrong("share on the image's default", "[Share]\nWhere=/var/lib/docker\n", "2", "[Share] Where=/var/lib/docker",
          "two mounts at /var/lib/docker: [Image docker] Where=/var/lib/docker"),
    Wrong("share on the boot mount", "[Boot]\nWhere=/srv/x\n[Share]\nWhere=/srv/x/\n", "4", "[Share] Where=/srv/x/",
          "two mounts at /srv/x: [Boot] Where=/srv/x"),
    Wrong("the same place written in another way", "[Share]\nWhere=/srv/x\n[Image docker]\nWhere=//srv/./x/\n", "4",
          "[Image docker] Where=//srv/./x/", "two mounts at /srv/x: [Share] Where=/srv/x"),
    Wrong("a second image without Where=", "[Image docker]\n\n[Image data]\nSize=20G\n", "3",
          "[Image data] Where=/var/lib/docker", "two mounts at /var/lib/docker: [Image docker]"),
    *(single("Image docker", "Where", folder, f"take a folder below it, such as {folder.rstrip('/')}/docker",
             f"a remedy for {folder}") for folder in ("/mnt", "/home", "/srv", "/media/", "/opt")),
    Wrong("an image in the place of Docker's", "[Image main]\nWhere=/var/lib/docker\n", "2",
          "[Image main] Where=/var/lib/docker", "[Image docker] with Enabled=no takes it out of use"),
    Wrong("a second image without Where=, and Docker's unsaid", "[Image data]\nSize=20G\n", "1",
          "[Image data] Where=/var/lib/docker", "[Image docker] with Enabled=no takes it out of use"),
    Wrong("folder kept in two images", TWO + "Bind=/var/lib/containerd\n", "4", "[Image data] Bind=/var/lib/containerd",
          "two mounts at /var/lib/containerd: [Image docker] Bind=/var/lib/containerd"),
    Wrong("second image where the first has its folder", "[Image data]\nWhere=/var/lib/containerd\n[Image docker]\n",
          "2",
          "[Image data] Where=/var/lib/containerd", "two mounts at /var/lib/containerd: [Image docker] Bind="),
    Wrong("the first of several folders is at fault", "[Image docker]\nBind=/nfs/docker\nBind=/srv/a\n", "2",
          "[Image docker] Bind=/nfs/docker", "two mounts at /nfs/docker"),
    Wrong("share below the image", "[Share]\nWhere=/var/lib/docker/share\n", "2", "[Share] Where=/var/lib/docker/share",
          "the mount point /var/lib/docker/share lies below the mount point /var/lib/docker"),
    Wrong("image below the share", "[Image docker]\nWhere=/nfs/docker/data\n", "2",
          "[Image docker] Where=/nfs/docker/data",
          "the mount point /nfs/docker/data lies below the mount point /nfs/docker"),
    Wrong("folder below its own image", "[Image docker]\nBind=/var/lib/docker/x\n", "2",
          "[Image docker] Bind=/var/lib/docker/x",
          "lies below the mount point /var/lib/docker"),
    Wrong("image above another", "[Image data]\nWhere=/srv/a/b\n[Image docker]\nWhere=/srv/a\n", "4",
          "[Image docker] Where=/srv/a", "the mount point /srv/a/b lies below the mount point /srv/a"),
    Wrong("folder below a folder", "[Image docker]\nBind=/srv/a\nBind=/srv/a/b\n", "3", "[Image docker] Bind=/srv/a/b",
          "the mount point /srv/a/b lies below the mount point /srv/a"),
    Wrong("boot below the share", "[Boot]\nWhere=/nfs/docker/boot\n", "2", "[Boot] Where=/nfs/docker/boot",
          "lies below"),
    Wrong("one file for two images", TWO + f"File=docker-{SERIAL}.img\n", "4", f"[Image data] File=docker-{SERIAL}.img",
          "one file for two images: [Image docker] has docker-"),
    Wrong("one template for two images", "[Image docker]\nFile={mac}.img\n[Image data]\nWhere=/srv/x\nFile={mac}.img\n",
          "5",
          "[Image data] File={mac}.img", "one file for two images: [Image docker]",
          {"sys/class/net/eth0/address": "dc:a6:32:01:02:03\n", "sys/class/net/eth0/device": None}),
    Wrong("the default file of another",
          f"[Image a]\nWhere=/srv/a\nFile=b-{SERIAL}.img\n[Image b]\nWhere=/srv/b\n", "4",
          "[Image b] File=b-{serial}.img", "one file for two images: [Image a]"),
    Wrong("mmp on xfs", "[Image docker]\nFileSystem=xfs\nFence=mmp\n", "2", "[Image docker] FileSystem=xfs",
          "Fence=mmp works on ext4 only"),
    Wrong("both fences on xfs", "[Image docker]\nFence=both\nFileSystem=xfs\n", "3", "[Image docker] FileSystem=xfs",
          "Fence=both works on ext4 only"),
    Wrong("mmp over a buffered loop device", "[Image docker]\nFence=mmp\nDirectIO=no\n", "3",
          "[Image docker] DirectIO=no",
          "Fence=mmp protects only with DirectIO=yes"),
    Wrong("version 3 with xfs", "[Server]\nVersion=3\n[Image docker]\nFileSystem=xfs\n", "4",
          "[Image docker] FileSystem=xfs",
          "Version=3 needs ext4's multi-mount protection"),
    Wrong("version 3 over a buffered loop device", "[Server]\nVersion=3\n[Image docker]\nDirectIO=off\n", "4",
          "[Image docker] DirectIO=off",
          "Version=3 needs ext4's multi-mount protection, which protects only with DirectIO=yes"),
    Wrong("an option of xfs on ext4", "[Image docker]\nFileSystem=ext4\nOptions=noatime,pquota\n", "3",
          "[Image docker] Options=noatime,pquota", "pquota is refused: ext4 has no such mount option; it is one of xf"),
    Wrong("an option of ext4 on xfs", "[Image docker]\nFileSystem=xfs\nOptions=acl\n", "3",
          "[Image docker] Options=acl", "acl is refused: xfs has no such mount option; it is one of ext4"),
    Wrong("UDP with 4.2", "[Server]\nOptions=udp\nVersion=4.2\n", "2", "[Server] Options=udp", "NFS 4.2 goes over TCP"),
    Wrong("too small for xfs", "[Image docker]\nFileSystem=xfs\nSize=100M\n", "3", "[Image docker] Size=100M",
          "expected at least 300M for xfs"),
    Wrong("no server", "[Share]\nExport=/srv/docker\n", "default", "[Server] Address=",
          "do not name the server; set Address=",
          NOT_ON_NFS),
    Wrong("a server taken away", "[Server]\nAddress=nas\nAddress=\n", "3", "[Server] Address=",
          "do not name the server",
          NOT_ON_NFS),
    Wrong("the misspelt server is not also a missing one", "[Server]\nAdress=nas\n", "2", "[Server] Adress=nas",
          "did you mean Address=?", NOT_ON_NFS),
    Wrong("the wrong server is not also a missing one", "[Server]\nAddress=n s\n", "2", "[Server] Address=n s", ADDRESS,
          NOT_ON_NFS),
    Wrong("no serial number", "", "default", "[Image docker] File=docker-{serial}.img", "this machine has no {serial}",
          NAMELESS),
    Wrong("no serial number, with a section", "\n[Image docker]\n", "2", "[Image docker] File=docker-{serial}.img",
          "this machine has no {serial}", NAMELESS),
    Wrong("no MAC address", "[Image docker]\nFile={mac}\n", "2", "[Image docker] File={mac}",
          "this machine has no {mac}"),
    Wrong("no host name", "[Image docker]\nFile={hostname}\n", "2", "[Image docker] File={hostname}",
          "has no {hostname}",
          {"proc/sys/kernel/hostname": "(none)\n"}),
    Wrong("a host name of everybody", "[Image docker]\nFile={hostname}\n", "2", "[Image docker] File={hostname}",
          "has no {hostname}", {"etc/hostname": "localhost\n"}),
    Wrong("a machine ID to come", "[Image docker]\nFile={machine-id}\n", "2", "[Image docker] File={machine-id}",
          "has no {machine-id}", {"etc/machine-id": "uninitialized\n"}),
    Wrong("a serial number that is a path", "[Image docker]\nFile={serial}\n", "2", "[Image docker] File={serial}",
          "this machine has no {serial}", {"proc/device-tree/serial-number": "../x\0"}),
    Wrong("a wrong place is not also a double one", "[Image docker]\n[Image data]\nWhere=/etc\n", "3",
          "[Image data] Where=/etc", SYSTEM),
    Wrong("a misspelt place is not also a double one", "[Image docker]\n[Image data]\nWere=/srv/x\n", "3",
          "[Image data] Were=/srv/x", "did you mean Where=?"),
]  # fmt: skip


def line(word: str, what: str, rule: str) -> Wrong:
    """A wrong word on the kernel command line."""
    return Wrong(f"command line {word}", "[Image docker]\n", COMMAND_LINE, what, rule, cmdline=word)


KERNEL_COMMAND_LINE = [
    line("rpinfs=of", "rpinfs=of", "expected on or off"),
    line("rpinfs", "rpinfs=", "expected on or off"),
    line("rpinfs.sever.address=nas", "rpinfs.sever.address=nas", "did you mean rpinfs.server?"),
    line("rpinfs.Server.address=nas", "rpinfs.Server.address=nas", "did you mean rpinfs.server?"),
    line("rpinfs.server.adress=nas", "rpinfs.server.adress=nas", "did you mean address=?"),
    line("rpinfs.server.Address=nas", "rpinfs.server.Address=nas", "did you mean address=?"),
    line("rpinfs.server=nas", "rpinfs.server=nas", "expected rpinfs.server.KEY=VALUE"),
    line("rpinfs.server.nas.address=x", "rpinfs.server.nas.address=x", "expected rpinfs.server.KEY=VALUE"),
    line("rpinfs.image.size=20G", "rpinfs.image.size=20G", "expected rpinfs.image.NAME.KEY=VALUE"),
    line("rpinfs.image.Docker.size=20G", "rpinfs.image.Docker.size=20G", "lower-case letters"),
    line("rpinfs.image..size=20G", "rpinfs.image..size=20G", "expected a name"),
    line("rpinfs.image.docker.sise=20G", "rpinfs.image.docker.sise=20G", "did you mean size=?"),
    line("rpinfs.=x", "rpinfs.=x", "known are rpinfs.server, rpinfs.boot, rpinfs.share, rpinfs.image"),
    line("rpinfs.image.docker.size=20", "[Image docker] Size=20", "expected a multiple of 4096|expected at least 64M"),
    line("rpinfs.image.docker.where=/etc", "[Image docker] Where=/etc", SYSTEM),
    line('"rpinfs.server.address=nas local"', "[Server] Address=nas local", ADDRESS),
    line('rpinfs.image.docker.file="a.img # the old one"', "rpinfs.image.docker.file=a.img # the old one", COMMENT),
    line("rpinfs.server.options=hard,soft", "[Server] Options=hard,soft", "soft is refused"),
    line("rpinfs.share.where=/var/lib/docker", "[Share] Where=/var/lib/docker", "two mounts at /var/lib/docker"),
    line("rpinfs.image.doker.size=20G", "[Image doker] Size=20G", "unknown image; did you mean docker?"),
    line("rpinfs.image.data.size=1G", "[Image data] Size=1G", "unknown image; known are docker"),
    line(
        "rpinfs.image.docker.fence=mmp rpinfs.image.docker.filesystem=xfs", "[Image docker] FileSystem=xfs", "ext4 only"
    ),
]


def drop_in(title: str, path: str, text: Content, place: str, what: str, rule: str, **more: Content) -> Wrong:
    """A wrong drop-in beside a main file that is right."""
    return Wrong(title, "[Server]\nVersion=4.2\n[Image docker]\nSize=20G\n", place, what, rule, {path: text, **more})


DROP_INS = [
    drop_in("drop-in in /etc", f"{ETC}/10-nas.conf", "[Server]\nAddress=n s\n", f"{ETC}/10-nas.conf:2",
            "[Server] Address=n s", ADDRESS),
    drop_in("drop-in in /run", f"{RUN}/10-nas.conf", "\n[Server]\nAddress=n s\n", f"{RUN}/10-nas.conf:3",
            "[Server] Address=n s", ADDRESS),
    drop_in("drop-in in /usr", f"{USR}/10-nas.conf", "[Server]\nAddress=n s\n", f"{USR}/10-nas.conf:2",
            "[Server] Address=n s", ADDRESS),
    drop_in("syntax in a drop-in", f"{ETC}/x.conf", "[Sever]\n", f"{ETC}/x.conf:1", "[Sever]", "did you mean"),
    drop_in("a section does not go on from file to file", f"{ETC}/x.conf", "Size=20G\n", f"{ETC}/x.conf:1", "Size=20G",
            "expected a [Section] before"),
    drop_in("a drop-in against the main file", f"{ETC}/x.conf", "[Image docker]\nFileSystem=xfs\nSize=100M\n",
            f"{ETC}/x.conf:3", "[Image docker] Size=100M", "at least 300M"),
    drop_in("the main file against a drop-in", f"{ETC}/x.conf",
            "[Image docker]\nFence=mmp\n[Share]\nWhere=/var/lib/docker\n",
            f"{ETC}/x.conf:4", "[Share] Where=/var/lib/docker", "two mounts at"),
    drop_in("an image in a drop-in without a place", f"{ETC}/x.conf", "# Data\n[Image data]\n", f"{ETC}/x.conf:2",
            "[Image data] Where=/var/lib/docker", "two mounts at"),
    drop_in("a drop-in that is a folder", f"{ETC}/x.conf", None, f"{ETC}/x.conf", "", "cannot be read: Is a directory"),
    drop_in("a drop-in that is a link to nowhere", f"{ETC}/x.conf", Path("/nonexistent"), f"{ETC}/x.conf", "",
            "No such file"),
    drop_in("a folder of drop-ins that is a file", ETC, "[Server]\n", ETC, "", "cannot be read: Not a directory"),
    drop_in("the one of two drop-ins of a name that counts", f"{RUN}/x.conf", "[Server]\nVersion=8\n",
            f"{RUN}/x.conf:2",
            "[Server] Version=8", "expected 3", **{f"{USR}/x.conf": "[Server]\nVersion=9\n"}),
]  # fmt: skip

WRONG = [*SINGLE, *SYNTAX, *BETWEEN, *KERNEL_COMMAND_LINE, *DROP_INS]


def titles(cases: list[Wrong] | list[Right]) -> list[str]:
    return [case.title for case in cases]


def make(root: Path, case: Wrong | Right) -> Path:
    return make_pi(root, case.text, case.files, case.cmdline)


@pytest.mark.parametrize("case", WRONG, ids=titles(WRONG))
def test_one_error_says_where_what_and_why(root: Path, case: Wrong) -> None:
    _, errors = examine(Host.read(str(make(root, case))))
    assert [error.message for error in errors] == [errors[0].message]
    message = errors[0].message
    lead = f"{case.where}: {case.what}: " if case.what else f"{case.where}: "
    assert message.startswith(lead)
    assert any(rule in message[len(lead) :] for rule in case.rule.split("|"))
    assert errors[0].status == 2


@pytest.mark.parametrize("case", WRONG, ids=titles(WRONG))
def test_the_command_says_it_in_one_line_and_exits_2(
    root: Path, case: Wrong, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a call: 200 programs took half of the time of all tests of boot/."""
    _, errors = examine(Host.read(str(make(root, case))))
    monkeypatch.setenv("RPINFS_ROOT", str(root))
    status = cli.main(["config", "check"])
    done = capsys.readouterr()
    first, *more = done.err.split("\n")
    assert first.isprintable() and first == f"rpinfs: {errors[0].message}"
    assert len(more) <= 2 and more[-1] == "" and all(remedy.startswith("rpinfs: ") for remedy in more[:-1])
    assert (status, done.out) == (2, "")


def test_every_key_has_a_wrong_value() -> None:
    """A key that is new in the table of settings comes with its wrong values in the table above."""
    tried = {
        (case.what.split("]")[0].strip("[").split(" ")[0], case.what.split("] ")[1].split("=")[0]) for case in SINGLE
    }
    assert tried == {(setting.section, setting.key) for setting in SETTINGS}


def test_the_table_is_long_and_its_titles_are_unique() -> None:
    assert len(WRONG) > 60
    assert len(set(titles(WRONG))) == len(WRONG)


@pytest.mark.parametrize("word", ["soft", "softerr"])
def test_an_option_refused_on_one_mount_is_refused_on_both(root: Path, word: str) -> None:
    text = f"[Server]\nOptions={word}\n[Boot]\nOptions={word}\n"
    _, errors = examine(Host.read(str(make_pi(root, text))))
    assert [(error.file, error.line) for error in errors] == [(MAIN, 2), (MAIN, 4)]


def test_several_errors_come_in_the_order_of_the_files(root: Path, installed: Installed) -> None:
    text = "[Image docker]\nSize=x\n[Server]\nVersion=x\nColour=x\n"
    files: dict[str, Content] = {f"{ETC}/1.conf": "[Share]\nWhere=x\n", f"{USR}/0.conf": "[Boot]\nWhere=x\n"}
    make_pi(root, text, files, "rpinfs.share.export=x")
    _, errors = examine(Host.read(str(root)))
    found = [(error.file, error.line) for error in errors]
    assert found == [(MAIN, 2), (MAIN, 4), (MAIN, 5), (f"{USR}/0.conf", 2), (f"{ETC}/1.conf", 2), (COMMAND_LINE, 0)]
    done = installed.run(installed.rpinfs, "config", "check", root=root)
    assert [error.message for error in errors] == [
        text.removeprefix("rpinfs: ")
        for text in done.stderr.splitlines()
        if ": expected" in text or ": unknown" in text
    ]
    assert done.returncode == 2


# What must be accepted


class Right(NamedTuple):
    title: str
    text: Content
    expected: Mapping[str, object]
    """What an expression about the configuration gives."""
    files: Mapping[str, Content] = {}
    cmdline: str = ""


IMAGE = "[Image docker]\n"

RIGHT = [
    Right("nothing", "", {"server.address": "192.168.1.10", "boot.where": "/boot/firmware",
          "images[0].size": 10 << 30}),
    Right("comments alone", "# Size=1\n ; x\n\n", {"images[0].file": f"docker-{SERIAL}.img"}),
    Right("a name", "[Server]\nAddress=nas.local\n", {"server.source": "nas.local"}),
    Right("a name with its last dot", "[Server]\nAddress=nas.local.\n", {"server.source": "nas.local."}),
    Right("an underscore in a name", "[Server]\nAddress=my_nas\n", {"server.source": "my_nas"}),
    Right("IPv6", "[Server]\nAddress=2001:db8::10\n", {"server.source": "[2001:db8::10]"}),
    Right("IPv6 in brackets", "[Server]\nAddress=[2001:DB8::10]\n", {"server.source": "[2001:DB8::10]"}),
    Right("IPv6 with a zone", "[Server]\nAddress=fe80::1%eth0\n", {"server.source": "[fe80::1%eth0]"}),
    Right("IPv6 with IPv4 in it", "[Server]\nAddress=::ffff:10.0.0.1\n", {"server.source": "[::ffff:10.0.0.1]"}),
    Right("IPv6 in full", "[Server]\nAddress=1:2:3:4:5:6:7:8\n", {"server.source": "[1:2:3:4:5:6:7:8]"}),
    Right("every version", "[Server]\nVersion=3\nVersion=4.0\nVersion=4.1\nVersion=4.2\n", {"server.version": "4.2"}),
    Right("the last value wins", "[Server]\nAddress=a\nAddress=b\n", {"server.address": "b"}),
    Right("an empty value resets", "[Server]\nAddress=a\nAddress=\n", {"server.address": "192.168.1.10"}),
    Right("a section in pieces", IMAGE + "Size=1G\n[Boot]\n" + IMAGE + "DirectIO=no\n",
          {"images[0].size": 1 << 30, "images[0].direct_io": False, "len(images)": 1}),
    Right("a continued line", "[Server]\nOptions=rsize=65536,\\\n  # why\n  wsize=65536\n",
          {"server.options": ["rsize=65536", "wsize=65536"]}),
    Right("a continuation at the end of the file", "[Server]\nAddress=nas\\", {"server.address": "nas"}),
    Right("spaces around everything", "  [ Server ]\t\n\tAddress \t=  nas \n", {"server.address": "nas"}),
    Right("a byte order mark and Windows line ends", "\ufeff[Server]\r\nAddress=nas\r\n", {"server.address": "nas"}),
    Right("an equals sign in a value", IMAGE + "File=a=b.img\n", {"images[0].path": "/nfs/docker/a=b.img"}),
    Right("a hash in a value", IMAGE + "File=a#b.img\n", {"images[0].file": "a#b.img"}),
    Right("lists add up", "[Server]\nOptions=acl\nOptions=timeo=50,acl\n", {"server.options": ["acl", "timeo=50"]}),
    Right("the first of a list replaces the default", IMAGE + "Options=discard\n", {"images[0].options": ["discard"]}),
    Right("a list reset", IMAGE + "Options=sync\nOptions=\nOptions=acl\n", {"images[0].options": ["acl"]}),
    Right("a list emptied", IMAGE + "Bind=\nBefore=\n", {"images[0].bind": [], "images[0].before": []}),
    Right("no boot mount", "[Boot]\nExport=\n", {"boot": None}),
    Right("the boot mount reset", "[Boot]\nExport=\nExport=/pi\n", {"boot.export": "/pi"}),
    Right("boot in /boot", "[Boot]\nWhere=/boot\n", {"boot.where": "/boot"}),
    Right("boot elsewhere", "[Boot]\nWhere=/mnt/boot\n", {"boot.where": "/mnt/boot"}),
    Right("boot at the mount point of nothing", "[Boot]\nExport=\nWhere=/nfs/docker\n", {"boot": None}),
    Right("the root of the server", "[Share]\nExport=/\n", {"share.export": "/"}),
    Right("a path to tidy up", "[Share]\nExport=//srv/./docker/\n", {"share.export": "/srv/docker"}),
    Right("spaces in paths", "[Share]\nExport=/my docker\nWhere=/nfs/my docker\n",
          {"share.export": "/my docker", "images[0].path": f"/nfs/my docker/docker-{SERIAL}.img"}),
    Right("per cent, dash, dot", "[Share]\nExport=/50%\nWhere=/nfs/my-dock.er%h\n",
          {"share.export": "/50%", "share.where": "/nfs/my-dock.er%h"}),
    Right("letters of the world", "[Share]\nWhere=/nfs/größe\n", {"share.where": "/nfs/größe"}),
    Right("a mount point as long as can be", "[Share]\nWhere=/" + "a/" * 124 + "b\n",
          {"share.where": "/" + "a/" * 124 + "b"}),
    Right("neighbours are not nested", IMAGE + "Where=/nfs/docker-data\nBind=/nfs/docker2\n",
          {"images[0].where": "/nfs/docker-data"}),
    Right("a folder on the share", IMAGE + "File=pis/{serial}/docker.img\n",
          {"images[0].path": f"/nfs/docker/pis/{SERIAL}/docker.img"}),
    Right("all fields", IMAGE + "File={serial}_{mac}_{hostname}_{machine-id}\n",
          {"images[0].file": f"{SERIAL}_dc-a6-32-01-02-03_pi_{'01' * 16}"},
          {"etc/hostname": "pi\n", "etc/machine-id": "01" * 16 + "\n",
           "sys/class/net/eth0/address": "dc:a6:32:01:02:03\n", "sys/class/net/eth0/device": None}),
    Right("the MAC address for want of a serial number", "", {"images[0].file": "docker-dc-a6-32-01-02-03.img"},
          {**NAMELESS, "sys/class/net/eth0/address": "dc:a6:32:01:02:03\n", "sys/class/net/eth0/device": None}),
    Right("a file with a space and a per cent", IMAGE + "File=my image 50%.img\n",
          {"images[0].file": "my image 50%.img"}),
    Right("sizes", IMAGE + "Size=64M\nSize=65536K\nSize=1T\nSize=68719476736\nSize=64GiB\n",
          {"images[0].size": 64 << 30}),
    Right("the largest size", IMAGE + "Size=17592186040320\n", {"images[0].size": 17592186040320}),
    Right("xfs", IMAGE + "FileSystem=xfs\nSize=300M\n", {"images[0].filesystem": "xfs"}),
    Right("the smallest xfs by default size", IMAGE + "FileSystem=xfs\n", {"images[0].size": 10 << 30}),
    Right("booleans", IMAGE + "DirectIO=no\nDirectIO=TRUE\nDirectIO=0\nDirectIO=on\n", {"images[0].direct_io": True}),
    Right("mmp", IMAGE + "Fence=mmp\n", {"images[0].fence": "mmp"}),
    Right("version 3 has mmp at the least", "[Server]\nVersion=3\n", {"images[0].fence": "both"}),
    Right("version 3 with mmp alone", "[Server]\nVersion=3\n[Image docker]\nFence=mmp\n", {"images[0].fence": "mmp"}),
    Right("UDP with version 3", "[Server]\nVersion=3\nOptions=udp\n", {"server.options": ["udp"]}),
    Right("an option of xfs, and no file system said", IMAGE + "Options=nouuid\n", {"images[0].options": ["nouuid"]}),
    Right("options of all kinds", "[Server]\nOptions=rsize=1048576,nconnect=4,lookupcache=pos,sec=krb5:sys,fsc,x-a=b\n",
          {"len(server.options)": 6}),
    Right("barriers said aloud", IMAGE + "Options=barrier=1\n", {"images[0].options": ["barrier=1"]}),
    Right("names in quotes", IMAGE + "Bind=\"/srv/my data\" '/srv/your data'\n",
          {"images[0].bind": ["/srv/my data", "/srv/your data"]}),
    Right("services by all kinds of names",
          IMAGE + "Before=docker.service k3s@1.service a\\x2db.service\nBefore=podman.service\n",
          {"images[0].before": ["docker.service", "k3s@1.service", "a\\x2db.service", "podman.service"]}),
    Right("a unit named twice", IMAGE + "Before=docker.service docker.service\n",
          {"images[0].before": ["docker.service"]}),
    Right("two images", TWO, {"len(images)": 2, "images[1].where": "/srv/data", "images[1].bind": [],
          "images[1].before": []}),
    Right("an image in place of docker", "[Image podman]\nWhere=/var/lib/containers\n[Image docker]\nEnabled=no\n",
          {"images[0].name": "podman", "len(images)": 1, "images[0].file": f"podman-{SERIAL}.img"}),
    Right("an image beside docker", "[Image podman]\nWhere=/var/lib/containers\n",
          {"images[0].name": "docker", "len(images)": 2, "images[1].file": f"podman-{SERIAL}.img"}),
    Right("marks of comments within a name", "[Image docker]\nFile=a#1;b.img\n", {"images[0].file": "a#1;b.img"}),
    Right("drop-ins in the order of their names", "[Server]\nAddress=main\n", {"server.address": "third"},
          {f"{ETC}/10.conf": "[Server]\nAddress=first\n", f"{USR}/30.conf": "[Server]\nAddress=third\n",
           f"{RUN}/20.conf": "[Server]\nAddress=second\n"}),
    Right("/etc over /run over /usr", "", {"server.address": "etc", "server.version": "4.2"},
          {f"{ETC}/a.conf": "[Server]\nAddress=etc\n", f"{RUN}/a.conf": "[Server]\nAddress=n s\n",
           f"{USR}/a.conf": "nonsense\n", f"{RUN}/b.conf": "[Server]\nVersion=4.2\n", f"{USR}/b.conf": "nonsense\n"}),
    Right("an empty file masks", "", {"server.address": "192.168.1.10"},
          {f"{ETC}/a.conf": "", f"{USR}/a.conf": "[Server]\nAddress=n s\n"}),
    Right("a link to /dev/null masks", "", {"server.address": "192.168.1.10"},
          {f"{ETC}/a.conf": Path("/dev/null"), f"{USR}/a.conf": "[Server]\nAddress=n s\n"}),
    Right("other names are no drop-ins", "", {"server.address": "192.168.1.10"},
          {f"{ETC}/a.conf.bak": "nonsense\n", f"{ETC}/.a.conf": "nonsense\n", f"{ETC}/README": "nonsense\n"}),
    Right("a main file that is a link to /dev/null", Path("/dev/null"), {"len(images)": 1}),
    Right("a reset in a drop-in", "[Server]\nOptions=acl,sync\n", {"server.options": ["nocto"]},
          {f"{ETC}/a.conf": "[Server]\nOptions=\nOptions=nocto\n"}),
    Right("the command line wins", "[Image docker]\nSize=1G\n", {"images[0].size": 20 << 30,
          "server.address": "10.0.0.1"},
          {f"{ETC}/a.conf": "[Image docker]\nSize=2G\n"},
          "rpinfs.image.docker.size=20G rpinfs.server.address=10.0.0.1"),
    Right("quotes on the command line", "", {"images[0].before": ["a.service", "b.service"]},
          cmdline='rpinfs.image.docker.before="a.service b.service"'),
    Right("a reset on the command line", "[Server]\nAddress=nas\n", {"server.address": "192.168.1.10"},
          cmdline="rpinfs.server.address="),
    Right("words for another program", "", {"len(images)": 1},
          cmdline="rpinfsx=1 xrpinfs.server.address=1 -- rpinfs.x=1"),
    Right("said to be on", "", {"len(images)": 1}, cmdline="rpinfs=on"),
    Right("off, then on", "", {"in_use": True}, cmdline="rpinfs=off rpinfs=on"),
    Right("a wrong value in a machine that is off", "[Server]\nAddress=n s\n", {"in_use": False}, cmdline="rpinfs=off"),
]  # fmt: skip


def evaluate(config: Config, expression: str) -> object:
    names = {name: getattr(config, name) for name in ("server", "boot", "share", "images", "in_use")}
    return eval(expression, {"len": len, **names})


@pytest.mark.parametrize("case", RIGHT, ids=[case.title for case in RIGHT])
def test_right_values_are_taken(root: Path, case: Right) -> None:
    config, errors = examine(Host.read(str(make(root, case))))
    assert [error.message for error in errors] == []
    assert {expression: evaluate(config, expression) for expression in case.expected} == case.expected


def test_the_program_takes_right_values(root: Path, installed: Installed) -> None:
    make_pi(root, "[Server]\nAddress=nas.local\n")
    done = installed.run(installed.rpinfs, "config", "check", root=root)
    assert (done.returncode, done.stderr) == (0, "")
