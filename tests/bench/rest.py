"""At rest: what a Pi on which nothing happens asks of its NAS, and what the agent takes of the Pi.

The same two Pis as for the boot, both on at once: what one does is nothing to the other.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from tests.lab.pi import Pi
from tests.lab.root import Progress
from tests.lab.traffic import traffic

from .boot import Figures, both, first_boot
from .report import Area, Row

SETTLED_SECONDS = 90.0
"""From Docker's start on: the agent imports what it has not needed yet after one minute."""
SECONDS = 300.0
"""Of which none is the fifteenth minute, in which systemd cleans up."""
HOUR = 3600 / SECONDS
AGENT = "$(systemctl show --property MainPID --value rpinfs-agent.service)"


LIBRARY = (
    "contextlib, ctypes, enum, functools, glob, importlib.util, json, pickle, select, signal, socket, struct, "
    "subprocess, threading, traceback"
)
"""What the agent imports of Python's own."""

LIMITS = {"a bare Python": "sys", "a Python with what the agent imports of its library": LIBRARY}
"""Of the memory, by what they import; on the Pi that runs no other Python, which would share its pages."""


def memory(rollup: str) -> int:
    """The part of the memory that is a process's own, in bytes, by its smaps_rollup (proc_pid_smaps_rollup(5))."""
    (pss,) = [int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")]
    return pss * 1024


def limits(pi: Pi) -> Figures:
    """The memory of LIMITS."""
    return {
        f"{name}: bytes of memory (PSS)": memory(
            pi.run(f"python3 -ISBc 'import {modules}; print(open(\"/proc/self/smaps_rollup\").read())'")
        )
        for name, modules in LIMITS.items()
    }


def counted(pi: Pi) -> Figures:
    """What has come together so far."""
    root, share = traffic(pi, "/"), traffic(pi)
    return {
        "requests an hour for the root": root.requests.total(),
        "requests an hour for the share": share.requests.total(),
        "bytes an hour written to the share": share.written,
    }


def agents(pi: Pi) -> Figures:
    """Of the agent: its part of the memory, in bytes, and how often it has been woken."""
    rollup, status = pi.run(f"cat /proc/{AGENT}/smaps_rollup; echo; cat /proc/{AGENT}/task/*/status").split("\n\n")
    woken = [int(line.split()[1]) for line in status.splitlines() if line.startswith("voluntary_ctxt_switches")]
    return {"agent: bytes of memory (PSS)": memory(rollup), "agent: wake-ups an hour": sum(woken)}


def measure(deb: Path, say: Progress) -> Iterator[Area]:
    """Five minutes of both."""
    with ExitStack() as stack:
        pairs = both(stack, deb, say)
        pis = [pi for _, pi in pairs]
        for nas, pi in pairs:
            first_boot(nas, pi)
            pi.power_on()
            pi.wait_started("docker.service")
        say(f"at rest for {SETTLED_SECONDS + SECONDS:.0f} s")
        threading.Event().wait(SETTLED_SECONDS)
        # By programs of the root, whose files are asked for as well: not between the two counts.
        woken = agents(pis[1])
        before = [counted(pi) for pi in pis]
        threading.Event().wait(SECONDS)
        hand, ours = (
            {name: (value - then[name]) * HOUR for name, value in counted(pi).items()}
            for pi, then in zip(pis, before, strict=True)
        )
        own = agents(pis[1])
        own = {name: (own[name] - woken[name]) * HOUR if "an hour" in name else own[name] for name in own}
        own |= limits(pis[0])
    rows = [Row(name, {"by hand": hand[name], "rpinfs": ours[name]}) for name in hand]
    yield Area("rest", ("by hand", "rpinfs"), [*rows, *(Row(name, {"rpinfs": value}) for name, value in own.items())])
