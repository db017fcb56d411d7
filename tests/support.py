"""What several tests share: folders that look like a Pi's root, and rpinfs installed in a folder of its own."""

from __future__ import annotations

import compileall
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from rpinfs.system import binding

TOP = Path(__file__).resolve().parent.parent
CMDLINE = "console=tty1 root=/dev/nfs nfsroot=192.168.1.10:/nfsroot/pi,vers=4.1,proto=tcp rw ip=dhcp rootwait"
SERIAL = "10000000a1b2c3d4"
DOCKER_FILE = f"docker-{SERIAL}.img"
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
PYTHON = ("/usr/bin/python3", "-ESB")
"""Debian's Python with nothing but its own library, and the tree where that is the working folder. What somebody has
installed beside it would hide that a test needs it: one imported pytest in such a child, and failed on a fresh Debian.
"""

Content = str | bytes | Path | None

Tell = Callable[[str], None]
"""What the fixture `tell` is: a line for the end of the test run, where counts and seeds are shown."""


def thorough() -> bool:
    """Whether every crash point and every round is to be tried, not only some: make test-crash, make test-lab."""
    return os.environ.get("RPINFS_ALL_POINTS") == "1"


def random_seed() -> tuple[random.Random, int]:
    """Chance, and its seed to be told, at a failure as well; RPINFS_SEED in the environment repeats a run."""
    seed = int(os.environ.get("RPINFS_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"RPINFS_SEED={seed}")
    return random.Random(seed), seed


def make_tree(root: Path, files: Mapping[str, Content]) -> Path:
    """Fill a folder: text and bytes make files, a Path makes a symbolic link to it, None makes a folder."""
    for name, content in files.items():
        path = root / name.lstrip("/")
        (path if content is None else path.parent).mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            path.symlink_to(content)
        elif content is not None:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def golden(path: Path, text: str) -> str:
    """What a file has that a text is compared with. RPINFS_REGENERATE=1 writes it anew, to be read."""
    if os.environ.get("RPINFS_REGENERATE"):
        path.write_text(text)
    return path.read_text()


def make_pi(root: Path, config: Content = "", files: Mapping[str, Content] | None = None, cmdline: str = "") -> Path:
    """A Pi whose root came over NFS, with this rpinfs.conf, these files more, and this added to its command line."""
    pi: dict[str, Content] = {
        "proc/cmdline": f"{CMDLINE} {cmdline}\n",
        "proc/device-tree/serial-number": SERIAL + "\0",
        "boot/firmware": None,
        "etc/rpinfs/rpinfs.conf": config,
    }
    return make_tree(root, {**pi, **(files or {})})


class Installed:
    """rpinfs as the package installs it, below a folder: shims, byte-compiled modules, and these bound in one file."""

    def __init__(self, folder: Path, *, bound: bool = True) -> None:
        share = folder / "share"
        shutil.copytree(TOP / "rpinfs", share / "rpinfs", ignore=shutil.ignore_patterns("__pycache__"))
        compileall.compile_dir(share, quiet=2)
        if bound:
            binding.bind(str(share / "rpinfs"))
        self.share = share
        self.generator = self._shim("rpinfs-generator", folder)
        self.rpinfs = self._shim("rpinfs", folder)

    def _shim(self, name: str, folder: Path) -> Path:
        text = (TOP / "units" / name).read_text()
        assert "/usr/share/rpinfs" in text
        path = folder / name
        path.write_text(text.replace("/usr/share/rpinfs", str(self.share)))
        path.chmod(0o755)
        return path

    def run(self, *argv: str | Path, root: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a program, by default in the world below `root`."""
        return subprocess.run(
            [str(argument) for argument in argv],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={"PATH": PATH, "LANG": "C.UTF-8", **({"RPINFS_ROOT": str(root)} if root else {}), **env},
        )


def listing(folder: Path) -> dict[str, str]:
    """All below a folder: files with their text, links as `-> target`; folders that are empty with a slash."""
    found: dict[str, str] = {}
    for here, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(here) / name
            relative = str(path.relative_to(folder))
            if path.is_symlink():
                found[relative] = f"-> {path.readlink()}"
            elif not path.is_dir():
                found[relative] = path.read_text()
            elif not any(path.iterdir()):
                found[relative + "/"] = ""
    return found
