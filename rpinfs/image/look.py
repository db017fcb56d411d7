"""One look at all that decides about an image: what is under its name and around it. Nothing is changed.

What is to be done follows from it alone (plan.py); whoever does it says what it has changed, so that the look stays
true (prepare.py).
"""

import os

from rpinfs.boot.config import Image
from rpinfs.boot.values import dataclass
from rpinfs.image import names, publish
from rpinfs.image.probe import Kind, Probe, probe
from rpinfs.lease import memory
from rpinfs.lease.lease import Owner
from rpinfs.lease.memory import Verified
from rpinfs.system import loop
from rpinfs.system.run import Tell


@dataclass(frozen=True)
class Look:
    """What one look has shown.

    Attributes:
        found: what is under the name.
        remembered: what was verified under it before, by this board.
        unsettled: a restore was interrupted, or may have been: what has the name may change.
        leftovers: there are files of the form of our temporary ones.
        attached: the loop device that has it already; empty for none.
    """

    found: Probe
    remembered: tuple[Verified, ...] = ()
    unsettled: bool = False
    leftovers: bool = False
    attached: str = ""


def take(image: Image, owner: Owner, *, settled: bool = False, progress: Tell) -> Look:
    """Look at an image whose lease is held, or that has none.

    Args:
        settled: what a restore has left was looked after a moment ago.

    Raises:
        ImageError, LeaseError: something cannot be looked at.
        OSError: the share failed.
    """
    if not settled and os.path.lexists(names.record_of(image.path)):
        return Look(Probe(image.path, Kind.MISSING, "not looked at"), unsettled=True)
    found = probe(image.path, progress)
    attached = loop.find(image.path) if found.size else []
    return Look(
        found,
        memory.recall(image.path, image.name, owner),
        leftovers=bool(publish.known_leftovers(image.path, progress)),
        attached=attached[0].path if attached else "",
    )
