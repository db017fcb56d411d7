"""The table of settings agrees with itself and with the design, and its parsers take what their words promise."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rpinfs.boot import settings
from rpinfs.boot.settings import SETTINGS, Setting

# DESIGN section 4: what others may rely on.
DESIGN = {
    ("Server", "Address"): "",
    ("Server", "Version"): "4.1",
    ("Server", "Options"): "",
    ("Boot", "Export"): "/tftpboot",
    ("Boot", "Where"): "",
    ("Boot", "Options"): "ro",
    ("Share", "Export"): "/docker",
    ("Share", "Where"): "/nfs/docker",
    ("Image", "File"): "{name}-{serial}.img",
    ("Image", "Size"): "10G",
    ("Image", "FileSystem"): "ext4",
    ("Image", "Enabled"): "yes",
    ("Image", "Where"): "/var/lib/docker",
    ("Image", "Options"): "noatime",
    ("Image", "Bind"): "",
    ("Image", "Before"): "",
    ("Image", "DirectIO"): "yes",
    ("Image", "Fence"): "lease",
    ("Notify", "Command"): "",
}


def test_the_table_is_the_one_of_the_design() -> None:
    assert {(setting.section, setting.key): setting.default for setting in SETTINGS} == DESIGN


def test_sections_are_those_of_the_table() -> None:
    assert tuple(dict.fromkeys(setting.section for setting in SETTINGS)) == settings.SECTIONS


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: f"{setting.section}-{setting.key}")
def test_every_default_is_a_right_value_and_explained(setting: Setting) -> None:
    if setting.default:
        setting.parse(setting.default.replace("{name}", "docker"))
    else:
        assert setting.default_help or setting.is_list
    assert setting.help.endswith(".") and setting.kind


def test_defaults_of_single_images_are_right_values() -> None:
    parsers = {setting.key: setting.parse for setting in SETTINGS if setting.section == "Image"}
    for defaults in settings.IMAGE_DEFAULTS.values():
        for key, text in defaults.items():
            assert parsers[key](text)


@given(st.ip_addresses(v=4).map(str) | st.from_regex(r"[0-9.]{1,20}", fullmatch=True))
@example("01.2.3.4")
def test_ipv4_as_python_has_it(text: str) -> None:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        assert not settings.is_ipv4(text)
    else:
        assert settings.is_ipv4(text)


@given(
    st.ip_addresses(v=6).map(str)
    | st.ip_addresses(v=6).map(lambda address: address.exploded.upper())
    | st.from_regex(r"[0-9a-fA-F:]{1,45}", fullmatch=True)
    | st.from_regex(r"([0-9a-f]{0,5}:){1,8}[0-9]{1,3}(\.[0-9]{1,3}){3}", fullmatch=True)
)
@example("::")
@example("::1.2.3.4")
@example("1::2::3")
@example("1:2:3:4:5:6:7::")
@example("::2:3:4:5:6:7:8")
@example("1:2:3:4::5:6:7:8")
@example(":1:2:3:4:5:6:7")
@example("1.2.3.4::")
@example("1:2:3:4:5:6:1.2.3.4")
@example("1:2:3:4:5:1.2.3.4")
@example("1:2:3:4:5::1.2.3.4")
@example("1:2:3:4:5:6::1.2.3.4")
def test_ipv6_as_python_has_it(text: str) -> None:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        assert not settings.is_ipv6(text)
    else:
        assert settings.is_ipv6(text)


@given(st.integers(min_value=64 << 20 >> 12, max_value=settings.LARGEST_IMAGE >> 12).map(lambda blocks: blocks << 12))
def test_sizes_in_bytes_are_what_they_say(size: int) -> None:
    assert settings.parse_size(str(size)) == size


@pytest.mark.parametrize(
    ("text", "size"),
    [("64M", 2**26), ("65536K", 2**26), ("20G", 20 * 2**30), ("20GiB", 20 * 2**30), ("1T", 2**40), ("64MiB", 2**26)],
)
def test_units_of_sizes_are_powers_of_1024(text: str, size: int) -> None:
    assert settings.parse_size(text) == size


@given(st.text(max_size=30))
def test_no_parser_raises_but_its_rule(text: str) -> None:
    for setting in SETTINGS:
        try:
            setting.parse(text)
        except ValueError as rule:
            assert type(rule) is ValueError, setting.key
            assert str(rule).isprintable() or any(not character.isprintable() for character in text)


@given(st.lists(st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\"' \\"), min_size=1)))
def test_words_come_back_with_and_without_quotes(words: list[str]) -> None:
    assert settings.split_words(" \t".join(words)) == words
    assert settings.split_words(" ".join(f'"{word}"' for word in words)) == words
    assert settings.split_words("  ".join(f"'a {word}'" for word in words)) == [f"a {word}" for word in words]


@given(
    st.from_regex(r"(/{1,2}(\.|[a-z%. -]{1,8})){1,6}/?", fullmatch=True).filter(
        lambda text: ".." not in text.split("/")
    )
)
def test_paths_are_tidied_up_once(text: str) -> None:
    tidy = settings.parse_export(text)
    assert settings.parse_export(tidy) == tidy
    assert [part for part in tidy.split("/") if part] == [part for part in text.split("/") if part not in ("", ".")]


def test_refused_options_are_refused_with_and_without_a_value() -> None:
    for option in ("vers", "vers=4", "nfsvers=", "minorversion=0"):
        with pytest.raises(ValueError, match="Version="):
            settings.parse_server_options(option)


def test_options_that_only_look_like_refused_ones_are_taken() -> None:
    assert settings.parse_server_options("softreval,hard,bsize=1,rdirplus=none") == [
        "softreval",
        "hard",
        "bsize=1",
        "rdirplus=none",
    ]
    assert settings.parse_image_options("barrier,barrier=1,rootcontext=x") == ["barrier", "barrier=1", "rootcontext=x"]


@pytest.mark.parametrize(
    ("parse", "longest"),
    [
        (settings.parse_export, "/x/" + "ä" * 127 + "y"),
        (settings.parse_mount_point, "/" + "x" * 249),
        (settings.parse_file, "x/" + "y" * 200),
        (settings.parse_address, ".".join(["x" * 63] * 3 + ["y" * 61])),
        (settings.parse_before, "x" * 247 + ".service"),
    ],
)
def test_names_may_be_as_long_as_that_and_no_longer(parse: Callable[[str], object], longest: str) -> None:
    assert parse(longest)
    with pytest.raises(ValueError, match=r"expected|cannot be"):
        parse(longest.replace("y", "yy", 1).replace("xx", "xxx", 1))


@pytest.mark.parametrize(
    ("size", "exactly", "for_people"),
    [
        (0, "0", "0 bytes"),
        (1, "1", "1 bytes"),
        (1023, "1023", "1023 bytes"),
        (1024, "1K", "1 KiB"),
        (1025, "1025", "1.0 KiB"),
        (1536, "1536", "1.5 KiB"),
        (104752742, "104752742", "99.9 MiB"),
        (100 * 2**20 + 2**18, "102656K", "100 MiB"),
        (64 << 20, "64M", "64 MiB"),
        (10 << 30, "10G", "10 GiB"),
        (16 << 40, "16T", "16 TiB"),
        (2048 << 40, "2048T", "2048 TiB"),
    ],
)
def test_sizes_in_words(size: int, exactly: str, for_people: str) -> None:
    assert settings.human_size(size) == for_people
    assert settings.size_text(size) == exactly


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "less than 1 ms"), (0.0009, "less than 1 ms"), (0.001, "1 ms"), (1.5, "1500 ms")]
)
def test_short_times_in_words(seconds: float, text: str) -> None:
    assert settings.milliseconds(seconds) == text


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("d.img.snapshot-20261122T201500Z", True),
        ("d.img.replaced", True),
        ("d.img", False),
        # A time alone, and a mark alone.
        ("20261122T201500Z", False),
        ("d.img.snapshot-", False),
        ("d.img.snapshot-20261122T201500", False),
        ("d.img.snapshot-20261122 201500Z", False),
        ("d.img.snapshot-2026112xT201500Z", False),
        ("d.img.snapshot-20261122T20150xZ", False),
        ("d.img.snapshot-20261122T201500Zx", False),
    ],
)
def test_names_of_snapshots(name: str, kept: bool) -> None:
    assert settings.is_kept_name(name) is kept


@pytest.mark.parametrize("text", ["/usr/bin/notify", "/usr/bin/notify a 'b c' \"d\" $HOME %n"])
def test_a_program_with_its_arguments(text: str) -> None:
    assert settings.parse_command(text) == text


@pytest.mark.parametrize(
    "text", ["", "''", "notify", "curl -d @- https://ntfy.sh/x", "./notify", "/usr/bin/", "/a 'b", "/a \x1b"]
)
def test_what_is_no_program(text: str) -> None:
    with pytest.raises(ValueError, match=r"^expected "):
        settings.parse_command(text)
