"""An image's own programs: which are run in which order, what of apt's complaints is told, what is put back."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from rpinfs.errors import RpinfsError
from rpinfs.netboot.add import programs
from rpinfs.netboot.add.programs import Image
from rpinfs.netboot.add.tree import Tree
from rpinfs.system.run import CommandError, Completed
from tests.support import Content, make_tree

pytestmark = pytest.mark.root

Answer = Callable[[tuple[str, ...], bool], Completed]


class Answering(Image):
    """An image whose programs answer as a test says; real ones run in tools/netboot."""

    def __init__(self, root: Tree, answer: Answer) -> None:
        super().__init__(root, "", "boot")
        self.ran: list[tuple[tuple[str, ...], str, bool]] = []
        self._answer = answer

    def run(self, *argv: str, deb: str = "", network: bool = False) -> Completed:
        self.ran.append((argv, deb, network))
        return self._answer(argv, network)


def well(argv: tuple[str, ...], _network: bool) -> Completed:
    shown = "rpinfs\t0.1.0\ndocker.io\t26.1\twith\nno tab\n" if argv[0] == "dpkg-query" else ""
    return Completed(0, shown, "")


def failing(*, offline: str = "", online: str = "", update: str = "") -> Answer:
    def answer(argv: tuple[str, ...], network: bool) -> Completed:
        said = update if "update" in argv else online if network else offline if argv[0] == "apt-get" else ""
        if said and "clean" not in argv:
            raise CommandError(list(argv), "exit status 100", returncode=100, stderr=said)
        return well(argv, network)

    return answer


def image_of(tmp_path: Path, answer: Answer = well, files: dict[str, Content] | None = None) -> Answering:
    return Answering(Tree(str(make_tree(tmp_path, files or {"usr/sbin": None}))), answer)


APT = ("apt-get", "--yes", "--quiet", "-o", "Dpkg::Options::=--force-confold", "-o", "Dpkg::Use-Pty=0")
SHOW = ("dpkg-query", "--show", "--showformat=${Package}\t${Version}\n")


def test_packages_that_are_there_ask_no_archive(tmp_path: Path) -> None:
    image, told = image_of(tmp_path), list[str]()
    found = programs.install(image, "/a/rpinfs.deb", ["docker.io"], told.append)
    assert found == {"rpinfs": "0.1.0", "docker.io": "26.1\twith"}
    assert image.ran == [
        (("true",), "", False),
        ((*APT, "--no-download", "install", programs.DEB, "docker.io"), "/a/rpinfs.deb", False),
        (("apt-get", "clean"), "", False),
        ((*SHOW, "rpinfs", "docker.io"), "", False),
    ]
    assert told == ["installing rpinfs, docker.io"]


def test_packages_that_are_fetched(tmp_path: Path) -> None:
    image, told = image_of(tmp_path, failing(offline="E: not there")), list[str]()
    programs.install(image, "/a/rpinfs.deb", [], told.append)
    alone = (*APT, "--no-install-recommends")
    assert image.ran[1:4] == [
        ((*alone, "--no-download", "install", programs.DEB), "/a/rpinfs.deb", False),
        ((*alone, "update"), "/a/rpinfs.deb", True),
        ((*alone, "install", programs.DEB), "/a/rpinfs.deb", True),
    ]
    assert told == [
        "installing rpinfs", "asking the archives of the image for their packages", "fetching and installing rpinfs",
    ]  # fmt: skip


@pytest.mark.parametrize(("answer", "said"), [
    (failing(offline="x", online="W: slow\n  E: Unable to locate package\nE: more"), "E: Unable to locate package"),
    (failing(offline="x", update="dpkg: error: locked"), "dpkg: error: locked"),
    (failing(offline="x", online="nothing of this form"), "exit status 100"),
])  # fmt: skip
def test_what_cannot_be_installed(answer: Answer, said: str, tmp_path: Path) -> None:
    image = image_of(tmp_path, answer)
    with pytest.raises(RpinfsError) as caught:
        programs.install(image, "", ["docker.io"], print)
    assert caught.value.message == f"docker.io cannot be installed: {said}"
    assert not image.root.has(programs.POLICY), "what kept services from starting is gone"


def test_nothing_starts_and_all_is_put_back(tmp_path: Path) -> None:
    files: dict[str, Content] = {"etc/resolv.conf": Path("../run/systemd/resolve/stub-resolv.conf"), "usr/sbin": None}
    seen = []

    def answer(argv: tuple[str, ...], network: bool) -> Completed:
        policy = tmp_path / programs.POLICY
        if "install" in argv:
            resolv = tmp_path / programs.RESOLV
            seen.append((policy.read_text(), stat.S_IMODE(policy.stat().st_mode), resolv.is_symlink()))
        return well(argv, network)

    image = image_of(tmp_path, answer, files)
    programs.install(image, "", ["docker.io"], print)
    assert seen == [(programs.NO_SERVICES, 0o755, False)]
    assert (tmp_path / "etc/resolv.conf").readlink() == files["etc/resolv.conf"]
    assert image.root.names("usr/sbin") == []
    assert image.root.names("etc") == ["resolv.conf"]


def test_a_policy_of_the_image_comes_back(tmp_path: Path) -> None:
    image = image_of(tmp_path, well, {programs.POLICY: "theirs"})
    with pytest.raises(KeyError), programs.ready_for_apt(image.root):
        assert image.root.read(programs.POLICY) == programs.NO_SERVICES
        raise KeyError
    assert (image.root.names("usr/sbin"), image.root.read(programs.POLICY)) == (["policy-rc.d"], "theirs")


def not_run(returncode: int | None, stderr: str) -> Answer:
    def answer(argv: tuple[str, ...], _network: bool) -> Completed:
        raise CommandError(list(argv), "the reason", returncode=returncode, stderr=stderr)

    return answer


@pytest.mark.parametrize(("code", "stderr", "said"), [
    (None, "", "true: the reason"),
    (1, "", "the image's programs do not run: the reason"),
    (1, "first\n last \n", "the image's programs do not run:  last"),
    (126, "exec: Exec format error", "the image's programs (arm64) do not run on this machine"),
])  # fmt: skip
def test_programs_that_do_not_run(code: int | None, stderr: str, said: str, tmp_path: Path) -> None:
    elf = b"\x7fELF" + b"\0" * 14 + b"\xb7\0" + b"\0" * 100
    image = image_of(tmp_path, not_run(code, stderr), {"usr/bin/true": elf})
    with pytest.raises(RpinfsError) as caught:
        image.insist_it_runs()
    assert caught.value.message == said
    assert ("qemu-user-static" in str(caught.value.remedy)) is (code == 126)


@pytest.mark.parametrize(("files", "machine"), [
    *(({"usr/bin/true": b"\x7fELF".ljust(18, b"\0") + bytes([number]) + b"\0"}, name) for number, name in {
        0x28: "armhf", 0xB7: "arm64", 0x03: "i386", 0x3E: "amd64", 0xF3: "riscv64", 0x01: "another architecture",
    }.items()),
    ({"bin/true": b"\x7fELF".ljust(18, b"\0") + b"\x28\0"}, "armhf"),
    ({"usr/bin/true": Path("coreutils"), "bin/true": b"\x7fELF".ljust(18, b"\0") + b"\xb7\0"}, "arm64"),
    ({}, "another architecture"),
])  # fmt: skip
def test_what_programs_are_made_for(files: dict[str, Content], machine: str, tmp_path: Path) -> None:
    assert image_of(tmp_path, well, files).architecture() == machine


@pytest.mark.parametrize(("architecture", "file"), [("arm64", "aarch64"), ("armhf", "arm"), ("riscv64", "riscv64")])
def test_an_emulator(architecture: str, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for there, said in ((file, "systemctl restart systemd-binfmt"), ("other", "apt install qemu-user-static")):
        path = f"/usr/lib/binfmt.d/qemu-{there}.conf"
        with monkeypatch.context() as patch:
            patch.setattr("os.path.exists", path.__eq__)
            found = programs._emulator(architecture)
        assert found.endswith(said)
