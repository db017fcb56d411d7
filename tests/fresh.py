"""`make test` on a Debian made from nothing: `python3 -m tests.fresh [--suite SUITE] [TARGET...]`.

A root of apt, git and make and nothing else is made by mmdebstrap from this machine's own apt sources; HEAD is cloned
into it, and the Makefile's targets run there. Kernel, devices and network are this machine's, and so is the way to
Debian's archive and to pip's index: proxies, certificates and settings are handed in, installed programs are not.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.lab.sources import options_in_force, sources_for
from tests.support import PATH, TOP

WORK = Path("/var/tmp")
TREE = "/root/rpinfs"
PACKAGES = ("git", "make")
# How pip and apt reach what they download.
SETTINGS = re.compile(
    r"(https?|ftp|no|all)_proxy|PIP_.*|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE", re.IGNORECASE
)
FILES = ("/etc/resolv.conf", "/etc/hosts", "/etc/pip.conf", "~/.config/pip/pip.conf", "~/.pip/pip.conf")
# Where the certificates and folders are that these name: in their places, packages inside would write over them.
HANDED_IN = "/handed-in"
CLOSING_LINE = re.compile(r"=+ (.*\b(?:passed|failed|error).* in .*) =+")
# A root that is a mount and not only a chroot, so that systemd-nspawn and unshare can do in it what they do here; in
# namespaces of its own, so that no mount and no process outlives it. No mount(8) is in there yet: busybox is static.
ENTER = """\
mount --bind "$0" "$0"
cd "$0"
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
mount -t tmpfs -o mode=755 tmpfs run
mkdir run/lock
while [ "$1" != -- ]; do
    mount --bind "$1" "./handed-in$1"
    mount -o remount,bind,ro "./handed-in$1"
    shift
done
shift
pivot_root . mnt
/mnt/bin/busybox umount -l /mnt
exec chroot . "$@"
"""


def main() -> int:
    """The exit status of make inside, and the test runner's closing lines as the last thing said."""
    parser = argparse.ArgumentParser(prog="python3 -m tests.fresh", description="make test on a fresh Debian.")
    parser.add_argument("--suite", default="bookworm", help="release of Debian (bookworm)")
    parser.add_argument("--keep", action="store_true", help="leave the root there, to look at")
    parser.add_argument("targets", nargs="*", default=["test", "demo"], metavar="TARGET", help="of make (test demo)")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    commit = output("git", "-C", str(TOP), "log", "-1", "--format=%h %s").strip()
    if output("git", "-C", str(TOP), "status", "--porcelain"):
        print("not all of the tree is committed: what is tried is the last commit", flush=True)
    root = Path(tempfile.mkdtemp(prefix="rpinfs-fresh-", dir=WORK))
    try:
        make_root(root, asked.suite)
        print(f"Debian {asked.suite}, {commit}: make {shlex.join(asked.targets)}", flush=True)
        status, closing = run_make(root, asked.targets)
    finally:
        if not asked.keep:
            shutil.rmtree(root, ignore_errors=True)
    print(f"on a fresh Debian {asked.suite}: make {shlex.join(asked.targets)}: exit status {status}")
    for line in closing:
        print(line)
    return status


def make_root(root: Path, suite: str) -> None:
    """apt, git, make, what they need, and a clone of HEAD."""
    settings = root.with_name(f"{root.name}.apt")
    settings.mkdir()
    try:
        (settings / "sources.list").write_text(sources_for(suite))
        (settings / "apt.conf").write_text(options_in_force())
        subprocess.run(
            [
                *("mmdebstrap", "--quiet", "--mode=root", "--variant=apt", f"--include={','.join(PACKAGES)}"),
                *(f"--aptopt={settings}/apt.conf", suite, str(root), str(settings / "sources.list")),
            ],
            check=True,
            stdin=subprocess.DEVNULL,
        )
    finally:
        shutil.rmtree(settings)
    clone = ("git", "-c", f"safe.directory={TOP}/.git", "clone", "--quiet", "--no-hardlinks", str(TOP))
    subprocess.run([*clone, f"{root}{TREE}"], check=True, stdin=subprocess.DEVNULL)


def run_make(root: Path, targets: list[str]) -> tuple[int, list[str]]:
    """Exit status, and the closing lines of pytest; what it writes is shown as it comes."""
    settings = {name: value for name, value in os.environ.items() if SETTINGS.fullmatch(name)}
    texts = {name: Path(name).read_text() for name in map(os.path.expanduser, FILES) if os.path.exists(name)}
    handed_in = named_paths([*settings.values(), *texts.values()])
    for path in handed_in:
        stand_in(Path(path), Path(f"{root}{HANDED_IN}{path}"))
    for name, text in texts.items():
        inside = Path(f"{root}{name}")
        inside.parent.mkdir(parents=True, exist_ok=True)
        inside.write_text(moved(text, handed_in))
    environment = {"HOME": "/root", "LANG": "C.UTF-8", "PATH": PATH, **settings}
    make = ["env", "-i", *(f"{name}={moved(value, handed_in)}" for name, value in environment.items())]
    make += ["make", f"--directory={TREE}", *targets]
    unshare = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation=private")
    process = subprocess.Popen(
        [*unshare, "sh", "-euc", ENTER, str(root), *handed_in, "--", *make],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    assert process.stdout is not None
    closing = []
    try:
        for line in process.stdout:
            print(line, end="", flush=True)
            if found := CLOSING_LINE.fullmatch(line.strip()):
                closing.append(found[1])
        return process.wait(), closing
    finally:
        # unshare hears neither SIGINT nor SIGTERM, and a run that nobody waits for goes on for an hour.
        process.kill()


def named_paths(texts: Iterable[str]) -> list[str]:
    """Files and folders of this machine that settings name; what lies in one of them comes with it."""
    words = {word for text in texts for word in re.findall(r"(?:file://|(?<![\w/.:]))(/[\w.+-][\w./+-]*)", text)}
    # The pages of an index of packages on disk name files beside it.
    folders = {word.rstrip("/").removesuffix("/simple") for word in words}
    there = sorted(word for word in folders if word and os.path.exists(word))
    return [path for path in there if not any(path.startswith(f"{other}/") for other in there)]


def moved(text: str, handed_in: list[str]) -> str:
    """A setting that names the paths where they are inside."""
    for path in handed_in:
        text = re.sub(rf"(?<![\w.]){re.escape(path)}(?![\w.-])", HANDED_IN + path, text)
    return text


def stand_in(path: Path, inside: Path) -> None:
    """Make something in the root to mount a file or a folder of this machine over."""
    (inside if path.is_dir() else inside.parent).mkdir(parents=True, exist_ok=True)
    if not path.is_dir():
        inside.touch()


def output(*argv: str) -> str:
    """What a program prints; its failure is ours."""
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main())
