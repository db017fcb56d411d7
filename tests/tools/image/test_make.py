"""Making images: as the design says, and what is left when it goes wrong."""

import contextlib
import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rpinfs.image import make, publish
from rpinfs.image.check import check
from rpinfs.image.errors import ImageError
from rpinfs.image.make import create
from rpinfs.image.probe import Kind, probe
from rpinfs.system import loop
from rpinfs.system.run import ENVIRONMENT, silent
from tests.support import Tell
from tests.tools.conftest import Ended, Mount, Traced, command, python
from tests.tools.crash import fail_at, kill_at, some
from tests.tools.image.files import (
    MIB,
    SIZE,
    XFS_SIZE,
    assert_whole,
    fingerprint,
    sparse,
    write_at,
    written_zeros,
)


def test_create_ext4_as_the_design_says(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    told: list[str] = []
    made = create(str(path), 10 << 30, label="docker", progress=told.append)
    shown = command("dumpe2fs", "-h", path)
    assert (made.kind, made.size, made.fs_size, made.label) == (Kind.EXT4, 10 << 30, 10 << 30, "docker")
    for line in (
        f"Filesystem features: +{make.EXT4_FEATURES.replace(',', ' ')}$",
        r"Errors behavior: +Remount read-only$",
        r"Filesystem state: +clean$",
        r"Reserved block count: +0$",
        r"Block size: +4096$",
        r"Inode size:\s+256$",
        r"Inode count: +655360$",
        r"Total journal size: +64M$",
        r"Maximum mount count: +-1$",
        r"Check interval: +0 ",
        # For growing to 1 TiB: each has 64 groups of 128 MiB.
        r"Reserved GDT blocks: +126$",
    ):
        assert re.search(f"^{line}", shown, re.MULTILINE), line
    assert made.allocated < MIB
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert told == ["formatting 10 GiB with ext4", "verifying the new file system"]
    assert os.listdir(tmp_path) == ["disk.img"]


def test_create_does_not_depend_on_mke2fs_conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = tmp_path / "mke2fs.conf"
    odd.write_text(
        "[defaults]\nbase_features = sparse_super,mmp\nblocksize = 1024\ninode_size = 512\nenable_periodic_fsck = 1\n"
        "[fs_types]\next4 = {\nfeatures = has_journal,bigalloc,quota,orphan_file\n}\n"
    )
    create(str(tmp_path / "usual"), SIZE)
    monkeypatch.setitem(ENVIRONMENT, "MKE2FS_CONFIG", str(odd))
    create(str(tmp_path / "odd"), SIZE)
    features = [
        re.findall(r"Filesystem features.*", command("dumpe2fs", "-h", tmp_path / name)) for name in ("usual", "odd")
    ]
    assert features[0] == features[1] != []
    assert probe(str(tmp_path / "odd")).block_size == 4096


@pytest.mark.root
@pytest.mark.parametrize(("filesystem", "size"), [("ext4", SIZE), ("xfs", XFS_SIZE)])
def test_created_image_mounts_over_4096_byte_blocks(tmp_path: Path, mounted: Mount, filesystem: str, size: int) -> None:
    path = tmp_path / "disk.img"
    made = create(str(path), size, filesystem)
    assert (made.sector_size, made.label) == (4096, "disk")
    with loop.attach(str(path)) as device, mounted("-t", filesystem, device.path) as folder:
        (folder / "file").write_text("data")
    assert check(str(path)).corrected is False


def test_nothing_is_zeroed_later(tmp_path: Path) -> None:
    """Inode tables are marked as zeroed, so that the kernel does not do it in the background after the mount."""
    path = tmp_path / "disk.img"
    create(str(path), 1 << 30)
    groups = re.findall(r"^Group \d+:.*\[(.*)\]", command("dumpe2fs", path), re.MULTILINE)
    assert len(groups) == 8
    assert all("ITABLE_ZEROED" in flags for flags in groups)


@pytest.mark.parametrize("size", [SIZE, 127 * MIB, 128 * MIB, 1 << 30, 2 << 30, 17 << 30, 33 << 30, 65 << 30, 1 << 40])
def test_room_asked_for_is_enough(tmp_path: Path, size: int) -> None:
    """What mkfs writes, and the journal, which is written full in time."""
    path = tmp_path / "disk.img"
    made = create(str(path), size)
    shown = command("dumpe2fs", "-h", path)
    journal_size = re.search(r"Total journal size: +(\d+)([kM])", shown)
    assert journal_size
    journal_bytes = int(journal_size[1]) << (20 if journal_size[2] == "M" else 10)
    assert made.allocated + journal_bytes <= make.room_needed(size)


@pytest.mark.parametrize("size", [XFS_SIZE, 10 << 30, 1 << 40])
def test_room_asked_for_is_enough_for_xfs(tmp_path: Path, size: int) -> None:
    """What mkfs writes, and the log, which is written full in time."""
    made = create(str(tmp_path / "disk.img"), size, "xfs")
    log = re.search(r"^log .*?bsize=4096 +blocks=(\d+)", command("xfs_info", tmp_path / "disk.img"), re.MULTILINE)
    assert log
    assert made.allocated + int(log[1]) * 4096 <= make.room_needed(size, "xfs")


def test_xfs_is_made_where_memory_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then mkfs writes to the share, its zeros as well."""
    create(str(tmp_path / "usual.img"), XFS_SIZE, "xfs")

    def none(_name: str) -> int:
        raise OSError(errno.ENOMEM, "none")

    monkeypatch.setattr(os, "memfd_create", none)
    made = create(str(tmp_path / "short.img"), XFS_SIZE, "xfs")
    assert made.kind is Kind.XFS
    usual = (tmp_path / "usual.img").stat().st_blocks * 512
    assert usual < 4 * MIB < made.allocated


@pytest.mark.parametrize(
    ("label", "filesystem", "expected"),
    [
        (None, "ext4", "a-very-long-name"),
        (None, "xfs", "a-very-long-"),
        ("", "ext4", ""),
        ("gr\u00fcn" * 6, "ext4", "gr\u00fcngr\u00fcngr\u00fcng"),
    ],
)
def test_labels_are_cut_to_fit(tmp_path: Path, label: str | None, filesystem: str, expected: str) -> None:
    path = tmp_path / "a-very-long-name-of-an-image.img"
    assert create(str(path), XFS_SIZE, filesystem, label=label).label == expected


def test_every_image_has_a_uuid_of_its_own(tmp_path: Path) -> None:
    assert create(str(tmp_path / "a"), SIZE).uuid != create(str(tmp_path / "b"), SIZE).uuid


@pytest.mark.parametrize("name", ["-F", "a b", "%n", "x;y", "gr\u00fcn", ".hidden", "new\nline", "$(id)"])
def test_odd_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    create(name, SIZE)
    check(name)
    assert_whole(tmp_path / name)
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize(
    ("size", "filesystem", "words"),
    [
        (SIZE - 1, "ext4", "expected a size from 64 MiB to 16.0 TiB for ext4, found 64.0 MiB"),
        (0, "ext4", "found 0 bytes"),
        (-1, "ext4", "found -1 bytes"),
        (17 << 40, "ext4", "found 17 TiB"),
        (XFS_SIZE - 1, "xfs", "expected a size from 300 MiB"),
        (SIZE, "btrfs", "btrfs: expected ext4 or xfs"),
    ],
)
def test_senseless_sizes_and_kinds(tmp_path: Path, size: int, filesystem: str, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        create(str(tmp_path / "disk.img"), size, filesystem)
    assert os.listdir(tmp_path) == []


def test_folder_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot be made: No such file or directory") as caught:
        create(str(tmp_path / "none" / "disk.img"), SIZE)
    assert caught.value.remedy == "make the folder, or mount the share that has it"


@pytest.mark.root
@pytest.mark.parametrize("build", [sparse, written_zeros])
def test_blank_file_is_replaced_with_size_owner_and_mode(tmp_path: Path, build: Callable[[Path], object]) -> None:
    path = tmp_path / "disk.img"
    build(path)
    os.chown(path, 1234, 5678)
    path.chmod(0o640)
    create(str(path), 1 << 30)
    status = path.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (1234, 5678, 0o640)
    assert_whole(path)
    assert os.listdir(tmp_path) == ["disk.img"]


def test_empty_file_gets_the_size_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.touch(0o644)
    create(str(path), 2 * SIZE)
    assert_whole(path, 2 * SIZE)


def test_blank_file_of_odd_size(tmp_path: Path) -> None:
    path = sparse(tmp_path / "disk.img", SIZE + 1234)
    made = create(str(path), 0)
    assert (made.size, made.fs_size) == (SIZE + 1234, SIZE)


def test_blank_file_that_is_too_small(tmp_path: Path) -> None:
    path = sparse(tmp_path / "disk.img", 1000)
    before = fingerprint(path)
    with pytest.raises(ImageError, match="found 1000 bytes"):
        create(str(path), SIZE)
    assert fingerprint(path) == before


@pytest.mark.root
def test_blank_file_in_use_is_left_alone(tmp_path: Path) -> None:
    path = sparse(tmp_path / "disk.img")
    with loop.attach(str(path)) as device, pytest.raises(ImageError, match=f"is in use: attached to {device.path}"):
        create(str(path), SIZE)
    assert probe(str(path)).kind is Kind.BLANK


@pytest.mark.parametrize("meddle", ["write", "replace", "remove", "grow"])
def test_blank_file_that_changes_meanwhile(tmp_path: Path, meddle: str) -> None:
    path = sparse(tmp_path / "disk.img")

    def progress(line: str) -> None:
        if line.startswith("verifying"):
            match meddle:
                case "write":
                    write_at(path, 5000, b"data")
                case "replace":
                    (tmp_path / "other").write_text("data")
                    (tmp_path / "other").rename(path)
                case "remove":
                    path.unlink()
                case "grow":
                    os.truncate(path, 2 * SIZE)

    with pytest.raises(ImageError, match="it changed while its file system was made; it is left alone"):
        create(str(path), SIZE, progress=progress)
    assert os.listdir(tmp_path) == ([] if meddle == "remove" else ["disk.img"])
    if meddle == "write":
        assert path.read_bytes()[5000:5004] == b"data"
    if meddle == "replace":
        assert path.read_text() == "data"


@pytest.mark.root
def test_blank_file_that_is_attached_meanwhile(tmp_path: Path) -> None:
    """Whoever attached it is about to write to it, and would go on writing into a file that has no name."""
    path = sparse(tmp_path / "disk.img")
    before = path.stat().st_ino
    devices: list[loop.LoopDevice] = []

    def progress(line: str) -> None:
        if line.startswith("verifying"):
            devices.append(loop.attach(str(path)))

    with pytest.raises(ImageError, match="is in use: attached to /dev/loop"):
        create(str(path), SIZE, progress=progress)
    devices[0].close()
    assert path.stat().st_ino == before
    assert os.listdir(tmp_path) == ["disk.img"]


def test_name_that_is_taken_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"

    def progress(line: str) -> None:
        if line.startswith("verifying"):
            path.write_text("data")

    with pytest.raises(ImageError, match="somebody else made it in the meantime; it is left alone"):
        create(str(path), SIZE, progress=progress)
    assert (os.listdir(tmp_path), path.read_text()) == (["disk.img"], "data")


@pytest.mark.parametrize("blank", [False, True], ids=["no file", "blank file"])
def test_nothing_gets_its_name_before_it_is_stored(tmp_path: Path, traced: Traced, blank: bool) -> None:
    """A NAS that loses its power keeps a name without what it means, else: first the file is synced, then the name."""
    share = tmp_path / "share"
    share.mkdir()
    path = sparse(share / "disk.img") if blank else share / "disk.img"
    code, paths = attempt(path)
    calls = traced(code, paths).calls
    named = calls.index("rename" if blank else "linkat")
    formatted = calls.index("ftruncate")
    assert "fsync" in calls[formatted:named]
    assert calls[named:].count("fsync") == 1


def test_two_at_once_make_one_image(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    code = (
        "import sys\nfrom rpinfs.image import errors, make\nsys.stdin.read(1)\n"
        f"try: print(make.create({str(path)!r}, {SIZE}).uuid)\n"
        "except errors.ImageError as error: print(error.message)"
    )
    for _ in range(5):
        rivals = [python(code, stdin=-1) for _ in range(3)]
        for rival in rivals:
            assert rival.stdin
            rival.stdin.write("g")
            rival.stdin.flush()
        said = [rival.communicate()[0].strip() for rival in rivals]
        winner = probe(str(path)).uuid
        assert said.count(str(winner)) == 1
        for line in said:
            assert line == winner or "it is left alone" in line
        assert os.listdir(tmp_path) == ["disk.img"]
        path.unlink()


# --- Making: everything that can go wrong ------------------------------------------------------------------

ATTEMPT = """
import os, sys
random = os.urandom
os.urandom = lambda count: bytes.fromhex("0123456789abcdef") if count == 8 else random(count)
from rpinfs.image import errors, make
try:
    make.create({path!r}, {size})
except errors.ImageError as error:
    print(error.message, "|", error.remedy, file=sys.stderr)
    sys.exit(3)
"""


def attempt(path: Path) -> tuple[str, list[Path]]:
    """Code that makes an image, and the paths on the share that it touches."""
    temporary = path.parent / f".{path.name}.rpinfs-new-0123456789abcdef"
    return ATTEMPT.format(path=str(path), size=SIZE), [path.parent, path, temporary]


def points_of(traced: Traced, path: Path, *, children: bool = False) -> list[str]:
    """Every system call of ours that touches the share while an image is made."""
    code, paths = attempt(path)
    ended = traced(code, paths, children=children)
    assert (ended.returncode, ended.stderr) == (0, "")
    path.unlink()
    return ended.points


def assert_next_attempt_completes(path: Path, blank: bool) -> None:
    """Whatever is left: under the name nothing (or the blank file) or a whole image; and then all is well."""
    found = probe(str(path))
    if found.kind is Kind.EXT4:
        publish.remove_leftovers(str(path), silent)
    else:
        assert found.kind is (Kind.BLANK if blank else Kind.MISSING)
        create(str(path), SIZE)
    assert_whole(path)
    assert [name for name in os.listdir(path.parent) if "rpinfs-new" in name] == []


@pytest.fixture(params=[False, True], ids=["no file", "blank file"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Path]:
    """Makes a share as it is before an image is made, and says under which name."""

    def place() -> Path:
        share = tmp_path / "share"
        share.mkdir(exist_ok=True)
        path = share / "disk.img"
        return sparse(path) if request.param else path

    return place


def tampered(
    place: Callable[[], Path], traced: Traced, injections: list[str], *, children: bool = False
) -> Iterator[tuple[str, Ended]]:
    """An attempt with each of these injected, and how it ended; then the next attempt completes."""
    for injected in injections:
        path = place()
        blank = path.exists()
        code, paths = attempt(path)
        yield injected, traced(code, paths, inject=injected, children=children)
        assert_next_attempt_completes(path, blank)
        path.unlink()


@pytest.mark.crash
def test_killed_at_every_call(place: Callable[[], Path], traced: Traced, tell: Tell) -> None:
    path = place()
    last = "rename:when=1" if path.exists() else "linkat:when=1"
    tried = points_of(traced, path)
    assert len(tried) > 30
    assert {last, "ftruncate:when=1", "fsync:when=2"} <= set(tried)
    for injected, ended in tampered(place, traced, [kill_at(point) for point in tried]):
        assert ended.returncode == -9, injected
    tell(f"create: killed at {len(tried)} of {len(tried)} calls")


@pytest.mark.crash
def test_killed_with_its_children(place: Callable[[], Path], traced: Traced, tell: Tell) -> None:
    """mkfs and e2fsck are killed as well, each process at its own call of that number."""
    found = points_of(traced, place(), children=True)
    tried = some(found, 9)
    for injected, ended in tampered(place, traced, [kill_at(point) for point in tried], children=True):
        assert ended.returncode in (-9, 3), injected
    tell(f"create: killed with its children at {len(tried)} of {len(found)} calls")


@pytest.mark.crash
def test_every_call_fails(place: Callable[[], Path], traced: Traced, tell: Tell) -> None:
    """Either it goes on without, or it says so and leaves nothing half-made. Looking back afterwards is harmless."""
    path = place()
    tried = fail_at(points_of(traced, path))
    for injected, ended in tampered(place, traced, tried):
        assert ended.returncode in (0, 3), f"{injected}: {ended.stderr}"
        if ended.returncode == 3:
            assert str(path) in ended.stderr
            assert "Traceback" not in ended.stderr
    tell(f"create: {len(tried)} failing calls")


@pytest.mark.parametrize("when", [1, 2, 3, 10, 20])
@pytest.mark.parametrize("effect", ["error=ENOSPC", "error=EIO", "signal=KILL"])
def test_mkfs_fails_or_dies_while_it_writes(tmp_path: Path, traced: Traced, effect: str, when: int) -> None:
    share = tmp_path / "share"
    share.mkdir()
    path = share / "disk.img"
    code, paths = attempt(path)
    ended = traced(code, paths, inject=f"pwrite64:{effect}:when={when}", whole=True)
    if ended.returncode == 0:  # A lost write of zeros over a hole is no loss: the verification passed.
        assert_whole(path)
    else:
        assert (ended.returncode, os.listdir(share)) == (3, [])
        assert "mkfs.ext4" in ended.stderr or "e2fsck" in ended.stderr or "expected" in ended.stderr


def test_sync_of_mkfs_fails(tmp_path: Path, traced: Traced) -> None:
    share = tmp_path / "share"
    share.mkdir()
    path = share / "disk.img"
    code, paths = attempt(path)
    ended = traced(code, paths, inject="fsync:error=EIO", whole=True)
    assert (ended.returncode, os.listdir(share)) == (3, [])


@pytest.mark.parametrize("error", ["EPERM", "EOPNOTSUPP"])
def test_share_without_hard_links(tmp_path: Path, traced: Traced, error: str) -> None:
    path = tmp_path / "disk.img"
    code, paths = attempt(path)
    assert traced(code, paths, inject=f"link,linkat:error={error}").returncode == 0
    assert_whole(path)
    assert os.listdir(tmp_path) == ["disk.img"]


@pytest.mark.parametrize("error", ["ENOLCK", "EOPNOTSUPP"])
def test_share_without_locks(tmp_path: Path, traced: Traced, error: str) -> None:
    path = tmp_path / "disk.img"
    stays = tmp_path / ".disk.img.rpinfs-new-0000000000000001"
    stays.touch()
    code, paths = attempt(path)
    assert traced(code, [*paths, stays], inject=f"flock:error={error}").returncode == 0
    assert_whole(path)
    assert sorted(os.listdir(tmp_path)) == [stays.name, "disk.img"]


def test_share_that_keeps_owners_to_itself(tmp_path: Path, traced: Traced) -> None:
    path = sparse(tmp_path / "disk.img")
    if os.geteuid() == 0:
        os.chown(path, 1234, 1234)
    code, paths = attempt(path)
    assert traced(code, paths, inject="fchown:error=EPERM").returncode == 0
    assert_whole(path)


def test_link_that_was_answered_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS sends a request again when the answer was lost, and is told that the name exists: by its own doing."""
    real = os.link

    def link_twice(source: str, target: str, *, follow_symlinks: bool) -> None:
        real(source, target, follow_symlinks=follow_symlinks)
        real(source, target, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(os, "link", link_twice)
    create(str(tmp_path / "disk.img"), SIZE)
    assert_whole(tmp_path / "disk.img")


@pytest.mark.root
def test_no_room_is_refused_before_the_first_byte(mounted: Mount) -> None:
    with mounted("-t", "tmpfs", "-o", "size=8M", "none") as share:
        with pytest.raises(
            ImageError, match=r"expected 12.0 MiB of free space for a new file system, found 8 MiB"
        ) as caught:
            create(str(share / "disk.img"), SIZE)
        assert caught.value.remedy == "free some space on the share, or choose another one"
        assert os.listdir(share) == []


@pytest.mark.root
@pytest.mark.parametrize(("filesystem", "size"), [("ext4", SIZE), ("xfs", XFS_SIZE)])
def test_share_that_fills_up_meanwhile(mounted: Mount, filesystem: str, size: int) -> None:
    with mounted("-t", "tmpfs", "-o", "size=100M", "none") as share:

        def fill(line: str) -> None:
            if line.startswith("formatting"):
                with contextlib.suppress(OSError), (share / "other").open("wb", buffering=0) as other:
                    while True:
                        other.write(bytes(4096))

        with pytest.raises(ImageError, match="No space left on device"):
            create(str(share / "disk.img"), size, filesystem, progress=fill)
        assert os.listdir(share) == ["other"]


@pytest.mark.root
def test_largest_file_of_the_share(tmp_path: Path, mounted: Mount) -> None:
    """ext3 without large_file ends at 2 GiB."""
    disk = sparse(tmp_path / "disk", 1 << 30)
    command("mkfs.ext2", "-q", "-b", "1024", disk)
    with mounted("-o", "loop", disk) as share:
        with pytest.raises(ImageError, match="File too large") as caught:
            create(str(share / "disk.img"), 17 << 30)
        assert caught.value.remedy == "choose a size that the file system of the share can hold in one file"
        assert [name for name in os.listdir(share) if name != "lost+found"] == []


@pytest.mark.root
def test_read_only_share(tmp_path: Path, mounted: Mount) -> None:
    disk = sparse(tmp_path / "disk", 128 * MIB)
    command("mkfs.ext4", "-q", disk)
    with mounted("-o", "loop,ro", disk) as share, pytest.raises(ImageError, match="Read-only file system") as caught:
        create(str(share / "disk.img"), SIZE)
    assert caught.value.remedy == "export and mount the share read-write"
