"""Unit names as systemd itself escapes them, and values that come through its unit files unharmed."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rpinfs.boot.settings import parse_export
from rpinfs.boot.units import escape_path, mount_unit, specifier, word

# Slashes, what systemd leaves alone, what it escapes, and what takes several bytes.
NAMES = st.text(st.sampled_from("ab09AZ:_.-%~ +,;=@#!()[]{}$&*?<>|^`äß€𝄞"), min_size=1, max_size=12)
PATHS = st.lists(NAMES.filter(lambda name: name not in (".", "..")), min_size=1, max_size=6).map(
    lambda names: "/" + "/".join(names)
)


def systemd_escape(paths: list[str]) -> list[str]:
    # A newline ends an answer: none of our paths has one.
    done = subprocess.run(
        ["systemd-escape", "-p", "--suffix=mount", "--", *paths],
        capture_output=True, text=True, check=True, env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
    )  # fmt: skip
    return done.stdout.rstrip("\n").split(" ")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/var/lib/docker", "var-lib-docker.mount"),
        ("/boot", "boot.mount"),
        ("/", "-.mount"),
        ("/nfs/my docker", r"nfs-my\x20docker.mount"),
        ("/nfs/my-docker", r"nfs-my\x2ddocker.mount"),
        ("/nfs/50%", r"nfs-50\x25.mount"),
        ("/.rpinfs/.x", r"\x2erpinfs-.x.mount"),
        ("/größe", r"gr\xc3\xb6\xc3\x9fe.mount"),
    ],
)
def test_names_of_mount_units(path: str, name: str) -> None:
    assert mount_unit(path) == name
    assert systemd_escape([path]) == [name]


@settings(max_examples=50)
@given(st.lists(PATHS.filter(lambda path: len(mount_unit(path)) <= 255), min_size=1, max_size=20))
def test_the_same_as_systemd_escape(paths: list[str]) -> None:
    assert [mount_unit(path) for path in paths] == systemd_escape(paths)


@given(PATHS)
def test_what_the_parser_has_tidied_up_is_what_systemd_tidies_up(path: str) -> None:
    untidy = path.replace("/", "//./") + "/"
    assert escape_path(parse_export(untidy)) == escape_path(path)


def test_specifiers_are_doubled() -> None:
    assert specifier("50%h%%") == "50%%h%%%%"


def test_words_with_spaces_are_quoted() -> None:
    assert (word("/a"), word("/a b"), word("/a %b")) == ("/a", '"/a b"', '"/a %%b"')
