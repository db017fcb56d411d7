"""Real runners of monitoring plug-ins start `rpinfs check`: Nagios, and negate of the monitoring plug-ins."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import pytest

from tests.support import Installed, make_pi
from tests.unit.health.pi import FILES
from tests.unit.health.test_monitoring import performance

pytestmark = pytest.mark.root

SECONDS = 120.0
ALWAYS = "\n".join(
    f" {day} 00:00-24:00" for day in ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
)


def configuration(folder: Path, commands: dict[str, str]) -> Path:
    """A Nagios that has a host with a service for each command, checks each each second, and notes the results."""
    objects = [f"define timeperiod {{\n timeperiod_name always\n alias always\n{ALWAYS}\n}}\n"]
    same = " max_check_attempts 1\n check_period always\n contacts nobody\n notification_interval 0\n"
    same += " notification_period always\n}\n"
    objects += ["define command {\n command_name nothing\n command_line /bin/true\n}\n"]
    objects += [
        "define contact {\n contact_name nobody\n host_notifications_enabled 0\n service_notifications_enabled 0"
    ]
    objects += [" host_notification_period always\n service_notification_period always"]
    objects += [" host_notification_commands nothing\n service_notification_commands nothing\n}\n"]
    objects += [f"define host {{\n host_name pi\n address 127.0.0.1\n{same}"]
    for name, command in commands.items():
        objects += [f"define command {{\n command_name {name}\n command_line {command}\n}}\n"]
        service = f"define service {{\n host_name pi\n service_description {name}\n check_command {name}\n"
        objects += [f"{service} check_interval 1\n retry_interval 1\n{same}"]
    (folder / "objects.cfg").write_text("\n".join(objects))
    (folder / "results").mkdir()
    settings = {
        "log_file": folder / "log", "cfg_file": folder / "objects.cfg", "object_cache_file": folder / "cache",
        "precached_object_file": folder / "precached", "status_file": folder / "status",
        "nagios_user": "root", "nagios_group": "root", "check_external_commands": 0,
        "command_file": folder / "command", "query_socket": folder / "query", "lock_file": folder / "lock",
        "temp_file": folder / "temporary", "temp_path": folder, "check_result_path": folder / "results",
        "use_syslog": 0, "state_retention_file": folder / "retention", "retain_state_information": 0,
        "process_performance_data": 1, "service_perfdata_file": folder / "perfdata",
        "service_perfdata_file_template": r"$SERVICEDESC$\t$SERVICESTATE$\t$SERVICEOUTPUT$\t$SERVICEPERFDATA$\t"
        r"$LONGSERVICEOUTPUT$",
        "illegal_macro_output_chars": "`~$&|'\"<>", "interval_length": 1, "execute_host_checks": 0,
        "check_workers": 1, "service_check_timeout": 60,
    }  # fmt: skip
    (folder / "nagios.cfg").write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    return folder / "nagios.cfg"


def results(nagios: Path, config: Path, wanted: int) -> dict[str, list[str]]:
    """Run Nagios until it has a result of each service: state, text, performance data, more lines."""
    found: dict[str, list[str]] = {}
    perfdata = config.parent / "perfdata"
    with subprocess.Popen([nagios, config], stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            until = time.monotonic() + SECONDS
            while len(found) < wanted and time.monotonic() < until:
                time.sleep(0.2)
                lines = perfdata.read_text().splitlines() if perfdata.exists() else []
                found = {line.split("\t")[0]: line.split("\t")[1:] for line in lines if line.count("\t") >= 4}
        finally:
            process.terminate()
            process.communicate()
    return found


def test_nagios(watchers: Path, root: Path, installed: Installed, tmp_path: Path) -> None:
    make_pi(root, "", FILES)
    # Folders to ask for their room: this machine's, so how full it is is open.
    roomy = make_pi(tmp_path / "roomy", "", {**FILES, "nfs/docker": None, "var/lib/docker": None})
    rpinfs = f"/usr/bin/env RPINFS_ROOT={root} {installed.rpinfs} check --format nagios --timeout 50"
    config = configuration(tmp_path, {
        "well": f"{rpinfs} fstab share.mounted",
        "warning": f"{rpinfs} image.owner",
        "critical": f"{rpinfs} share image",
        "figures": f"{rpinfs} mount.space share.space".replace(str(root), str(roomy)),
        "misspelt": f"{rpinfs} share.spce",
        "wrong": f"{rpinfs} --fromat nagios",
        "late": f"{rpinfs} --timeout 0.1",
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
