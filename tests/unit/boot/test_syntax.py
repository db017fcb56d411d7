"""The syntax of files and of the kernel command line."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rpinfs.boot.host import COMMAND_LINE
from rpinfs.boot.syntax import parse_command_line, parse_lines


def test_a_file_is_parsed_into_assignments_with_their_lines() -> None:
    text = "[Server]\n\nAddress=a\\\n b\n[Image docker]\nSize = 1G\nNonsense\n[Image docker]\n"
    assignments, images, errors = parse_lines("f", text)
    assert [(a.section, a.name, a.key, a.text, a.origin) for a in assignments] == [
        ("Server", "", "Address", "a b", "f:3"),
        ("Image", "docker", "Size", "1G", "f:6"),
    ]
    assert images == [("docker", 5), ("docker", 8)]
    assert [error.message for error in errors] == [
        "f:7: Nonsense: expected Key=value, a [Section] or a comment (# or ;)"
    ]


@given(st.text(max_size=200))
def test_no_text_breaks_the_parser(text: str) -> None:
    _, _, errors = parse_lines("f", text)
    assert all(error.message.isascii() or error.message.startswith("f:") for error in errors)
    assert all("\n" not in error.message and "\x1b" not in error.message for error in errors)


@given(st.text(max_size=100))
def test_no_kernel_command_line_breaks_the_parser(text: str) -> None:
    parse_command_line(text)
    parse_command_line("rpinfs." + text)


def test_command_line_words() -> None:
    assignments, errors = parse_command_line(
        'quiet rpinfs.image.a-b_1.before="x.service y.service" rpinfs.boot.export= rpinfs=on'
    )
    assert [(a.section, a.name, a.key, a.text, a.origin) for a in assignments] == [
        ("Image", "a-b_1", "Before", "x.service y.service", COMMAND_LINE),
        ("Boot", "", "Export", "", COMMAND_LINE),
    ]
    assert errors == []
