"""Readers of other people's files: what each syntax allows, what it does not, and anything at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpinfs.netboot.read import bootfiles, dnsmasq, exports, isc, kea
from rpinfs.netboot.read.source import SyntaxFault, text_of
from tests.support import make_tree


def test_dnsmasq_lines() -> None:
    text = (
        "port=0 # no names\n# all of it\n\n"
        'pxe-service=tag:rpi,0,"Raspberry Pi Boot # 3"  # menu\nno-ping\ndhcp-host=a#b\n'
    )
    found = list(dnsmasq.parse(text, "f"))
    assert [(one.line, one.key, one.value) for one in found] == [
        (1, "port", "0"),
        (4, "pxe-service", 'tag:rpi,0,"Raspberry Pi Boot # 3"'),
        (5, "no-ping", ""),
        (6, "dhcp-host", "a#b"),
    ]
    assert (found[1].parts, found[1].tags) == (["tag:rpi", "0", "Raspberry Pi Boot # 3"], ["rpi"])


@pytest.mark.parametrize(("value", "parts"), [
    ('1,"a,b",c', ["1", "a,b", "c"]), ('"a,b","c,d"', ["a,b", "c,d"]), ('x"a,b"y,z', ["xa,by", "z"]), (",", ["", ""]),
    ("a", ["a"]), ("", [""]),
])  # fmt: skip
def test_dnsmasq_parts_of_a_value(value: str, parts: list[str]) -> None:
    assert dnsmasq.Option("f", 1, "k", value).parts == parts


def test_dnsmasq_includes(tmp_path: Path) -> None:
    make_tree(
        tmp_path,
        {
            "etc/dnsmasq.conf": "conf-dir=/etc/dnsmasq.d,*.conf\nconf-file=/etc/more\n",
            "etc/dnsmasq.d/b.conf": "b",
            "etc/dnsmasq.d/a.conf": "a",
            "etc/dnsmasq.d/c.bak": "c",
            "etc/dnsmasq.d/.d.conf": "d",
            "etc/more": "conf-file=/etc/dnsmasq.conf\nlast",
        },
    )
    found = dnsmasq.read("/etc/dnsmasq.conf", str(tmp_path))
    assert [one.key for one in found] == ["conf-dir", "a", "b", "conf-file", "conf-file", "last"]
    make_tree(tmp_path, {"etc/dnsmasq.conf": "\nconf-file=/etc/gone\n"})
    with pytest.raises(SyntaxFault, match=r"/etc/dnsmasq.conf:2: conf-file=/etc/gone: /etc/gone cannot be read") as no:
        dnsmasq.read("/etc/dnsmasq.conf", str(tmp_path))
    assert no.value.status == 2


def test_isc_statements() -> None:
    text = 'option x 1; # c {\nclass "a;{" {\n  match if a = "b";\n  pool { range 1 2; }\n}\n'
    found = isc.parse(text, "f")
    assert [one.text for one in isc.walk(found)] == [
        "option x 1",
        'class "a;{"',
        'match if a = "b"',
        "pool",
        "range 1 2",
    ]
    assert [one.line for one in isc.walk(found)] == [1, 2, 3, 4, 4]


def test_kea_json() -> None:
    text = '# c\n{ // c\n"Dhcp4": {"a": "b # no // comment", /* c\n */ "c": [1, 2,], <?include "x"?> : 1}}'
    with pytest.raises(SyntaxFault, match=r"f:4: .*cannot be read"):
        kea.parse(text, "f")
    found = kea.parse(text.replace(', <?include "x"?> : 1', ""), "f")
    assert found.dhcp4 == {"a": "b # no // comment", "c": [1, 2]}
    assert found.place_of('"nowhere"', '"c"') == ("f", 4)
    assert found.place_of('"nowhere"') == ("f", 1)


@pytest.mark.parametrize(("text", "without"), [
    ('"a"#x\n1', '"a"  \n1'),
    ('"a"//x', '"a"   '),
    ('"a"/**/"b"', '"a"    "b"'),
    ('"#a","//b","/*c*/"#d', '"#a","//b","/*c*/"  '),
    (r'"a\"#"#x', r'"a\"#"  '),
    (r'"a\\"#x', r'"a\\"  '),
    ('"a', '"a'),
    ('"a\\', '"a\\'),
    ('"a\n#x', '"a\n  '),
    ("1 / 2 /* a\nb */ 3", "1 / 2     \n     3"),
])  # fmt: skip
def test_comments_of_kea_become_spaces_and_strings_stay(text: str, without: str) -> None:
    assert kea.without_comments(text, "f") == without


def test_what_kea_includes(tmp_path: Path) -> None:
    """Any piece of JSON, at any depth; a finding in it has its place."""
    (tmp_path / "top").write_text(f'{{"Dhcp4": {{\n<?include "{tmp_path}/one"?>, "a": 1}}}}\n')
    (tmp_path / "one").write_text(f'# c\n"b": [\n<?include "{tmp_path}/./two"?>\n]\n')
    (tmp_path / "two").write_text('{"c": 2} // d\n')
    found = kea.read(str(tmp_path / "top"))
    assert found.dhcp4 == {"a": 1, "b": [{"c": 2}]}
    assert (found.place_of('"a"')[1], found.place_of('"b"'), found.place_of('"c"')) == (
        2, (f"{tmp_path}/one", 2), (f"{tmp_path}/two", 1),
    )  # fmt: skip
    for name, said in (("gone", "cannot be read: No such file"), ("top", "found one that is read already")):
        (tmp_path / "two").write_text(f'\n<?include "{tmp_path}/{name}"?>')
        with pytest.raises(SyntaxFault, match=f"two:2: .*: .*{said}"):
            kea.read(str(tmp_path / "top"))


def test_what_isc_includes(tmp_path: Path) -> None:
    (tmp_path / "top").write_text(f'a;\nsubnet x {{\ninclude "{tmp_path}/one";\n}}\n')
    (tmp_path / "one").write_text("\nb;\n")
    found = list(isc.walk(isc.read(str(tmp_path / "top"))))
    assert [(Path(one.file).name, one.line, one.words[0]) for one in found] == [
        ("top", 1, "a"), ("top", 2, "subnet"), ("top", 3, "include"), ("one", 2, "b"),
    ]  # fmt: skip
    for name, said in (("gone", "cannot be read: No such file"), ("./top", "found one that includes this one")):
        (tmp_path / "one").write_text(f'x;\ninclude "{tmp_path}/{name}";\n')
        with pytest.raises(SyntaxFault, match=f"one:2: .*{said}"):
            isc.read(str(tmp_path / "top"))


def test_exports_lines() -> None:
    text = (
        '/a 10.0.0.0/8(rw,sync) host(ro)\n"/b c" *(rw) # all\n/d\\040e -sync,rw @net(async) x\n'
        "/f \\\n  10.0.0.1(rw)\n/g 10.0.0.1 (rw)\n"
    )
    found = exports.parse(text, "f")
    assert [(one.line, one.path, one.client, one.options) for one in found] == [
        (1, "/a", "10.0.0.0/8", ("rw", "sync")),
        (1, "/a", "host", ("ro",)),
        (2, "/b c", "*", ("rw",)),
        (3, "/d e", "@net", ("sync", "rw", "async")),
        (3, "/d e", "x", ("sync", "rw")),
        (4, "/f", "10.0.0.1", ("rw",)),
        (6, "/g", "10.0.0.1", ()),
        (6, "/g", "*", ("rw",)),
    ]
    assert found[3].has("async", "sync", default=False)
    assert not found[4].has("async", "sync", default=False)


def test_config_txt() -> None:
    found = list(
        bootfiles.values("arm_64bit=1\n[pi4] # c\nkernel=a.img # b\ninitramfs x followkernel\n[all]\ndtparam=a=b\n")
    )
    assert [(one.line, one.section, one.key, one.value) for one in found] == [
        (1, "all", "arm_64bit", "1"),
        (3, "pi4", "kernel", "a.img"),
        (4, "pi4", "initramfs", "x followkernel"),
        (6, "all", "dtparam", "a=b"),
    ]


WRONG: list[tuple[Callable[[str, str], object], str, str]] = [
    (lambda text, file: list(dnsmasq.parse(text, file)), 'a="b\n', "f:1: expected a closing quote"),
    (isc.parse, 'a "b;\n', "f:1: expected a closing quote"),
    (isc.parse, "a;\nsubnet x {\nb;\n", "f:2: expected a closing } for: subnet x"),
    (isc.parse, "a;\n}\n", "f:2: unexpected }"),
    (isc.parse, "a { b }", "f:1: expected ; in front of }"),
    (isc.parse, "a;\nb\n", "f:2: expected ; behind: b"),
    (isc.parse, "a {" * 100, "expected at most 50 blocks"),
    (kea.parse, '{"Dhcp4": {"a": 1,, }}', "f:1: expected JSON"),
    (kea.parse, '{"Dhcp6": {}}', 'expected a map "Dhcp4"'),
    (kea.parse, "[]", 'expected a map "Dhcp4"'),
    (kea.parse, "[" * 100_000, "expected"),
    (kea.parse, '{"Dhcp4": ' + '{"a": [' * 40 + "]}" * 40 + "}", "f:1: expected JSON of at most 50 levels"),
    (kea.parse, "{}\n/* x", "f:2: expected */"),
    (exports.parse, "docker *(rw)\n", "f:1: docker: expected an absolute path"),
    (exports.parse, "/docker *(rw\n", "expected options in ( )"),
    (exports.parse, '"/docker *(rw)\n', "expected a closing quote"),
]


@pytest.mark.parametrize(("parse", "text", "expected"), WRONG, ids=[expected for _, _, expected in WRONG])
def test_what_no_server_would_read(parse: Callable[[str, str], object], text: str, expected: str) -> None:
    with pytest.raises(SyntaxFault) as caught:
        parse(text, "f")
    assert expected in caught.value.message


PARSERS: list[Callable[[str, str], object]] = [
    lambda text, file: list(dnsmasq.parse(text, file)),
    isc.parse,
    kea.parse,
    exports.parse,
    lambda text, _: list(bootfiles.values(text)),
]
WORDS = st.lists(
    st.sampled_from([*'{}[]();"\\#,=\n/* ', "option", '"Dhcp4":', "pxe-service", "\\040", "//", "é"]), max_size=60
)


@given(WORDS.map("".join) | st.text(max_size=200))
def test_anything(text: str) -> None:
    for parse in PARSERS:
        try:
            parse(text, "f")
        except SyntaxFault as fault:
            assert fault.message.startswith("f:")


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "nul").write_bytes(b"a\n\0")
    (tmp_path / "large").write_bytes(b"a" * (1 << 20) + b"b")
    with pytest.raises(SyntaxFault, match="nul:2: expected text, found a NUL byte"):
        text_of(str(tmp_path / "nul"))
    for mark in (b"\xef\xbb\xbf", b"\xff\xfe"):
        (tmp_path / "mark").write_bytes(mark + b"a\0")
        with pytest.raises(SyntaxFault, match="mark:1: expected plain text, found a byte order mark"):
            text_of(str(tmp_path / "mark"))
    with pytest.raises(SyntaxFault, match="expected a configuration file"):
        text_of(str(tmp_path / "large"))
