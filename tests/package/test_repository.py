"""make apt-repo: a rack upgrades from it and goes back, by a real apt of each release, and trusts nothing else."""

from __future__ import annotations

import functools
import http.server
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.package import chroot
from tests.package.chroot import Chroot, files_below
from tests.package.conftest import TREE
from tests.package.test_package import install

TOOL = TREE / "debian" / "repository.py"
NEXT = "0.1.1"
URL = "http://127.0.0.1:{port}/"


@pytest.fixture(autouse=True)
def _no_keys_of_mine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """gpg's agent listens on a socket beside the keys, whose path may have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="rpinfs-") as folder:
        monkeypatch.setenv("XDG_DATA_HOME", folder)
        monkeypatch.setenv("GNUPGHOME", f"{folder}/mine")
        Path(folder, "mine").mkdir(mode=0o700)
        yield
        subprocess.run(["gpgconf", "--kill", "all"], check=True)


def later(deb: Path, folder: Path, version: str = NEXT) -> Path:
    """The same package as another version, or as another build of this one."""
    inside = folder / "inside"
    subprocess.run(["dpkg-deb", "--raw-extract", deb, inside], check=True)
    control = inside / "DEBIAN" / "control"
    control.write_text(re.sub(r"(?m)^Version: .*", f"Version: {version}", control.read_text()))
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", inside, folder], check=True, capture_output=True)
    shutil.rmtree(inside)
    (built,) = folder.glob("*.deb")
    return built


def add(repository: Path, deb: Path, *words: str, url: str = "file:/nowhere") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/usr/bin/python3", "-IB", TOOL, repository, deb, "--url", url, *words],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def state(repository: Path) -> dict[str, bytes]:
    """All that a reader may find there."""
    paths = {name: repository / name for name in files_below(repository) if not name.endswith(".lock")}
    return {name: path.read_bytes() for name, path in paths.items() if path.is_file()}


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The folder by HTTP; the address to ask."""
    handler = functools.partial(_Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield URL.format(port=server.server_address[1])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def version_in(root: Chroot) -> str:
    return root.run("dpkg-query", "--show", "--showformat=${Version}", "rpinfs").stdout


def candidate_in(root: Chroot) -> str:
    found = re.search(r"Candidate: (\S+)", root.run("apt-cache", "policy", "rpinfs").stdout)
    return found[1] if found else ""


def updated(root: Chroot) -> subprocess.CompletedProcess[str]:
    """Ask for news as a Pi does, with every warning an error."""
    return root.run("apt-get", "update", "--error-on=any", "-o", "APT::Update::Error-Mode=any", ok=(0, 100))


@pytest.mark.root
def test_a_rack_upgrades_goes_back_and_trusts_nothing_else(deb: Path, release: str, tmp_path: Path) -> None:
    repository = tmp_path / "apt"
    with chroot.chroot(release) as root, served(repository) as url:
        assert add(repository, deb, url=url).returncode == 0
        install(root, deb)
        first = version_in(root)
        for path in (root.path("/etc/apt/sources.list"), *root.path("/etc/apt/sources.list.d").iterdir()):
            path.unlink(missing_ok=True)
        root.put(repository / "rpinfs.sources", "/etc/apt/sources.list.d/rpinfs.sources")
        assert updated(root).returncode == 0
        assert candidate_in(root) == first

        assert add(repository, later(deb, tmp_path), url=url).returncode == 0
        assert updated(root).returncode == 0
        root.run("apt-get", "upgrade", "--yes")
        assert version_in(root) == NEXT
        root.run("apt-get", "install", "--yes", "--allow-downgrades", f"rpinfs={first}")
        assert version_in(root) == first

        in_force = repository / "InRelease"
        signed = in_force.read_bytes()
        name = re.search(rb"([0-9a-f]{64}) \d+ Packages", signed)
        assert name
        index = repository / "by-hash/SHA256" / name[1].decode()
        listed = index.read_bytes()
        # Another index under the name of the one that is signed.
        index.write_bytes(listed.replace(NEXT.encode(), b"6.6.6"))
        root.run("rm", "-rf", "/var/lib/apt/lists")
        assert "Hash Sum mismatch" in refused(root)
        # One that is named, by somebody without the key.
        index.write_bytes(listed)
        in_force.write_bytes(signed.replace(b"Label: rpinfs", b"Label: others"))
        assert re.search("(?i)signature", refused(root))
        # Without any signature.
        in_force.write_bytes(re.sub(rb"(?s)-----BEGIN PGP SIGNATURE.*|^.*?\n\n", b"", signed))
        refused(root)
        # A package that is not the one in the index.
        in_force.write_bytes(signed)
        assert updated(root).returncode == 0
        package = repository / "pool" / f"rpinfs_{NEXT}_all.deb"
        package.write_bytes(package.read_bytes()[:-1] + b"\0")
        root.run("apt-get", "clean")
        root.run("apt-get", "upgrade", "--yes", ok=(100,))
        assert version_in(root) == first


def refused(root: Chroot) -> str:
    """What apt has to say; nothing to install from it."""
    done = updated(root)
    said = done.stdout + done.stderr
    assert done.returncode == 100, said
    assert candidate_in(root) not in (NEXT, "6.6.6"), said
    return said


def test_make_does_it_again_and_with_a_key_of_mine(deb: Path, tmp_path: Path) -> None:
    """The same twice is the same once; and only the key that the Pis trust signs."""
    repository = tmp_path / "apt"
    made = subprocess.run(
        [
            "make",
            "--silent",
            "-C",
            TREE,
            "--assume-old=deb",
            "apt-repo",
            f"APT_REPO={repository}",
            f"DIST={deb.parent}",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    assert (repository / "rpinfs.sources").read_text().startswith(f"Types: deb\nURIs: file:{repository}\nSuites: ./\n")
    home = Path(os.environ["XDG_DATA_HOME"], "rpinfs/apt-repo")
    assert home.stat().st_mode & 0o777 == 0o700
    before = state(repository)
    assert b"PRIVATE" not in b"".join(before.values())

    assert add(repository, deb).returncode == 0
    after = state(repository)
    changed = {name for name in {*before, *after} if before.get(name) != after.get(name)}
    assert changed <= {"InRelease", "rpinfs.sources"}

    words = (
        "--batch",
        "--passphrase",
        "",
        "--pinentry-mode",
        "loopback",
        "--quick-generate-key",
        "me",
        "ed25519",
        "sign",
    )
    subprocess.run(["gpg", "--quiet", *words], check=True, capture_output=True)
    other = tmp_path / "other"
    assert add(other, deb, "--key", "me").returncode == 0
    done = add(repository, deb, "--key", "me")
    assert (done.returncode, state(repository)) == (1, after)
    assert "which the Pis trust" in done.stderr


def test_a_failed_run_leaves_it_whole(deb: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = tmp_path / "apt"
    assert add(repository, deb).returncode == 0
    before = state(repository)
    # Another build of the version that racks have: apt would never fetch it.
    (tmp_path / "again").mkdir()
    done = add(repository, later(deb, tmp_path / "again", deb.name.split("_")[1]))
    assert (done.returncode, state(repository)) == (1, before)
    assert done.stderr.startswith("apt-repo: expected a new version, found another pool/rpinfs_")
    done = add(repository, deb, "--key", "nobody")
    assert (done.returncode, state(repository)) == (1, before)

    (tmp_path / "later").mkdir()
    newer = later(deb, tmp_path / "later")
    for program, fails in (("gpg", "*--clear-sign*"), ("dpkg-scanpackages", "*")):
        shim = tmp_path / program / program
        shim.parent.mkdir()
        shim.write_text(f'#!/bin/sh\ncase "$*" in {fails}) exit 2;; esac\nexec /usr/bin/{program} "$@"\n')
        shim.chmod(0o755)
        with monkeypatch.context() as patched:
            patched.setenv("PATH", f"{shim.parent}:{os.environ['PATH']}")
            assert add(repository, newer).returncode == 1
        found = state(repository)
        assert {name: found.get(name) for name in before} == before
    assert add(repository, newer).returncode == 0
    assert {"pool/" + newer.name, "pool/" + deb.name} <= set(state(repository))
