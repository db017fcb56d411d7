"""The agent whole in memory, so that an upgrade of the package cannot mix two versions in it.

From the unpacking of an upgrade to the restart in its postinst the agent of before runs on, for minutes where apt has
more to do, and what it imports on need is by then of the version after it. A minute after its start, when the boot is
over and nothing waits for what it reads from the NAS, it imports all that it might need later.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

ROOMS = ("boot", "system", "lease", "image", "agent")
"""Where the modules are that the agent may import, see the test."""

MODULES = ("rpinfs.health.metrics",)
"""Likewise, of rooms of which the agent needs nothing else."""

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
    """Import the modules of ROOMS, MODULES and LIBRARY that are not there yet, and more."""
    import contextlib
    import importlib
    import pkgutil

    import rpinfs

    for room in ROOMS:
        for module in pkgutil.iter_modules([f"{rpinfs.__path__[0]}/{room}"], f"rpinfs.{room}."):
            importlib.import_module(module.name)
    for name in (*MODULES, *LIBRARY):
        importlib.import_module(name)
    for name in more:
        # Who needs it says what is missing.
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    then()
