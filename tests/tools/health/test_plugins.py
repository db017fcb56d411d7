"""Real runners of monitoring plug-ins start `rpinfs check`: Nagios, and negate of the monitoring plug-ins."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from tests.support import Installed, make_pi
from tests.unit.health.pi import FILES
from tests.unit.health.test_monitoring import performance
from tests.watching import nagios_config, nagios_results

pytestmark = pytest.mark.root

SECONDS = 120.0


def results(nagios: Path, config: Path, wanted: int) -> dict[str, list[str]]:
    """Run Nagios until it has a result of each service: state, text, performance data, more lines."""
    found: dict[str, list[str]] = {}
    with subprocess.Popen([nagios, config], stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            until = time.monotonic() + SECONDS
            while len(found) < wanted and time.monotonic() < until:
                time.sleep(0.2)
                found = nagios_results(config)
        finally:
            process.terminate()
            process.communicate()
    return found


def test_nagios(watchers: Path, root: Path, installed: Installed, tmp_path: Path) -> None:
    make_pi(root, "", FILES)
    # Folders to ask for their room: this machine's, so how full it is is open.
    roomy = make_pi(tmp_path / "roomy", "", {**FILES, "nfs/docker": None, "var/lib/docker": None})
    # Whoever opens a pipe that nobody writes to waits.
    waits = make_pi(tmp_path / "waits", "", {name: text for name, text in FILES.items() if name != "proc/cmdline"})
    (waits / "proc/cmdline").unlink(missing_ok=True)
    os.mkfifo(waits / "proc/cmdline")
    rpinfs = f"/usr/bin/env RPINFS_ROOT={root} {installed.rpinfs} check --format nagios --timeout 50"
    config = nagios_config(tmp_path, {
        "well": f"{rpinfs} fstab share.mounted",
        "warning": f"{rpinfs} image.owner",
        "critical": f"{rpinfs} share image",
        "figures": f"{rpinfs} mount.space share.space".replace(str(root), str(roomy)),
        "misspelt": f"{rpinfs} share.spce",
        "wrong": f"{rpinfs} --fromat nagios",
        "late": f"{rpinfs} --timeout 0.1".replace(str(root), str(waits)),
    })  # fmt: skip
    found = results(watchers / "usr/sbin/nagios4", config, 7)
    states = {name: result[0] for name, result in found.items()}
    assert states.pop("figures") in ("OK", "WARNING", "CRITICAL")
    assert states == {
        "well": "OK", "warning": "WARNING", "critical": "CRITICAL", "misspelt": "UNKNOWN",
        "wrong": "UNKNOWN", "late": "UNKNOWN",
    }, (tmp_path / "log").read_text()  # fmt: skip
    assert found["well"][1] == "RPINFS OK - all is well: 2 checks"
    assert found["critical"][1].startswith("RPINFS CRITICAL - /nfs/docker fails: No such file or directory (and ")
    assert r"\ncritical image.present(docker): " in found["critical"][3]
    figures = performance(found["figures"][2])
    assert set(figures) == {"share_answer", "share_used", "docker_used", "docker_inodes"}
    assert figures["share_used"].unit == "B" and figures["share_used"].value > 0
    # It has no semicolons in a text: they are its own.
    assert found["misspelt"][1] == "RPINFS UNKNOWN - unknown check share.spce: did you mean share.space?"
    assert "unrecognized arguments: --fromat" in found["wrong"][1]
    assert found["late"][1] == "RPINFS UNKNOWN - no answer within 0.1 s"


def negated(watchers: Path, root: Path, *words: object) -> tuple[int, str]:
    done = subprocess.run(
        [watchers / "usr/lib/nagios/plugins/negate", "-s", "-t", "60", *map(str, words)],
        env={"RPINFS_ROOT": str(root), "PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


def test_negate(watchers: Path, root: Path, installed: Installed) -> None:
    """It puts its status in the place of ours, in the text as well: where it finds that as the guidelines have it."""
    make_pi(root, "", FILES)
    check = (installed.rpinfs, "check", "--format", "nagios")
    assert negated(watchers, root, *check, "fstab") == (2, "RPINFS CRITICAL - all is well: 1 check\n")
    status, text = negated(watchers, root, *check, "share.answers")
    assert status == 0 and text.startswith("RPINFS OK - /nfs/docker fails")
    assert re.search(r"\ncritical share.answers", text)
    assert negated(watchers, root, *check, "nothing")[0] == 3
