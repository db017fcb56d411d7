"""All names of a board or none: what each state that an interrupted attempt leaves becomes, and what is not touched."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from rpinfs.errors import RpinfsError
from rpinfs.netboot.add import asked, record, staging
from rpinfs.netboot.add.asked import refuse_another
from rpinfs.netboot.add.record import Record
from rpinfs.netboot.add.staging import Place, Staging
from tests.support import make_tree

DIGITS = "0123456789abcdef"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    for name in ("roots", "tftp"):
        (tmp_path / name).mkdir()
    return Place(str(tmp_path / "roots"), "pi1", str(tmp_path / "tftp"), "a1b2c3d4")


def whole(place: Place) -> Record:
    return Record(place.name, "a1b2c3d4", "", "4", "192.168.1.10", place.root, place.boot, "i.img", sha256="0f")


def staged(place: Place, root: bool = True, boot: bool = True, named: bool = True) -> None:
    """A board that was whole when its making was interrupted; or not yet, without its record."""
    outer = [Path(folder) for folder in place.staged(DIGITS)]
    for folder, inner, there in ((outer[0], "root", root), (outer[1], "boot", boot)):
        make_tree(folder, {f"{inner}/file": inner} if there else {})
        folder.mkdir(exist_ok=True)
    if named:
        record.write(place.roots, replace(whole(place), staged=DIGITS))


def names(place: Place) -> tuple[list[str], list[str]]:
    return sorted(os.listdir(place.roots)), sorted(os.listdir(place.tftp))


DONE = ([".pi1.rpinfs-board", "pi1"], ["a1b2c3d4"])


def test_where_things_are(place: Place) -> None:
    made = Staging(place, DIGITS)
    top = Path(place.roots).parent
    assert (place.root, place.boot) == (f"{top}/roots/pi1", f"{top}/tftp/a1b2c3d4")
    assert made.root == f"{top}/roots/.pi1.rpinfs-new-{DIGITS}/root"
    assert made.boot == f"{top}/tftp/.pi1.rpinfs-new-{DIGITS}/boot"
    assert made.mount_point("image") == f"{top}/roots/.pi1.rpinfs-new-{DIGITS}/image"


def test_made_and_published(place: Place) -> None:
    with staging.staging(place) as made:
        assert [os.stat(folder).st_mode & 0o777 for folder in place.staged(made.digits)] == [0o700] * 2
        assert [os.stat(folder).st_mode & 0o777 for folder in (made.root, made.boot)] == [0o755] * 2
        assert re.fullmatch("[0-9a-f]{16}", made.digits)
        done = staging.publish(made, whole(place))
    assert done == record.read(place.roots, "pi1") == whole(place)
    assert names(place) == DONE


def test_given_up(place: Place) -> None:
    with pytest.raises(KeyError), staging.staging(place):
        raise KeyError
    assert names(place) == ([], [])
    record.write(place.roots, replace(whole(place), staged="f" * 16))
    with pytest.raises(KeyError), staging.staging(place) as made:
        raise KeyError
    assert names(place) == ([".pi1.rpinfs-board"], []), made


def test_whole_but_for_its_names(place: Place) -> None:
    """While the record names what is staged, it is the board, whatever fails."""
    with pytest.raises(KeyError), staging.staging(place) as made:
        record.write(place.roots, replace(whole(place), staged=made.digits))
        raise KeyError
    assert [Path(folder).is_dir() for folder in (made.root, made.boot)] == [True, True]
    assert staging.settle(place) == whole(place)
    assert names(place) == DONE


@pytest.mark.parametrize(("root", "boot"), [(True, True), (False, True), (False, False)])
def test_completed(root: bool, boot: bool, place: Place) -> None:
    staged(place, root, boot)
    for there, folder, name in ((root, place.root, "root"), (boot, place.boot, "boot")):
        if not there:
            make_tree(Path(folder), {"file": name})
    assert staging.settle(place) == whole(place)
    assert names(place) == DONE
    assert [Path(f"{folder}/file").read_text() for folder in (place.root, place.boot)] == ["root", "boot"]


def test_what_was_not_whole_goes(place: Place) -> None:
    staged(place, named=False)
    # Of another board, of another form, and in the TFTP folder alone: other roots may have the other half.
    kept = [".pi1.rpinfs-new-0123", f".pi10.rpinfs-new-{DIGITS}", f".pi1.rpinfs-new-{DIGITS}0", "x"]
    for name in kept:
        Path(place.roots, name).mkdir()
    other = f".pi1.rpinfs-new-{'f' * 16}"
    Path(place.tftp, other).mkdir()
    assert staging.settle(place) is None
    assert names(place) == (sorted(kept), [other])


def test_a_link_is_not_followed(place: Place, tmp_path: Path) -> None:
    make_tree(tmp_path / "mine", {"file": ""})
    Path(place.roots, f".pi1.rpinfs-new-{DIGITS}").symlink_to(tmp_path / "mine")
    staging.settle(place)
    assert (tmp_path / "mine/file").exists()


def test_another_tftp_folder(place: Place) -> None:
    staged(place)
    before = names(place)
    other = replace(place, tftp=place.roots)
    with pytest.raises(RpinfsError, match="was interrupted when it was whole, but for its name in") as caught:
        staging.settle(other)
    assert caught.value.remedy == f"run it again with: --tftp {place.tftp}"
    assert names(place) == before


def test_another_folder_name_is_that_of_the_record(place: Place) -> None:
    staged(place)
    staging.settle(replace(place, folder="99999999"))
    assert names(place) == DONE


@pytest.mark.parametrize("taken", ["root", "boot"])
def test_a_name_that_somebody_took(taken: str, place: Place) -> None:
    staged(place)
    target = getattr(place, taken)
    Path(target).mkdir()
    before = names(place)
    with pytest.raises(RpinfsError, match=f"{target}: was made by somebody else meanwhile; the board waits in") as said:
        staging.settle(place)
    assert said.value.remedy == f"move it away, and then add it again: mv -T --backup=numbered {target} {target}.odd"
    assert names(place) == before, "neither of both gets its name"


def test_a_number_that_another_board_has(place: Place) -> None:
    staged(place)
    Path(place.boot).mkdir()
    record.write(place.roots, replace(whole(place), name="pi0", boot=f"{place.tftp}/../tftp/a1b2c3d4"))
    with pytest.raises(RpinfsError, match=f"{place.boot}: is pi0's by now, and a serial number is one board's; pi1"):
        staging.settle(place)
    record.write(place.roots, replace(whole(place), name="pi0", boot="/elsewhere"))
    with pytest.raises(RpinfsError, match="was made by somebody else meanwhile"):
        staging.settle(place)


@pytest.mark.parametrize("gone", ["root", "boot"])
def test_what_is_in_neither_place(gone: str, place: Place) -> None:
    staged(place, root=gone != "root", boot=gone != "boot")
    target = getattr(place, gone)
    with pytest.raises(RpinfsError, match=f"{target}: expected what an earlier attempt has made, found nei") as said:
        staging.settle(place)
    path = record.path_of(place.roots, "pi1")
    assert said.value.remedy == f"to make the board anew: mv -T --backup=numbered {path} {path}.odd"


@pytest.mark.parametrize("taken", ["root", "boot"])
def test_names_that_are_taken(taken: str, place: Place) -> None:
    staging.refuse_taken(place, None)
    Path(getattr(place, taken)).symlink_to("nowhere")
    with pytest.raises(RpinfsError, match=f"{getattr(place, taken)}: is there already"):
        staging.refuse_taken(place, None)
    with pytest.raises(RpinfsError, match=r"pi1: there is a board of this name already, made of i\.img"):
        staging.refuse_taken(place, whole(place))


def test_alone_in_both_folders(place: Place) -> None:
    locks = [f"{folder}/.pi1.rpinfs-lock" for folder in (place.roots, place.tftp)]
    with staging.alone(place):
        assert all(map(os.path.exists, locks))
        elsewhere = Path(place.roots).parent / "other"
        elsewhere.mkdir()
        for other in (place, replace(place, roots=str(elsewhere)), replace(place, tftp=str(elsewhere))):
            with pytest.raises(RpinfsError, match="pi1: another rpinfs is making it at this moment"):
                staging.alone(other).__enter__()
        with staging.alone(replace(place, name="pi2")):
            pass
    assert names(place) == ([], [])
    with staging.alone(replace(place, tftp=str(Path(place.roots)))):
        assert names(place) == ([".pi1.rpinfs-lock"], [])
    with pytest.raises(KeyError), staging.alone(place):
        raise KeyError
    assert names(place) == ([], [])


def test_only_who_asks_for_the_same_completes_it(place: Place, tmp_path: Path) -> None:
    image = tmp_path / "i.img"
    image.write_bytes(b"image")
    digest = asked.digest_of(str(image))
    assert digest == "6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d"
    assert asked.digest_of("") == ""
    one = replace(whole(place), staged=DIGITS, sha256=digest)
    refuse_another(place, one, {"--user": "me"}, str(image))  # Of an older version: nothing was kept.
    staged(place)
    refuse_another(place, one, {"--user": "me"}, str(image))
    Path(place.staged(DIGITS)[0], "asked.json").write_text('{"--user": "me", "--mac": ""}')
    refuse_another(place, one, {"--user": "me", "--mac": ""}, str(image))
    for wanted, said in (
        ({"--user": "you", "--mac": ""}, "of something else: --user: expected me, found you"),
        ({"--user": "me", "--mac": "b8"}, "--mac: expected none, found b8"),
        ({"--user": "", "--mac": "b8"}, "--user: expected me, found none; --mac: expected none, found b8"),
    ):
        with pytest.raises(RpinfsError, match=f"^pi1: an interrupted attempt has made it whole, .*{said}$") as caught:
            refuse_another(place, one, wanted, str(image))
        assert "run it again as then; or, to make it anew: mv -T" in str(caught.value.remedy)
    image.write_bytes(b"another")
    with pytest.raises(RpinfsError, match=f"the image's checksum: expected {digest}, found another one"):
        refuse_another(place, one, {"--user": "me"}, str(image))
    refuse_another(place, one, {"--user": "me"}, "")
    refuse_another(place, replace(one, sha256=""), {"--user": "me"}, str(image))
