"""What is done at once, in the main thread: link and UUID in /run, and what systemd is asked and told.

Nothing here touches the share. pystemd is imported on need: it costs half a thousand requests on a cold root, and an
ordinary boot has no need of it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable

from rpinfs.agent.picture import Answer, Failed, Result, mount_table, proven_loop
from rpinfs.agent.states import Action, Do
from rpinfs.agent.work import hold
from rpinfs.boot import gate
from rpinfs.boot.config import Image
from rpinfs.boot.host import near
from rpinfs.boot.units import GATE, METRICS_FILE, RUNTIME_FOLDER, link_of
from rpinfs.errors import RpinfsError
from rpinfs.image.prepare import Prepared


def at_once(image: Image, action: Action, held: Prepared | None) -> tuple[Result | None, Prepared | None]:
    """Do an action; what came of it, None where there is nothing to tell, and what was opened."""
    try:
        if action.do is Do.HOLD:
            return hold(image, action.loop)
        if action.do is Do.PUBLISH:
            assert held is not None
            publish(image, held)
        elif action.do is Do.UNPUBLISH:
            unpublish(image)
        else:
            return ask_systemd(action) if action.do is Do.ASK else tell_systemd(action), None
    except RpinfsError as error:
        return Failed(error.message), None
    except OSError as error:
        # Where the way was another one, see near(), nobody would know it.
        name = f"/{os.path.basename(error.filename)}" if error.filename else ""
        where = error.filename if name and error.filename[0] == "/" else f"{RUNTIME_FOLDER}{name}"
        return Failed(f"{where}: {error.strerror}"), None
    return None, None


# --- systemd -------------------------------------------------------------------------------------------------


def ask_systemd(action: Action) -> Answer:
    """Ask how units are. Raises RpinfsError: systemd does not answer."""
    from rpinfs.system import systemd

    system, units = systemd.system_state(), systemd.unit_states(action.units)
    if GATE not in action.units:
        failed = [name for name in units if name.endswith(".mount") and units[name].active == "failed"]
        return Answer(system, units, said=_said(failed))
    # It is asked for the gate where it matters what that has held back.
    return Answer(system, units, systemd.wanted_units(action.units), systemd.refused_starts(action.units))


def _said(failed: list[str]) -> dict[str, str]:
    from rpinfs.system import systemd

    with contextlib.suppress(RpinfsError):
        return systemd.why_failed(failed) if failed else {}
    return {}


def tell_systemd(action: Action) -> Failed | None:
    """Have units started or stopped; what one of them meets is no reason to leave the others out."""
    from rpinfs.system import systemd

    queue = systemd.start_units if action.do is Do.START else systemd.stop_units
    failures = []
    for name in action.units:
        try:
            queue([name])
        except RpinfsError as error:
            failures.append(error.message)
    return Failed("; ".join(failures)) if failures else None


# --- Link and UUID -------------------------------------------------------------------------------------------


def publish(image: Image, prepared: Prepared) -> None:
    """Point /run/rpinfs/NAME at the loop device, and write down which file system was verified. Raises OSError."""
    verified = gate.Verified.of(image, prepared.uuid, prepared.loop)
    replace(gate.uuid_file(image), lambda path: write(path, verified.text))
    replace(link_of(image), lambda path: os.symlink(prepared.path, path))


def unpublish(image: Image) -> None:
    """Take both away; the gate closes by the first. Raises OSError."""
    for path in (gate.uuid_file(image), link_of(image)):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(near(path))


def clean(images: Iterable[Image]) -> None:
    """Take away what leads nowhere: the loop device of an agent that was killed may be anybody's by now.

    Raises OSError.
    """
    mounts = mount_table()
    for image in images:
        if not proven_loop(image, mounts):
            unpublish(image)


def replace(path: str, make: Callable[[str], None]) -> None:
    """Make something that is there whole or not at all. Raises OSError."""
    temporary = near(f"{RUNTIME_FOLDER}/.new")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    make(temporary)
    os.replace(temporary, near(path))


def write(path: str, text: str) -> None:
    """Write a small file for everybody to read. Raises OSError."""
    with open(path, "w", encoding="utf-8") as file:
        # Nothing in it is secret, and `rpinfs status` is for everybody.
        os.fchmod(file.fileno(), 0o644)
        file.write(text)


def end_metrics() -> None:
    """Take away what measure.py has written, this agent's or the last one's: what nobody measures is not told."""
    with contextlib.suppress(OSError):
        os.unlink(near(METRICS_FILE))
    with contextlib.suppress(OSError):
        os.rmdir(near(os.path.dirname(METRICS_FILE)))
