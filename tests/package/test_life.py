"""The package through its life, by the steps of piuparts(1): from the first version on, removed, back, and purged.

Nobody is there to answer a question, and nothing of it stays behind.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.package import chroot
from tests.package.chroot import Chroot, files_below
from tests.package.conftest import TREE
from tests.package.test_package import RECORDS, install, kept_files

FIRST_VERSION = "4e9fb91d3bd0efc7a6ccce52d0d53d3576ea1466"
"""The commit of which the first package was built: other modules, other units, other maintainer scripts."""

ADMINS = {
    "etc/rpinfs/rpinfs.conf": "[Image docker]\nSize=20G\n",
    "etc/rpinfs/rpinfs.conf.d/50-site.conf": "[Share]\nExport=/images\n",
    "var/lib/rpinfs/verified/docker": "what the agent keeps\n",
}


@pytest.fixture(scope="session")
def first_deb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    git = ["git", "-c", f"safe.directory={TREE}", "-C", str(TREE)]
    if subprocess.run([*git, "cat-file", "-e", FIRST_VERSION], check=False, capture_output=True).returncode:
        pytest.skip("this clone has no history")
    tree = tmp_path_factory.mktemp("first") / "rpinfs"
    tree.mkdir()
    packed = subprocess.run([*git, "archive", FIRST_VERSION], check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x"], cwd=tree, input=packed, check=True)
    subprocess.run(["dpkg-buildpackage", "--build=binary", "--no-sign"], cwd=tree, check=True, capture_output=True)
    (built,) = tree.parent.glob("rpinfs_*_all.deb")
    return built


def put_admins_files(root: Chroot) -> None:
    for name, text in ADMINS.items():
        path = root.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def broken_links(root: Chroot) -> set[str]:
    """Links that lead nowhere within the root."""
    return {name for name in files_below(root.root) if not RECORDS.match(name) and leads_nowhere(root.root, name)}


def leads_nowhere(root: Path, name: str) -> bool:
    path = root / name
    if not path.is_symlink():
        return False
    target = os.readlink(path)
    return not os.path.lexists(root / target.lstrip("/") if target.startswith("/") else path.parent / target)


def byte_code(root: Chroot) -> set[str]:
    return {name for name in files_below(root.path("/usr/share/rpinfs")) if name.endswith(".pyc")}


def is_well(root: Chroot) -> None:
    """dpkg has nothing left to do, no file differs, and it runs."""
    assert root.run("dpkg", "--audit").stdout == ""
    assert root.run("dpkg", "--verify", "rpinfs").stdout == ""
    assert root.run("rpinfs", "--version").stdout


def is_bound_anew_with_python(root: Chroot) -> None:
    """The one file has of Python's library as well: whatever package brings another build of that has it made anew."""
    (bound,) = root.path("/usr/share/rpinfs").glob("bound.*")
    right = bound.read_bytes()
    bound.unlink()
    library = root.run("python3", "-c", "import os; print(os.path.dirname(os.__file__))").stdout.strip()
    root.run("dpkg-trigger", "--by-package=libpython3-stdlib", f"{library}/os.py")
    root.run("dpkg", "--configure", "--pending")
    assert bound.read_bytes() == right


@pytest.mark.root
def test_from_the_first_version_to_the_purge(first_deb: Path, deb: Path, release: str) -> None:
    with chroot.chroot(release) as root:
        before, links = kept_files(root), broken_links(root)
        install(root, first_deb)
        put_admins_files(root)

        install(root, deb)
        is_well(root)
        upgraded, compiled = kept_files(root), byte_code(root)
        assert broken_links(root) == links
        assert {name: root.path(name).read_text() for name in ADMINS} == ADMINS
        is_bound_anew_with_python(root)

        root.run("dpkg", "-r", "rpinfs")
        left = kept_files(root) - before
        assert {name for name in left if root.path(name).is_file()} == set(ADMINS)
        assert {name for name in left if not name.startswith(("etc/rpinfs", "var/lib/rpinfs"))} == set()

        # Back, and over itself: what a removal or an upgrade leaves is not in the way, and nothing differs by it.
        for _ in range(2):
            install(root, deb)
            is_well(root)
            assert kept_files(root) == upgraded
            assert byte_code(root) == compiled
        # Back to the first version, and away from there.
        install(root, first_deb)
        install(root, deb)
        is_well(root)

        root.run("dpkg", "-P", "rpinfs")
        assert kept_files(root) == before
        assert broken_links(root) == links
        # Purged twice, and with no file of its own left to purge.
        install(root, deb)
        root.run("rm", "-rf", "/etc/rpinfs", "/var/lib/rpinfs")
        root.run("dpkg", "-r", "rpinfs")
        root.run("dpkg", "-P", "rpinfs")
        assert kept_files(root) == before


def test_dpkg_has_no_question(deb: Path) -> None:
    """What the administrator edits is no file of the package's, and no maintainer script asks."""
    control = subprocess.run(["dpkg-deb", "--ctrl-tarfile", deb], capture_output=True, check=True).stdout
    names = subprocess.run(["tar", "-t"], input=control, capture_output=True, check=True).stdout.decode().split()
    assert {"./conffiles", "./config", "./templates"} & set(names) == set()
    assert {"./preinst", "./postinst", "./prerm", "./postrm"} <= set(names)
