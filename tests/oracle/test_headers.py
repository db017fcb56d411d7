"""The C headers as an oracle: each number and layout that rpinfs hands to the kernel, on this machine and on each Pi's.

A Pi is arm64 or armhf, the tests mostly run on neither. Debian's cross headers and the first half of its cross
compilers (cc1, which checks and makes no code) say what the same names mean there. What Python has a name for
(os.O_DIRECTORY differs on ARM) is not written as a number at all.
"""

from __future__ import annotations

import ast
import importlib
import re
import struct
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support import TOP

# For their layouts and numbers; xfs/xfs_fs.h is the same for every architecture, and belongs to a package of its own.
HEADERS = (
    *("stddef.h", "fcntl.h", "sched.h", "sys/mount.h", "sys/prctl.h", "sys/socket.h", "linux/capability.h"),
    *("linux/falloc.h", "linux/fs.h", "linux/if_ether.h", "linux/if_packet.h", "linux/loop.h", "linux/major.h"),
    *("linux/openat2.h", "sys/stat.h", "sys/syscall.h", "sys/ioctl.h", "net/if.h", "netinet/in.h"),
    *("linux/filter.h", "linux/rtnetlink.h"),
)
QUESTION = "struct question { struct nlmsghdr head; struct rtmsg route; };\n"
"""What network.py asks rtnetlink."""

XFS = """\
#define __user
typedef __u32 prid_t;
typedef __s64 xfs_off_t;
#include "/usr/include/xfs/xfs_fs.h"
"""

NUMBERS = {
    "boot.overlay": ("_FSCONFIG_SET_STRING", "_FSCONFIG_CMD_CREATE"),
    "boot.storage": ("LOOP_MAJOR", "_LOOP_GET_STATUS64"),
    "image.copying": ("FICLONE",),
    "image.freeze": ("FIFREEZE", "FITHAW"),
    "image.grow": ("_XFS_IOC_FSGEOMETRY_V1",),
    "netboot.add.inside": ("_MNT_DETACH", "_PR_CAPBSET_READ", "_PR_CAPBSET_DROP"),
    "netboot.mtu": ("_SIOCGIFMTU",),
    "netboot.wire": ("_SOL_PACKET", "_PACKET_ADD_MEMBERSHIP", "_PACKET_MR_MULTICAST"),
    "system.loop": (
        *("LOOP_CLR_FD", "LOOP_GET_STATUS64", "LOOP_SET_CAPACITY", "LOOP_SET_DIRECT_IO", "LOOP_CONFIGURE"),
        *("LOOP_CTL_GET_FREE", "LO_FLAGS_AUTOCLEAR", "LO_FLAGS_DIRECT_IO"),
    ),
    "system.syscalls": (
        *("MNT_FORCE", "CLONE_NEWNS", "MS_REC", "MS_SLAVE", "RENAME_NOREPLACE", "AT_FDCWD", "OPEN_TREE_CLONE"),
        *("FALLOC_FL_KEEP_SIZE", "FALLOC_FL_PUNCH_HOLE"),
        *("RESOLVE_CACHED", "AT_EMPTY_PATH", "AT_STATX_DONT_SYNC", "STATX_BLOCKS"),
    ),
}
"""Names of ours that are the headers' own, but for a leading underscore."""

OTHER_NAMES = {
    ("boot.overlay", "_CLOEXEC"): ("FSOPEN_CLOEXEC", "FSMOUNT_CLOEXEC"),
    ("boot.storage", "_STATUS_SIZE"): ("sizeof(struct loop_info64)",),
    ("netboot.add.inside", "_CAPABILITY_VERSION_3"): ("_LINUX_CAPABILITY_VERSION_3",),
    ("netboot.listening", "_ALL"): ("ETH_P_ALL",),
    ("netboot.listening", "_ATTACH_FILTER"): ("SO_ATTACH_FILTER",),
    ("netboot.listening", "_IPV4"): ("ETH_P_IP",),
    ("netboot.mtu", "_MTU_DISCOVER"): ("IP_MTU_DISCOVER",),
    ("netboot.mtu", "_PROBE"): ("IP_PMTUDISC_PROBE",),
    ("netboot.wire", "_LLC"): ("ETH_P_802_2",),
    ("system.network", "_NEW_ROUTE"): ("RTM_NEWROUTE",),
    ("system.network", "_GET_ROUTE"): ("RTM_GETROUTE",),
    ("system.network", "_REQUEST"): ("NLM_F_REQUEST",),
    ("system.network", "_DESTINATION"): ("RTA_DST",),
    ("system.network", "_INTERFACE"): ("RTA_OIF",),
    ("system.network", "_GATEWAY"): ("RTA_GATEWAY",),
    ("system.network", "_SOURCE"): ("RTA_PREFSRC",),
    ("system.syscalls", "FS_IOC_SHUTDOWN"): ("XFS_IOC_GOINGDOWN",),
    ("system.syscalls", "SHUTDOWN_NOLOGFLUSH"): ("XFS_FSOP_GOING_FLAGS_NOLOGFLUSH",),
    ("system.syscalls", "SYS_OPENAT2"): ("SYS_openat2",),
}
CAPABILITIES = {"image.grow": "_CAPABILITIES", "netboot.add.inside": "_KEPT"}

LAYOUTS = {
    ("image.door", "_FLOCK"): ("struct flock64", "l_type l_whence l_start l_len l_pid"),
    ("image.grow", "_XFS_GEOMETRY"): (
        "struct xfs_fsop_geom_v1",
        (
            "blocksize rtextsize agblocks agcount logblocks sectsize inodesize imaxpct datablocks rtblocks rtextents "
            "logstart uuid sunit swidth version flags logsectsize rtsectsize dirblocksize"
        ),
    ),
    ("system.loop", "_LOOP_INFO64"): (
        "struct loop_info64",
        (
            "lo_device lo_inode lo_rdevice lo_offset lo_sizelimit lo_number lo_encrypt_type lo_encrypt_key_size "
            "lo_flags lo_file_name lo_crypt_name lo_encrypt_key lo_init[0] lo_init[1]"
        ),
    ),
    ("system.loop", "_LOOP_CONFIG"): ("struct loop_config", "fd block_size info"),
    ("netboot.listening", "=HBBI"): ("struct sock_filter", "code jt jf k"),
    ("netboot.listening", "HP"): ("struct sock_fprog", "len filter"),
    ("netboot.mtu", "_REQUEST"): (
        "struct ifreq",
        "ifr_name ifr_map.mem_start ifr_map.mem_end ifr_map.base_addr ifr_map.irq ifr_map.dma ifr_map.port",
    ),
    ("netboot.rpc", "ii"): ("struct linger", "l_onoff l_linger"),
    ("netboot.wire", "iHH8s"): ("struct packet_mreq", "mr_ifindex mr_type mr_alen mr_address"),
    ("system.syscalls", "I"): ("__u32", ""),
    ("system.syscalls", "QQQ"): ("struct open_how", "flags mode resolve"),
    ("system.syscalls", "Q"): ("__u64", ""),
    ("system.network", "=I"): ("__be32", ""),
    ("system.network", "=HH"): ("struct rtattr", "rta_len rta_type"),
    ("system.network", "_ROUTE"): (
        "struct question",
        (
            "head.nlmsg_len head.nlmsg_type head.nlmsg_flags head.nlmsg_seq head.nlmsg_pid route.rtm_family "
            "route.rtm_dst_len route.rtm_src_len route.rtm_tos route.rtm_table route.rtm_protocol route.rtm_scope "
            "route.rtm_type route.rtm_flags"
        ),
    ),
}
"""Layouts by the name of the struct.Struct, or by the format where it has none."""

FURTHER = (
    # What inside.py makes of ctypes: a header of two words, three sets of two words.
    "sizeof(struct __user_cap_header_struct) == 8",
    "sizeof(struct __user_cap_data_struct) * _LINUX_CAPABILITY_U32S_3 == 24",
    "offsetof(struct __user_cap_data_struct, inheritable) == 8",
    # Where syscalls.py reads what a file takes, in a buffer of its size.
    "offsetof(struct statx, stx_blocks) == 48",
    "sizeof(((struct statx *)0)->stx_blocks) == 8",
    "sizeof(struct statx) == 256",
    # syscalls.py hands fallocate64() 64 bits, also where a long has 32.
    "sizeof(off64_t) == 8",
)
ARM64, ARMHF = "aarch64-linux-gnu", "arm-linux-gnueabihf"
CROSS = {"x86_64-linux-gnu": (ARM64, ARMHF), ARM64: (ARMHF,)}
"""What the Makefile installs a compiler for, by the machine that the tests run on."""


@cache
def compiler_for(target: str) -> list[str]:
    """The command that checks a C text from standard input for an architecture; nothing where Debian has none here."""
    own = output("gcc", "-dumpmachine")
    if target in ("own", own):
        return ["gcc", "-w", "-fsyntax-only", "-x", "c", "-"]
    if target not in CROSS.get(own, ()):
        return []
    folders = [output("gcc", "-print-file-name=include"), f"/usr/{target}/include"]
    compiler = output(f"{target}-cpp", "-print-prog-name=cc1")
    # As the driver of that compiler, which is not installed, would call it.
    machine = ("-march=armv7-a+fp", "-mfloat-abi=hard") if target == ARMHF else ()
    options = ("-quiet", "-w", "-fsyntax-only", "-o", "/dev/null", "-nostdinc")
    return [compiler, *options, *machine, *(f"-I{folder}" for folder in folders), "-"]


def output(*argv: str) -> str:
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout.strip()


def refused(compiler: list[str], facts: list[str]) -> list[str]:
    """The facts that are none there; anything else that the compiler has to say fails the test."""
    includes = "".join(f"#include <{name}>\n" for name in HEADERS)
    asserts = "".join(f'_Static_assert({fact}, "fact {number};");\n' for number, fact in enumerate(facts))
    text = f"#define _GNU_SOURCE\n{includes}{XFS}{QUESTION}{asserts}"
    done = subprocess.run(compiler, input=text, capture_output=True, text=True, check=False)
    wrong = re.findall(r'error: static assertion failed: "fact (\d+);"', done.stderr)
    assert len(wrong) == done.stderr.count("error:") and (wrong or done.returncode == 0), done.stderr
    return [facts[int(number)] for number in wrong]


def value(module: str, name: str) -> object:
    return getattr(importlib.import_module(f"rpinfs.{module}"), name)


def facts_of_numbers() -> Iterator[str]:
    for module, names in NUMBERS.items():
        yield from (f"{name.lstrip('_')} == {value(module, name)}" for name in names)
    for (module, name), meanings in OTHER_NAMES.items():
        yield from (f"{meaning} == {value(module, name)}" for meaning in meanings)
    for module, name in CAPABILITIES.items():
        known = value(module, name)
        assert isinstance(known, dict)
        yield from (f"CAP_{key.upper().removeprefix('CAP_')} == {number}" for key, number in known.items())


def facts_of_layouts(word: str) -> Iterator[str]:
    """`word`: how long an unsigned long and a pointer are there, I or Q."""
    for (module, name), (kind, fields) in LAYOUTS.items():
        layout = value(module, name) if name.startswith("_") else struct.Struct(name)
        assert isinstance(layout, struct.Struct)
        there = re.sub("[LP]", word, layout.format)
        yield f"sizeof({kind}) == {struct.calcsize(there)}"
        places = offsets(there)
        # What is reserved at the end (x, or the bytes of an opaque field) has no name.
        assert not fields or len(fields.split()) == len(places), f"{module}.{name}: {places}"
        yield from (
            f"offsetof({kind}, {field}) == {place}" for field, place in zip(fields.split(), places, strict=False)
        )


def offsets(layout: str) -> list[int]:
    """Where each field of a format begins, in bytes."""
    order = layout[0] if layout[0] in "@=" else "@"
    found, before = [], order
    for count, code in re.findall(r"(\d*)([a-zA-Z?])", layout.removeprefix(order)):
        for _ in range(1 if code in "sx" else int(count or 1)):
            one = f"{count}{code}" if code in "sx" else code
            if code != "x":
                found.append(struct.calcsize(before + one) - struct.calcsize(order + one))
            before += one
    return found


@pytest.mark.parametrize("target", ["own", ARM64, ARMHF])
def test_numbers_and_layouts_are_those_of_the_headers(target: str) -> None:
    compiler = compiler_for(target)
    if not compiler:
        pytest.skip(f"there is no cross compiler for {target} here")
    word = "I" if target == ARMHF else "Q" if target == ARM64 else {4: "I", 8: "Q"}[struct.calcsize("P")]
    assert refused(compiler, [*facts_of_numbers(), *facts_of_layouts(word), *FURTHER]) == []


@pytest.mark.parametrize("target", ["own", ARM64, ARMHF])
def test_a_wrong_number_is_noticed(target: str) -> None:
    """O_DIRECTORY is the one that every ARM has its own number for: it tells that the right headers were read."""
    if compiler := compiler_for(target):
        arm = target != "own" or output("gcc", "-dumpmachine") == ARM64
        number, other = ("040000", "0200000") if arm else ("0200000", "040000")
        facts = [f"O_DIRECTORY == {number}", f"O_DIRECTORY == {other}", "LOOP_CONFIGURE == 0x4c0b"]
        assert refused(compiler, facts) == facts[1:]


def test_every_number_and_layout_is_in_the_tables() -> None:
    """What a call of the kernel or of the C library is given by name or by format."""
    listed = {(module, name) for module, names in NUMBERS.items() for name in names} | set(OTHER_NAMES) | set(LAYOUTS)
    used = {found for path in sorted((TOP / "rpinfs").rglob("*.py")) for found in used_in(path)}
    assert used - listed == set()


def test_flags_of_open_are_pythons() -> None:
    """They differ between architectures, and Python has them all. A system call's number is in the tables."""
    for path in sorted((TOP / "rpinfs").rglob("*.py")):
        for call in calls_in(path):
            called = ast.unparse(call.func)
            if called.endswith(".syscall"):
                names = {node.id for node in ast.walk(call.args[0]) if isinstance(node, ast.Name)}
                assert names & {name for _, name in OTHER_NAMES}, f"{path}:{call.lineno}"
            if called in ("os.open", "fcntl.fcntl", "fcntl.flock", "fcntl.lockf"):
                numbers = [node for node in ast.walk(call.args[1]) if isinstance(node, ast.Constant) and node.value]
                assert numbers == [], f"{path}:{call.lineno}"


def used_in(path: Path) -> Iterator[tuple[str, str]]:
    """Module and name of each number, and module and name or format of each layout in the machine's own order."""
    module = ".".join(path.relative_to(TOP / "rpinfs").with_suffix("").parts)
    tree = ast.parse(path.read_text())
    own = {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for name in node.targets
        for target in (name.elts if isinstance(name, ast.Tuple) else [name])
        if isinstance(target, ast.Name)
    }
    for call in calls_in(path):
        called = ast.unparse(call.func)
        if called == "fcntl.ioctl" or "libc." in called or called.endswith((".setsockopt", ".htons")):
            names = [node.id for argument in call.args for node in ast.walk(argument) if isinstance(node, ast.Name)]
            yield from ((module, name) for name in names if name in own and name.isupper())
        elif called.startswith("struct.") and isinstance(call.args[0], ast.Constant):
            layout = str(call.args[0].value)
            if layout[0] not in "<>!" and called != "struct.Struct":
                yield module, layout
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("struct.Struct("):
            name = ast.unparse(node.targets[0])
            made = value(module, name)
            if isinstance(made, struct.Struct) and made.format[0] not in "<>!":
                yield module, name


def calls_in(path: Path) -> Iterator[ast.Call]:
    return (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
