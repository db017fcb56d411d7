"""Runs in a booted container of test_notify.py: a program is told of news, and does what it should not.

notified.py agent       as `rpinfs agent`, which waits a second where it else waits minutes
notified.py drive       makes news, and writes down what came of each
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING or __package__:
    from tests.package import guarded, remedied
    from tests.remedies import commands
else:
    import guarded
    import remedied
    from remedies import commands

NOTIFY = "rpinfs-notify.service"
PROGRAM, MODE, HEARD, ARGUMENTS, CHILD = (
    Path(f"/srv/{name}") for name in ("notifier", "mode", "heard", "arguments", "child")
)
COMMAND = f'{PROGRAM} "to the phone" $HOME %n'
UNITS = Path("/etc/systemd/system")
TELLS = f"""#!/bin/sh
printf '%s\\n' "$@" >{ARGUMENTS}
cat >>{HEARD}
case $(cat {MODE}) in
fail) exit 7 ;;
hang)
    trap '' TERM
    setsid sh -c 'trap "" TERM; echo $$ >{CHILD}; sleep 1000; sleep 1000' &
    sleep 1000; sleep 1000
    ;;
esac
"""


def agent() -> int:
    """The agent, with little patience."""
    from rpinfs.agent import news

    news.SPACING_SECONDS = news.REFILL_SECONDS = 1.0
    news.MOST_TRIES = 1
    return guarded.program("agent")


def heard() -> list[list[str]]:
    """What was told so far: sentence, remedy and document of each."""
    lines = HEARD.read_text().splitlines() if HEARD.exists() else []
    return [lines[place : place + 3] for place in range(0, len(lines), 3)]


def ended(count: int, state: str) -> bool:
    """Whether so many were told, and the last has ended so."""
    return len(heard()) == count and guarded.show(NOTIFY, "ActiveState") == state


def told_at_boot() -> guarded.Facts:
    """Configured by hand; that the unit is loaded is seen before anybody asks for it by name."""
    PROGRAM.write_text(TELLS)
    PROGRAM.chmod(0o755)
    MODE.write_text("hear")
    with guarded.CONFIG.open("a") as config:
        config.write(f"[Notify]\nCommand={COMMAND}\n")
    impatient = "/usr/bin/python3 -SB /srv/notified.py agent"
    for name, text in {
        "rpinfs-agent.service.d/zz.conf": f"[Service]\nExecStart=\nExecStart={impatient}\n",
        f"{NOTIFY}.d/test.conf": "[Service]\nTimeoutStartSec=3s\nTimeoutStopSec=1s\n",
    }.items():
        (UNITS / name).parent.mkdir(exist_ok=True)
        (UNITS / name).write_text(text)
    guarded.run("systemctl", "daemon-reload")
    guarded.run("systemctl", "start", guarded.DOCKER)
    guarded.wait(lambda: len(heard()) == 1)
    loaded = guarded.run("systemctl", "list-units", "--all", "--plain", "--no-legend", NOTIFY)
    guarded.wait(lambda: ended(1, "inactive"))
    return {"loaded": loaded, "heard": heard(), "arguments": ARGUMENTS.read_text(), "check": check()}


def cover() -> None:
    """Make it worse: Docker's storage is covered."""
    guarded.run("mount", "-t", "tmpfs", "tmpfs", guarded.MOUNT)


def uncover() -> None:
    """Make it better."""
    guarded.run("umount", guarded.MOUNT)


def worse_and_better() -> guarded.Facts:
    cover()
    guarded.wait(lambda: ended(2, "inactive"))
    uncover()
    guarded.wait(guarded.whole)
    guarded.wait(lambda: ended(3, "inactive"))
    return {"heard": heard()[1:]}


def nobody_hears() -> guarded.Facts:
    """It ends with an exit status: that is said, and the remedy tells it again."""
    MODE.write_text("fail")
    cover()
    guarded.wait(lambda: ended(4, "failed"))
    before, remedy = check(), remedied.of_check("notify.heard")
    MODE.write_text("hear")
    subprocess.run(["sh", "-ec", commands(remedy)[-1]], check=True, stdout=subprocess.DEVNULL)
    guarded.wait(lambda: ended(5, "inactive"))
    return {"before": before, "remedy": remedy, "after": check(), "same": heard()[3] == heard()[4]}


def it_hangs() -> guarded.Facts:
    """It and its child ignore SIGTERM: both are killed, and the agent goes on meanwhile."""
    MODE.write_text("hang")
    agent_pid = guarded.main_pid(guarded.AGENT)
    uncover()
    guarded.wait(lambda: len(heard()) == 6 and CHILD.exists() and bool(CHILD.read_text()))
    child = int(CHILD.read_text())
    # Not a tick of the agent's is lost: Docker is started again while somebody hangs.
    guarded.wait(guarded.whole)
    guarded.wait(lambda: ended(6, "failed"))
    return {
        "check": check(),
        "child": os.path.exists(f"/proc/{child}"),
        "same_agent": guarded.main_pid(guarded.AGENT) == agent_pid,
    }


def the_agent_is_stopped_meanwhile() -> guarded.Facts:
    """It does not wait for whoever is being told; the next one knows what was told."""
    guarded.run("systemctl", "reset-failed", NOTIFY)
    cover()
    guarded.wait(lambda: len(heard()) == 7)
    telling = guarded.show(NOTIFY, "ActiveState")
    guarded.run("systemctl", "stop", guarded.AGENT)
    result = guarded.show(guarded.AGENT, "Result")
    guarded.wait(lambda: ended(7, "failed"))
    MODE.write_text("hear")
    uncover()
    guarded.run("systemctl", "start", guarded.AGENT)
    guarded.wait(guarded.whole)
    guarded.wait(lambda: ended(8, "inactive"))
    return {"telling": telling, "result": result, "before": json.loads(heard()[7][2])["before"]}


def check() -> list[str]:
    """Status and sentence of the check."""
    done = subprocess.run(["rpinfs", "check", "--json", "notify.heard"], capture_output=True, text=True, check=False)
    return [f"{one['status']}: {one['message']}" for one in json.loads(done.stdout)["checks"]]


STEPS: list[Callable[[], guarded.Facts]] = [
    told_at_boot, worse_and_better, nobody_hears, it_hangs, the_agent_is_stopped_meanwhile,
]  # fmt: skip

if __name__ == "__main__":
    if sys.argv[1] == "agent":
        sys.exit(agent())
    guarded.go_through(STEPS)
