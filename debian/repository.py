"""Puts a package into a static, signed apt repository: `repository.py FOLDER --url URL [--key KEY] DEB`.

One index for all architectures ("flat", sources.list(5)), since the package is for all. What apt reads is named by its
hash, and the one file that says which hash is in force is replaced last: whoever is cut off before that leaves the
repository as it was. Versions stay, so that a rack can go back.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from email.utils import formatdate
from pathlib import Path

POOL, BY_HASH, IN_FORCE = "pool", "by-hash/SHA256", "InRelease"
KEY_FILE, SOURCES = "rpinfs.asc", "rpinfs.sources"
OWNER = "rpinfs apt repository"
KEPT_INDEXES = 3
"""Readers that have read the old InRelease still ask for its index."""


class RepositoryError(Exception):
    """A sentence for a person."""


def main() -> int:
    """Add a package, and say how a Pi gets it; exit status 1 where the repository stays as it was."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("deb", type=Path)
    parser.add_argument("--url", required=True, help="where the Pis find the folder")
    parser.add_argument("--key", help="of gpg's own keyring; without, one is made for this user and used again")
    asked = parser.parse_args()
    os.umask(0o022)
    try:
        add(asked.folder, asked.deb, asked.url, asked.key)
    except (RepositoryError, OSError) as error:
        print(f"apt-repo: {error}; {asked.folder} is as it was", file=sys.stderr)
        return 1
    print(f"{asked.folder}: {', '.join(sorted(published(asked.folder)))}")
    print(f"on each Pi: {SOURCES} to /etc/apt/sources.list.d, then apt update and apt install rpinfs")
    return 0


def add(folder: Path, deb: Path, url: str, key: str | None) -> None:
    """Put a package beside those that are there. Raises RepositoryError, and nothing has changed for who reads it."""
    for name in (POOL, BY_HASH):
        (folder / name).mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        signer = Signer(key)
        try:
            public = signer.public_key()
            there = folder / KEY_FILE
            if there.exists() and fingerprints(there.read_text()) != fingerprints(public):
                raise RepositoryError(f"expected the key of {there}, which the Pis trust, found {signer.key}: use KEY=")
            known = published(folder)
            name = f"{POOL}/{deb.name}"
            if known.get(name, sha256(deb.read_bytes())) != sha256(deb.read_bytes()):
                raise RepositoryError(
                    f"expected a new version, found another {name} in it: add one to debian/changelog"
                )
            # Leftovers of a run that was cut off: no signed index names them.
            for path in (folder / POOL).iterdir():
                if f"{POOL}/{path.name}" not in known:
                    path.unlink()
            write(folder / name, deb.read_bytes())
            index = run("dpkg-scanpackages", "--multiversion", POOL, cwd=folder)
            write(folder / BY_HASH / sha256(index), index)
            write(there, public.encode())
            write(folder / SOURCES, sources(url, public).encode())
            write(folder / IN_FORCE, signer.sign(release(index)))
        finally:
            signer.close()
        indexes = sorted((folder / BY_HASH).iterdir(), key=lambda path: path.stat().st_mtime_ns)
        for path in indexes[:-KEPT_INDEXES]:
            path.unlink()


def published(folder: Path) -> Mapping[str, str]:
    """What the index in force names: the packages with their hashes; nothing where there is no repository yet."""
    if not (folder / IN_FORCE).exists():
        return {}
    found = re.search(r"^ ([0-9a-f]{64}) \d+ Packages$", (folder / IN_FORCE).read_text(), re.MULTILINE)
    if not found:
        raise RepositoryError(f"{folder / IN_FORCE}: expected one that make apt-repo has written")
    index = (folder / BY_HASH / found[1]).read_text()
    return {
        name[1]: digest[1]
        for stanza in index.split("\n\n")
        if (name := re.search(r"^Filename: (.*)$", stanza, re.MULTILINE))
        and (digest := re.search(r"^SHA256: (.*)$", stanza, re.MULTILINE))
    }


def release(index: bytes) -> bytes:
    """What is signed. Without Valid-Until: a rack that nothing is new for is no rack that somebody holds back."""
    fields = {
        "Origin": "rpinfs",
        "Label": "rpinfs",
        "Suite": "rpinfs",
        "Date": formatdate(usegmt=True),
        "Acquire-By-Hash": "yes",
        "SHA256": f"\n {sha256(index)} {len(index)} Packages",
    }
    return "".join(f"{key}: {value}\n" for key, value in fields.items()).replace(": \n", ":\n").encode()


def sources(url: str, public: str) -> str:
    """The entry for a Pi, with the key in it: nothing else is to be copied. See sources.list(5)."""
    key = "".join(f" {line or '.'}\n" for line in public.splitlines())
    return f"Types: deb\nURIs: {url}\nSuites: ./\nSigned-By:\n{key}"


class Signer:
    """gpg with the key that the Pis trust; one that is made here has no passphrase, and is this user's alone."""

    def __init__(self, key: str | None) -> None:
        self.key = key or OWNER
        self._home: Path | None = None
        if not key:
            data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
            self._home = Path(data) / "rpinfs" / "apt-repo"
            self._home.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._home.chmod(0o700)
            if not self._gpg("--list-secret-keys", "--with-colons"):
                self._gpg("--passphrase", "", "--quick-generate-key", OWNER, "ed25519", "sign", "never")

    def public_key(self) -> str:
        """In the form with letters only."""
        exported = self._gpg("--armor", "--export-options", "export-minimal", "--export", self.key).decode()
        found = len(fingerprints(exported)) if exported else 0
        if found != 1:
            raise RepositoryError(f"expected one key called {self.key!r}, found {found}: gpg --list-secret-keys")
        return exported

    def sign(self, text: bytes) -> bytes:
        """The text with its signature around it."""
        return self._gpg("--clear-sign", "--digest-algo", "SHA512", "--local-user", self.key, text=text)

    def close(self) -> None:
        """End the agent that gpg has left for a key of ours."""
        if self._home:
            subprocess.run(["gpgconf", "--homedir", self._home, "--kill", "all"], check=False, capture_output=True)

    def _gpg(self, *words: str, text: bytes = b"") -> bytes:
        home = ("--homedir", str(self._home), "--pinentry-mode", "loopback") if self._home else ()
        return run("gpg", "--batch", "--quiet", *home, *words, text=text)


def fingerprints(public: str) -> list[str]:
    """Of the keys in a text; what else is in it (a later end, another name) may change."""
    shown = run("gpg", "--batch", "--quiet", "--with-colons", "--show-keys", text=public.encode()).decode()
    return re.findall(r"^pub:.*\n(?:.*\n)??fpr:+([0-9A-F]+):", shown, re.MULTILINE)


def run(*argv: str, cwd: Path | None = None, text: bytes = b"") -> bytes:
    """What a program prints. Raises RepositoryError."""
    try:
        done = subprocess.run(argv, cwd=cwd, input=text, capture_output=True, check=False)
    except OSError as error:
        raise RepositoryError(f"{argv[0]}: {error.strerror}") from error
    if done.returncode:
        raise RepositoryError(f"{argv[0]}: {done.stderr.decode(errors='replace').strip() or done.returncode}")
    return done.stdout


def write(path: Path, content: bytes) -> None:
    """Whole, or not at all."""
    new = path.with_name(f".{path.name}.new")
    with open(new, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def sha256(content: bytes) -> str:
    """The name of an index, and what tells two packages apart."""
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
