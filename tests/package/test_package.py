"""The .deb: what it holds, and that it builds, installs and goes on Debian 12 and 13, with no systemd running."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from rpinfs import __version__
from tests.package import chroot
from tests.package.chroot import Chroot, files_below
from tests.package.conftest import TREE, make_deb

EXECUTABLE = ("usr/bin/rpinfs", "usr/lib/systemd/system-generators/rpinfs-generator")
INSTALLED = (
    "etc/rpinfs/rpinfs.conf.d",
    "usr/lib/rpinfs/rpinfs.conf.d",
    "usr/lib/systemd/system/rpinfs-agent.service",
    "usr/lib/systemd/system/rpinfs-gate.service",
    "usr/lib/systemd/system/rpinfs-attach@.service",
    "usr/lib/systemd/system/rpinfs-close.service",
    "usr/lib/systemd/system/rpinfs-thaw.service",
    "usr/lib/systemd/system/rpinfs-trim.service",
    "usr/lib/systemd/system/rpinfs-trim.timer",
    "usr/lib/systemd/system/docker.service.d/rpinfs.conf",
    "usr/lib/systemd/system/containerd.service.d/rpinfs.conf",
    "usr/share/bash-completion/completions/rpinfs",
    "usr/share/doc/rpinfs/copyright",
    "usr/share/doc/rpinfs/examples/notify-healthchecks",
    "usr/share/doc/rpinfs/examples/notify-mail",
    "usr/share/doc/rpinfs/examples/notify-ntfy",
    "usr/share/doc/rpinfs/examples/rpinfs.conf",
    "usr/share/man/man5/rpinfs.conf.5.gz",
    "usr/share/man/man7/rpinfs-checks.7.gz",
    "usr/share/man/man8/rpinfs-netboot.8.gz",
    "usr/share/man/man8/rpinfs-generator.8.gz",
    "usr/share/man/man8/rpinfs.8.gz",
    "usr/share/rpinfs/monitoring/prometheus-node-exporter.conf",
    "usr/share/rpinfs/monitoring/rpinfs.dashboard.json",
    "usr/share/rpinfs/monitoring/rpinfs.rules.yml",
    *EXECUTABLE,
)
# dpkg's and the system's own records of what happened.
RECORDS = re.compile(
    r"var/(lib/dpkg|log|cache|lib/systemd)/|tmp/|run/|proc/|.*/__pycache__(/|$)|usr/share/python3/debpython/"
)


def install(root: Chroot, deb: Path) -> None:
    root.put(deb, "/tmp/rpinfs.deb")
    root.run("dpkg", "-i", "/tmp/rpinfs.deb")


def kept_files(root: Chroot) -> set[str]:
    return {path for path in files_below(root.root) if not RECORDS.match(path)}


def assert_shims_are_ours(root: Path) -> None:
    """Packaging helpers like to rewrite first lines, and -ISB is what keeps Python short at boot."""
    for path in EXECUTABLE:
        shim = (root / path).read_text()
        assert shim.startswith("#!/usr/bin/python3 -ISBcimport gc,sys;")
        assert shim == (TREE / "units" / Path(path).name).read_text()


def pyc_of(source: Path) -> list[Path]:
    return list((source.parent / "__pycache__").glob(f"{source.stem}.cpython-*.pyc"))


def test_versions_agree() -> None:
    changelog = (TREE / "debian" / "changelog").read_text()
    assert changelog.startswith(f"rpinfs ({__version__}) ")


def names_below(folder: Path) -> set[str]:
    return {str(source.relative_to(folder)) for source in folder.rglob("*.py")}


@pytest.mark.root
def test_install_remove_purge(deb: Path, release: str) -> None:
    with chroot.chroot(release) as root:
        before = kept_files(root)
        install(root, deb)

        for path in INSTALLED:
            assert root.path(path).exists(), path
        for path in EXECUTABLE:
            assert root.path(path).stat().st_mode & 0o777 == 0o755
        # No config: nothing is to be configured on a Pi whose root is on NFS.
        assert not root.path("/etc/rpinfs/rpinfs.conf").exists()

        package = root.path("/usr/share/rpinfs/rpinfs")
        sources = list(package.rglob("*.py"))
        assert names_below(package) == names_below(TREE / "rpinfs")
        assert [source.name for source in sources if not pyc_of(source)] == []
        assert_shims_are_ours(root.root)
        loader = "import sys; sys.path.insert(0, '/usr/share/rpinfs'); import rpinfs.boot as one; print(one.__loader__)"
        assert "rpinfs.Bound" in root.run("/usr/bin/python3", "-ISBc", loader).stdout
        assert root.run("rpinfs", "--version").stdout.split()[-1] == __version__
        assert root.run("dpkg", "--verify", "rpinfs").stdout == ""

        admins = root.path("/etc/rpinfs/rpinfs.conf")
        admins.write_text("[Image docker]\nSize=20G\n")
        root.run("dpkg", "-i", "/tmp/rpinfs.deb")
        root.run("dpkg", "-r", "rpinfs")
        assert admins.exists()
        assert not root.path("/usr/share/rpinfs").exists()
        root.run("dpkg", "-P", "rpinfs")
        assert kept_files(root) == before


@pytest.mark.root
def test_running_it_writes_no_byte_code(deb: Path, release: str) -> None:
    """Files written by root below /usr/share would stay behind at the removal, and cost the NAS a write at boot."""
    with chroot.chroot(release) as root:
        install(root, deb)
        byte_code = root.path("/usr/share/rpinfs/rpinfs/__pycache__")
        before = sorted(path.name for path in byte_code.iterdir())
        root.run("rm", "-rf", "/usr/share/rpinfs/rpinfs/__pycache__")
        assert before
        root.run("rpinfs", "--version")
        root.run("/usr/lib/systemd/system-generators/rpinfs-generator", "/tmp", "/tmp", "/tmp")
        assert not byte_code.exists()


@pytest.mark.root
def test_completion_offers_the_commands(deb: Path) -> None:
    with chroot.chroot("trixie") as root:
        install(root, deb)
        script = (
            "source /usr/share/bash-completion/completions/rpinfs;"
            'complete_at() { COMP_WORDS=(rpinfs "$@"); COMP_CWORD=$#; COMPREPLY=(); _rpinfs; echo "${COMPREPLY[*]}"; };'
            'complete_at ""; complete_at image ""; complete_at image create file --f; complete_at config i;'
            "complete_at image create file --filesystem x; complete_at docker apply --userns-remap d;"
            "complete_at check --format n; complete_at check --format nagios --t; complete_at metrics --o"
        )
        offered = root.run("bash", "-euc", script).stdout.splitlines()
        assert offered == [
            "status check metrics units config image adopt release snapshot restore fleet docker trim boot netboot",
            "create grow show check",
            "--filesystem",
            "import-fstab",
            "xfs",
            "default",
            "nagios",
            "--timeout",
            "--output",
        ]
        for command in offered[0].split():
            assert root.run("rpinfs", command, "--help").stdout


@pytest.mark.root
def test_builds_on_either_release(deb: Path, release: str) -> None:
    """The same tree gives the same files, whichever release and debhelper built them."""
    with chroot.chroot(release) as root:
        copy_tree(root.path("/build/rpinfs"))
        root.run("sh", "-ec", "cd /build/rpinfs && dpkg-buildpackage --build=binary --no-sign")
        (built,) = root.path("/build").glob("rpinfs_*_all.deb")
        assert listing(built) == listing(deb)
        subprocess.run(["dpkg-deb", "--extract", built, root.path("/built")], check=True)
        assert_shims_are_ours(root.path("/built"))


def copy_tree(target: Path) -> None:
    """Copy what git tracks or would track."""
    target.mkdir(parents=True)
    names = git(TREE, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    # Links of the golden trees lead nowhere.
    listed = "\0".join(name for name in names if name and os.path.lexists(TREE / name))
    packed = subprocess.run(
        ["tar", "-c", "--null", "-T", "-"], cwd=TREE, input=listed.encode(), capture_output=True, check=True
    )
    subprocess.run(["tar", "-x"], cwd=target, input=packed.stdout, check=True)


def git(tree: Path, *words: str) -> str:
    return subprocess.run(
        ["git", "-c", f"safe.directory={TREE}", *words], cwd=tree, capture_output=True, text=True, check=True
    ).stdout


def listing(deb: Path) -> list[str]:
    """What is in a package; without the size of what each dh_python3 writes in its own words."""
    said = subprocess.run(["dpkg-deb", "--contents", deb], capture_output=True, text=True, check=True).stdout
    return [re.sub(r" +\d+ (?=.*\.rtupdate$)", " ", line) for line in said.splitlines()]


def test_build_is_reproducible_and_leaves_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bytes from another path, in another umask, zone, locale, order of the files, and times of the tree."""
    tree = tmp_path / "work" / "rpinfs"
    copy_tree(tree)
    git(tree, "init", "--quiet")
    before = git(tree, "status", "--porcelain", "--ignored", "--untracked-files=all")
    first = make_deb(tmp_path / "first", tree)
    assert git(tree, "status", "--porcelain", "--ignored", "--untracked-files=all") == before
    assert [path.name for path in tree.parent.iterdir()] == ["rpinfs"]

    other = tmp_path / "elsewhere" / "and deeper" / "tree"
    other.parent.mkdir(parents=True)
    tree.rename(other)
    # What git has listed comes before what it would.
    git(other, "add", "units", "rpinfs/system")
    # Older than the changelog, which dpkg-deb lets be.
    for path in other.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000), follow_symlinks=False)
    # A Python that is not Debian's first in PATH, as pyenv puts it there.
    fake = tmp_path / "pyenv" / "python3"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho 'this is not the Python of Debian' >&2\nexit 1\n")
    fake.chmod(0o755)
    temporary = tmp_path / "another folder for temporary files"
    temporary.mkdir()
    for name, value in {
        "PATH": f"{fake.parent}:/usr/sbin:/usr/bin:/sbin:/bin",
        "TZ": "Asia/Tokyo",
        "LANG": "tr_TR.UTF-8",
        "LC_ALL": "C",
        "LANGUAGE": "de",
        "TMPDIR": str(temporary),
        "USER": "somebody",
        "DEB_BUILD_OPTIONS": "parallel=7",
    }.items():
        monkeypatch.setenv(name, value)
    umask = os.umask(0o077)
    try:
        second = make_deb(tmp_path / "second", other)
    finally:
        os.umask(umask)
    assert first.read_bytes() == second.read_bytes()


def test_lintian_finds_nothing(deb: Path, tmp_path: Path) -> None:
    """In the package and in its source. There is no debian/watch: of a native package that is a fault to lintian, for
    there is no upstream to watch.
    """
    copy_tree(tmp_path / "rpinfs")
    subprocess.run(["dpkg-source", "--build", "rpinfs"], cwd=tmp_path, check=True, capture_output=True)
    (source,) = tmp_path.glob("*.dsc")
    found = subprocess.run(
        [
            *("lintian", "--pedantic", "--fail-on", "error,warning,pedantic", "--allow-root", str(deb), str(source)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (found.returncode, found.stdout) == (0, "")


def test_any_python_from_3_11_on_will_do(deb: Path) -> None:
    """dh_python3 compiles at the installation, for the Python that is there: no upper bound, no Python by name."""
    fields = subprocess.run(
        ["dpkg-deb", "--field", deb, "Depends"], capture_output=True, text=True, check=True
    ).stdout.strip()
    pythons = {need for need in fields.split(", ") if re.match(r"python3[.:\s\d]|python3$", need)}
    assert pythons == {"python3 (>= 3.11)", "python3:any"}


@pytest.mark.parametrize(
    "page",
    ["man5/rpinfs.conf.5", "man8/rpinfs.8", "man8/rpinfs-generator.8", "man8/rpinfs-netboot.8", "man7/rpinfs-checks.7"],
)
def test_man_pages_are_clean(deb: Path, tmp_path: Path, page: str) -> None:
    subprocess.run(["dpkg-deb", "--extract", deb, tmp_path], check=True)
    shown = subprocess.run(
        ["man", "--local-file", "--warnings", "-E", "UTF-8", f"{tmp_path}/usr/share/man/{page}.gz"],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "MANROFFSEQ": "", "MANWIDTH": "80"},
    )
    assert shown.stderr == ""
    assert "@" not in re.sub(r"\S+@\S+\.\S+", "", shown.stdout)


def test_every_setting_is_in_the_man_page_and_the_example(deb: Path, tmp_path: Path) -> None:
    from rpinfs.boot.settings import SETTINGS

    subprocess.run(["dpkg-deb", "--extract", deb, tmp_path], check=True)
    example = (tmp_path / "usr/share/doc/rpinfs/examples/rpinfs.conf").read_text()
    page = subprocess.run(
        ["zcat", tmp_path / "usr/share/man/man5/rpinfs.conf.5.gz"], capture_output=True, text=True, check=True
    ).stdout
    for setting in SETTINGS:
        assert f"\n#{setting.key}=" in example
        assert f"\n.BR {setting.key}= " in page
    # The example as it is shipped changes nothing.
    assert [line for line in example.splitlines() if line and not line.startswith("#")] == []
