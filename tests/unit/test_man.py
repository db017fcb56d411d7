"""The man pages have what the tables have: settings by section, metrics, checks, and each command with its options."""

from __future__ import annotations

import argparse
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from rpinfs.boot.settings import SECTIONS, SETTINGS
from rpinfs.commands import cli
from rpinfs.health.checks import CHECKS
from rpinfs.health.metrics import METRICS
from tests.support import TOP

ELSEWHERE = ("agent", "gate", "attach", "thaw", "netboot")
"""What units start, and what has a page of its own."""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The pages as they are built, without the backslashes of roff."""
    spec = importlib.util.spec_from_file_location("build", TOP / "units/man/build.py")
    assert spec and spec.loader
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    folder = tmp_path_factory.mktemp("man")
    build.main(folder)
    plain = {"\\-": "-", "\\(aq": "'", "\\(ga": "`", "\\~": " ", "\\&": "", "\\e": "\\"}
    return {path.name: re.sub(r"\\(?:-|\(aq|\(ga|~|&|e)", lambda found: plain[found[0]], path.read_text())
            for path in folder.iterdir()}  # fmt: skip


def section(page: str, name: str) -> str:
    """What a section of a page has, subsections and all."""
    return page.split(f"\n.SH {name}\n", 1)[1].split("\n.SH ", 1)[0]


def tagged(text: str) -> dict[str, str]:
    """Tagged paragraphs with a plain name: their texts by their names."""
    return {
        name: " ".join(body.split())
        for name, body in re.findall(r"^\.TP\n\.B (.+)\n((?:(?!\.).*(?:\n|$))*)", text, re.MULTILINE)
    }


def test_settings(pages: dict[str, str]) -> None:
    parts = dict(part.split("\n", 1) for part in pages["rpinfs.conf.5"].split("\n.SS ")[1:])
    named = {name: f"[{'Image NAME' if name == 'Image' else name}]" for name in SECTIONS}
    assert set(named.values()) <= set(parts)
    for setting in SETTINGS:
        assert f'\n.BR {setting.key}= " (' in parts[named[setting.section]], setting
    found = {name: re.findall(r'^\.BR (\w+)= " \(', text, re.MULTILINE) for name, text in parts.items()}
    assert sum(map(len, found.values())) == len(SETTINGS), "and no others"


def test_metrics(pages: dict[str, str]) -> None:
    described = tagged(section(pages["rpinfs.8"], "MONITORING"))
    rows = {metric.name + (f"{{{', '.join(metric.labels)}}}" if metric.labels else ""): metric for metric in METRICS}
    assert {name for name in described if name.startswith("rpinfs_")} == set(rows)
    assert all(described[name] == metric.help for name, metric in rows.items())


def test_checks(pages: dict[str, str]) -> None:
    described = tagged(section(pages["rpinfs.8"], "CHECKS"))
    assert described == {check.name: check.title for check in CHECKS}
    assert [check.name for check in CHECKS if f"\n.SS {check.name}\n" not in pages["rpinfs-checks.7"]] == []


def commands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """A command, or its own commands, with what each takes."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups:
        yield parser.prog.removeprefix("rpinfs "), parser
    for group in groups:
        for one in group.choices.values():
            yield from commands(one)


def synopsis(page: str, command: str) -> str:
    """All lines of a synopsis for a command."""
    found = []
    for block in re.findall(r"^\.SY (.*?)^\.YS", section(page, "SYNOPSIS"), re.MULTILINE | re.DOTALL):
        words = re.sub(r"^\.(?:[A-Z]+) ", "", block, flags=re.MULTILINE).replace('"', "").split()
        said = " ".join(words).removeprefix("rpinfs ")
        found += [said] if f"{said} ".startswith(f"{command} ") else []
    return "\n".join(found)


@pytest.mark.parametrize("name", sorted(set(cli.COMMANDS) - set(ELSEWHERE)))
def test_commands(pages: dict[str, str], name: str) -> None:
    (group,) = (one for one in cli._parser(name)._actions if isinstance(one, argparse._SubParsersAction))
    taken = dict(commands(group.choices[name]))
    assert taken
    for command, parser in taken.items():
        line = synopsis(pages["rpinfs.8"], command)
        assert line, f"{command}: no synopsis"
        options = [option for action in parser._actions for option in action.option_strings if option[:2] == "--"]
        missing = [option for option in options if option != "--help" and option not in line]
        assert missing == [], f"{command}: {line}"


def test_what_fleet_takes(pages: dict[str, str]) -> None:
    assert synopsis(pages["rpinfs.8"], "fleet") == "fleet [ DIR ] --json --html FILE"


def test_a_page_that_lacks_something_is_seen(pages: dict[str, str], tmp_path: Path) -> None:
    """That it is the page's own text that is compared."""
    assert tmp_path.exists()
    page = pages["rpinfs.8"]
    assert "--json" not in synopsis(page.replace(".OP --json\n.OP --html FILE\n", ""), "fleet")
    lacking = page.replace(".B rpinfs_gate_open\n", ".B rpinfs_gate_opened\n")
    assert "rpinfs_gate_open" not in tagged(section(lacking, "MONITORING"))
