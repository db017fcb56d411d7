"""Which numbers userns-remap gives to containers, by the texts of the four files. With real dockerd: tests/tools."""

from __future__ import annotations

import pytest

from rpinfs.docker.subids import Accounts, Range, Remap, next_free, parse, resolve
from rpinfs.errors import RpinfsError

PASSWD = "root:x:0:0:root:/root:/bin/sh\ndockremap:x:110:115::/:/bin/false\npi:x:1000:1000:,,,:/home/pi:/bin/sh\n"
GROUP = "root:x:0:\ndockremap:x:115:\npi:x:1000:\nothers:x:1001:pi\nshort\n"
RANGES = "pi:100000:65536\ndockremap:165536:65536\n"


def accounts(subuid: str | None = RANGES, subgid: str | None = RANGES, passwd: str = PASSWD) -> Accounts:
    return Accounts(passwd, GROUP, subuid, subgid)


@pytest.mark.parametrize(
    ("wanted", "subuid", "subgid", "expected"),
    [
        ("default", RANGES, RANGES, Remap("dockremap", 165536, 165536)),
        ("pi", RANGES, "pi:300000:65536\n", Remap("pi", 100000, 300000)),
        ("pi:others", RANGES, RANGES, Remap("pi", 100000, 100000)),
        ("1000", RANGES, RANGES, Remap("pi", 100000, 100000)),
        ("1000:1001", RANGES, RANGES, Remap("pi", 100000, 100000)),
        # By the number first, and by the name where that has no range.
        ("pi", "pi:100000:65536\n1000:200000:65536\n", RANGES, Remap("pi", 200000, 100000)),
        # Several ranges count together, and the first of the file is root's.
        ("pi", "pi:200000:65535\npi:100000:1\n", RANGES, Remap("pi", 200000, 100000)),
        ("pi", " # x\n\n  pi:100000:65536  \n", RANGES, Remap("pi", 100000, 100000)),
        # Up to the last number but one; ranges that only touch are two.
        ("pi", f"pi:{2**32 - 1 - 65536}:65536\n", RANGES, Remap("pi", 2**32 - 1 - 65536, 100000)),
        ("pi", "pi:100000:65536\na:34464:65536\nb:165536:65536\n", RANGES, Remap("pi", 100000, 100000)),
    ],
)
def test_whose_numbers(wanted: str, subuid: str, subgid: str, expected: Remap) -> None:
    assert resolve(wanted, accounts(subuid, subgid)) == expected


def test_the_user_that_docker_makes() -> None:
    nobody = PASSWD.replace("dockremap", "other")
    assert resolve("default", accounts("", "", nobody)) == Remap("dockremap", 100000, 100000, made_by_docker=True)
    assert resolve("default", accounts("a:100000:5\n", "", nobody)) == Remap("dockremap", 100005, 100000, True)


@pytest.mark.parametrize(
    ("wanted", "subuid", "message", "remedy"),
    [
        ("nobody", RANGES, "there is no user nobody", "useradd --system nobody"),
        ("77", RANGES, "there is no user 77", None),
        ("pi:none", RANGES, "there is no group none, which Docker wants", "groupadd --system none"),
        ("pi:short", RANGES, "there is no group short, which Docker wants", "groupadd --system short"),
        ("pi", None, "/etc/subuid: not there, and Docker wants it", "touch /etc/subuid"),
        ("pi", "a:100000:65536\n", "/etc/subuid: pi has no range, and Docker does not start with userns-remap then",
         "usermod --add-subuids 165536-231071 pi"),
        ("pi", "a:1:2\npi:100000:65535\n", "/etc/subuid:2: pi has 65535 numbers; expected at least 65536",
         "make it pi:100000:65536"),
        ("pi", f"pi:{2**32 - 65536}:65536\n", f"/etc/subuid:1: the range of pi ends beyond {2**32 - 2}", None),
        ("pi", "pi:100000:65536\na:165535:9\n", "/etc/subuid:1: the range of pi overlaps that of a in line 2",
         "give pi numbers of its own: pi:165544:65536"),
        ("pi", "a:100000:1\npi:100000:65536\n", "/etc/subuid:2: the range of pi overlaps that of a in line 1",
         "give pi numbers of its own: pi:165536:65536"),
        ("pi", "pi:100000\n", "/etc/subuid:1: expected USER:START:COUNT, found pi:100000", None),
        ("pi", "pi:x:1\n", "/etc/subuid:1: expected USER:START:COUNT, found pi:x:1", None),
        ("pi", "# x\npi:1:x\n", "/etc/subuid:2: expected USER:START:COUNT, found pi:1:x", None),
    ],
)  # fmt: skip
def test_what_does_not_start(wanted: str, subuid: str | None, message: str, remedy: str | None) -> None:
    with pytest.raises(RpinfsError) as caught:
        resolve(wanted, accounts(subuid))
    assert (caught.value.message, caught.value.remedy) == (message, remedy)


def test_groups_have_a_file_of_their_own() -> None:
    with pytest.raises(RpinfsError) as caught:
        resolve("pi", accounts(RANGES, "a:100000:65536\n"))
    assert caught.value.remedy == "usermod --add-subgids 165536-231071 pi"


@pytest.mark.parametrize(
    ("text", "free"),
    [
        ("", 100000),
        ("a:0:99999\n", 100000),
        # Docker wants none that touches: the number behind ours has to be free as well.
        ("a:165536:1\n", 165537),
        ("a:165537:1\n", 100000),
        ("a:99999:1\n", 100000),
        ("b:165536:65536\na:100000:65536\n", 231072),
    ],
)
def test_where_numbers_are_free(text: str, free: int) -> None:
    assert next_free(parse(text, "x")) == free


def test_the_fields_of_a_line() -> None:
    assert parse("\n#\na:5:7\n", "x") == [Range("a", 5, 7, 3)]
