"""Who runs the programs of another architecture: what the kernel is told, and what is said where that cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import foreign
from .foreign import make_runnable
from .process import LabError

RULE = ":qemu-aarch64:M::magic:mask:/usr/libexec/qemu-binfmt/aarch64-binfmt-P:OPF\n"
ENTRY = "enabled\ninterpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\nflags: {flags}\noffset 0\n"


@pytest.fixture(autouse=True)
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What stands for the kernel's folder, on an amd64 machine with qemu-user-static."""
    rules, binfmt = tmp_path / "binfmt.d", tmp_path / "binfmt_misc"
    for name, path in (("RULES", rules), ("BINFMT", binfmt)):
        path.mkdir()
        monkeypatch.setattr(foreign, name, path)
    monkeypatch.setattr(foreign, "native_architecture", lambda: "amd64")
    (rules / "qemu-aarch64.conf").write_text(RULE)
    (binfmt / "register").touch()
    return binfmt


def test_a_kernel_is_told_once(kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []

    def register(path: Path, text: str) -> None:
        told.append((path.name, text))
        with (kernel / "qemu-aarch64").open("w") as entry:
            entry.write(ENTRY.format(flags="POF"))

    monkeypatch.setattr(Path, "write_text", register)
    make_runnable("arm64")
    make_runnable("arm64")
    assert told == [("register", RULE)]


def test_an_entry_that_reaches_into_no_root(kernel: Path) -> None:
    """Without F the emulator is looked for in the root itself, which has none."""
    (kernel / "qemu-aarch64").write_text(ENTRY.format(flags="PO"))
    with pytest.raises(LabError, match="expected it enabled and with the flag F"):
        make_runnable("arm64")


def test_a_kernel_that_may_not_be_told(kernel: Path) -> None:
    (kernel / "register").unlink()
    (kernel / "register").mkdir()
    with pytest.raises(LabError, match=r"its kernel cannot be told of .*Is a directory: (?s:.*)run it on its host"):
        make_runnable("arm64")


def test_no_emulator() -> None:
    with pytest.raises(LabError, match="programs of armhf do not run on this machine: apt install qemu-user-static"):
        make_runnable("armhf")


@pytest.mark.parametrize(("native", "architecture"), [("amd64", "amd64"), ("arm64", "arm64"), ("arm64", "armhf")])
def test_what_runs_by_itself(native: str, architecture: str, kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign, "native_architecture", lambda: native)
    make_runnable(architecture)
    assert [path.name for path in kernel.iterdir()] == ["register"]
