"""What is right and what is wrong: the one table of checks.

`rpinfs check` and `rpinfs status` show the results. A check is a pure function of the facts (status.py): it returns a
finding, or None where it does not apply here. What it needs to know it takes from the facts; where a question got no
answer, taking it raises, and the check is `unknown`.
"""

from __future__ import annotations

import enum
import errno
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rpinfs import bootedit, gate
from rpinfs.config import Config, Image, distance
from rpinfs.errors import RpinfsError
from rpinfs.escape import mount_unit
from rpinfs.host import read_text
from rpinfs.lease import Owner
from rpinfs.probe import TimedOut
from rpinfs.settings import BLOCK_SIZE, GIB, human_size
from rpinfs.status import (
    NOBODY,
    Docker,
    Facts,
    File,
    Files,
    Machine,
    Nas,
    NotAskedError,
    Space,
    ext4_errors,
    link_to_nas,
    milliseconds,
    nfs_version,
    route,
)
from rpinfs.units import AGENT, GATE, fstab_mount_points, units

SLOW_ANSWER = 0.5
"""Seconds. A share that takes longer for one small question makes every sync of a container wait as long."""

FULL = (90.0, 97.0)
"""Percent from which a file system is a warning, and from which it is critical."""

SLOW_LINK = 100
"""Mb/s. What a Raspberry Pi has at the least when its cable and switch are well."""

OLDEST_CLOCK = 1_767_225_600
"""Seconds since 1970: 2026-01-01. rpinfs is not older; a clock before it was never set."""

GOOD_DRIVERS = ("overlay2", "overlayfs")
BAD_DRIVERS = ("vfs", "native", "fuse-overlayfs")
_WASTE = 5 * GIB


class Status(enum.Enum):
    """How a check ended; the value is the exit status."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3

    @property
    def word(self) -> str:
        """The name in lower case."""
        return self.name.lower()


_FROM_WORST = (Status.CRITICAL, Status.WARNING, Status.UNKNOWN, Status.OK)


@dataclass(frozen=True)
class Finding:
    """What a check has found: a sentence with figures, and what to do where the table has nothing better fitting."""

    status: Status
    message: str
    remedy: str = ""


@dataclass(frozen=True)
class Check:
    """One row of the table.

    Attributes:
        title: what is well when the check is ok.
        judge: the function; it gets the facts, and for `per_image` an image.
        remedy: what to do when it is not ok and the finding does not say so itself; {image}, {where}, {share} and
            {boot} are filled in.
        needs: kinds of questions that must be asked first, see status.ask().
        without_config: whether it means something although the configuration is wrong.
    """

    name: str
    title: str
    judge: Callable[..., Finding | None]
    remedy: str
    needs: tuple[str, ...] = ()
    per_image: bool = False
    without_config: bool = False


@dataclass(frozen=True)
class Result:
    """A finding with its check; `image` is empty where the check is not about one."""

    name: str
    title: str
    image: str
    status: Status
    message: str
    remedy: str

    def document(self) -> dict[str, Any]:
        """The result for JSON."""
        return {
            "name": self.name,
            "image": self.image or None,
            "title": self.title,
            "status": self.status.word,
            "message": self.message,
            "remedy": self.remedy or None,
        }


def judge(facts: Facts, checks: Sequence[Check] | None = None) -> list[Result]:
    """Apply checks, by default all, to facts; those that do not apply here are left out. None where not in use."""
    results: list[Result] = []
    if not facts.config.in_use:
        return results
    for check in CHECKS if checks is None else checks:
        if facts.errors and not check.without_config:
            continue
        for image in facts.config.images if check.per_image else [None]:
            result = _apply(check, facts, image)
            if result:
                results.append(result)
    return results


def worst(results: Iterable[Result]) -> Result | None:
    """The first of the worst results; what is not known is worse than ok, and better than a warning."""
    return min(results, key=lambda result: _FROM_WORST.index(result.status), default=None)


def select(names: Sequence[str]) -> list[Check]:
    """Find checks by name, or by what stands before the dot for all of them: `share`. No names: all.

    Raises:
        RpinfsError: exit status 2, there is no such check.
    """
    if not names:
        return list(CHECKS)
    for name in names:
        if not any(_is_named(check, name) for check in CHECKS):
            known = [check.name for check in CHECKS]
            nearest = min(known, key=lambda candidate: distance(name, candidate))
            hint = f"; did you mean {nearest}?" if distance(name, nearest) <= len(name) // 2 else ""
            raise RpinfsError(f"unknown check {name}{hint}", "rpinfs check lists them all", status=2)
    return [check for check in CHECKS if any(_is_named(check, name) for name in names)]


def needs(checks: Iterable[Check]) -> set[str]:
    """The kinds of questions that some checks need the answers of."""
    return {kind for check in checks for kind in check.needs}


def _is_named(check: Check, name: str) -> bool:
    return name in (check.name, check.name.partition(".")[0])


def _apply(check: Check, facts: Facts, image: Image | None) -> Result | None:
    try:
        finding: Finding | None = check.judge(facts, image) if image else check.judge(facts)
    except NotAskedError:
        return None
    except RpinfsError as error:
        finding = Finding(Status.UNKNOWN, error.message, error.remedy or "")
    except OSError as error:
        finding = Finding(Status.UNKNOWN, f"{error.filename}: {error.strerror}" if error.filename else str(error))
    if finding is None:
        return None
    remedy = finding.remedy
    if not remedy and finding.status in (Status.WARNING, Status.CRITICAL):
        remedy = _filled(check.remedy, facts, image)
    name = image.name if image else ""
    return Result(check.name, check.title, name, finding.status, finding.message, remedy)


def _filled(remedy: str, facts: Facts, image: Image | None) -> str:
    fields = {
        "{image}": image.path if image else "",
        "{where}": image.where if image else "",
        "{share}": facts.config.share.where,
        "{boot}": facts.config.boot.where if facts.config.boot else "",
    }
    for name, value in fields.items():
        remedy = remedy.replace(name, value)
    return remedy


def _ok(message: str) -> Finding:
    return Finding(Status.OK, message)


def _warning(message: str, remedy: str = "") -> Finding:
    return Finding(Status.WARNING, message, remedy)


def _critical(message: str, remedy: str = "") -> Finding:
    return Finding(Status.CRITICAL, message, remedy)


def _by_fullness(percent: float, message: str) -> Finding:
    warning, critical = FULL
    status = Status.CRITICAL if percent >= critical else Status.WARNING if percent >= warning else Status.OK
    return Finding(status, message)


# Configuration


def _config_valid(facts: Facts) -> Finding:
    if not facts.errors:
        return _ok("the configuration is right")
    others = len(facts.errors) - 1
    more = f" (and {others} more: rpinfs config check)" if others else ""
    return _critical(f"{facts.errors[0].message}{more}", facts.errors[0].remedy or "")


def _fstab_conflicts(facts: Facts) -> Finding:
    remarks = units(facts.config, facts.host.fstab).remarks
    return _warning("; ".join(remarks)) if remarks else _ok("/etc/fstab has no line for a mount point of rpinfs")


# Share


def _expected_share(facts: Facts) -> str:
    return f"{facts.config.server.source}:{facts.config.share.export}"


def _share_mounted(facts: Facts) -> Finding:
    where, expected = facts.config.share.where, _expected_share(facts)
    mount = facts.mount(where)
    if mount is None:
        said = facts.agent_on_share()
        return _critical(f"the share {expected} is not mounted at {where}", str(said.get("remedy") or ""))
    if not mount.is_nfs:
        return _critical(f"{where} is not the share {expected}: {mount.source} ({mount.kind}) is mounted there")
    if not mount.is_from(expected):
        return _warning(f"{where} is mounted from {mount.source}, the configuration says {expected}")
    if not mount.writable:
        return _critical(f"the share {expected} is mounted read-only", f"mount -o remount,rw {where}")
    return _ok(f"{expected} is mounted at {where}")


def _share_options(facts: Facts) -> Finding | None:
    mount = facts.share
    if mount is None:
        return None
    if "hard" not in mount.super_options:
        return _critical(
            f"{mount.where} is mounted soft: a pause of the NAS becomes an I/O error and damages the image"
        )
    version, wanted = nfs_version(mount), facts.config.server.version
    if version != wanted:
        return _warning(f"{mount.where} is mounted with NFS {version}, the configuration says {wanted}")
    return _ok(f"{mount.where} is mounted hard, with NFS {version}")


def _share_answers(facts: Facts) -> Finding | None:
    if facts.share is None:
        return None
    where = facts.config.share.where
    try:
        seconds = facts.answer("share", Space).seconds
    except TimedOut as silence:
        return _critical(f"{where} gave {silence.message}; whatever writes there waits, and nothing is lost")
    except OSError as error:
        stale = "the export was replaced on the NAS: put it back as it was, or stop Docker and reboot"
        return _critical(f"{where} fails: {error.strerror}", stale if error.errno == errno.ESTALE else "")
    if seconds > SLOW_ANSWER:
        return _warning(f"{where} answers slowly, in {milliseconds(seconds)}")
    return _ok(f"{where} answers in {milliseconds(seconds)}")


def _share_space(facts: Facts) -> Finding | None:
    if facts.share is None:
        return None
    space = facts.answer("share", Space)
    free = f"{facts.config.share.where} has {human_size(space.available)} of {human_size(space.size)} free"
    return _by_fullness(space.used_percent, free)


# Images


def _is_ours(facts: Facts, image: Image) -> bool:
    """Whether the mount is made by rpinfs; where fstab has a line for it, what is mounted is the user's choice."""
    return image.where not in fstab_mount_points(facts.host.fstab)


def _image_present(facts: Facts, image: Image) -> Finding | None:
    if not _is_ours(facts, image):
        return None
    said = facts.agent_on_image(image)
    if said.get("state") == "refused":
        return _critical(str(said.get("message")), str(said.get("remedy") or ""))
    if said.get("state") == "preparing":
        return _warning(f"image {image.name} is being prepared: {said.get('message')}", "wait; rpinfs status --watch")
    if facts.share is None:
        return None
    try:
        file = facts.answer(f"image:{image.name}", File)
    except FileNotFoundError:
        return _critical(f"there is no {image.path}")
    return _ok(f"{image.path} is there, {human_size(file.size)} long")


def _image_owner(facts: Facts, image: Image) -> Finding | None:
    if facts.share is None or not _is_ours(facts, image) or image.fence == "mmp":
        return None
    owner, own = facts.answer(f"owner:{image.name}", Owner), Owner.of(facts.host)
    if owner == NOBODY:
        return _warning(f"image {image.name} belongs to nobody: no Pi has taken its lease")
    if owner.serial != own.serial:
        return _critical(f"image {image.name} belongs to {owner}")
    return _ok(f"image {image.name} belongs to this Pi")


def _image_size(facts: Facts, image: Image) -> Finding | None:
    if facts.share is None or not _is_ours(facts, image) or not image.size_is_set:
        return None
    file = facts.known(f"image:{image.name}", File)
    if file is None:
        return None
    if file.size < image.size:
        return _warning(
            f"image {image.name} has {human_size(file.size)}, the configuration says {human_size(image.size)}",
            "this version does not grow an image: take Size= out, or grow the file and its file system by hand",
        )
    if file.size > image.size:
        return _warning(
            f"image {image.name} has {human_size(file.size)}, the configuration says {human_size(image.size)}",
            "an image is never made smaller: take Size= out, or correct it",
        )
    return _ok(f"image {image.name} has the {human_size(image.size)} that the configuration says")


def _image_allocated(facts: Facts, image: Image) -> Finding | None:
    if facts.share is None or not _is_ours(facts, image):
        return None
    file = facts.known(f"image:{image.name}", File)
    space = facts.known(f"space:{image.name}", Space)
    if file is None:
        return None
    takes = f"image {image.name} takes {human_size(file.allocated)} of its {human_size(file.size)} on the NAS"
    if space is None:
        return _ok(takes)
    used = space.size - space.available
    # Before 4.2 there is no way to give freed blocks back, and so nothing to be done.
    if file.allocated - used > _WASTE and nfs_version(facts.share) == "4.2":
        return _warning(f"{takes}, and holds {human_size(used)}")
    return _ok(f"{takes}, and holds {human_size(used)}")


def _image_fits_share(facts: Facts) -> Finding | None:
    """Sparse files promise more than there is; what can still grow is compared with what is free."""
    if facts.share is None:
        return None
    space, found = facts.answer("share", Space), facts.answer("files", Files)
    files = dict(found.files)
    for image in facts.config.images:
        own = facts.known(f"image:{image.name}", File)
        if own:
            files[image.file] = own
    growth = sum(max(0, file.size - file.allocated) for file in files.values())
    message = (
        f"the images on the share may still grow by {human_size(growth)}, and {human_size(space.available)} are free"
    )
    if not found.complete:
        message += f" (of more than {len(found.files)} files)"
    return _warning(message) if growth > space.available else _ok(message)


def _loop_direct_io(facts: Facts, image: Image) -> Finding | None:
    loop = facts.loop(image) if _is_ours(facts, image) else None
    if loop is None:
        return None
    if loop.direct_io:
        return _ok(f"/dev/{loop.name} does direct I/O")
    if not image.direct_io:
        return _ok(f"/dev/{loop.name} is buffered, as DirectIO=no says")
    return _warning(f"/dev/{loop.name} is buffered: each page of image {image.name} is kept in memory twice")


def _loop_block_size(facts: Facts, image: Image) -> Finding | None:
    loop = facts.loop(image) if _is_ours(facts, image) else None
    if loop is None:
        return None
    message = f"/dev/{loop.name} has blocks of {loop.block_size} bytes"
    return _ok(message) if loop.block_size == BLOCK_SIZE else _warning(f"{message}, expected {BLOCK_SIZE}")


# Mounts


def _mount_right(facts: Facts, image: Image) -> Finding:
    """The gate's own verdict, so that the two never differ."""
    config = facts.config
    alone = Config(True, "", config.server, config.boot, config.share, [image], [])
    refusals = gate.verdict(alone, facts.host)
    if refusals:
        # The gate sends people here.
        remedy = "" if refusals[0].remedy == "rpinfs status" else refusals[0].remedy or ""
        return _critical(refusals[0].message, remedy)
    return _ok(f"{' '.join([image.where, *image.bind])}: the right image is mounted")


def _mount_writable(facts: Facts, image: Image) -> Finding | None:
    mount = facts.image_mount(image)
    if mount is None:
        return None
    if not mount.writable:
        return _critical(f"{image.where} is read-only; ext4 turns itself so when it meets an error")
    return _ok(f"{image.where} is writable")


def _mount_errors(facts: Facts, image: Image) -> Finding | None:
    errors = ext4_errors(facts, image)
    if errors is None:
        return None
    return (
        _critical(f"ext4 has recorded {errors} errors in image {image.name}") if errors else _ok("no errors recorded")
    )


def _mount_space(facts: Facts, image: Image) -> Finding | None:
    if facts.image_mount(image) is None:
        return None
    space = facts.answer(f"space:{image.name}", Space)
    free = f"{human_size(space.available)} of {human_size(space.size)} free"
    return _by_fullness(space.used_percent, f"{image.where} is {space.used_percent:.0f} % full, {free}")


def _mount_inodes(facts: Facts, image: Image) -> Finding | None:
    if facts.image_mount(image) is None:
        return None
    space = facts.answer(f"space:{image.name}", Space)
    if not space.inodes:
        return None
    used = 100.0 * (space.inodes - space.inodes_free) / space.inodes
    return _by_fullness(used, f"{image.where} has used {used:.0f} % of its {space.inodes} inodes")


# Boot files


def _boot_mounted(facts: Facts) -> Finding | None:
    boot = facts.config.boot
    if boot is None:
        return None
    mount = facts.mount(boot.where)
    expected = f"{facts.config.server.source}:{boot.export}"
    if mount is None:
        return _warning(
            f"the boot files {expected} are not mounted at {boot.where}",
            f"systemctl start {mount_unit(boot.where)}; if the NAS has none, set an empty Export= in [Boot]",
        )
    if not mount.is_from(expected):
        return _warning(f"{boot.where} is mounted from {mount.source}, the configuration says {expected}")
    return _ok(f"{expected} is mounted at {boot.where}")


def _boot_read_only(facts: Facts) -> Finding | None:
    boot = facts.config.boot
    mount = facts.mount(boot.where) if boot else None
    if boot is None or mount is None:
        return None
    if not mount.writable:
        return _ok(f"{boot.where} is read-only")
    if "ro" not in boot.options:
        return _ok(f"{boot.where} is writable, as Options= in [Boot] says")
    if bootedit.in_progress(facts.host.root):
        return _ok(f"{boot.where} is writable for an rpinfs boot edit or run")
    return _warning(f"{boot.where} is writable: a mistake there keeps the Pi from booting")


# What runs


def _agent_running(facts: Facts) -> Finding:
    state = facts.unit(AGENT)
    if state.active == "active":
        memory = facts.known("machine", Machine)
        uses = f", with {human_size(memory.agent_memory)} of memory" if memory and memory.agent_memory else ""
        return _ok(f"{AGENT} runs{uses}")
    if state.active in ("activating", "reloading"):
        return _warning(f"{AGENT} is starting", "wait; rpinfs status --watch")
    return _critical(f"{AGENT} is {state.active} ({state.result or state.load})")


def _gate_passed(facts: Facts) -> Finding | None:
    state, docker = facts.unit(GATE), facts.unit("docker.service")
    if state.load != "loaded":
        return _critical(f"{GATE} is {state.load}: nothing holds Docker back", "apt install --reinstall rpinfs")
    if state.active == "failed" or state.result not in ("", "success"):
        return _critical(f"the gate has refused the last start of Docker ({state.result})")
    if state.has_run:
        return _ok("the gate let the last start of Docker pass")
    if docker.active == "active":
        return _warning("Docker runs, but has not passed the gate", "systemctl restart docker")
    return None


def _docker_running(facts: Facts) -> Finding | None:
    if not any("docker.service" in image.before for image in facts.config.images):
        return None
    state = facts.unit("docker.service")
    if state.active == "active":
        docker = facts.known("docker", Docker)
        return _ok(f"Docker {docker.version} runs" if docker else "Docker runs")
    if state.load == "not-found":
        return _warning("Docker is not installed", "apt install docker.io")
    if state.active in ("activating", "reloading") or state.job == "start":
        return _warning("Docker is starting", "wait; rpinfs status --watch")
    if state.active == "inactive" and state.enabled == "disabled":
        return _warning("Docker does not run, and is not enabled", "systemctl enable --now docker")
    return _critical(f"Docker does not run: docker.service is {state.active} ({state.result or state.load})")


def _docker_driver(facts: Facts) -> Finding:
    driver = facts.answer("docker", Docker).driver
    if driver in GOOD_DRIVERS:
        return _ok(f"Docker stores with {driver}")
    if driver in BAD_DRIVERS:
        return _critical(f"Docker stores with {driver}, which is slow and wastes space; expected overlay2 or overlayfs")
    return _warning(f"Docker stores with {driver or 'an unknown driver'}; expected overlay2 or overlayfs")


def _docker_root(facts: Facts) -> Finding:
    root = facts.answer("docker", Docker).root
    for image in facts.config.images:
        if (root + "/").startswith(image.where + "/"):
            return _ok(f"Docker keeps its data in {root}, on image {image.name}")
    return _critical(f"Docker keeps its data in {root}, which is on no image")


# Network and machine


def _network_route(facts: Facts) -> Finding | None:
    if not facts.live:
        return None
    way = route(facts)
    if way is None:
        facts.answer("route", object)
        return None
    by = f" by {way.gateway}" if way.gateway else ""
    return _ok(f"the NAS {way.address} is reached over {way.interface}{by}")


def _network_server(facts: Facts) -> Finding:
    server = facts.config.server.address
    try:
        nas = facts.answer("nas", Nas)
    except NotAskedError:
        raise
    except TimedOut as silence:
        if facts.known("share", Space):
            raise
        return _critical(f"the NAS {server} gave {silence.message}")
    except RpinfsError as error:
        return _critical(error.message, error.remedy or "")
    return _ok(f"the NAS {server} takes a connection in {milliseconds(nas.seconds)}")


def _network_link(facts: Facts) -> Finding | None:
    link = link_to_nas(facts)
    if link is None or link.name == "lo":
        return None
    if not link.carrier:
        return _critical(f"{link.name} has no link", "look at the cable and the switch")
    if link.wireless:
        return _warning(f"{link.name}, on the way to the NAS, is wireless", "use a cable for storage")
    if link.duplex == "half":
        return _warning(f"{link.name} runs at half duplex")
    if link.speed is not None and link.speed < SLOW_LINK:
        return _warning(f"{link.name} runs at {link.speed} Mb/s")
    speed = f" at {link.speed} Mb/s" if link.speed else ""
    return _ok(f"{link.name} has a link{speed}{f', {link.duplex} duplex' if link.duplex else ''}")


def _clock_sane(facts: Facts) -> Finding | None:
    if not facts.live:
        return None
    if facts.clock < OLDEST_CLOCK:
        return _warning("the clock is years behind: certificates fail, and so do docker pull and push")
    return _ok("the clock has been set")


def _memory_cgroup(facts: Facts) -> Finding | None:
    root = facts.host.root
    controllers = read_text(f"{root}/sys/fs/cgroup/cgroup.controllers").split()
    table = {
        fields[0]: fields[-1] for line in read_text(f"{root}/proc/cgroups").splitlines() if (fields := line.split())
    }
    if not controllers and not table:
        return None
    if "memory" in controllers or table.get("memory") == "1":
        return _ok("the kernel counts memory, so memory limits of containers work")
    return _warning("the kernel does not count memory: memory limits of containers are ignored")


_FIRMWARE = "rpinfs boot edit, add to the one line: cgroup_enable=memory cgroup_memory=1; then reboot"

CHECKS: tuple[Check, ...] = (
    Check(
        "config.valid", "the configuration has no errors", _config_valid,
        "correct it, then: rpinfs config check && systemctl reboot",
        without_config=True,
    ),
    Check(
        "fstab.conflicts", "no line of /etc/fstab takes a mount point of rpinfs", _fstab_conflicts,
        "fstab wins: comment the line out, then reboot; rpinfs config import-fstab makes a configuration of it",
    ),
    Check(
        "network.link", "the interface to the NAS has a full-speed link", _network_link,
        "look at the cable and the switch: ethtool shows what was agreed on",
        needs=("route",),
    ),
    Check(
        "network.route", "there is a way to the NAS", _network_route,
        "ip route; ip link",
        needs=("route",),
    ),
    Check(
        "network.server", "the NFS server of the NAS takes connections", _network_server,
        "look whether the NAS is on, and whether the address in [Server] is right",
        needs=("nas", "share"),
    ),
    Check(
        "share.mounted", "the share is mounted, from the right export", _share_mounted,
        "if the configuration was changed since the boot: reboot; else: systemctl restart rpinfs-agent",
    ),
    Check(
        "share.options", "the share is mounted hard, with the NFS version that was asked for", _share_options,
        "take the options out of /etc/fstab and the configuration, then reboot; if the NAS does not have the version,"
        " set Version= in [Server]",
    ),
    Check(
        "share.answers", "the share answers, and soon", _share_answers,
        "look at the NAS and at the network to it; it goes on by itself when the NAS is back",
        needs=("share",),
    ),
    Check(
        "share.space", "the share has room", _share_space,
        "make room on the NAS: when it is full, containers get I/O errors although the image has room",
        needs=("share",),
    ),
    Check(
        "image.present", "the image is there", _image_present,
        "systemctl restart rpinfs-agent makes it, and says what keeps it from that; if it was moved, put it back first",
        needs=("image",), per_image=True,
    ),
    Check(
        "image.owner", "the image belongs to this Pi", _image_owner,
        "systemctl restart rpinfs-agent; if the other Pi is gone for good, rpinfs adopt before it",
        needs=("owner",), per_image=True,
    ),
    Check(
        "image.size", "the image has the size that the configuration says", _image_size,
        "set Size= to what you want; an image only ever grows",
        needs=("image",), per_image=True,
    ),
    Check(
        "image.allocated", "the image takes about as much on the NAS as it holds", _image_allocated,
        "fstrim {where} gives freed blocks back to the NAS",
        needs=("image", "space"), per_image=True,
    ),
    Check(
        "image.fits-share", "the images fit on the share even when they are full", _image_fits_share,
        "make room on the NAS, or remove images that nobody needs, before they have grown",
        needs=("share", "files", "image"),
    ),
    Check(
        "loop.direct-io", "the loop device goes past the page cache of the share", _loop_direct_io,
        "systemctl reboot; if it stays so, the NAS or the kernel refuses direct I/O: DirectIO=no takes note of it",
        per_image=True,
    ),
    Check(
        "loop.block-size", "the loop device has blocks of 4096 bytes", _loop_block_size,
        "somebody attached the image by hand: unmount it, then: systemctl restart rpinfs-agent",
        per_image=True,
    ),
    Check(
        "mount.right", "the right image is mounted where it belongs", _mount_right,
        "systemctl restart rpinfs-agent",
        per_image=True,
    ),
    Check(
        "mount.writable", "the image is writable", _mount_writable,
        "journalctl -k says why; stop Docker, unmount {where}, then: rpinfs image check {image}",
        per_image=True,
    ),
    Check(
        "mount.errors", "ext4 has recorded no errors", _mount_errors,
        "make a copy if you can; then stop Docker, unmount {where}, and: rpinfs image check {image}",
        per_image=True,
    ),
    Check(
        "mount.space", "the image has room", _mount_space,
        "docker system prune",
        needs=("space",), per_image=True,
    ),
    Check(
        "mount.inodes", "the image has room for more files", _mount_inodes,
        "docker system prune",
        needs=("space",), per_image=True,
    ),
    Check(
        "boot.mounted", "the boot files are mounted, from the right export", _boot_mounted,
        "if the configuration was changed since the boot: reboot",
    ),
    Check(
        "boot.read-only", "the boot files are read-only", _boot_read_only,
        "mount -o remount,ro {boot}; to change something there: rpinfs boot edit",
    ),
    Check(
        "agent.running", "the agent runs", _agent_running,
        "systemctl restart rpinfs-agent; journalctl -u rpinfs-agent",
        needs=("systemd", "machine"), without_config=True,
    ),
    Check(
        "gate.passed", "the gate let Docker pass", _gate_passed,
        "mend what else is wrong here, then: systemctl start docker; journalctl -u rpinfs-gate has what it said",
        needs=("systemd",), without_config=True,
    ),
    Check(
        "docker.running", "Docker runs", _docker_running,
        "mend what else is wrong here, then: systemctl start docker; journalctl -u docker has what it said",
        needs=("systemd", "docker"), without_config=True,
    ),
    Check(
        "docker.driver", "Docker stores with overlay2 or overlayfs", _docker_driver,
        "look for storage-driver in /etc/docker/daemon.json, take it out, then: systemctl restart docker",
        needs=("docker",), without_config=True,
    ),
    Check(
        "docker.root", "Docker keeps its data on an image", _docker_root,
        "make data-root in /etc/docker/daemon.json and Where= of the image agree, then: systemctl restart docker",
        needs=("docker",),
    ),
    Check(
        "clock.sane", "the clock has been set", _clock_sane,
        "timedatectl; a Pi has no clock of its own and needs a time server: systemctl status systemd-timesyncd",
        without_config=True,
    ),
    Check(
        "memory.cgroup", "the kernel counts the memory of containers", _memory_cgroup,
        _FIRMWARE,
        without_config=True,
    ),
)  # fmt: skip
