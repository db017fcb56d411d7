"""The flags of a command line as dockerd's parser takes them, and what the versions know."""

from __future__ import annotations

import pytest

from rpinfs.docker import options
from rpinfs.docker.options import Kind
from rpinfs.docker.service import Word

V20, V26, V29 = (20, 10), (26, 1), (29, 0)


def parsed(line: str, version: tuple[int, int] = V26) -> list[tuple[str, str, str]]:
    words = [Word(word, "unit:3") for word in line.split()]
    return [(one.option.name, one.value, one.written) for one in options.parse(words, version)]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("", []),
        ("--data-root /x", [("data-root", "/x", "--data-root")]),
        ("--data-root=/x=y", [("data-root", "/x=y", "--data-root")]),
        ("--data-root --debug", [("data-root", "--debug", "--data-root")]),
        ("-D --debug=false", [("debug", "true", "-D"), ("debug", "false", "--debug")]),
        ("-H fd:// -Htcp://x -H=unix://", [("hosts", "fd://", "-H"), ("hosts", "tcp://x", "-H"),
                                          ("hosts", "unix://", "-H")]),
        ("-Dsvfs", [("debug", "true", "-D"), ("storage-driver", "vfs", "-s")]),
        ("--storage-opt a=b --label c=d", [("storage-opts", "a=b", "--storage-opt"), ("labels", "c=d", "--label")]),
        ("--debug --", [("debug", "true", "--debug")]),
    ],
)  # fmt: skip
def test_flags(line: str, found: list[tuple[str, str, str]]) -> None:
    assert parsed(line) == found


def test_the_old_name_of_the_data_root() -> None:
    assert parsed("-g /x", V20) == [("graph", "/x", "-g")]
    assert parsed("-Dg/x", V20) == [("debug", "true", "-D"), ("graph", "/x", "-g")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-g /x", r"-g \(unit:3\) is unknown"),
        ("--graph=/x", r"--graph \(unit:3\) is unknown"),
        ("--bogus", r"--bogus \(unit:3\) is unknown"),
        ("--debug false", r"false \(unit:3\) is no option"),
        ("-", r"- \(unit:3\) is no option"),
        ("-- x", r"-- \(unit:3\) is no option"),
        ("--data-root", r"--data-root \(unit:3\) has no value"),
        ("-D -H", r"-H \(unit:3\) has no value"),
    ],
)
def test_what_dockerd_does_not_take(line: str, message: str) -> None:
    with pytest.raises(options.UnknownFlagError, match=message):
        parsed(line)


def test_keys_by_version() -> None:
    old, new, newest = (options.of_version(version) for version in (V20, V26, V29))
    assert {"graph", "cluster-store", "oom-score-adjust"} <= set(old) - set(new)
    assert {"http-proxy", "log-format", "default-network-opts", "cdi-spec-dirs"} <= set(new) - set(old)
    assert {"bip6", "host-gateway-ips", "firewall-backend"} <= set(newest) - set(new)
    # The name of the flag is known, and has no effect.
    assert (new["label"].kind, new["labels"].kind) == (Kind.IGNORED, Kind.TEXTS)
    assert "builder" in new
    assert "" not in new


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        (Kind.TEXT, ["", "x", None], [1, True, [], {}]),
        (Kind.SWITCH, [True, False, None], ["true", 1, 0]),
        (Kind.NUMBER, [0, -1, None], [True, 1.0, "1"]),
        (Kind.TEXTS, [[], ["a", None], None], ["a", [1], {}]),
        (Kind.LIST, [[], [{}]], [{}, "a"]),
        (Kind.TEXT_OF_NAME, [{}, {"a": "b", "c": None}], [{"a": 1}, [], "a"]),
        (Kind.SWITCH_OF_NAME, [{}, {"a": True}], [{"a": "true"}, []]),
        (Kind.OBJECT, [{}, {"a": 1}], [[], "a"]),
        (Kind.IGNORED, [1, "a", []], []),
    ],
)
def test_kinds(kind: Kind, right: list[object], wrong: list[object]) -> None:
    assert [value for value in right if not kind.takes(value)] == []
    assert [value for value in wrong if kind.takes(value)] == []
