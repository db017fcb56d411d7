"""`rpinfs units --output`: the files that the generator would write, below a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from rpinfs.commands import cli
from tests.support import listing, make_pi, make_tree

Captured = pytest.CaptureFixture[str]
FSTAB = "nas:/docker /nfs/docker nfs defaults 0 0\n"


def test_what_would_be_written(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setenv("RPINFS_ROOT", str(make_pi(root, files={"etc/fstab": FSTAB})))
    before = listing(root)
    assert cli.main(["units", "--output", str(tmp_path / "out")]) == 0
    said, written = capsys.readouterr(), listing(tmp_path / "out")
    assert said.out == "" and said.err.startswith("rpinfs: ") and "/nfs/docker" in said.err
    assert "nfs-docker.mount" not in written and "var-lib-docker.mount" in written
    assert listing(root) == before
    # And shown, the same.
    assert cli.main(["units"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("# In use: the root is on NFS. Settings: rpinfs config show\n# ")
    assert "\n# /run/systemd/generator/var-lib-docker.mount\n" in shown
    assert all(text.rstrip() in shown for text in written.values() if not text.startswith("-> "))
    assert "multi-user.target.wants/rpinfs-agent.service -> " in shown


def test_of_a_wrong_configuration_what_holds_docker_back(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setenv("RPINFS_ROOT", str(make_pi(root, "[Server]\nVersion=9\n[Image podman]\nBefore=p.service\n")))
    assert cli.main(["units", "--output", str(tmp_path / "out")]) == 2
    assert "Version=9" in capsys.readouterr().err
    written = listing(tmp_path / "out")
    assert written and not any(name.endswith(".mount") for name in written)
    assert cli.main(["units"]) == 2


@pytest.mark.parametrize("more", [[], ["--output", "out"]])
def test_not_in_use(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured, more: list[str]) -> None:
    monkeypatch.chdir(root)
    monkeypatch.setenv("RPINFS_ROOT", str(make_tree(root, {"proc/cmdline": "root=/dev/sda1\n"})))
    assert cli.main(["units", *more]) == 0
    assert capsys.readouterr().out.startswith("# rpinfs writes no units: the root is not on NFS")
    assert not (root / "out").exists()


def test_why_it_is_in_use(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    config = {"proc/cmdline": "root=/dev/sda1\n", "etc/rpinfs/rpinfs.conf": "[Server]\nAddress=nas\n"}
    monkeypatch.setenv("RPINFS_ROOT", str(make_tree(root, {**config, "proc/device-tree/serial-number": "5e"})))
    assert cli.main(["units"]) == 0
    assert capsys.readouterr().out.startswith("# In use: there is a configuration. ")
