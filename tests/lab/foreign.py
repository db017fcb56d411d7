"""Roots of another architecture than this machine's: its kernel runs their programs through qemu-user.

Debian's qemu-user-static has the rule for that, and systemd-binfmt hands it to the kernel. In a container, and wherever
else no systemd runs, nobody does; then it is done here, as there: it stays until the machine is booted again.
"""

from __future__ import annotations

from pathlib import Path

from .process import LabError, run

BINFMT = Path("/proc/sys/fs/binfmt_misc")
RULES = Path("/usr/lib/binfmt.d")
EMULATORS = {"amd64": "qemu-x86_64", "arm64": "qemu-aarch64", "armhf": "qemu-arm"}
SLOWER = 4.0
"""Times that programs may take longer so."""


def native_architecture() -> str:
    """This machine's, as Debian calls it."""
    return run(["dpkg", "--print-architecture"]).strip()


def is_foreign(architecture: str) -> bool:
    """Whether its programs are not this machine's."""
    native = native_architecture()
    # Most 64-bit processors of ARM's run the 32-bit programs, too.
    return architecture != native and (native, architecture) != ("arm64", "armhf")


def make_runnable(architecture: str) -> None:
    """Have the kernel run programs of an architecture in any root. Raises LabError where it cannot be had to."""
    if not is_foreign(architecture):
        return
    name = EMULATORS[architecture]
    rule, entry = RULES / f"{name}.conf", BINFMT / name
    if not rule.is_file():
        raise LabError(f"programs of {architecture} do not run on this machine: apt install qemu-user-static arch-test")
    try:
        if not (BINFMT / "register").exists():
            run(["mount", "-t", "binfmt_misc", "binfmt_misc", BINFMT])
        if not entry.exists():
            (BINFMT / "register").write_text(rule.read_text())
    except FileExistsError:
        pass  # Somebody else has done it meanwhile.
    except (OSError, LabError) as error:
        raise LabError(
            f"programs of {architecture} do not run on this machine, and its kernel cannot be told of {rule}: {error}\n"
            "A container may not do that: run it on its host, or systemctl restart systemd-binfmt there"
        ) from None
    shown = entry.read_text().splitlines()
    # F: the emulator is opened now, by this machine's root; no other has to have it.
    if "enabled" not in shown or not any(line.startswith("flags:") and "F" in line for line in shown):
        raise LabError(f"{entry}: expected it enabled and with the flag F, as {rule} has it, found {'; '.join(shown)}")
