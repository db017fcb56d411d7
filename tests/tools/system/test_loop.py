"""Loop devices, real ones."""

import errno
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from rpinfs.boot import storage
from rpinfs.system import loop
from rpinfs.system.loop import LoopDevice, LoopError
from tests.support import PYTHON
from tests.tools.conftest import ROOT, Mount, command, python

SIZE = 64 << 20


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return sparse(tmp_path / "disk.img")


@pytest.fixture
def opened() -> Iterator[list[LoopDevice]]:
    """Devices put in here are closed at the end."""
    devices: list[LoopDevice] = []
    yield devices
    for device in devices:
        device.close()


def sparse(path: Path, size: int = SIZE) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


def test_layout_of_the_kernel() -> None:
    assert (loop._LOOP_INFO64.size, loop._LOOP_CONFIG.size) == (232, 304)


def test_state_from_texts(tmp_path: Path) -> None:
    files = {
        "loop/backing_file": "/nfs/docker/a b\u00fc.img (deleted)\n",
        "loop/dio": "0\n",
        "loop/autoclear": "1\n",
        "loop/offset": "512\n",
        "queue/logical_block_size": "4096\n",
        "size": "2048\n",
    }
    block = tmp_path / "sys/block"
    for name in ("loop10", "loop2"):
        for file, text in files.items():
            path = block / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    (block / "loop7/queue").mkdir(parents=True)  # nothing attached: no loop/ folder
    (block / "loopback").mkdir()
    found = storage.loop_state("loop2", str(tmp_path))
    assert found
    assert {name: getattr(found, name) for name in found.__slots__} == {
        "name": "loop2",
        "backing_file": "/nfs/docker/a b\u00fc.img (deleted)",
        "direct_io": False,
        "autoclear": True,
        "offset": 512,
        "block_size": 4096,
        "size": 1 << 20,
    }
    assert storage.loop_state("loop7", str(tmp_path)) is None
    assert storage.loop_state("loop99", str(tmp_path)) is None
    assert [one.name for one in storage.loops(str(tmp_path))] == ["loop2", "loop10"]


@pytest.mark.root
def test_attach_as_the_design_says(image: Path) -> None:
    with loop.attach(str(image)) as device:
        assert (device.direct_io, device.block_size) == (True, 4096)
        shown = command("losetup", "-nO", "BACK-FILE,DIO,AUTOCLEAR,LOG-SEC,RO,PARTSCAN,OFFSET", device.path)
        assert shown.split() == [str(image), "1", "1", "4096", "0", "0", "0"]
        assert command("blockdev", "--getsize64", device.path) == f"{SIZE}\n"
        assert device.identity() == (image.stat().st_dev, image.stat().st_ino)
    assert storage.loop_state(os.path.basename(device.path)) is None


@pytest.mark.root
def test_what_is_written_lands_in_the_file(image: Path) -> None:
    with loop.attach(str(image)) as device:
        os.pwrite(device.fd, b"x" * 4096, 8192)
        os.fsync(device.fd)
    assert image.read_bytes()[8190:12290] == b"\0\0" + b"x" * 4096 + b"\0\0"


@pytest.mark.root
def test_buffered_when_not_asked_for_direct_io(image: Path) -> None:
    with loop.attach(str(image), direct_io=False, block_size=512) as device:
        assert (device.direct_io, device.block_size) == (False, 512)
        device.set_direct_io(True)
        assert device.direct_io


@pytest.mark.root
def test_buffered_where_direct_io_is_refused(mounted: Mount) -> None:
    with mounted("-t", "ramfs", "none") as folder:
        file = sparse(folder / "disk.img")
        with loop.attach(str(file)) as device:
            assert (device.direct_io, device.block_size) == (False, 4096)
            with pytest.raises(OSError, match="Invalid argument") as caught:
                device.set_direct_io(True)
            assert caught.value.errno == errno.EINVAL


@pytest.mark.root
def test_buffered_where_blocks_are_too_small_for_direct_io(image: Path, mounted: Mount) -> None:
    # A file system on 4096-byte blocks does direct I/O in no smaller pieces.
    with loop.attach(str(image)) as below:
        command("mkfs.ext4", "-q", below.path)
        with mounted(below.path) as folder:
            file = sparse(folder / "disk.img", 16 << 20)
            with loop.attach(str(file), block_size=512) as device:
                assert (device.direct_io, device.block_size) == (False, 512)
            with loop.attach(str(file)) as device:
                assert (device.direct_io, device.block_size) == (True, 4096)


@pytest.mark.root
@pytest.mark.parametrize("by", ["nobody", "a passing look", "somebody for good", "another image meanwhile"])
def test_at_the_end_it_is_detached(image: Path, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    """udev looks at it and has it open for a moment; what is not gone then is waited for, and not for ever."""
    waits: list[float] = []
    openers: list[int] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if by != "somebody for good":
            os.close(openers.pop())
        if by == "another image meanwhile":
            command("losetup", device.path, sparse(image.with_name("other.img")))

    with loop.attached(str(image)) as device:
        if by != "nobody":
            openers.append(os.open(device.path, os.O_RDONLY | os.O_CLOEXEC))
        monkeypatch.setattr(loop, "time", SimpleNamespace(sleep=sleep))
    try:
        state = storage.loop_state(os.path.basename(device.path))
        assert (state is None) is (by in ("nobody", "a passing look"))
        assert len(waits) == {"nobody": 0, "somebody for good": loop._LOOKS}.get(by, 1)
    finally:
        for opener in openers:
            os.close(opener)
        if by == "another image meanwhile":
            command("losetup", "-d", device.path)


@pytest.mark.root
def test_a_part_is_attached_for_reading_alone(image: Path) -> None:
    """In blocks of a disk's: a partition begins at any of them."""
    with image.open("r+b") as disk:
        disk.seek(512 * 3)
        disk.write(b"part")
    with image.open("rb") as file, loop.attach_part(file.fileno(), str(image), (512 * 3, 512 * 5)) as device:
        shown = command("losetup", "-nO", "DIO,AUTOCLEAR,LOG-SEC,RO,OFFSET,SIZELIMIT", device.path)
        assert shown.split() == ["0", "1", "512", "1", "1536", "2560"]
        assert os.pread(device.fd, 4, 0) == b"part"


@pytest.mark.root
def test_a_pin_stays_when_we_let_go_and_is_ours_alone(image: Path) -> None:
    """The kernel has the file open by it, whatever becomes of who pinned it."""
    with image.open("r+b") as file:
        pinned = loop.pin(file.fileno(), "what it is for")
    try:
        shown = command("losetup", "-nO", "DIO,AUTOCLEAR,LOG-SEC", pinned.path)
        assert shown.split() == ["1", "0", "512"] and pinned.note() == "what it is for"
        with pytest.raises(loop.BusyError):
            loop.hold(pinned.path, exclusive=True)
        pinned.close()
        assert [one.path for one in loop.find(str(image))] == [pinned.path]
        pinned = loop.hold(pinned.path, exclusive=True)
    finally:
        pinned.detach()
    assert loop.find(str(image)) == []


@pytest.mark.root
@pytest.mark.parametrize("length", [63, 64, 200])
def test_of_a_note_63_bytes_are_kept(image: Path, length: int) -> None:
    note = "".join(chr(ord("a") + number % 26) for number in range(length))
    with image.open("r+b") as file:
        pinned = loop.pin(file.fileno(), note)
    try:
        assert pinned.note() == note[:63]
    finally:
        pinned.detach()


@pytest.mark.root
def test_who_was_too_slow_for_a_device_attaches_to_another_all_the_same(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And as it was to: that another was quicker says nothing of direct I/O."""
    lost = [errno.EBUSY, errno.EAGAIN]
    configure = LoopDevice.configure

    def too_late(device: LoopDevice, file: int, **how: object) -> None:
        if lost:
            raise OSError(lost[0], os.strerror(lost.pop(0)))
        assert how["direct_io"]
        configure(device, file, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(LoopDevice, "configure", too_late)
    with loop.attach(str(image)) as device:
        assert device.direct_io and lost == []


@pytest.mark.root
def test_where_the_kernel_refuses_direct_io_outright_it_is_attached_without(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some kernels drop the flag without a word, others fail the call."""
    configure = LoopDevice.configure

    def without_direct_io(device: LoopDevice, file: int, **how: object) -> None:
        if how["direct_io"]:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        configure(device, file, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(LoopDevice, "configure", without_direct_io)
    with loop.attach(str(image)) as device:
        assert storage.loop_state(os.path.basename(device.path)) is not None


@pytest.mark.root
@pytest.mark.parametrize(("direct_io", "number"), [(False, errno.EINVAL), (True, errno.EIO), (False, errno.EIO)])
def test_what_will_not_get_better_is_said_at_once(
    image: Path, monkeypatch: pytest.MonkeyPatch, direct_io: bool, number: int
) -> None:
    """Without direct I/O, which some files cannot, EINVAL means another thing."""
    tried: list[LoopDevice] = []

    def refused(device: LoopDevice, *_: object, **__: object) -> None:
        tried.append(device)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(LoopDevice, "configure", refused)
    with pytest.raises(LoopError, match=f"cannot be attached to /dev/loop[0-9]+: {os.strerror(number)}$"):
        loop.attach(str(image), direct_io=direct_io)
    assert [device.fd for device in tried] == [-1], "and closed again"


@pytest.mark.root
def test_mount_keeps_it_when_we_let_go(image: Path, mounted: Mount) -> None:
    command("mkfs.ext4", "-q", "-b", "4096", image)
    device = loop.attach(str(image))
    with mounted(device.path) as folder:
        device.close()
        (folder / "file").write_text("data")
        again = loop.hold(device.path)
        assert (again.direct_io, again.block_size) == (True, 4096)
        again.close()
        assert [one.path for one in loop.find(str(image))] == [device.path]
    assert loop.find(str(image)) == []


@pytest.mark.root
def test_kill_leaves_nothing_attached(image: Path) -> None:
    code = (
        "import signal\nfrom rpinfs.system import loop\n"
        f"print(loop.attach({str(image)!r}).path, flush=True)\nsignal.pause()"
    )
    with python(code) as process:
        assert process.stdout
        path = process.stdout.readline().strip()
        assert [one.path for one in loop.find(str(image))] == [path]
        process.kill()
    assert loop.find(str(image)) == []


@pytest.mark.root
def test_detach_waits_for_the_mount(image: Path, mounted: Mount) -> None:
    command("mkfs.ext4", "-q", "-b", "4096", image)
    device = loop.attach(str(image))
    with mounted(device.path):
        device.detach()
        assert loop.find(str(image))
    assert loop.find(str(image)) == []


@pytest.mark.root
def test_hold_of_what_is_not_attached(image: Path) -> None:
    with loop.attach(str(image)) as device:
        pass
    with pytest.raises(LoopError, match=f"{device.path}: expected an attached image, found none"):
        loop.hold(device.path)
    with pytest.raises(LoopError, match="/dev/null: expected a loop device"):
        loop.hold("/dev/null")
    with pytest.raises(LoopError, match="cannot be opened: No such file"):
        loop.hold("/dev/loop99999")


@pytest.mark.root
def test_found_under_any_name(tmp_path: Path, image: Path, mounted: Mount, opened: list[LoopDevice]) -> None:
    other = sparse(tmp_path / "other.img")
    opened.append(device := loop.attach(str(image)))
    assert [one.path for one in loop.find(str(image))] == [device.path]
    assert loop.find(str(other)) == []
    hard, symbolic, moved = tmp_path / "hard", tmp_path / "symbolic", tmp_path / "moved"
    os.link(image, hard)
    symbolic.symlink_to(image)
    assert [one.path for one in loop.find(str(hard))] == [device.path]
    assert [one.path for one in loop.find(str(symbolic))] == [device.path]
    with mounted("--bind", tmp_path) as bound:
        assert [one.path for one in loop.find(str(bound / image.name))] == [device.path]
    image.rename(moved)
    other.rename(image)
    assert [one.path for one in loop.find(str(moved))] == [device.path]
    assert loop.find(str(image)) == []


@pytest.mark.root
def test_found_when_unlinked(tmp_path: Path, image: Path) -> None:
    os.link(image, tmp_path / "second name")
    with loop.attach(str(image)) as device:
        image.unlink()
        found = loop.find(str(tmp_path / "second name"))
        assert [(one.path, one.backing_file) for one in found] == [(device.path, f"{image} (deleted)")]


@pytest.mark.root
def test_never_attached_twice(tmp_path: Path, image: Path) -> None:
    hard = tmp_path / "hard"
    os.link(image, hard)
    with loop.attach(str(image)) as device, pytest.raises(LoopError, match=f"is attached to {device.path} already"):
        loop.attach(str(hard))


@pytest.mark.root
def test_grows_with_its_file(image: Path) -> None:
    with loop.attach(str(image)) as device:
        os.truncate(image, 2 * SIZE)
        device.set_capacity()
        assert device.refresh().size == 2 * SIZE


@pytest.mark.root
def test_only_regular_files(tmp_path: Path, image: Path) -> None:
    fifo, link = tmp_path / "fifo", tmp_path / "link"
    os.mkfifo(fifo)
    link.symlink_to(image)
    for path, words in (
        (fifo, "expected a regular file"),
        (link, "Too many levels of symbolic links"),
        (tmp_path, "Is a directory"),
        (tmp_path / "missing", "No such file"),
    ):
        with pytest.raises(LoopError, match=re.escape(str(path)) + ".*" + words):
            loop.attach(str(path))


@pytest.mark.root
def test_more_images_than_devices(tmp_path: Path, opened: list[LoopDevice]) -> None:
    opened.extend(loop.attach(str(sparse(tmp_path / f"{number}.img", 1 << 20))) for number in range(12))
    assert len({device.path for device in opened}) == 12
    for number, device in enumerate(opened):
        now = device.refresh()
        assert (now.backing_file, now.direct_io) == (str(tmp_path / f"{number}.img"), True)


@pytest.mark.root
def test_many_at_once(tmp_path: Path) -> None:
    """Two processes are given the same free device all the time; each has to end up with devices of its own."""
    code = (
        "import sys\nfrom rpinfs.system import loop\nsys.stdin.read(1)\n"
        "held = [loop.attach(path) for path in sys.argv[1:]]\n"
        "print(*(device.path for device in held), flush=True)\nsys.stdin.read(1)"
    )
    workers = []
    for worker in range(4):
        paths = [str(sparse(tmp_path / f"{worker}-{number}.img", 1 << 20)) for number in range(6)]
        workers.append(python(f"import sys\nsys.argv[1:] = {paths!r}\n{code}", stdin=-1))
    for process in workers:
        assert process.stdin
        process.stdin.write("g")
        process.stdin.flush()
    taken = [process.stdout.readline().split() for process in workers if process.stdout]
    attached = {one.path: one.backing_file for one in storage.loops()}
    for worker, devices in enumerate(taken):
        assert [attached.get(device) for device in devices] == [
            str(tmp_path / f"{worker}-{number}.img") for number in range(6)
        ]
    for process in workers:
        process.communicate("g")


@pytest.mark.root
@pytest.mark.parametrize("gone", [errno.ENXIO, errno.ENODEV, errno.ENOENT])
def test_a_free_device_that_others_let_go_of_meanwhile(image: Path, monkeypatch: pytest.MonkeyPatch, gone: int) -> None:
    """The kernel opens no device that is just being detached: seen beside other programs with loop devices."""
    open_ = os.open
    refused: list[str] = []

    def open_once_it_is_free(path: str, flags: int, *more: int) -> int:
        if re.fullmatch(r"/dev/loop\d+", str(path)) and flags & os.O_RDWR and len(refused) < 2:
            refused.append(path)
            raise OSError(gone, os.strerror(gone), path)
        return open_(path, flags, *more)

    monkeypatch.setattr(os, "open", open_once_it_is_free)
    with loop.attach(str(image)) as device:
        assert [one.path for one in storage.loops_on(str(image))] == [device.path]
    assert len(refused) == 2


@pytest.mark.root
def test_node_is_made_where_dev_lacks_it(image: Path) -> None:
    """As in a container or an old initramfs: /dev with loop-control and no loop device."""
    code = (
        "import os, stat\nfrom rpinfs.system import loop\n"
        f"device = loop.attach({str(image)!r})\n"
        "print(device.path, device.direct_io, stat.filemode(os.stat(device.path).st_mode), os.listdir('/dev'))"
    )
    script = 'mount -t tmpfs none /dev && mknod /dev/loop-control c 10 237 && mknod -m 666 /dev/null c 1 3 && exec "$@"'
    inside = ("sh", "-c", f"cd {ROOT} && {script}", "sh", *PYTHON, "-c", code)
    shown = command("unshare", "--mount", *inside)
    path, direct_io, mode = shown.split()[:3]
    assert (direct_io, mode) == ("True", "brw-r-----") or (direct_io, mode) == ("True", "brw-rw----")
    assert os.path.basename(path) in shown.split("[")[1]


def test_devices_are_block_devices_of_the_loop_driver() -> None:
    control = os.stat("/dev/loop-control")
    assert stat.S_ISCHR(control.st_mode)
    assert (os.major(control.st_rdev), os.minor(control.st_rdev)) == (10, 237)


@pytest.mark.root
def test_what_was_detached_in_the_meantime_is_not_found(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was in the list, and by the time it is asked nothing is attached to it."""
    with loop.attach(str(image)) as device:
        listed = [one for one in storage.loops() if one.path == device.path]
        assert [one.path for one in loop.find(str(image))] == [device.path]
    monkeypatch.setattr(loop, "loops", lambda: listed)
    assert loop.find(str(image)) == []
