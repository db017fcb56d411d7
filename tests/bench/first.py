"""The first boot: what an image of usual size takes of the NAS, when Docker runs and five minutes later.

mkfs.ext4 leaves some of its work to the kernel (lazy_itable_init), which does it in the minutes after the first mount.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from tests.lab.container import without_network
from tests.lab.image import space
from tests.lab.root import Progress

from .boot import as_on_a_pi, both
from .report import Area, Row

GIB = 1 << 30
SIZES = (10 * GIB, 64 * GIB)
LATER_SECONDS = 300.0


def measure(deb: Path, say: Progress) -> Iterator[Area]:
    """Each size by hand and with rpinfs."""
    rows = []
    for size in SIZES:
        with ExitStack() as stack:
            pairs = both(stack, deb, say, size)
            for _, pi in pairs:
                without_network(pi)
                as_on_a_pi(pi)
                pi.power_on()
            for _, pi in pairs:
                pi.wait_started("docker.service")
                pi.run("sync")
            taken = [space(nas.image_path("loop")).allocated for nas, _ in pairs]
            say(f"{size // GIB} GiB: {LATER_SECONDS:.0f} s more")
            threading.Event().wait(LATER_SECONDS)
            later = [space(nas.image_path("loop")).allocated for nas, _ in pairs]
        for when, (hand, ours) in (("when Docker runs", taken), ("five minutes later", later)):
            rows.append(Row(f"image of {size // GIB} GiB: bytes on the NAS {when}", {"by hand": hand, "rpinfs": ours}))
    yield Area("first boot", ("by hand", "rpinfs"), rows)
