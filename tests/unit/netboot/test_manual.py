"""rpinfs-netboot(8) against what each verb says of itself by --help: the same options, neither more nor fewer."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from rpinfs.commands import cli
from tests.support import TOP

VERBS = cli.COMMANDS["netboot"].names
PAGE = (TOP / "units/man/rpinfs-netboot.8.in").read_text()
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


def plain(text: str) -> str:
    """The words of a piece of the page, without its macros and quotes."""
    text = re.sub(r"^\.[A-Z]+ ?|\\f.", "", text, flags=re.MULTILINE)
    return text.replace("\\-", "-").replace("\\(aq", "'").replace('"', "")


def synopsis() -> dict[str, str]:
    """What the page's synopsis has for each verb."""
    text = PAGE[PAGE.index(".SH SYNOPSIS") : PAGE.index(".SH DESCRIPTION")]
    found = {}
    for piece in text.split(".B rpinfs netboot ")[1:]:
        verb, _, rest = plain(piece).partition(" ") if " " in piece.split("\n")[0] else plain(piece).partition("\n")
        found[verb.strip()] = f"{piece.split(chr(10))[0].replace(chr(92), '')} {rest}"
    return found


def section(verb: str) -> str:
    """What the page says of a verb."""
    begin = PAGE.index(f".SS {verb}\n")
    return plain(re.split(r"^\.S[SH] ", PAGE[begin + 4 :], maxsplit=1, flags=re.MULTILINE)[0])


def where() -> set[str]:
    """Options that the page calls WHERE."""
    text = section("add")
    return set(OPTION.findall(text[text.index("WHERE\nis") :]))


def shown(verb: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit):
        cli.main(["netboot", verb, "--help"])
    return capsys.readouterr().out


def options_of(text: str) -> Iterator[str]:
    yield from (option for option in OPTION.findall(text) if option != "--help")


@pytest.mark.parametrize("verb", VERBS)
def test_the_page_has_the_options_of_each_verb(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    usage = shown(verb, capsys).partition("\n\n")[0]
    there = set(options_of(synopsis()[verb]))
    there |= where() if "WHERE" in synopsis()[verb] else set()
    assert there == set(options_of(usage))


@pytest.mark.parametrize("verb", VERBS)
def test_what_the_page_says_of_a_verb_names_no_option_that_it_has_not(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    others = {"--apply"}  # Of rpi-eeprom-config.
    assert set(options_of(section(verb))) - set(options_of(shown(verb, capsys))) <= others


def test_each_verb_has_its_words() -> None:
    assert set(synopsis()) == set(VERBS)
    assert all(len(section(verb).split()) > 20 for verb in VERBS)
