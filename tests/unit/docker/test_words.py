"""Words, variables and files of variables; tests/tools/docker/test_service.py asks systemd about the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpinfs.docker import words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[A]\nk=v\n", [("A", "k", "v", 2)]),
        ("[A]\n k =  v w \n", [("A", "k", "v w", 2)]),
        ("[A]\nk=a \\\n# no\n; no\n  b\nx=\n", [("A", "k", "a  b", 2), ("A", "x", "", 6)]),
        ("[A]\nk=a\\\\\nx=1\n", [("A", "k", "a\\\\", 2), ("A", "x", "1", 3)]),
        ("[A]\nk=a\\", [("A", "k", "a", 2)]),
        ("[A]\n#k=1\nno assignment\n[B]\nk=a=b\n", [("B", "k", "a=b", 5)]),
        ("\ufeff[A]\nk=1\n", [("A", "k", "1", 2)]),
        # systemd-analyze of 252 names these lines.
        ("[A]\n#\rk=1\r\n#\0x=2\n", [("A", "k", "1", 3), ("A", "x", "2", 5)]),
    ],
)
def test_assignments(text: str, found: list[tuple[str, str, str, int]]) -> None:
    assert list(words.assignments(text)) == found


@pytest.mark.parametrize(
    ("text", "in_unit", "in_variable"),
    [
        ("a  b\tc", ["a", "b", "c"], ["a", "b", "c"]),
        ("\"a b\" 'c d' e\"f g\"h ''", ["a b", "c d", "ef gh", ""], ["a b", "c d", "ef gh", ""]),
        (r"a\x20b c\sd \101\u00e4", ["a b", "c d", "A\u00e4"], ["ax20b", "csd", "101u00e4"]),
        (r"a\qb \" '\''", [r"a\qb", '"', "'"], ["aqb", '"', "'"]),
        ("", [], []),
    ],
)
def test_split(text: str, in_unit: list[str], in_variable: list[str]) -> None:
    assert words.split(text, c_escapes=True) == in_unit
    assert words.split(text, c_escapes=False) == in_variable


@pytest.mark.parametrize(
    ("escape", "character"),
    [
        ("\\x41b", "Ab"),
        ("\\101b", "Ab"),
        ("\\u0041b", "Ab"),
        ("\\U0010ffffb", "\U0010ffffb"),
        # No character has these numbers.
        ("\\U00110000b", "\\U00110000b"),
        ("\\Uffffffffb", "\\Uffffffffb"),
        ("\\qb", "\\qb"),
        ("\\x4", "\\x4"),
    ],
)
def test_characters_by_number(escape: str, character: str) -> None:
    assert words.split(f"a{escape} c", c_escapes=True) == [f"a{character}", "c"]


def test_specifiers() -> None:
    assert words.specified("%n 100%% %i-", {"n": "a.service", "i": ""}) == "a.service 100% -"
    with pytest.raises(words.NotTold, match="%b"):
        words.specified("%b", {"n": "x"})


def test_variables() -> None:
    values = {"A": "x 'y z'", "B": ""}
    found = words.substituted(["$A", "<${A}>", "$NO", "${NO}", "$B", "$$A", "--x=$A", "$1"], values)
    assert found == [
        ("x", "A"), ("y z", "A"), ("<x 'y z'>", "A"), ("", "NO"), ("$A", ""), ("--x=$A", ""), ("$1", ""),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A=1\nB = 2 \n", {"A": ("1", 1), "B": ("2", 2)}),
        ("# x\n; A=1\nA=a#b ;c\n", {"A": ("a#b ;c", 3)}),
        ("A=\"x y\" 'z' \n", {"A": ("x yz", 1)}),
        ("A=a\\\n b\\ c\n", {"A": ("a b c", 1)}),
        ("A='a\\b'\nB=\"a\\b\\$c\\\nd\"\n", {"A": ("a\\b", 1), "B": ("a\\b$cd", 2)}),
        ('A="x\ny"\nB=1\n', {"A": ("x\ny", 1), "B": ("1", 3)}),
        ("A='open\n", {"A": ("open\n", 1)}),
        ("export A=1\n1A=2\nA\n=3\n", {}),
        ("A=1\nA=2", {"A": ("2", 2)}),
        ('A=x"y"\n', {"A": ('x"y"', 1)}),
        ("A=\n", {"A": ("", 1)}),
    ],
)
def test_environment_file(text: str, found: dict[str, tuple[str, int]]) -> None:
    assert words.environment_file(text) == found


@given(st.text(alphabet="aA=\\'\"\n #$;\t1", max_size=30))
def test_whatever_the_text_it_ends(text: str) -> None:
    words.environment_file(text)
    list(words.assignments(text))
    assert all(isinstance(word, str) for word in words.split(text, c_escapes=True))
