"""systemd has nothing to say about the units of any golden case, and understands them as they are meant."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.golden.test_golden import CASES
from tests.oracle.systemd import Systemd
from tests.support import listing

pytestmark = pytest.mark.root

WITH_UNITS = [case for case in CASES if (case / "expected").exists()]
WITH_MOUNTS = [case for case in WITH_UNITS if list((case / "expected").glob("*.mount"))]
BELOW = "-.mount"
STUB = "[Service]\nExecStart=/bin/true\n"
STUBS = {"docker.socket": "[Socket]\nListenStream=/run/docker.sock\n"}
# Key of a mount unit, and what systemd's dump calls it.
PROPERTIES = {
    "What": "What",
    "Where": "Where",
    "Type": "File System Type",
    "Options": "Options",
    "Description": "Description",
}


def put(systemd: Systemd, case: Path) -> tuple[str, list[str]]:
    """The units of a case in the chroot, those of its fstab, and units of no content for the other drop-ins.

    For a drop-in of all mounts below an image, that is one such mount.
    """
    folder = systemd.put(case / "expected", "/golden")
    names = {Path(name).parts[0] for name in listing(case / "expected")}
    touched = sorted(name for name in names if name.endswith(".mount"))
    for extended in sorted(name.removesuffix(".d") for name in names if name.endswith(".d")):
        if extended.endswith((".swap", ".automount")):
            # These are fstab's.
            continue
        name, text = below(case, extended) if extended.endswith(BELOW) else (extended, STUBS.get(extended, STUB))
        touched.append(name)
        if not systemd.root.path(f"/usr/lib/systemd/system/{name}").exists():
            systemd.root.path(f"{folder}/{name}").write_text(text)
    fstab = case / "root/etc/fstab"
    by_fstab = systemd.fstab_units(fstab.read_text() if fstab.exists() else "", "/golden-fstab")
    return f"{folder}:{by_fstab}", touched


def below(case: Path, prefix: str) -> tuple[str, str]:
    """Name and text of a mount below the one that a prefix belongs to."""
    outer = (case / "expected" / prefix.replace(BELOW, ".mount")).read_text()
    (where,) = re.findall("^Where=.*$", outer, re.MULTILINE)
    return prefix.replace(BELOW, "-below.mount"), f"[Mount]\nWhat=x\nType=overlay\n{where}/below\n"


@pytest.mark.parametrize("case", WITH_UNITS, ids=lambda case: case.name)
def test_verify_is_silent(case: Path, systemd: Systemd) -> None:
    """Also of the whole boot: an ordering cycle is told only there. What we foretell of an fstab comes true."""
    folder, names = put(systemd, case)
    said = systemd.verify(folder, *names, "multi-user.target")
    if "ordering cycle" in ((case / "said").read_text() if (case / "said").exists() else ""):
        assert "Found ordering cycle" in said
    else:
        assert said == ""


@pytest.mark.parametrize("case", WITH_MOUNTS, ids=lambda case: case.name)
def test_every_value_comes_through(case: Path, systemd: Systemd) -> None:
    """Spaces, specifiers and backslashes mean to systemd what they mean in the configuration."""
    folder, names = put(systemd, case)
    mounts = [name for name in names if (case / "expected" / name).is_file()]
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
    nfs = [name for name in names if name in computed and "nfs" in str(computed[name].get("File System Type"))]
    assert set(nfs) == {"boot-firmware.mount", "nfs-docker.mount"}
    for name in [*nfs, "var-lib-docker.mount"]:
        assert "network.target" in computed[name]["After"]
    assert "nfs-docker.mount" in computed["rpinfs-agent.service"]["After"]
    assert "network.target" in computed["systemd-networkd.service"]["Before"]


def test_overlays_of_containers_make_no_ordering_cycle(systemd: Systemd) -> None:
    """Before local-fs.target they would: the agent follows that, the image the agent, and they the image."""
    folder, names = put(systemd, Path(__file__).parents[1] / "golden" / "01-empty-config")
    computed = systemd.compute(folder, *names)
    for image in ("var-lib-docker", "var-lib-containerd"):
        overlay = computed[f"{image}-below.mount"]
        assert f"{image}.mount" in overlay["After"] and f"{image}.mount" in overlay["Requires"]
        assert "Before" not in overlay
