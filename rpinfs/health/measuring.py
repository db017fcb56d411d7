"""What metrics.py tells, of the facts and of what the checks found."""

from __future__ import annotations

import os
from collections.abc import Iterable

from rpinfs import __version__
from rpinfs.boot import config
from rpinfs.boot.host import read_text
from rpinfs.boot.settings import SNAPSHOT_MARK
from rpinfs.boot.units import METRICS_FILE
from rpinfs.health import metrics
from rpinfs.health.checks import Result
from rpinfs.health.facts import Facts, File, Files, Space, ext4_errors
from rpinfs.image.snapshots import time_of


def known_of(facts: Facts, results: Iterable[Result], *, checks_only: bool = False) -> metrics.Known:
    """Everything that is known; with `checks_only` what the checks found, and nothing of what they looked at."""
    found = tuple((result.name, result.image, result.status.word) for result in results)
    if checks_only or not facts.config.in_use:
        return metrics.Known(__version__, checks=found, checked=facts.clock)
    return metrics.Known(
        __version__,
        share=_share(facts),
        images=tuple(_image(facts, image) for image in facts.config.images),
        gate=_gate(facts),
        checks=found,
        checked=facts.clock,
    )


def told_by_agent(root: str) -> metrics.Told:
    """What the agent has written last, for what it alone knows."""
    return metrics.told_by(read_text(root + METRICS_FILE))


def _share(facts: Facts) -> metrics.Share:
    space, said = facts.known("share", Space), facts.agent_on_share()
    since = said.get("since")
    silent = max(0.0, facts.now - since) if said.get("state") == "silent" and isinstance(since, int | float) else None
    return metrics.Share(
        facts.config.share.where,
        up=space is not None,
        answer=space.seconds if space else None,
        silent=0.0 if space else silent,
        size=space.size if space else _number(said.get("size")),
        free=space.available if space else _number(said.get("free")),
    )


def _image(facts: Facts, image: config.Image) -> metrics.Image:
    mount = facts.image_mount(image)
    file, space = facts.known(f"image:{image.name}", File), facts.known(f"space:{image.name}", Space)
    return metrics.Image(
        image.name,
        mounted=mount is not None,
        read_only=not mount.writable if mount else None,
        size=file.size if file else None,
        allocated=file.allocated if file else None,
        room=space.size if space else None,
        available=space.available if space else None,
        errors=ext4_errors(facts, image),
        snapshot=_newest_snapshot(facts, image),
    )


def _gate(facts: Facts) -> bool | None:
    questions = [*(f"gate:{image.name}" for image in facts.config.images), "placed"]
    verdicts = [facts.known(question, list) for question in questions]
    if any(verdicts):
        return False
    return None if None in verdicts[:-1] else True


def _newest_snapshot(facts: Facts, image: config.Image) -> float | None:
    files = facts.known("files", Files)
    folder, name = os.path.split(image.path)
    if files is None or folder != facts.config.share.where:
        return None
    times = [time_of(f"{folder}/{each}") for each in files.files if each.startswith(name + SNAPSHOT_MARK)]
    return max((each for each in times if each is not None), default=None)


def _number(value: object) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
