"""The agent whole in memory, so that an upgrade of the package cannot mix two versions in it.

From the unpacking of an upgrade to the restart in its postinst the agent of before runs on, for minutes where apt has
more to do, and what it imports on need is by then of the version after it. A minute after its start, when the boot is
over and nothing waits for what it reads from the NAS, it imports all that it might need later.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable

MODULES = (
    "rpinfs.agent.beside",
    "rpinfs.agent.leaving",
    "rpinfs.agent.measure",
    "rpinfs.agent.near",
    "rpinfs.agent.news",
    "rpinfs.agent.shutdown",
    "rpinfs.agent.summary",
    "rpinfs.boot.daemons",
    "rpinfs.boot.options",
    "rpinfs.boot.ordering",
    "rpinfs.boot.overlay",
    "rpinfs.boot.suggest",
    "rpinfs.health.metrics",
    "rpinfs.image.copying",
    "rpinfs.lease.report",
    "rpinfs.system.deadline",
    "rpinfs.system.fullness",
    "rpinfs.system.syscalls",
    "rpinfs.system.systemd",
)
"""What the agent imports on need: these and no others, see the test. All stay in its memory, on each Pi."""

LIBRARY = ("traceback",)
"""What of Python's own is imported on need, with the NAS that it comes from gone perhaps."""

SECONDS = 60.0


def soon(then: Callable[[], None] = lambda: None, more: Iterable[str] = ()) -> threading.Timer:
    """Have it done SECONDS from now, beside what the agent does; the end of the agent does not wait for it.

    Args:
        then: is called when all of it is there, by that thread.
        more: modules of others, which are needed just when the NAS is gone that they come from.
    """
    timer = threading.Timer(SECONDS, load, [then, more])
    timer.daemon = True
    timer.start()
    return timer


def load(then: Callable[[], None] = lambda: None, more: Iterable[str] = ()) -> None:
    """Import MODULES and LIBRARY, and more."""
    for name in (*MODULES, *LIBRARY):
        __import__(name)
    for name in more:
        # Who needs it says what is missing.
        with contextlib.suppress(ImportError):
            __import__(name)
    then()
