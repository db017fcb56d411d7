"""What is decided for the share, and when systemd may go on with the boot. Pure, as decide.py is."""

from __future__ import annotations

from collections.abc import Iterable

from rpinfs.agent import decide
from rpinfs.agent.case import GRACE_SECONDS, RETRY_SECONDS
from rpinfs.agent.picture import Picture, ShareFacts
from rpinfs.agent.states import Action, Do, Memory, ShareMemory, ShareState
from rpinfs.boot.config import Config
from rpinfs.boot.units import THAW, mount_unit
from rpinfs.boot.values import replace
from rpinfs.errors import quoted

SILENT_SECONDS = 15.0
"""After this long without an answer the share counts as silent."""

THAW_RETRY_SECONDS = 30.0
"""How often rpinfs-thaw.service is asked to thaw what a dead snapshot has left frozen."""


def share(config: Config, memory: ShareMemory, picture: Picture) -> tuple[ShareMemory, Action | None, tuple[str, ...]]:
    """Decide for the share: what is remembered, at most one action, and notes for the journal."""
    state, message = _judge(config, memory, picture.share, picture.now)
    memory, notes = _becomes(config, memory, state, message, picture)
    return (*_help_late(config, memory, picture), notes)


def is_ready(images: Iterable[Memory], share: ShareMemory) -> bool:
    """Whether the boot can go on: nothing is being prepared, or nobody knows for how long."""
    return not any(decide.holds_up_boot(memory, share) for memory in images)


def is_to_thaw(picture: Picture, asked: float | None) -> Action | None:
    """Have thawed what a dead snapshot has left frozen, by a service of its own.

    Args:
        asked: when that was asked for last, in seconds since the boot; None where it never was.
    """
    is_due = asked is None or picture.now - asked >= THAW_RETRY_SECONDS
    return Action(Do.START, (THAW,)) if picture.abandoned and is_due else None


def remedy(config: Config) -> str:
    """What to do about a share that is not there."""
    server = config.server.address
    return f"look whether {server} is up and exports {config.share.export}: showmount -e {quoted(server)}"


def _judge(config: Config, memory: ShareMemory, facts: ShareFacts, now: float) -> tuple[ShareState, str]:
    where = config.share.where
    expected = f"{config.server.source}:{config.share.export}"
    if facts.mount is None:
        return ShareState.WAITING, f"{expected} is not mounted at {where} yet"
    if facts.found:
        return ShareState.WAITING, f"{where} is not the share: expected {expected}, found {facts.found}"
    if facts.asked is not None and now - facts.asked > SILENT_SECONDS:
        return ShareState.SILENT, f"{config.server.address} does not answer"
    if facts.error:
        return ShareState.FAILING, facts.error
    if memory.state is ShareState.SILENT and facts.asked is not None:
        # Only an answer ends a silence.
        return ShareState.SILENT, memory.message
    return ShareState.MOUNTED, f"{expected} is mounted at {where}"


def _becomes(
    config: Config, memory: ShareMemory, state: ShareState, message: str, picture: Picture
) -> tuple[ShareMemory, tuple[str, ...]]:
    facts, before = picture.share, memory
    what_to_do = "" if state is ShareState.MOUNTED else remedy(config)
    if facts.found:
        what_to_do = f"unmount it: umount {quoted(config.share.where)}"
    memory = replace(memory, state=state, message=message, remedy=what_to_do)
    if state is before.state and before.since:
        return memory, ()
    # The silence began when the question was asked that got no answer.
    since = facts.asked if state is ShareState.SILENT and facts.asked is not None else picture.now
    memory = replace(memory, since=since)
    if state is not ShareState.MOUNTED:
        return memory, ()
    late = picture.ready_at is not None
    # Also by a new mount: what was held back was so by the old one.
    returned = late or before.state in (ShareState.SILENT, ShareState.FAILING)
    memory = replace(memory, boot_wanted=late, returns=before.returns + returned, start_wait=0.0)
    if before.state is ShareState.SILENT:
        answered = f"{config.server.address} answers again after {picture.now - before.since:.0f} s"
        return memory, (answered,)
    return memory, ()


def _help_late(config: Config, memory: ShareMemory, picture: Picture) -> tuple[ShareMemory, Action | None]:
    """Start what systemd gave up on: a share that came late, and the boot files beside it."""
    if picture.ready_at is None or picture.now < max(memory.start_at, picture.ready_at + GRACE_SECONDS):
        return memory, None
    wanted: list[str] = []
    if memory.boot_wanted and config.boot and picture.share.boot_missing:
        # Once: the same NAS was away when systemd tried it.
        wanted.append(mount_unit(config.boot.where))
    if memory.state is ShareState.WAITING:
        wanted.append(mount_unit(config.share.where))
    memory = replace(memory, boot_wanted=False)
    if not wanted:
        return replace(memory, start_wait=0.0), None
    wait = memory.start_wait or RETRY_SECONDS[0]
    memory = replace(memory, start_at=picture.now + wait, start_wait=min(wait * 1.5, RETRY_SECONDS[1]))
    return memory, Action(Do.START, tuple(wanted))
