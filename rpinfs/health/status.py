"""How things are: `rpinfs status`.

this machine -> Facts (facts.py) -> (checks judge them) -> a document -> JSON, or text for people
"""

from __future__ import annotations

from collections.abc import Iterable

from rpinfs import __version__
from rpinfs.boot.config import Image
from rpinfs.boot.settings import human_size, milliseconds
from rpinfs.boot.units import AGENT
from rpinfs.errors import printable
from rpinfs.health.facts import Docker, Facts, File, Machine, Nas, Space, ext4_errors, link_to_nas, route
from rpinfs.system import deadline

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rpinfs.health.checks import Result

SCHEMA = 1
"""Version of the JSON. Keys are only ever added within a version."""

WATCH_SECONDS = 2.0
"""Between two pictures of `--watch`."""


# The document: the JSON, and what the text for people is drawn from


def document(facts: Facts, results: list[Result], worst: Result | None) -> dict[str, Any]:
    """Everything as one JSON object; see rpinfs(8). What is not known is null, sizes are in bytes."""
    config = facts.config
    found: dict[str, Any] = {
        "schema": SCHEMA,
        "version": __version__,
        "in_use": config.in_use,
        "reason": config.reason or None,
        "status": worst.status.word if worst else "ok",
        "exit_status": worst.status.value if worst else 0,
        "host": _host_document(facts),
        "boot": None,
        "share": None,
        "images": [],
        "agent": None,
        "docker": None,
        "network": None,
        "checks": [result.document() for result in results],
    }
    if config.in_use:
        found["boot"] = _boot_document(facts)
        found["share"] = _share_document(facts)
        found["images"] = [_image_document(facts, image) for image in config.images]
        found["agent"] = _agent_document(facts)
        found["docker"] = _docker_document(facts)
        found["network"] = _network_document(facts)
    return found


def _host_document(facts: Facts) -> dict[str, Any]:
    machine = facts.known("machine", Machine)
    return {
        "hostname": facts.host.hostname or None,
        "serial": facts.host.serial or None,
        "mac": facts.host.mac or None,
        "uptime_seconds": round(facts.now, 1) if facts.live else None,
        "memory": machine.memory if machine else None,
        "memory_available": machine.memory_available if machine else None,
    }


def _mount_document(facts: Facts, where: str, expected: str) -> dict[str, Any]:
    mount = facts.mount(where)
    return {
        "expected_source": expected,
        "where": where,
        "mounted": mount is not None,
        "source": mount.source if mount else None,
        "type": mount.kind if mount else None,
        "nfs_version": mount.nfs_version if mount else None,
        "read_only": not mount.writable if mount else None,
    }


def _boot_document(facts: Facts) -> dict[str, Any] | None:
    boot = facts.config.boot
    return _mount_document(facts, boot.where, f"{facts.config.server.source}:{boot.export}") if boot else None


def _share_document(facts: Facts) -> dict[str, Any]:
    config = facts.config
    space = facts.known("share", Space)
    error = facts.answers.get("share")
    said = facts.agent_on_share()
    return {
        **_mount_document(facts, config.share.where, f"{config.server.source}:{config.share.export}"),
        "hard": "hard" in facts.share.super_options if facts.share else None,
        "answers": None if facts.share is None or "share" not in facts.answers else space is not None,
        "answer_seconds": round(space.seconds, 4) if space else None,
        "error": error.strerror if isinstance(error, OSError) else None,
        # Where the share does not answer now, what it said last to the agent is still of use.
        "size": space.size if space else said.get("size"),
        "available": space.available if space else said.get("free"),
        "state": said.get("state"),
        "state_seconds": _age(facts, said),
        "message": said.get("message") or None,
    }


def _image_document(facts: Facts, image: Image) -> dict[str, Any]:
    mount, loop = facts.image_mount(image), facts.loop(image)
    file, space = facts.known(f"image:{image.name}", File), facts.known(f"space:{image.name}", Space)
    said = facts.agent_on_image(image)
    return {
        "name": image.name,
        "file": image.path,
        "where": image.where,
        "bind": list(image.bind),
        "mounted": mount is not None,
        "source": mount.source if mount else None,
        "filesystem": mount.kind if mount else None,
        "read_only": not mount.writable if mount else None,
        "loop": loop.name if loop else None,
        "direct_io": loop.direct_io if loop else None,
        "block_size": loop.block_size if loop else None,
        "file_size": file.size if file else said.get("size"),
        "file_allocated": file.allocated if file else said.get("allocated"),
        "size": space.size if space else None,
        "available": space.available if space else None,
        "inodes": space.inodes if space else None,
        "inodes_free": space.inodes_free if space else None,
        "errors": ext4_errors(facts, image),
        "clean": said.get("clean"),
        "state": said.get("state"),
        "state_seconds": _age(facts, said),
        "message": said.get("message") or None,
    }


def _agent_document(facts: Facts) -> dict[str, Any]:
    machine, states = facts.known("machine", Machine), facts.known("systemd", dict)
    state = states[AGENT] if states else None
    return {
        "active": state.active if state else None,
        "pid": facts.agent.get("pid"),
        "memory": machine.agent_memory if machine else None,
    }


def _docker_document(facts: Facts) -> dict[str, Any]:
    docker, states = facts.known("docker", Docker), facts.known("systemd", dict)
    state = states["docker.service"] if states else None
    return {
        "installed": state.load != "not-found" if state else None,
        "active": state.active if state else None,
        "version": docker.version if docker else None,
        "driver": docker.driver if docker else None,
        "root": docker.root if docker else None,
        "containers": docker.containers if docker else None,
        "containers_running": docker.running if docker else None,
        "images": docker.images if docker else None,
    }


def _is_reachable(facts: Facts) -> bool | None:
    """Whether the NFS port takes connections; None where there was no time to know, and the share says otherwise."""
    if facts.known("nas", Nas):
        return True
    silent = isinstance(facts.answers.get("nas"), deadline.TimedOut) and facts.known("share", Space) is not None
    return None if silent or "nas" not in facts.answers or not facts.live else False


def _network_document(facts: Facts) -> dict[str, Any]:
    way = route(facts)
    link = link_to_nas(facts)
    nas = facts.known("nas", Nas)
    return {
        "server": facts.config.server.address or None,
        "address": nas.address if nas else way.address if way else None,
        "reachable": _is_reachable(facts),
        "connect_seconds": round(nas.seconds, 4) if nas else None,
        "interface": way.interface if way else None,
        "gateway": (way.gateway or None) if way else None,
        "source": (way.source or None) if way else None,
        "carrier": link.carrier if link else None,
        "speed_mbps": link.speed if link else None,
        "duplex": (link.duplex or None) if link else None,
        "wireless": link.wireless if link else None,
        "mac": link.mac if link else None,
    }


def _age(facts: Facts, said: dict[str, Any]) -> float | None:
    since = said.get("since")
    return round(max(0.0, facts.now - since), 1) if isinstance(since, (int, float)) and facts.live else None


# Text for people


class Paint:
    """Colours, or none: `on` is for a terminal whose user did not say NO_COLOR."""

    _CODES = {"ok": "32", "warning": "33", "critical": "31", "unknown": "35", "bold": "1", "dim": "2"}

    def __init__(self, on: bool) -> None:
        self.on = on

    def __call__(self, style: str, text: str) -> str:
        """Put a text into the colour of a status, or `bold` or `dim`."""
        return f"\x1b[{self._CODES[style]}m{text}\x1b[0m" if self.on and text else text


def render(found: dict[str, Any], paint: Paint) -> str:
    """Draw a document as text. What it quotes stays on its line, and has no colours of its own."""
    found = {key: _printable(value) for key, value in found.items()}
    if not found["in_use"]:
        return f"rpinfs is not in use here: {found['reason']}\n"
    parts = [
        [_headline(found, paint)],
        _part("Boot", _boot_lines(found["boot"]), paint),
        _part("Share", _share_lines(found["share"]), paint),
        *(_part("Image", _image_lines(image), paint) for image in found["images"]),
        _part("Docker", _docker_lines(found["docker"]), paint),
        _part("Network", _network_lines(found["network"]), paint),
        ["", *_wrong_lines(found["checks"], paint)],
    ]
    return "\n".join(line for part in parts for line in part) + "\n"


def _printable(found: object) -> object:
    if isinstance(found, str):
        return printable(found)
    if isinstance(found, dict):
        return {key: _printable(value) for key, value in found.items()}
    return [_printable(value) for value in found] if isinstance(found, list) else found


def _headline(found: dict[str, Any], paint: Paint) -> str:
    host = found["host"]
    facts = [
        f"rpinfs {found['version']}",
        f"serial {host['serial']}" if host["serial"] else "",
        f"up {duration(host['uptime_seconds'])}" if host["uptime_seconds"] else "",
        f"{human_size(host['memory_available'])} of {human_size(host['memory'])} memory available"
        if host["memory"]
        else "",
    ]
    state = paint(found["status"], found["status"])
    return f"{paint('bold', host['hostname'] or 'this machine')}: {state}  ({_joined(facts)})"


def _part(title: str, lines: list[str], paint: Paint) -> list[str]:
    """A title beside its lines."""
    return [
        f"{paint('bold', f'{title:<8}') if number == 0 else ' ' * 8} {line}"
        for number, line in enumerate(line for line in lines if line)
    ]


def _boot_lines(boot: dict[str, Any] | None) -> list[str]:
    if boot is None:
        return ["none is configured"]
    if not boot["mounted"]:
        return [f"nothing is mounted at {boot['where']} (wanted: {boot['expected_source']})"]
    return [f"{_mounted_from(boot)}, {'read-only' if boot['read_only'] else 'WRITABLE'}"]


def _share_lines(share: dict[str, Any]) -> list[str]:
    if not share["mounted"]:
        return [f"nothing is mounted at {share['where']} (wanted: {share['expected_source']})", share["message"] or ""]
    answers = ""
    if share["answers"]:
        answers = f"answers in {milliseconds(share['answer_seconds'])}"
    elif share["error"]:
        answers = f"FAILS: {share['error']}"
    elif share["answers"] is False:
        since = share["state_seconds"] if share["state"] == "silent" else None
        answers = "DOES NOT ANSWER" + (f" for {duration(since)}" if since else "")
    hard = {True: ", hard", False: ", NOT HARD", None: ""}[share["hard"]]
    room = f"{human_size(share['available'])} of {human_size(share['size'])} free" if share["size"] else ""
    if room and not share["answers"]:
        room += " when it answered last"
    return [f"{_mounted_from(share)}{hard}", _joined([answers, room])]


def _mounted_from(mount: dict[str, Any]) -> str:
    version = f"NFS {mount['nfs_version']}" if mount["nfs_version"] else mount["type"]
    return f"{mount['source']} on {mount['where']}, {version}"


def _image_lines(image: dict[str, Any]) -> list[str]:
    file = [
        f"{human_size(image['file_size'])} long" if image["file_size"] else "",
        f"takes {human_size(image['file_allocated'])} on the NAS" if image["file_allocated"] is not None else "",
    ]
    if not image["mounted"]:
        return [
            f"{image['name']}: nothing is mounted at {image['where']} (wanted: {image['file']})",
            image["message"] or "",
            _joined(file),
        ]
    full = ""
    if image["size"]:
        used = image["size"] - image["available"]
        full = f"{100 * used / image['size']:.0f} % full ({human_size(used)} of {human_size(image['size'])})"
    return [
        f"{image['name']}: {image['file']} on {image['where']}",
        _joined([image["filesystem"], "READ-ONLY" if image["read_only"] else "", full, *file]),
        _joined(_loop_words(image)),
        f"keeps {' '.join(image['bind'])} too" if image["bind"] else "",
    ]


def _loop_words(image: dict[str, Any]) -> list[str]:
    if image["loop"] is None:
        return [f"not by a loop device, but from {image['source']}"]
    return [
        f"/dev/{image['loop']}",
        "direct I/O" if image["direct_io"] else "buffered (no direct I/O)",
        f"{image['block_size']}-byte blocks",
        f"ERRORS RECORDED ({image['errors']})" if image["errors"] else "",
    ]


def _docker_lines(docker: dict[str, Any]) -> list[str]:
    if docker["installed"] is False:
        return ["is not installed"]
    if docker["driver"] is None:
        return [docker["active"] or "not known"]
    images = "1 image" if docker["images"] == 1 else f"{docker['images']} images"
    return [
        f"{docker['version']}, {docker['driver']}, data in {docker['root']}",
        f"{docker['containers_running']} of {docker['containers']} containers run, {images}",
    ]


def _network_lines(found: dict[str, Any]) -> list[str]:
    server = found["server"] or "not known"
    if found["address"] not in (None, found["server"]):
        server += f" ({found['address']})"
    connect = {True: f"reachable in {milliseconds(found['connect_seconds'] or 0.0)}", False: "NOT REACHABLE", None: ""}
    way = [
        f"over {found['interface']}" if found["interface"] else "",
        f"by {found['gateway']}" if found["gateway"] else "",
        f"from {found['source']}" if found["source"] else "",
    ]
    link = [
        "wireless" if found["wireless"] else "",
        f"{found['speed_mbps']} Mb/s" if found["speed_mbps"] else "",
        f"{found['duplex']} duplex" if found["duplex"] else "",
        "NO LINK" if found["interface"] and found["carrier"] is False else "",
    ]
    return [_joined([f"NAS {server}", connect[found["reachable"]]]), _joined([" ".join(filter(None, way)), *link])]


def _wrong_lines(checks: list[dict[str, Any]], paint: Paint) -> list[str]:
    """What is wrong and what to do: the worst first, and what is not known by its reason."""
    wrong = [check for status in ("critical", "warning") for check in checks if check["status"] == status]
    lines = [paint("bold", "What is wrong, and what to do:")] if wrong else []
    for check in wrong:
        lines.append(
            f"  {paint(check['status'], check['status'])}  {check['message']}  {paint('dim', check_name(check))}"
        )
        if check["remedy"]:
            lines.append(f"      {check['remedy']}")
    lines += _unknown_lines([check for check in checks if check["status"] == "unknown"], paint)
    return lines or [paint("ok", f"All {len(checks)} checks are well.")]


def _unknown_lines(checks: list[dict[str, Any]], paint: Paint) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for check in checks:
        reasons.setdefault(check["message"], []).append(check_name(check))
    return [f"  {paint('unknown', 'unknown')}  {', '.join(names)}: {reason}" for reason, names in reasons.items()]


def check_name(check: dict[str, Any]) -> str:
    """Name of a check, with the image that it is about where there is one."""
    return f"{check['name']}({check['image']})" if check["image"] else str(check["name"])


def _joined(parts: Iterable[str | None]) -> str:
    return ", ".join(part for part in parts if part)


def duration(seconds: float) -> str:
    """A length of time for people: `3 d 4 h`, `5 min`."""
    minutes = int(seconds) // 60
    if minutes < 2:
        return f"{int(seconds)} s"
    if minutes < 120:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
