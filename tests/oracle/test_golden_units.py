"""systemd has nothing to say about the units of any golden case, and understands them as they are meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.golden.test_golden import CASES
from tests.oracle.systemd import Systemd
from tests.support import listing

pytestmark = pytest.mark.root

WITH_UNITS = [case for case in CASES if (case / "expected").exists()]
WITH_MOUNTS = [case for case in WITH_UNITS if list((case / "expected").glob("*.mount"))]
STUB = "[Service]\nExecStart=/bin/true\n"
# Key of a mount unit, and what systemd's dump calls it.
PROPERTIES = {
    "What": "What",
    "Where": "Where",
    "Type": "File System Type",
    "Options": "Options",
    "Description": "Description",
}


def put(systemd: Systemd, case: Path) -> tuple[str, list[str]]:
    """The units of a case in the chroot, those of its fstab, and units of no content for the other drop-ins."""
    folder = systemd.put(case / "expected", "/golden")
    names = {Path(name).parts[0] for name in listing(case / "expected")}
    touched = sorted(name for name in names if name.endswith(".mount"))
    for name in sorted(name.removesuffix(".d") for name in names if name.endswith(".d")):
        touched.append(name)
        path = systemd.root.path(f"{folder}/{name}")
        if not systemd.root.path(f"/usr/lib/systemd/system/{name}").exists():
            path.write_text(STUB)
    fstab = case / "root/etc/fstab"
    by_fstab = systemd.fstab_units(fstab.read_text() if fstab.exists() else "", "/golden-fstab")
    return f"{folder}:{by_fstab}", touched


@pytest.mark.parametrize("case", WITH_UNITS, ids=lambda case: case.name)
def test_verify_is_silent(case: Path, systemd: Systemd) -> None:
    """Also of the whole boot: an ordering cycle is told only there."""
    folder, names = put(systemd, case)
    assert systemd.verify(folder, *names, "multi-user.target") == ""


@pytest.mark.parametrize("case", WITH_MOUNTS, ids=lambda case: case.name)
def test_every_value_comes_through(case: Path, systemd: Systemd) -> None:
    """Spaces, specifiers and backslashes mean to systemd what they mean in the configuration."""
    folder, names = put(systemd, case)
    mounts = [name for name in names if name.endswith(".mount")]
    computed = systemd.compute(folder, *names)
    for name in mounts:
        written = dict(
            line.split("=", 1) for line in (case / "expected" / name).read_text().splitlines() if "=" in line
        )
        assert {key: computed[name][shown] for key, shown in PROPERTIES.items()} == {
            key: {written[key].replace("%%", "%")} for key in PROPERTIES
        }
        assert computed[name]["Unit Load State"] == {"loaded"}


def test_the_oracle_speaks_of_what_is_wrong(systemd: Systemd, tmp_path: Path) -> None:
    (tmp_path / "x.mount").write_text("[Mount]\nWhat=/dev/x\nWhere=/x\nColour=red\n")
    assert "Unknown key" in systemd.verify(systemd.put(tmp_path, "/wrong"), "x.mount")


def test_mounts_and_agent_stop_before_the_network(systemd: Systemd) -> None:
    """network.target is what every manager of the network is ordered before; at shutdown the order is turned round."""
    folder, names = put(systemd, Path(__file__).parents[1] / "golden" / "01-empty-config")
    computed = systemd.compute(folder, *names, "rpinfs-agent.service", "systemd-networkd.service")
    nfs = [name for name in names if name.endswith(".mount") and "nfs" in computed[name]["File System Type"]]
    assert set(nfs) == {"boot-firmware.mount", "nfs-docker.mount"}
    for name in [*nfs, "var-lib-docker.mount"]:
        assert "network.target" in computed[name]["After"]
    assert "nfs-docker.mount" in computed["rpinfs-agent.service"]["After"]
    assert "network.target" in computed["systemd-networkd.service"]["Before"]
