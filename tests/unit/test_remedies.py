"""Every remedy in the source is in the table of remedies, and can be pasted as it stands."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from rpinfs.errors import quoted
from tests import remedies
from tests.collected import collect, read
from tests.support import TOP, make_tree

TABLE = (*remedies.PASTED, *remedies.ELSEWHERE, *remedies.LOOKS, *remedies.NOT_PASTED, *remedies.WORDS, *remedies.LINES)
INSIDE = ("mount --bind {quoted} /mnt && ls -lA {quoted} && exec sh",)
"""Not printed so, but within another command."""

COMMANDS = sorted({command for remedy in TABLE if remedy not in INSIDE for command in remedies.commands(remedy)})


def test_every_remedy_is_in_the_table() -> None:
    missing = {text: where for text, where in collect(read()).items() if text not in TABLE}
    assert missing == {}, "add a row to tests/remedies.py: where it is pasted, or why not"


def test_every_row_of_the_table_is_in_the_source() -> None:
    assert set(TABLE) - set(collect(read())) == set(), "take the row out of tests/remedies.py"
    assert len(set(TABLE)) == len(TABLE)


@pytest.mark.parametrize("test", sorted(set(remedies.ELSEWHERE.values())))
def test_what_pastes_it_elsewhere_is_there(test: str) -> None:
    path, _, name = test.partition("::")
    assert f"\ndef {name}(" in (TOP / path).read_text()


def test_words_are_words_and_commands_are_commands() -> None:
    assert [text for text in (*remedies.WORDS, *remedies.LINES) if remedies.commands(text)] == []
    pasted = (*remedies.PASTED, *remedies.ELSEWHERE, *remedies.LOOKS, *remedies.NOT_PASTED)
    assert [text for text in pasted if text != "{anew}" and not remedies.commands(text)] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_a_shell_takes_it_as_it_stands(command: str) -> None:
    """No sentence goes on behind a command, each program is one that we know, and what is filled in is quoted."""
    text = command.removesuffix(" ...")
    numbers = ("netboot {}", "vers={}", "--size {}", "install {}", "-b {} -B {}", "{}-{}", "mv {} {}")
    for number in numbers:
        text = text.replace(number, re.sub("{}", "1", number))
    assert "{}" not in text, "fill it in by rpinfs.errors.quoted()"
    text = re.sub("{[a-z]+}", "x", text.replace("&& {quoted};", "&& tune2fs {quoted};"))
    assert subprocess.run(["bash", "-n", "-c", text], capture_output=True, check=False).stderr == b""
    for part in re.split(r"; | && |\n", text):
        assert remedies.program(part) in remedies.PROGRAMS, part


def test_what_is_quoted_is_one_word_to_a_shell() -> None:
    words = [
        "/nfs/docker/a b.img",
        "var-lib-a\\x2db.mount",
        "$(reboot)",
        "it's",
        "",
        "~",
        "a;b",
        "*",
        "plain-1.img",
        "\n",
    ]
    done = subprocess.run(["sh", "-c", f"printf '%s\\0' {quoted(*words)}"], capture_output=True, text=True, check=True)
    assert done.stdout.split("\0")[:-1] == words
    assert quoted("/nfs/docker/docker-1.img", "docker.service") == "/nfs/docker/docker-1.img docker.service"


PLANTED = {
    "an error": ('raise RpinfsError("x", f"rm {path}")', "rm {}"),
    "an error of a class of its own": (
        'class Odd(RpinfsError):\n    """Odd."""\nraise Odd("x", "dd if=x")',
        "dd if=x",
    ),
    "a keyword": ('Check("a", remedy="mend it")', "mend it"),
    "a field": ("held.remedy = 'hold it'", "hold it"),
    "a constant": ('_WAY = "go away"\nraise RpinfsError("x", _WAY)', "go away"),
    "a command in a constant": ('_WAY = "ls"\nraise RpinfsError("x", f"look: {_WAY}")', "look: ls"),
    "a choice": ('raise RpinfsError("x", "turn left" if a else None)', "turn left"),
    "a function": ('def the_remedy() -> str:\n    return "sleep"\n', "sleep"),
    "what a function returns": (
        'def way() -> str:\n    return "walk"\n\ndef f() -> None:\n    raise RpinfsError("x", way())\n',
        "walk",
    ),
    "a table": ('REMEDIES = {1: "count"}', "count"),
    "a parameter of a new function": (
        'def tell(state: str, remedy: str) -> None: ...\ntell("lost", "find it")',
        "find it",
    ),
    "a field of a new class": ('class Said:\n    state: str\n    remedy: str\nSaid("lost", "seek it")', "seek it"),
    "a sentence with a command": ('say(f"then tune2fs -O ^mmp {path}")', "then tune2fs -O ^mmp {}"),
    "what is quoted": ('raise RpinfsError("x", f"rm {quoted(path)}")', "rm {quoted}"),
}


@pytest.mark.parametrize("planted", PLANTED.values(), ids=PLANTED)
def test_a_new_remedy_is_seen(planted: tuple[str, str], tmp_path: Path) -> None:
    text, expected = planted
    errors = 'class RpinfsError(Exception):\n    def __init__(self, message: str, remedy: str = "") -> None: ...\n'
    make_tree(tmp_path, {"errors.py": errors, "room/planted.py": f"{text}\n"})
    assert collect(read(tmp_path)) == {expected: {"room/planted.py"}}
