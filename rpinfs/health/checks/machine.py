"""Checks of the machine itself: its configuration, boot files, root, kernel, clock and memory."""

from __future__ import annotations

import os
import time

from rpinfs.boot import gate, storage
from rpinfs.boot.host import read_text
from rpinfs.boot.settings import KIB, human_size
from rpinfs.boot.units import (
    FROM_NEXT_BOOT,
    GENERATED,
    NEWS_FILE,
    NOTIFY,
    NOTIFY_SECONDS,
    mount_unit,
    unescape_octal,
    units,
)
from rpinfs.errors import quoted
from rpinfs.health.checks.base import Check, Finding, critical, ok, warning
from rpinfs.health.facts import Facts
from rpinfs.system import bootedit, kernels
from rpinfs.system.systemd import UnitState

OLDEST_CLOCK = 1_767_225_600
"""Seconds since 1970: 2026-01-01. rpinfs is not older; a clock before it was never set."""


# Configuration


def _config_valid(facts: Facts) -> Finding:
    if not facts.errors:
        return ok("the configuration is right")
    others = len(facts.errors) - 1
    more = f" (and {others} more: rpinfs config check)" if others else ""
    return critical(f"{facts.errors[0].message}{more}", facts.errors[0].remedy or "")


def _fstab_conflicts(facts: Facts) -> Finding:
    made = units(facts.config, facts.host.fstab)
    if made.cycles:
        return critical("; ".join(made.cycles), remedy="add these options in /etc/fstab, then reboot")
    if made.remarks:
        return warning("; ".join(made.remarks))
    return ok("/etc/fstab has no line for a mount point of rpinfs")


def _units_written(facts: Facts) -> Finding | None:
    if not facts.live:
        return None
    if os.path.lexists(facts.host.root + FROM_NEXT_BOOT):
        return warning(
            "rpinfs was installed while Docker ran: it acts from the next boot on, and until then Docker is left alone",
            "systemctl reboot",
        )
    wanted = units(facts.config, facts.host.fstab).files
    there = {name: read_text(f"{facts.host.root}{GENERATED}/{name}") for name in wanted}
    if not any(there.values()):
        return critical("rpinfs-generator has written no units: it failed, or rpinfs was not installed yet")
    others = [name for name, text in wanted.items() if there[name] != text]
    if others:
        return warning(
            f"the configuration was changed after the generator had read it: {' '.join(others)}", "systemctl reboot"
        )
    return ok("the units are those of the configuration")


def _units_mounted(facts: Facts) -> Finding:
    """Name the first mount unit that failed, with what the journal says of it, or cannot but fail."""
    if links := gate.links(facts.config, facts.host):
        more = f" (and {len(links) - 1} more: rpinfs config check)" if links[1:] else ""
        return critical(f"{links[0].message}{more}", links[0].remedy or "")
    states: dict[str, UnitState] = facts.answer("systemd", dict)
    said: dict[str, str] = facts.known("failed", dict) or {}
    names = [mount_unit(where) for where in facts.mount_points]
    failed = [states[name] for name in names if name in states and states[name].active == "failed"]
    if not failed:
        return ok("no mount unit of rpinfs has failed")
    first = failed[0]
    why = said.get(first.name, "")
    more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    message = f"{first.name} has failed, {first.result}{f': {why}' if why else ''}{more}"
    if first.result == "resources" or "symlink" in why:
        return critical(message, "set Where= to the folder that the symbolic link leads to, then reboot")
    unit = quoted(first.name)
    return critical(message, f"mend what it says, then: systemctl restart {unit}; journalctl -b -u {unit} -n 20")


# News


def _notify_heard(facts: Facts) -> Finding | None:
    if not facts.config.notify:
        return None
    found = facts.unit(NOTIFY)
    if found.load != "loaded":
        return warning(
            f"{NOTIFY} is not there ({found.load}): nobody is told of news", "systemctl daemon-reload; rpinfs units"
        )
    if found.active == "failed":
        return warning(f"nobody heard the last news: {NOTIFY} has failed, {found.result}")
    if found.active != "inactive":
        return ok("somebody is being told of news")
    return ok("the last news was heard" if found.has_run else "there was no news in this boot yet")


# Boot files and root


def _boot_mounted(facts: Facts) -> Finding | None:
    boot = facts.config.boot
    if boot is None:
        return None
    mount = facts.mount(boot.where)
    expected = f"{facts.config.server.source}:{boot.export}"
    if mount is None:
        return warning(
            f"the boot files {expected} are not mounted at {boot.where}",
            "if the NAS has none, set an empty Export= in [Boot];"
            f" else: systemctl start {quoted(mount_unit(boot.where))}",
        )
    if not mount.is_from(expected):
        return warning(f"{boot.where} is mounted from {mount.source}, the configuration says {expected}")
    return ok(f"{expected} is mounted at {boot.where}")


def _boot_read_only(facts: Facts) -> Finding | None:
    boot = facts.config.boot
    mount = facts.mount(boot.where) if boot else None
    if boot is None or mount is None:
        return None
    if not mount.writable:
        return ok(f"{boot.where} is read-only")
    if "ro" not in boot.options:
        return ok(f"{boot.where} is writable, as Options= in [Boot] says")
    if bootedit.in_progress(facts.host.root):
        return ok(f"{boot.where} is writable for an rpinfs boot edit or run")
    return warning(f"{boot.where} is writable: a mistake there keeps the Pi from booting")


def _root_options(facts: Facts) -> Finding | None:
    root = facts.mount("/")
    if root is None or not root.is_nfs:
        return None
    if "hard" not in root.super_options:
        return critical("the root is mounted soft: a pause of the NAS becomes an I/O error of every program")
    if "proto=udp" in root.super_options:
        return warning("the root is mounted over UDP, which can damage data without anybody noticing")
    version = root.nfs_version
    if version == "3" and "nolock" not in root.super_options:
        return warning(
            "the root is mounted with NFS 3 and the locks of the server: before rpc.statd runs, every lock waits"
        )
    return ok(f"the root is {root.source}, mounted hard, with NFS {version}")


# Kernel, clock and memory


def _kernel_version(facts: Facts) -> Finding | None:
    folder = f"{facts.host.root}/proc/sys/kernel"
    version = kernels.version_of(read_text(f"{folder}/osrelease").strip(), read_text(f"{folder}/version").strip())
    if version is None:
        return None
    found = kernels.regressions_of(version)
    if not found:
        return ok(f"Linux {kernels.text_of(version)} is not among the kernels that are known to be bad here")
    message = "; ".join(f"it {row.harm} ({row.source})" for row in found)
    message = f"Linux {kernels.text_of(version)} has a known fault: {message}"
    return critical(message) if any(row.loses_data for row in found) else warning(message)


def _clock_sane(facts: Facts) -> Finding | None:
    if not facts.live:
        return None
    if facts.clock < OLDEST_CLOCK:
        return warning("the clock is years behind: certificates fail, and so do docker pull and push")
    return ok("the clock has been set")


def _memory_cgroup(facts: Facts) -> Finding | None:
    root = facts.host.root
    controllers = read_text(f"{root}/sys/fs/cgroup/cgroup.controllers").split()
    table = {
        fields[0]: fields[-1] for line in read_text(f"{root}/proc/cgroups").splitlines() if (fields := line.split())
    }
    if not controllers and not table:
        return None
    if "memory" in controllers or table.get("memory") == "1":
        return ok("the kernel counts memory, so memory limits of containers work")
    return warning("the kernel does not count memory: memory limits of containers are ignored")


def _memory_swap(facts: Facts) -> Finding | None:
    table = read_text(f"{facts.host.root}/proc/swaps")
    if not table:
        return None
    swaps = [line.split() for line in table.splitlines()[1:]]
    places = [(unescape_octal(name), int(size) * KIB) for name, _, size, *_ in swaps]
    for path, size in places:
        way = _way_to_nas(facts, path)
        if way:
            named = f"swap of {human_size(size)} in {path} ends up on the NAS, by {' and '.join(way)}"
            if way == ["NFS"]:
                return warning(f"{named}: slow, and it stands still with the NAS", _swap_remedy(path))
            return critical(f"{named}: a Pi that is short of memory can lock up for good", _swap_remedy(path))
    return ok(f"{len(places)} swap areas, none on the NAS" if places else "there is no swap")


def _swap_remedy(path: str) -> str:
    return (
        "swap in compressed memory needs no disk, and no NAS:"
        f" apt install systemd-zram-generator; swapoff {quoted(path)}"
    )


def _way_to_nas(facts: Facts, path: str) -> list[str]:
    """What swap goes through on its way to the NAS, such as ["loop3", "NFS"]; empty where it does not end there."""
    name = path.removeprefix("/dev/")
    if name.startswith("zram"):
        # What zram has no room for it may write to a device (CONFIG_ZRAM_WRITEBACK), and that may be made of a file.
        backing = read_text(f"{facts.host.root}/sys/block/{name}/backing_dev").strip()
        return _through(name, facts, backing) if backing.startswith("/") else []
    loop = storage.loop_state(name, facts.host.root) if name.startswith("loop") else None
    if loop is None and path.startswith("/dev/"):
        return []
    if loop is None:
        mount = facts.mount_of(path)
        if mount is None or mount.is_nfs:
            return ["NFS"] if mount else []
        loop = storage.loop_of(mount, facts.host.root)
    return _through(loop.name, facts, loop.backing_file) if loop else []


def _through(name: str, facts: Facts, path: str) -> list[str]:
    rest = _way_to_nas(facts, path)
    return [name, *rest] if rest else []


def _regressions() -> str:
    return "; ".join(
        f"{kernels.text_of(row.first)} to {kernels.text_of(row.last)} {row.harm} <{row.source}>"
        for row in kernels.REGRESSIONS
    )


_FIRMWARE = "add cgroup_enable=memory cgroup_memory=1 to the one line, then reboot: rpinfs boot edit"

CHECKS = (
    Check(
        "config.valid",
        "the configuration has no errors",
        _config_valid,
        remedy="correct it, then: rpinfs config check && systemctl reboot",
        explanation="""
            Reads the configuration as the generator does at boot, see rpinfs.conf(5). Critical: it has an error;
            nothing is mounted then, and Docker is held back. The message has the file, the line and the rule.
        """,
        without_config=True,
    ),
    Check(
        "fstab.conflicts",
        "no line of /etc/fstab takes a mount point of rpinfs",
        _fstab_conflicts,
        remedy="fstab wins; comment the line out, then reboot; what it would be as configuration: rpinfs config"
        " import-fstab",
        explanation="""
            Compares the mount points of /etc/fstab with those of the configuration. Warning: a line has one of
            them. It wins, so that rpinfs neither makes, checks nor attaches what is mounted there. Critical: a line
            depends on such a mount and makes an ordering cycle, of which systemd drops a unit at each boot.
        """,
    ),
    Check(
        "units.written",
        "the generator has written the units of this configuration",
        _units_written,
        remedy=(
            "journalctl --boot --grep rpinfs-generator -n 20; systemctl daemon-reload;"
            " systemctl start rpinfs-agent {before}"
        ),
        explanation="""
            Compares what is in /run/systemd/generator with what follows from the configuration now. Critical: nothing
            is there; the gate keeps Docker down then. Warning: something else is there; most changes take effect at
            a boot. rpinfs units shows what would be written. Also a warning: rpinfs was installed where Docker ran,
            and nothing of it acts before the next boot (/run/rpinfs-from-next-boot).
        """,
    ),
    Check(
        "units.mounted",
        "no mount unit of rpinfs has failed",
        _units_mounted,
        remedy="rpinfs status",
        explanation="""
            Asks systemd for the mount units of share, boot files, images and Bind= folders. Critical: one has failed;
            the message has its result, and the line of the journal that says why: a mount point that is a symbolic
            link (result "resources"), an option that the file system refuses, a file system that the kernel lacks.
            Also critical: a mount point that is a symbolic link, whether its mount was tried or not.
        """,
        needs=("systemd", "failed"),
    ),
    Check(
        "notify.heard",
        "the program that is told of news has heard the last",
        _notify_heard,
        remedy="mend it, then tell it again: systemctl restart rpinfs-notify; journalctl -b -u rpinfs-notify -n 20",
        explanation=f"""
            Asks systemd how the program of [Notify] Command= has ended, see rpinfs.conf(5). Warning: with another exit
            status than 0, or killed after {NOTIFY_SECONDS} s: nobody heard the last news, and the agent has tried, or
            tries, again. To tell it once more what it was told last, restart the unit: {NEWS_FILE} has it.
        """,
        needs=("systemd",),
    ),
    Check(
        "boot.mounted",
        "the boot files are mounted, from the right export",
        _boot_mounted,
        remedy="if the configuration was changed since the boot: reboot",
        explanation="""
            Compares the mount table with [Boot] of the configuration. Warning: nothing is mounted there, or it
            comes from another server or export; a new kernel would then be written where the Pi does not boot from.
        """,
    ),
    Check(
        "boot.read-only",
        "the boot files are read-only",
        _boot_read_only,
        remedy="what is to be changed there, change by rpinfs boot edit; to close it: mount -o remount,ro {boot}",
        explanation="""
            Looks whether the mount of the boot files is writable. Warning: it is, although Options= in [Boot] does
            not say so and no rpinfs boot edit or run is under way.
        """,
    ),
    Check(
        "root.options",
        "the root is mounted so that it outlives a pause of the NAS",
        _root_options,
        remedy="write ,vers=4.1,proto=tcp,hard behind nfsroot=SERVER:/PATH, then reboot: rpinfs boot edit",
        explanation="""
            Looks at the mount options of the root that the kernel says are in force, where the root is on NFS.
            Critical: soft. Warning: UDP, see share.options; or NFS 3 without nolock, whose locks need rpc.statd, a
            program on that very root. noatime is no matter: the server keeps the times, see nfs(5).
        """,
        without_config=True,
    ),
    Check(
        "kernel.version",
        "the kernel is not known to be bad for this",
        _kernel_version,
        remedy="the boot files on the NAS must get the new kernel too: apt update && apt full-upgrade && reboot",
        explanation=f"""
            Compares the version of the running kernel with a short list of regressions of NFS, loop devices, ext4 and
            overlayfs, each with a source: {_regressions()}. Critical: it can lose data. Warning: it can stall.
        """,
        without_config=True,
    ),
    Check(
        "clock.sane",
        "the clock has been set",
        _clock_sane,
        remedy="a Pi has no clock of its own and needs a time server: timedatectl; systemctl status systemd-timesyncd",
        explanation=f"""
            Warning: the clock shows a time before the year {time.gmtime(OLDEST_CLOCK).tm_year}, so it was never set
            since the boot. Storage does not mind; certificates do.
        """,
        without_config=True,
    ),
    Check(
        "memory.cgroup",
        "the kernel counts the memory of containers",
        _memory_cgroup,
        remedy=_FIRMWARE,
        explanation="""
            Looks for the memory controller in /sys/fs/cgroup and /proc/cgroups. Warning: it is off, as the firmware
            of the Raspberry Pi has it by default; docker run --memory is ignored then.
        """,
        without_config=True,
    ),
    Check(
        "memory.swap",
        "no swap is on the NAS",
        _memory_swap,
        remedy="swap in compressed memory needs no disk, and no NAS",
        explanation="""
            Follows each area in /proc/swaps to where it is stored: through zram with a backing device, loop devices
            and mounts. Critical: it ends in a file on NFS by way of a loop device: to free memory the kernel must
            then write over the network, for which it needs memory, and the Pi can lock up. Warning: it is a file
            straight on NFS, which the kernel is made for, and which stands still whenever the NAS does.
        """,
        without_config=True,
    ),
)
"""Rows of the table."""
