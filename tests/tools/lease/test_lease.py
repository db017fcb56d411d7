"""The lease: who may have an image, with real locks between real open files, and real loop devices that keep them."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rpinfs.boot import storage
from rpinfs.lease import lease, lock, owner
from rpinfs.lease.lease import LeaseError, Owner, OwnLockError, UnreadableError
from rpinfs.system import files, loop
from rpinfs.system.files import NoLocks
from tests.support import Tell
from tests.tools.conftest import Mount, Traced, command, python
from tests.tools.crash import fail_at, kill_at, some

ONE = Owner("10000000aaaaaaaa", "pi1", "m" * 32, "boot-1")
OTHER = Owner("10000000bbbbbbbb", "pi2", "n" * 32, "boot-2")
NAMED = r"pi1 \(serial 10000000aaaaaaaa\), last seen 20\d\d-\d\d-\d\d \d\d:\d\d UTC"


@pytest.fixture
def share(tmp_path: Path) -> Path:
    folder = tmp_path / "share"
    folder.mkdir()
    return folder


@pytest.fixture
def image(share: Path) -> str:
    return str(share / "docker.img")


def take(image: str, who: Owner) -> None:
    lease.acquire(image, who).close()


def quiet(image: str) -> None:
    """Have the owner not be seen for long."""
    long_ago = time.time() - lease.QUIET_SECONDS - 10
    os.utime(lease.path_of(image), (long_ago, long_ago))


def beside(image: str) -> set[str]:
    return set(os.listdir(os.path.dirname(image)))


LOCK, RECORD = ".docker.img.rpinfs-lock", ".docker.img.rpinfs-owner"


# --- Who may have it ---------------------------------------------------------------------------------------


def test_first_come_is_the_owner(image: str) -> None:
    held = lease.acquire(image, ONE)
    assert held.locked
    assert lease.owner_of(image) == ONE
    held.close()
    assert lease.owner_of(image) == ONE
    assert beside(image) == {LOCK, RECORD}


def test_the_record_is_for_people_too(image: str) -> None:
    take(image, ONE)
    record = json.loads(Path(owner.record_of(image)).read_text())
    assert abs(record.pop("since") - time.time()) < 60
    assert record == {
        "version": 1, "serial": ONE.serial, "hostname": "pi1", "machine_id": "m" * 32, "boot_id": "boot-1"
    }  # fmt: skip
    assert stat.S_IMODE(os.stat(owner.record_of(image)).st_mode) == 0o600


def test_the_owner_comes_back_after_a_power_cut(image: str) -> None:
    take(image, ONE)
    record = Path(owner.record_of(image))
    record.write_text(record.read_text().replace('"since": ', '"since": 1'))
    since = lease.owner_of(image)
    again = replace(ONE, boot_id="boot-7", hostname="renamed")
    take(image, again)
    found = lease.owner_of(image)
    assert found == again
    assert since and found and found.since == since.since


def test_what_a_client_believes_to_know_is_not_believed(image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever decides by the record has the server asked: another Pi may have written one a moment ago."""
    asked = []
    real = owner.read

    def read(image: str, name: str = "NAME", *, anew: bool = False) -> Owner | None:
        asked.append(anew)
        return real(image, name, anew=anew)

    monkeypatch.setattr(owner, "read", read)
    held = lease.acquire(image, ONE)
    lease.still_ours(image, ONE, held)
    held.close()
    lease.adopt(image, ONE)
    lease.release(image, ONE)
    assert asked == [True] * 4


def test_an_image_of_nobody_or_of_this_machine_is_not_refused(image: str) -> None:
    lease.refuse_foreign(image, ONE)
    take(image, ONE)
    lease.refuse_foreign(image, ONE)
    with pytest.raises(LeaseError, match=f"belongs to {NAMED}"):
        lease.refuse_foreign(image, OTHER)


def test_an_owner_that_nobody_has_seen(image: str) -> None:
    """A share that was copied may lack the lock files."""
    take(image, ONE)
    os.unlink(lease.path_of(image))
    found = lease.owner_of(image)
    assert found and found.seen == 0 and found.with_times() == "pi1 (serial 10000000aaaaaaaa)"


def test_how_long_an_owner_must_not_have_been_seen() -> None:
    """README and man page say so."""
    assert lease.QUIET_SECONDS == 15 * 60


def test_nobody_has_an_image_without_a_lease(image: str) -> None:
    assert lease.owner_of(image) is None
    assert beside(image) == set()


@pytest.mark.parametrize(
    ("other", "explained"),
    [
        (OTHER, ""),
        (replace(ONE, serial="2"), "; another board with the host name and machine-id of this one: its root is a copy"),
        (
            replace(ONE, serial="2", hostname="pi2"),
            "; another board with the machine-id of this one: its root is a copy",
        ),
    ],
    ids=["another Pi", "cloned root", "cloned root with another name"],
)
def test_another_board_is_refused_with_the_owners_name(image: str, other: Owner, explained: str) -> None:
    take(image, ONE)
    os.utime(lease.path_of(image), (0, 86400 * 365 * 40))
    with pytest.raises(LeaseError) as refused:
        lease.acquire(image, other, "docker")
    seen = "last seen 2009-12-22 00:00 UTC"
    assert refused.value.message == f"{image}: belongs to pi1 (serial 10000000aaaaaaaa), {seen}{explained}"
    assert "rpinfs adopt docker" in (refused.value.remedy or "")
    assert lease.owner_of(image) == ONE
    # A look at it is no sign of life of its owner.
    assert os.stat(lease.path_of(image)).st_mtime == 86400 * 365 * 40


def test_a_held_lock_refuses_everybody(image: str) -> None:
    held = lease.acquire(image, ONE)
    for act in (lease.acquire, lease.adopt, lease.release):
        with pytest.raises(LeaseError, match=f"in use by {NAMED}$"):
            act(image, OTHER)
        with pytest.raises(OwnLockError, match="in use by this Pi"):
            act(image, ONE)
        with pytest.raises(OwnLockError, match="the NAS still keeps the lock of this Pi's own last boot"):
            act(image, replace(ONE, boot_id="boot-2"))
    held.close()
    assert lease.owner_of(image) == ONE


def test_a_lock_without_a_record_is_somebodys(image: str) -> None:
    held = lease.acquire(image, ONE)
    os.unlink(owner.record_of(image))
    with pytest.raises(LeaseError, match="in use by another Pi that has not said its name"):
        lease.adopt(image, OTHER)
    held.close()


def test_who_cannot_be_told_from_others_gets_nothing(image: str) -> None:
    for act in (lease.acquire, lease.adopt):
        with pytest.raises(LeaseError, match="neither a serial number nor a network card"):
            act(image, replace(ONE, serial=""))
    assert beside(image) == set()


def test_adopt_takes_over_what_nobody_holds(image: str) -> None:
    assert lease.adopt(image, ONE) == ""
    quiet(image)
    assert lease.adopt(image, OTHER).startswith("it belonged to pi1 (serial 10000000aaaaaaaa), last seen 20")
    take(image, OTHER)
    with pytest.raises(LeaseError, match="belongs to pi2"):
        lease.acquire(image, ONE)


def test_since_when_it_is_whose(image: str) -> None:
    """Who adopts what is its own anyway has it since then; an image of another's from now on."""
    take(image, ONE)
    record = Path(owner.record_of(image))
    record.write_text(json.dumps({**json.loads(record.read_text()), "since": 7}))
    lease.adopt(image, ONE)
    assert json.loads(record.read_text())["since"] == 7
    lease.adopt(image, OTHER, now=True)
    assert abs(json.loads(record.read_text())["since"] - time.time()) < 60


def test_release_lets_anybody_in(image: str) -> None:
    take(image, ONE)
    with pytest.raises(LeaseError, match="belongs to pi1"):
        lease.release(image, OTHER)
    lease.release(image, ONE)
    assert lease.owner_of(image) is None
    # The lock file stays: removed, it would leave a Pi that has just opened it a lock on nothing.
    assert beside(image) == {LOCK}
    take(image, OTHER)
    assert lease.owner_of(image) == OTHER


@pytest.mark.parametrize("record", ["", "\n", " \n"])
def test_an_empty_record_is_nobodys(image: str, record: str) -> None:
    Path(owner.record_of(image)).write_text(record)
    take(image, ONE)
    assert lease.owner_of(image) == ONE


def record_with(**fields: object) -> str:
    texts = {"serial": "1", "hostname": "h", "machine_id": "m", "boot_id": "b"}
    return json.dumps({"version": 1, **texts, "since": 1, **fields})


def linked(path: Path) -> None:
    """Another image by a second name of it."""
    other = path.parent / "other.img"
    other.write_bytes(b"\0" * 4096)
    os.link(other, path)


def written(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (written("\0" * 200), "expected JSON, found something else"),
        (written("{"), "expected JSON, found something else"),
        (written("[" * 60000), "expected JSON, found something else"),
        (written("\ufeff"), "expected JSON, found something else"),
        (written("[]"), "expected a JSON object"),
        (written('{"serial": "1"}'), "expected version 1, found None"),
        (written('{"version": 2, "serial": "1"}'), "expected version 1, found 2"),
        (written('{"version": 1, "serial": "1"}'), "expected the texts serial, hostname"),
        (written(json.dumps({"version": 1, **dict.fromkeys(owner._TEXTS, ""), "since": 1})), "expected the texts"),
        (written(json.dumps({"version": 1, **dict.fromkeys(owner._TEXTS, "1")})), "expected a time in since"),
        (written("[" * 4096), "expected JSON, found something else"),
        (written('{"version": ' + "[" * 900 + "]" * 900 + "}"), "expected version 1"),
        (written('{"version": ' + "9" * 60000 + "}"), "expected JSON, found something else"),
        (written(record_with(serial="1\nMAINPID=1")), "printable characters"),
        (written(record_with(hostname="pi\x1b[31m")), "printable characters"),
        (written(record_with(hostname="pi\x9b31m")), "printable characters"),
        (written(record_with(machine_id="\u202e")), "printable characters"),
        (written(record_with(hostname="\ud800")), "printable characters"),
        (written(record_with(boot_id="x" * 256)), "printable characters"),
        (written(record_with(since=float("nan"))), "expected a time in since"),
        (written(" " * 70000), "a file of rpinfs, found one of 70000 bytes"),
        (lambda path: path.symlink_to("/etc/passwd"), "found a symbolic link"),
        (lambda path: path.mkdir(), "found a folder"),
        (os.mkfifo, "found a pipe"),
        (lambda path: os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3)), "found a device"),
        (linked, r"found a file that has 2 names \(hard links\)"),
    ],
)
def test_a_record_that_nobody_understands_is_not_nobodys(
    image: str, make: Callable[[Path], object], reason: str
) -> None:
    make(Path(owner.record_of(image)))
    for act in (lease.acquire, lease.release):
        with pytest.raises(UnreadableError, match=f"nobody can tell whose it is: .*{reason}") as refused:
            act(image, ONE, "docker")
        assert "rpinfs adopt docker" in (refused.value.remedy or "")
    with pytest.raises(UnreadableError):
        lease.owner_of(image)
    with pytest.raises(LeaseError, match=r"the owner was seen \d+ s ago"):
        lease.adopt(image, ONE)
    before = lease.adopt(image, ONE, now=True)
    assert before.startswith("nobody can tell whose it is: ")
    assert all(text.isprintable() for text in (before, refused.value.message))
    take(image, ONE)
    assert Path("/etc/passwd").read_text().startswith("root")
    # What was none of ours has another name now, and what else it was a name of is as it was.
    odd = [name for name in beside(image) if name.startswith(f"{RECORD}-odd-")]
    assert len(odd) == ("found" in reason and "JSON" not in reason and "version" not in reason)
    assert not odd or odd[0] in before
    other = Path(image).parent / "other.img"
    assert not other.exists() or other.read_bytes() == b"\0" * 4096


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_a_record_that_cannot_be_read(image: str, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """What a person has to see to is told from trouble of the share, which may pass."""
    take(image, ONE)
    real = os.open

    def refuse(path: str, *arguments: int) -> int:
        if path == owner.record_of(image):
            raise OSError(number, os.strerror(number))
        return real(path, *arguments)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UnreadableError if number == errno.EACCES else OSError, match=os.strerror(number)):
        lease.acquire(image, ONE)
    if number == errno.EACCES:
        lease.adopt(image, OTHER, now=True)
    monkeypatch.undo()
    assert lease.owner_of(image) == (OTHER if number == errno.EACCES else ONE)


@pytest.mark.parametrize("name", [LOCK, RECORD])
@pytest.mark.parametrize("make", [os.symlink, os.link])
def test_what_a_link_leads_to_is_left_alone(image: str, name: str, make: Callable[..., None]) -> None:
    """Seen: the lock's name was another image's second name, and its first byte became a newline."""
    folder = Path(image).parent
    (folder / "elsewhere").write_text("kept")
    make(folder / "elsewhere", folder / name)
    for act in (lease.acquire, lease.release, lease.adopt):
        with contextlib.suppress(LeaseError):
            act(image, ONE)
            assert (act, name) == (lease.adopt, RECORD)
    assert (folder / "elsewhere").read_text() == "kept"
    assert os.lstat(folder / name).st_size != 1


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda path: path.symlink_to("/dev/null"), "a symbolic link"),
        (linked, r"a file that has 2 names \(hard links\)"),
        (os.mkfifo, "a pipe"),
        (lambda path: path.mkdir(), "a folder"),
        (lambda path: path.write_bytes(b"x" * 65537), "one of 65537 bytes"),
        (lambda path: os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(7, 0)), "a device"),
    ],
)
@pytest.mark.root
def test_an_odd_lock_is_named_and_its_remedy_works(image: str, make: Callable[[Path], object], found: str) -> None:
    path = Path(lease.path_of(image))
    make(path)
    before = os.lstat(path)
    with pytest.raises(LeaseError, match=rf"rpinfs-lock: expected a file of rpinfs, found {found}$") as refused:
        lease.acquire(image, ONE)
    assert os.lstat(path) == before
    condition, _, remedy = (refused.value.remedy or "").rpartition(": ")
    assert "no Pi uses the image" in condition
    command("sh", "-c", remedy)
    assert os.lstat(f"{path}.odd")[:7] == before[:7]
    take(image, ONE)


def test_a_lock_on_a_file_that_has_lost_its_name_is_none(image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = files.lock

    def replaced_meanwhile(fd: int) -> bool:
        monkeypatch.setattr(lock, "lock", real)
        os.rename(lease.path_of(image), f"{image}.old")
        return real(fd)

    monkeypatch.setattr(lock, "lock", replaced_meanwhile)
    held = lease.acquire(image, ONE)
    assert os.path.samestat(os.fstat(held.fd), os.stat(lease.path_of(image)))
    held.close()


def test_a_time_that_no_clock_has(image: str) -> None:
    take(image, ONE)
    assert owner.utc(1e300) == owner.utc(-1e18) == "at an impossible time"


def test_leftovers_of_ours_go_and_nothing_else(image: str) -> None:
    folder = Path(image).parent
    ours = folder / f"{RECORD}-new-0123456789abcdef"
    others = {f"{RECORD}-new-0123456789abcde", f"{RECORD}-new-0123456789abcdeg", f"x{RECORD}-new-0123456789abcdef"}
    for name in {ours.name, *others}:
        (folder / name).touch()
    take(image, ONE)
    assert beside(image) == {LOCK, RECORD, *others}


# --- Shares with limits ------------------------------------------------------------------------------------


@pytest.fixture(params=["ENOLCK", "nolock"])
def no_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A share that refuses locks, or a client that keeps them to itself."""

    def refuse(_: int) -> bool:
        raise NoLocks(errno.ENOLCK, "No locks available")

    if request.param == "ENOLCK":
        monkeypatch.setattr(lock, "lock", refuse)
    else:
        line = f"1 1 0:1 / {tmp_path}/share rw - nfs nas:/docker rw,vers=3,local_lock=all\n"
        monkeypatch.setattr(lock, "read_text", lambda _: line)


@pytest.mark.usefixtures("no_locks")
def test_without_locks_the_record_keeps_others_away(image: str) -> None:
    held = lease.acquire(image, ONE)
    assert not held.locked
    assert "has no locks" in held.remark
    held.keep()
    assert held.pin is None
    held.close()
    with pytest.raises(LeaseError, match="belongs to pi1"):
        lease.acquire(image, OTHER)
    take(image, ONE)


@pytest.mark.usefixtures("no_locks")
def test_without_locks_only_a_quiet_owner_is_gone(image: str) -> None:
    take(image, ONE)
    seen = r"the share has no locks, and the owner, pi1 \(serial 10000000aaaaaaaa\), was seen \d+ s ago"
    with pytest.raises(LeaseError, match=seen) as refused:
        lease.adopt(image, OTHER)
    assert "15 minutes" in (refused.value.remedy or "")
    assert lease.owner_of(image) == ONE
    quiet(image)
    leftover = Path(f"{owner.record_of(image)}-new-0123456789abcdef")
    leftover.touch()
    lease.adopt(image, OTHER)
    assert lease.owner_of(image) == OTHER
    # Without a lock nobody can tell a leftover from another's work in progress.
    assert leftover.exists()


@pytest.mark.usefixtures("no_locks")
@pytest.mark.parametrize("only_for_owner", [True, False])
def test_without_locks_a_command_is_for_the_owner_alone(image: str, only_for_owner: bool) -> None:
    take(image, ONE)
    with lease.for_command(image, ONE, only_for_owner=only_for_owner) as held:
        assert not held.locked
    with (
        pytest.raises(LeaseError, match="belongs to pi1"),
        lease.for_command(image, OTHER, only_for_owner=only_for_owner),
    ):
        pass


def test_with_locks_a_command_may_have_an_image_of_another_that_nobody_uses(image: str) -> None:
    take(image, ONE)
    with lease.for_command(image, OTHER, only_for_owner=False) as held:
        assert held.locked
    with pytest.raises(LeaseError, match="belongs to pi1"), lease.for_command(image, OTHER):
        pass
    assert lease.owner_of(image) == ONE


def fill(folder: Path) -> None:
    with contextlib.suppress(OSError), open(folder / "full", "ab", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


@pytest.mark.root
def test_a_full_nas_keeps_no_owner_away(mounted: Mount) -> None:
    with mounted("-t", "tmpfs", "-o", "size=64k", "tmpfs") as folder:
        image = str(folder / "docker.img")
        take(image, ONE)
        fill(folder)
        held = lease.acquire(image, replace(ONE, boot_id="next"))
        assert "could not be renewed: No space left" in held.remark
        held.close()
        assert lease.owner_of(image) == ONE
        with pytest.raises(OSError, match="No space left"):
            lease.adopt(image, OTHER, now=True)
        assert lease.owner_of(image) == ONE
        assert not any("-new-" in name for name in beside(image))
        # Nobody's yet: a record is needed then.
        os.unlink(owner.record_of(image))
        fill(folder)
        with pytest.raises(OSError, match="No space left"):
            lease.acquire(image, ONE)
        assert lease.owner_of(image) is None


# --- The lock outlives the agent, for as long as the image is attached -------------------------------------

HOLDER = """
import sys
from rpinfs.lease import lease
held = lease.acquire({image!r}, lease.Owner("10000000aaaaaaaa", "pi1", "{machine}", "boot-1"))
{keep}
print("held", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def held_by_another_process(image: str, keep: bool) -> Iterator[subprocess.Popen[str]]:
    code = HOLDER.format(image=image, machine="m" * 32, keep="held.keep()" if keep else "")
    with python(code, stdin=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield holder


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.fixture
def elsewhere(share: Path, mounted: Mount) -> Iterator[str]:
    """The image as another Pi sees it: under a path of that Pi's own, since pins are known by their names."""
    with mounted("--bind", share) as folder:
        yield str(folder / "docker.img")


def test_a_lock_that_is_not_kept_dies_with_its_holder_and_the_record_stays(image: str) -> None:
    with held_by_another_process(image, keep=False) as holder:
        with pytest.raises(LeaseError, match="in use by pi1"):
            lease.adopt(image, OTHER)
        kill(holder)
    with pytest.raises(LeaseError, match="belongs to pi1"):
        lease.acquire(image, OTHER)
    assert lease.adopt(image, OTHER, now=True).startswith("it belonged to pi1 ")


@pytest.mark.root
def test_a_kept_lock_outlives_its_holder_and_is_taken_up(image: str, elsewhere: str) -> None:
    with held_by_another_process(image, keep=True) as holder:
        kill(holder)
    with pytest.raises(LeaseError, match="in use by pi1"):
        lease.adopt(elsewhere, OTHER)
    os.utime(lease.path_of(image), (0, 0))
    held = lease.acquire(image, ONE)
    assert held.fd == -1
    # To be seen again, through the pin alone.
    assert os.stat(lease.path_of(image)).st_mtime > 86400
    with pytest.raises(LeaseError, match="in use by pi1"):
        lease.acquire(elsewhere, OTHER)
    held.leave()
    with pytest.raises(LeaseError, match="in use by pi1"):
        lease.adopt(elsewhere, OTHER)
    lease.acquire(image, ONE).close()
    lease.adopt(elsewhere, OTHER, now=True)


@pytest.mark.root
def test_a_pin_that_goes_while_it_is_looked_at_is_none(image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(lease.path_of(image)).write_bytes(bytes(4096))
    with loop.attach(lease.path_of(image)):
        seen = storage.loops_on(lease.path_of(image))
    assert len(seen) == 1
    monkeypatch.setattr(storage, "loops_on", lambda _: seen)
    assert lock.pinned(image) is None


@pytest.mark.root
def test_the_lock_stays_as_long_as_the_image_is_attached(image: str, elsewhere: str) -> None:
    command("truncate", "--size", "1M", image)
    with loop.attach(image):
        held = lease.acquire(image, ONE)
        held.keep()
        lease.let_go(image, held)
        # The agent is stopped, or the package removed: the image is in use all the same.
        for act in (lease.adopt, lease.release):
            with pytest.raises(LeaseError, match="in use by this Pi"):
                act(image, ONE)
        with pytest.raises(LeaseError, match="in use by pi1"):
            lease.adopt(elsewhere, OTHER)
    assert storage.loops_on(lease.path_of(image)) != []
    # Detached while no agent ran: nothing of this Pi uses it, which only this Pi knows.
    with pytest.raises(LeaseError, match="in use by pi1"):
        lease.adopt(elsewhere, OTHER)
    lease.release(image, ONE)
    assert storage.loops_on(lease.path_of(image)) == []
    take(elsewhere, OTHER)


@pytest.mark.root
@pytest.mark.parametrize("change", ["renamed", "removed", "replaced"])
def test_the_lock_stays_whatever_becomes_of_the_images_name(image: str, elsewhere: str, change: str) -> None:
    """The agent ends, or a command looks: the image is attached under a name that nobody knows any more."""
    command("truncate", "--size", "1M", image)
    with loop.attach(image) as device:
        held = lease.acquire(image, ONE)
        held.keep(device.path)
        os.rename(image, f"{image}.old")
        if change != "renamed":
            os.unlink(f"{image}.old")
        if change == "replaced":
            command("truncate", "--size", "1M", image)
        lease.let_go(image, held)
        for act in (lease.adopt, lease.release):
            with pytest.raises(LeaseError, match="in use by this Pi"):
                act(image, ONE)
        with pytest.raises(LeaseError, match="in use by pi1"):
            lease.adopt(elsewhere, OTHER, now=True)
    # The next image on a device of that number is another one.
    command("truncate", "--size", "1M", f"{image}.next")
    with loop.attach(f"{image}.next"):
        lease.release(image, ONE)
    take(elsewhere, OTHER)


@pytest.mark.root
def test_an_agent_that_prepares_is_not_disturbed(image: str) -> None:
    with held_by_another_process(image, keep=True) as holder:
        for act in (lease.release, lease.adopt):
            with pytest.raises(LeaseError, match="in use by this Pi"):
                act(image, ONE)
        lease.let_go(image, None)
        with pytest.raises(OwnLockError, match="in use by this Pi"):
            lease.acquire(image, ONE)
        (pin,) = storage.loops_on(lease.path_of(image))
        # Set, it would end the lock with the agent's process, and not with the image.
        assert not pin.autoclear
        kill(holder)
    assert storage.loops_on(lease.path_of(image)) != []
    lease.release(image, ONE)


def test_an_owner_that_comes_back_learns_who_has_it_now(image: str) -> None:
    held = lease.acquire(image, ONE)
    os.utime(lease.path_of(image), (0, 0))
    lease.still_ours(image, ONE, held)
    assert os.stat(lease.path_of(image)).st_mtime > 86400
    # The server has let go of its lock while it was cut off.
    files.unlock(held.fd)
    with pytest.raises(LeaseError, match=r"the owner, pi1 .*, was seen \d+ s ago.*or come back") as refused:
        lease.adopt(image, OTHER, "docker")
    assert (refused.value.remedy or "").endswith("or, if you have seen that it is off: rpinfs adopt docker --now")
    lease.still_ours(image, ONE, held)
    lease.adopt(image, OTHER, now=True)
    with pytest.raises(lease.TakenError, match="belongs to pi2"):
        lease.still_ours(image, ONE, held)
    Path(owner.record_of(image)).write_text("{")
    with pytest.raises(UnreadableError):
        lease.still_ours(image, ONE, held)
    os.unlink(owner.record_of(image))
    os.close(held.fd)
    with pytest.raises(OSError) as lost:
        lease.still_ours(image, ONE, held)
    assert lost.value.errno in lease.LOST


def test_when_an_owner_was_seen_is_the_servers_to_say(image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Pi's own clock may be in 1970, or in the next century."""
    take(image, ONE)
    for clock in (0.0, 5e9):
        monkeypatch.setattr(time, "time", lambda clock=clock: clock)
        with pytest.raises(LeaseError, match=r"was seen \d s ago"):
            lease.adopt(image, OTHER)


@pytest.mark.root
def test_a_pin_that_belongs_to_nothing_any_more_is_not_believed(image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock was lost while no agent ran: it says so by EIO, and is then taken anew."""
    with held_by_another_process(image, keep=True) as holder:
        kill(holder)
    real = os.pwrite

    def lost(fd: int, data: bytes, offset: int) -> int:
        if stat.S_ISBLK(os.fstat(fd).st_mode):
            raise OSError(errno.EIO, "Input/output error")
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", lost)
    held = lease.acquire(image, ONE)
    assert held.fd >= 0
    held.close()
    assert storage.loops_on(lease.path_of(image)) == []


@pytest.mark.root
def test_without_a_loop_device_there_is_no_lock_either(image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise loop.LoopError("no loop device to be had")

    monkeypatch.setattr(loop, "pin", refuse)
    held = lease.acquire(image, ONE)
    with pytest.raises(loop.LoopError):
        held.keep()
    lease.let_go(image, held)
    lease.adopt(image, OTHER, now=True)


def test_a_pin_is_waited_for_until_the_kernel_has_given_it_up(image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    held = lease.acquire(image, ONE)
    held.pin = loop.LoopDevice("/dev/loop3", -1)
    answers = [[object()], [object()], [], []]
    monkeypatch.setattr(held.pin, "detach", lambda: None)
    monkeypatch.setattr(storage, "loops_on", lambda _: answers.pop(0))
    held.close()
    assert len(answers) == 1, "and no longer"


@pytest.mark.parametrize("pinned", [False, True])
def test_only_a_pin_is_waited_for(image: str, monkeypatch: pytest.MonkeyPatch, pinned: bool) -> None:
    """The kernel may be slow in giving up a device; a lock of our own process it is not."""
    waits = []
    monkeypatch.setattr(lock, "_wait_until", lambda done: waits.append(done()))
    held = lease.acquire(image, ONE)
    if pinned:
        held.keep()
    held.close()
    assert len(waits) == pinned


@pytest.mark.root
def test_an_attachment_ends_with_it(image: str) -> None:
    command("truncate", "--size", "1M", image)
    with loop.attach(image) as device:
        name = os.path.basename(device.path)
        assert lock._attachment(name).startswith(f"{name} ")
    assert lock._attachment(name) == lock._attachment("") == ""


# --- Every crash point and every failing call --------------------------------------------------------------

# `random` makes the name of the temporary file known. What is printed is known to have been done.
ATTEMPT = """
import os, sys
os.urandom = lambda count: bytes.fromhex("0123456789abcdef")
from rpinfs import errors
from rpinfs.lease import lease
try:
    {do}
except (errors.RpinfsError, OSError) as error:
    print(error, file=sys.stderr)
    sys.exit(3)
print("done")
"""
ACTS = {
    "acquire": "lease.acquire({image!r}, lease.{other!r})",
    "acquire again": "lease.acquire({image!r}, lease.{again!r})",
    "acquire and keep": "held = lease.acquire({image!r}, lease.{again!r}); held.keep(); held.close()",
    "adopt": "lease.adopt({image!r}, lease.{other!r}, now=True)",
    "release": "lease.release({image!r}, lease.{one!r})",
}
AGAIN = replace(ONE, boot_id="boot-2")
BEFORE: dict[str, Owner | None] = {"acquire": None}
AFTER = {"acquire": OTHER, "acquire again": AGAIN, "acquire and keep": AGAIN, "adopt": OTHER, "release": None}
# Looking back afterwards is harmless, and what only lets go has no failing.
NEVER_FAIL = ("close", "fcntl", "ioctl", "newfstatat", "lseek")


def started(image: str, act: str) -> Owner | None:
    """The share as the act finds it; who owns it."""
    for name in beside(image):
        os.unlink(os.path.join(os.path.dirname(image), name))
    # An interrupted attempt of an earlier day.
    Path(f"{owner.record_of(image)}-new-fedcba9876543210").write_text("{")
    before = BEFORE.get(act, ONE)
    if before:
        take(image, before)
        Path(f"{owner.record_of(image)}-new-fedcba9876543210").write_text("{")
    return before


def code_of(image: str, act: str) -> tuple[str, list[Path]]:
    do = ACTS[act].format(image=image, one=ONE, other=OTHER, again=AGAIN)
    paths = [os.path.dirname(image), lease.path_of(image), owner.record_of(image)]
    temporary = f"{owner.record_of(image)}-new-0123456789abcdef"
    return ATTEMPT.format(do=do), [Path(path) for path in (*paths, temporary)]


def points_of(traced: Traced, image: str, act: str) -> list[str]:
    started(image, act)
    code, paths = code_of(image, act)
    ended = traced(code, paths)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert lease.owner_of(image) == AFTER[act]
    return ended.points


def assert_whole_and_free(image: str, before: Owner | None, after: Owner | None) -> None:
    """The old record or the new one; no lock; and the next one finishes, with nothing left over."""
    found = lease.owner_of(image)
    assert found in (before, after)
    lease.let_go(image, None)
    take(image, found or ONE)
    lease.adopt(image, replace(OTHER, serial="3"), now=True)
    assert beside(image) == {LOCK, RECORD}


pins = pytest.mark.parametrize(
    "act", [pytest.param(act, marks=pytest.mark.root) if "keep" in act else act for act in ACTS]
)


@pytest.mark.crash
@pins
def test_killed_at_every_call(image: str, traced: Traced, act: str, tell: Tell) -> None:
    everything = points_of(traced, image, act)
    assert len(everything) > (10 if act == "release" else 15)
    tried = some(everything, 3)
    for point in tried:
        before = started(image, act)
        code, paths = code_of(image, act)
        assert traced(code, paths, inject=kill_at(point)).returncode == -9, point
        assert_whole_and_free(image, before, AFTER[act])
    tell(f"{act}: killed at {len(tried)} of {len(everything)} calls")


@pytest.mark.crash
@pins
def test_every_call_fails(image: str, traced: Traced, act: str, tell: Tell) -> None:
    """Either it goes on without, or it says so; and the record is whole."""
    tried = fail_at(points_of(traced, image, act), NEVER_FAIL)
    for failure in tried:
        before = started(image, act)
        code, paths = code_of(image, act)
        ended = traced(code, paths, inject=failure)
        assert ended.returncode in (0, 3), f"{failure}: {ended.stderr}"
        # A full NAS keeps no owner away: the old record is good enough then.
        if ended.returncode == 0 and not act.startswith("acquire "):
            assert lease.owner_of(image) == AFTER[act], failure
        assert_whole_and_free(image, before, AFTER[act])
    tell(f"{act}: {len(tried)} failing calls")


@pytest.mark.root
def test_a_pinned_lock_is_a_page_or_more_and_says_what_it_said(image: str) -> None:
    """Direct I/O through its loop device has no smaller piece on some disks."""
    held = lease.acquire(image, ONE)
    try:
        os.pwrite(held.fd, b"said", 0)
        held.keep()
        assert Path(held.path).read_bytes() == b"said".ljust(4096, b"\0")
    finally:
        held.close()
    os.truncate(held.path, 8192)
    held = lease.acquire(image, ONE)
    try:
        held.keep()
        assert os.stat(held.path).st_size == 8192
    finally:
        held.close()


def test_an_open_file_may_have_the_number_of_standard_input(image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where that was closed, the first file that is opened gets 0: it is written to, and not the pin's device."""
    used: list[int] = []
    held = lock.Lease(lock.path_of(image), 0, pin=loop.LoopDevice("/dev/null", 77))
    later = lock.Lease(lock.path_of(image), pin=loop.LoopDevice("/dev/null", 77))
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", lambda fd, *_: used.append(fd))
        patched.setattr(os, "fsync", used.append)
        patched.setattr(os, "close", used.append)
        held.renew()
        held.leave()
        later.renew()
    assert used == [0, 0, 77, 0, 77, 77], "the pin's where there is no other"


def test_a_pin_whose_device_does_not_tell_is_for_no_attachment_that_is_known(image: str) -> None:
    with open("/dev/null", "rb") as silent:
        device = loop.LoopDevice("/dev/null", os.dup(silent.fileno()))
    assert lock.Lease(lock.path_of(image), pin=device).attachment() == ""
    device.close()
