"""Runs in a booted container of test_remedies.py, as remedied.py: what is wrong on the machine and not in an image.

Mounts in the place of ours, units that are not there, a frozen file system, network managers, Docker's accounts and
settings.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING or __package__:
    from tests.package import guarded, remedied
    from tests.package.remedied import image, mended, of_check, of_command, paste, stop_all
else:
    import guarded
    import remedied
    from remedied import image, mended, of_check, of_command, paste, stop_all

GENERATOR = Path("/etc/systemd/system-generators/rpinfs-generator")


def not_through_the_gate() -> guarded.Facts:
    """Somebody had systemd look at no dependency. The first step: after it, the gate has run."""
    guarded.systemctl("start", guarded.AGENT)
    for unit in ("var-lib-docker.mount", "var-lib-containerd.mount"):
        guarded.systemctl("start", unit)
    guarded.systemctl("start", "--job-mode=ignore-dependencies", guarded.DOCKER)
    remedy = of_check("gate.passed")
    said = paste(remedy)
    guarded.wait(guarded.whole)
    gone = of_check("gate.passed") == ""
    remedied.write_records()
    return {"remedy": remedy, "said": said, "gone": gone, "whole": remedied.are_whole()}


def share_covered() -> guarded.Facts:
    guarded.run("mount", "-t", "tmpfs", "tmpfs", guarded.SHARE)

    def of_share() -> str:
        said = json.loads(Path("/run/rpinfs/agent.json").read_text())["share"]
        return str(said["remedy"]) if "is not the share" in said["message"] else ""

    guarded.wait(lambda: bool(of_share()))
    return mended(of_share(), lambda: not of_share() and of_check("share.mounted") == "")


def kept_folder_covered() -> guarded.Facts:
    guarded.run("mount", "-t", "tmpfs", "tmpfs", guarded.KEPT)
    remedy = of_check("mount.right")
    guarded.run("umount", guarded.KEPT)
    return mended(remedy, lambda: of_check("mount.right") == "")


def something_else_mounted() -> guarded.Facts:
    stop_all()
    guarded.run("mount", "-t", "tmpfs", "tmpfs", guarded.MOUNT)
    guarded.systemctl("start", guarded.AGENT)
    remedy = of_check("mount.right")
    guarded.run("umount", guarded.MOUNT)
    return mended(remedy, remedied.is_usable)


def attached_by_hand() -> guarded.Facts:
    """With blocks of another size than ours, and mounted."""
    stop_all()
    device = guarded.run("losetup", "--find", "--show", "--sector-size", "512", str(image())).strip()
    guarded.run("mount", device, guarded.MOUNT)
    guarded.systemctl("start", guarded.AGENT)
    remedy = of_check("loop.block-size")
    guarded.run("umount", guarded.MOUNT)
    guarded.run("losetup", "--detach", device)
    return mended(remedy, lambda: remedied.is_usable() and of_check("loop.block-size") == "")


def units_not_written() -> guarded.Facts:
    right = GENERATOR.read_text()
    stop_all()
    GENERATOR.write_text("#!/bin/false\n")
    guarded.systemctl("daemon-reload")
    remedy = of_check("units.written")
    GENERATOR.write_text(right)
    # Not whether Docker runs: it is started in the moment of the mounting, when systemd wants the loop device as well,
    # and nobody tells it of devices in a container.
    return mended(remedy, lambda: Path(guarded.MOUNT).is_mount() and of_check("units.written") == "")


def gate_refused() -> guarded.Facts:
    """What else was wrong is mended, and Docker is down since."""
    right = guarded.UUID_FILE.read_text()
    guarded.UUID_FILE.write_text("00000000-0000-0000-0000-000000000000\n")
    guarded.systemctl("restart", guarded.DOCKER)
    guarded.wait(lambda: guarded.show(guarded.GATE, "ActiveState") == "failed")
    remedy = of_check("gate.passed")
    guarded.UUID_FILE.write_text(right)
    return mended(remedy, guarded.whole)


def frozen() -> guarded.Facts:
    guarded.run("fsfreeze", "--freeze", guarded.MOUNT)
    remedy = of_command("rpinfs", "snapshot", "docker")

    def can_be_written() -> bool:
        done = subprocess.Popen(["touch", f"{guarded.MOUNT}/thawed"])
        with contextlib.suppress(subprocess.TimeoutExpired):
            return done.wait(5) == 0
        return False

    return mended(remedy, can_be_written)


# Files of the root: what was in them is still there


@contextlib.contextmanager
def process_named(name: str) -> Iterator[None]:
    """Something of this name runs: managers are told by it."""
    program = Path("/usr/local/bin") / name
    shutil.copy("/bin/sleep", program)
    with subprocess.Popen([program, "infinity"]) as running:
        try:
            yield
        finally:
            running.kill()
    program.unlink()


def manager_of_lo(name: str) -> tuple[str, bool]:
    from rpinfs.system import nic

    found = next(manager for manager in nic.managers("lo") if manager.name == name)
    return found.remedy, found.keeps


def managers() -> guarded.Facts:
    """ifupdown and dhcpcd, with files as people leave them; and networkd, whose state file is all that is asked."""
    from rpinfs.boot import units

    remedies, said, kept, texts = [], [], [], []

    def mend(name: str, file: Path, text: str | None) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        if text is not None:
            file.write_text(text)
        remedy, keeps = manager_of_lo(name)
        remedies.append(remedy)
        assert not keeps
        said.extend(paste(remedy))
        after = file.read_text()
        texts.append("" if set((text or "").splitlines()) <= set(after.splitlines()) else after)

    # As where the generator has not run.
    for drop_in in Path("/run/systemd/generator").glob(f"*.d/{units.NIC_DROP_IN}"):
        drop_in.unlink()
    state = Path("/run/network/ifstate")
    state.parent.mkdir(exist_ok=True)
    state.write_text("lo=lo\n")
    for text in ("auto lo\niface lo inet dhcp", "iface lo inet dhcp\n    up true \\\n", "iface lo inet dhcp\n"):
        mend("ifupdown", Path("/etc/network/interfaces"), text)
        kept.append(manager_of_lo("ifupdown")[1])
    state.unlink()
    with process_named("dhcpcd"):
        for other in (None, "", "interface lo\nstatic ip_address=192.0.2.1/24\n", "hostname"):
            mend("dhcpcd", Path("/etc/dhcpcd.conf"), other)
            kept.append(manager_of_lo("dhcpcd")[1])
    network, links = Path("/etc/systemd/network/10-lo.network"), Path("/run/systemd/netif/links")
    links.mkdir(parents=True, exist_ok=True)
    (links / "1").write_text(f"ADMIN_STATE=configured\nNETWORK_FILE={network}\n")
    with process_named("systemd-networkd"):
        mend("systemd-networkd", network, "[Match]\nName=lo\n[Network]\nDHCP=yes\n")
        # As networkd writes it when it has read its files again.
        drop_ins = ":".join(str(path) for path in network.with_name(f"{network.name}.d").iterdir())
        with (links / "1").open("a") as file:
            file.write(f"NETWORK_FILE_DROPINS={drop_ins}\n")
        kept.append(manager_of_lo("systemd-networkd")[1])
    more = {"said": said, "kept": kept, "texts": texts}
    return {"remedies": remedies, **more, "gone": all(kept), "whole": not any(texts)}


def accounts() -> guarded.Facts:
    """Whom userns-remap names is not there, nor are its numbers: what is said is done until Docker could start."""
    from rpinfs.docker import subids
    from rpinfs.errors import RpinfsError

    def text(name: str) -> str | None:
        path = Path("/etc") / name
        return path.read_text() if path.exists() else None

    def problem(wanted: str) -> str:
        read = subids.Accounts(text("passwd") or "", text("group") or "", text("subuid"), text("subgid"))
        try:
            subids.resolve(wanted, read)
        except RpinfsError as error:
            return error.remedy or error.message
        return ""

    for name in ("subuid", "subgid"):
        Path("/etc", name).unlink(missing_ok=True)
    before = (text("passwd") or "", text("group") or "")
    remedies: list[str] = []
    said: list[str] = []
    for wanted in ("remapped", "remapped:others"):
        while (remedy := problem(wanted)) and remedy not in remedies:
            remedies.append(remedy)
            said += paste(remedy)
    after = (text("passwd") or "", text("group") or "")
    kept = all(new.startswith(old) for old, new in zip(before, after, strict=True))
    return {"remedies": remedies, "said": said, "gone": not problem("remapped:others"), "whole": kept}


def settings_of_docker() -> guarded.Facts:
    """An empty file, and one that begins with a byte order mark, which 20.10 takes for no JSON."""
    from rpinfs.docker import daemonjson

    file = Path("/etc/docker/daemon.json")
    file.parent.mkdir(exist_ok=True)

    def read() -> daemonjson.DaemonJson:
        text = file.read_text() if file.exists() else None
        return daemonjson.parse(text, str(file), (20, 10), "20.10")

    remedies, said = [], []
    for content in (b"", b'\xef\xbb\xbf{\n "debug": true\n}\n'):
        file.write_bytes(content)
        remedies.append(read().problems[0].remedy or "")
        said += paste(remedies[-1])
        if content:
            whole = file.read_bytes() == content[3:]
    gone = not read().problems
    file.unlink()
    return {"remedies": remedies, "said": said, "gone": gone, "whole": whole}


STEPS: list[Callable[[], guarded.Facts]] = [
    not_through_the_gate, share_covered, kept_folder_covered, something_else_mounted,
    attached_by_hand, units_not_written, gate_refused, frozen, managers, accounts, settings_of_docker,
]  # fmt: skip

if __name__ == "__main__":
    guarded.go_through(STEPS) if sys.argv[1] == "drive" else sys.exit(guarded.program(*sys.argv[1:]))
