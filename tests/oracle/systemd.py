"""systemd as an oracle: what it computes from unit files, without running.

`systemd-analyze verify` loads units as PID 1 does, plans their start, and prints at the debug level every dependency
that it has found. Unknown keys and ordering cycles it only mentions, and exits 0.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.package.chroot import Chroot

WITH_ORIGIN = (
    "After", "Before", "Requires", "Wants", "BindsTo", "RequiredBy", "WantedBy", "BoundBy", "RequiresMountsFor",
    "Conflicts",
)  # fmt: skip

Properties = dict[str, set[str]]


class Systemd:
    """systemd-analyze and the generators of one release."""

    def __init__(self, root: Chroot) -> None:
        """The root has none of our units yet: what systemd says of Debian's own is not said of ours."""
        self.root = root
        self._of_others: set[str] = set()
        self._of_others = set(self.verify("", "multi-user.target").splitlines(keepends=True))

    def put(self, folder: Path, inside: str) -> str:
        """Bring a folder of units into the chroot; its path there."""
        target = self.root.path(inside)
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(folder, target, symlinks=True)
        return inside

    def fstab_units(self, fstab: str, inside: str) -> str:
        """What systemd-fstab-generator writes for an fstab; the path of the folder in the chroot."""
        shutil.rmtree(self.root.path(inside), ignore_errors=True)
        folders = [f"{inside}{end}" for end in ("", ".early", ".late")]
        for folder in folders:
            self.root.path(folder).mkdir(parents=True, exist_ok=True)
        self.root.path("/fstab").write_text(fstab)
        generator = "/usr/lib/systemd/system-generators/systemd-fstab-generator"
        self.root.run("env", "SYSTEMD_FSTAB=/fstab", "SYSTEMD_PROC_CMDLINE=", generator, *folders)
        return inside

    def verify(self, folder: str, *units: str) -> str:
        """Everything that systemd has to say about units, found in a folder (several with colons) before its own."""
        said = self._analyze(folder, "info", units)[1].splitlines(keepends=True)
        return "".join(line for line in said if line not in self._of_others)

    def compute(self, folder: str, *units: str) -> dict[str, Properties]:
        """Load units and all that they need: unit to property to values."""
        return parse(self._analyze(folder, "debug", units)[0])

    def _analyze(self, folder: str, level: str, units: tuple[str, ...]) -> tuple[str, str]:
        done = self.root.run(
            "env", f"SYSTEMD_UNIT_PATH={folder}:", f"SYSTEMD_LOG_LEVEL={level}",
            "systemd-analyze", "verify", "--man=no", *units, ok=(0, 1),
        )  # fmt: skip
        return done.stdout, done.stderr


def parse(dump: str) -> dict[str, Properties]:
    """Read the dump of units: `-> Unit NAME:`, and indented below `Property: value (where it comes from)`."""
    units: dict[str, Properties] = {}
    current: Properties = {}
    for line in dump.splitlines():
        arrow, _, name = line.partition(" Unit ")
        # 257 draws the arrow.
        if arrow in ("\t->", "\t\u2192"):
            current = units.setdefault(name.removesuffix(":"), {})
        elif line.startswith("\t\t") and not line.startswith("\t\t\t") and ": " in line:
            name, _, value = line.strip().partition(": ")
            if name in WITH_ORIGIN:
                value = value.partition(" (")[0]
            current.setdefault(name, set()).add(value)
    return units
