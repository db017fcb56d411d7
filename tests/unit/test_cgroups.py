"""What outlives its unit is ended by its control group: the right ones, and those only."""

from __future__ import annotations

from pathlib import Path

from rpinfs import cgroups


def group(root: Path, path: str, populated: int) -> Path:
    folder = root / "sys/fs/cgroup" / path
    folder.mkdir(parents=True)
    (folder / "cgroup.events").write_text(f"populated {populated}\nfrozen 0\n")
    (folder / "cgroup.kill").write_text("")
    return folder / "cgroup.kill"


def test_only_groups_of_these_names_with_processes_are_killed(root: Path) -> None:
    wanted = [
        group(root, "system.slice/docker-0123.scope", 1),
        group(root, "customers.slice/customers-one.slice/docker-4567.scope", 1),
        group(root, "system.slice/containerd.service", 1),
    ]
    spared = [
        group(root, "system.slice/docker-89ab.scope", 0),
        group(root, "system.slice/ssh.service", 1),
        group(root, "system.slice/docker.service", 0),
    ]
    killed = cgroups.kill([*cgroups.CONTAINERS, "docker.service", "containerd.service"], str(root))
    assert sorted(killed) == ["containerd.service", "docker-0123.scope", "docker-4567.scope"]
    assert [file.read_text() for file in wanted] == ["1"] * 3
    assert [file.read_text() for file in spared] == [""] * 3


def test_where_there_are_no_such_groups_nothing_happens(root: Path) -> None:
    assert cgroups.kill(cgroups.CONTAINERS, str(root)) == []
