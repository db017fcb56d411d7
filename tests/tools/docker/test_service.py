"""What we read from units, drop-ins and files of variables, and what the systemd of each Debian makes of them.

Every case is a service of a booted container that notes the words it was started with; the same folder is then read
by us. So it is systemd that says what is right.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from rpinfs.docker import service
from tests.package import container
from tests.package.chroot import Chroot, chroot
from tests.parameters import EACH_RELEASE
from tests.support import Content, make_tree

ETC, RUN, LIB = "etc/systemd/system", "run-units", "usr/lib/systemd/system"
OWN = "[Service]\nType=oneshot\n"
NOTE = "/usr/local/bin/note"
# Each call with the same name overwrites what the one before it noted.
SCRIPT = """#!/bin/sh
[ -n "$CASE" ] || CASE=$1
printf '%s\\0' "$@" >/noted/$CASE
"""


class Case(NamedTuple):
    """Text of the unit behind [Service], other files ({} is the unit's name), and words that must be among the result.

    The unit's own text is `{case}.service` in /usr/lib; NOTE stands for the program with the name of the case.
    """

    unit: str
    files: dict[str, Content]
    wanted: tuple[str, ...]


def env(text: str) -> dict[str, Content]:
    return {"etc/{}.env": text}


FILE = "EnvironmentFile=/etc/{}.env\n"
CASES: dict[str, Case] = {
    "plain": Case("ExecStart=NOTE -H fd:// --x=1\n", {}, ("-H", "fd://", "--x=1")),
    "quotes": Case("ExecStart=NOTE \"a b\" 'c d' e\"f g\"h 'i\"j' \"\"\n", {}, ("a b", "c d", "ef gh", 'i"j', "")),
    "escapes": Case(r"ExecStart=NOTE a\x20b c\sd \"q \\ \u00e4 \101" + "\n", {}, ("a b", "c d", '"q', "\\", "ä", "A")),
    "no-escape": Case(r"ExecStart=NOTE a\qb 'c\qd'" + "\n", {}, ()),
    "continued": Case("ExecStart=NOTE a \\\n# no\n  ; no\n   b \\\nc\n", {}, ("a", "b", "c")),
    "not-continued": Case("ExecStart=NOTE a\\\\\nTimeoutSec=5\n", {}, ("a\\",)),
    "specifiers": Case("ExecStart=NOTE %p 100%% %N %t %S %H\n", {}, ("100%", "/run", "/var/lib")),
    "colon": Case('Environment=A=1\nExecStart=:NOTE $A ${A} $$\n', {}, ("$A", "${A}", "$$")),
    "at": Case("ExecStart=@NOTE zero one two\n", {}, ("one", "two")),
    "minus": Case("ExecStart=-NOTE one\n", {}, ("one",)),
    "word": Case('Environment="A=b  c \\"d e\\""\nExecStart=NOTE $A x${A}x --y=$A $NO ${NO} $$A\n', {},
                 ("b", "c", "d e", 'xb  c "d e"x', "--y=$A", "", "$A")),
    "backslash": Case(r'''Environment='A=b\\ c d\\\\e' ''' + "\nExecStart=NOTE $A ${A}\n", {}, ()),
    "later": Case("Environment=A=1 B=2\nEnvironment=A=3\nExecStart=NOTE $A $B\n", {}, ("3", "2")),
    "reset": Case("Environment=A=1\nEnvironment=\nEnvironment=B=2\nExecStart=NOTE x$A ${A} $B\n", {}, ("", "2")),
    "file-wins": Case(FILE + "Environment=A=1\nExecStart=NOTE $A\n", env("A=2\n"), ("2",)),
    "later-file": Case(FILE + "EnvironmentFile=/etc/{}.two\nExecStart=NOTE $A\n",
                       {"etc/{}.env": "A=1\n", "etc/{}.two": "A=2\n"}, ("2",)),
    "file-reset": Case(FILE + "EnvironmentFile=\nExecStart=NOTE x ${A}\n", env("A=1\n"), ("x", "")),
    "optional": Case("EnvironmentFile=-/etc/no\nExecStart=NOTE x$A $A\n", {}, ("x$A",)),
    "wildcard": Case("EnvironmentFile=/etc/{}.d/*.env\nExecStart=NOTE $A $B\n",
                     {"etc/{}.d/2.env": "A=2\n", "etc/{}.d/1.env": "A=1\nB=1\n"}, ("2", "1")),
    "file-quotes": Case(FILE + "ExecStart=NOTE ${A} ${B} ${C} ${D} ${E}\n",
                        env("A=\"x y\" \nB='x \\y'\nC=x\\ y  \nD=\"a\"'b' \"c\"\n  E = z z  \n"), ("x y", "x \\y")),
    "file-inner": Case(FILE + 'ExecStart=NOTE $A\n', env('A=--data-root="/x y" -D\n'), ("--data-root=/x y", "-D")),
    "file-lines": Case(FILE + "ExecStart=NOTE ${A} ${B} ${C} ${D}\n",
                       env('A=one\\\n two\nB="x\ny"\n#C=no\n; D=no\nexport D=4\nC="a\\$b\\qc\\\nd"\n'), ("one two",)),
    "file-odd": Case(FILE + "ExecStart=NOTE ${A} ${B} ${C} x$1B\n",
                     env("A=$B\n1B=no\nB\nC=a#b ;c\n = x\nB=\n"), ("$B", "", "a#b ;c")),
    "file-crlf": Case(FILE + "ExecStart=NOTE $A ${B}\n", env("A=1\r\nB=2\r\n"), ("1", "2")),
    "unset": Case(FILE + "Environment=B=1 C=1\nUnsetEnvironment=A B=1 C=2\nExecStart=NOTE ${A} ${B} ${C}\n",
                  env("A=1\n"), ("", "", "1")),
    "manager": Case("ExecStart=NOTE ${OFMANAGER}\n", {}, ("of manager",)),
    "etc-wins": Case("ExecStart=NOTE lib\n", {f"{ETC}/{{}}.service": f"{OWN}ExecStart=NOTE etc\n"}, ("etc",)),
    "drop-ins": Case(
        "ExecStart=NOTE a ${A}\n",
        {
            f"{LIB}/{{}}.service.d/10-a.conf": "[Service]\nEnvironment=A=lib\n",
            f"{LIB}/{{}}.service.d/20-b.conf": "[Service]\nEnvironment=A=hidden\n",
            f"{ETC}/{{}}.service.d/20-b.conf": "[Service]\nEnvironment=A=etc\n",
            f"{ETC}/{{}}.service.d/15-c.conf": "[Service]\nEnvironment=A=earlier\n",
            f"{ETC}/{{}}.service.d/30-d": "[Service]\nEnvironment=A=no-conf\n",
        },
        ("a", "etc"),
    ),
    "drop-in-reset": Case(
        "ExecStart=NOTE a\n", {f"{ETC}/{{}}.service.d/x.conf": "[Service]\nExecStart=\nExecStart=NOTE b\n"}, ("b",)
    ),
    "masked-drop-in": Case(
        "ExecStart=NOTE a${A}\n",
        {
            f"{LIB}/{{}}.service.d/x.conf": "[Service]\nEnvironment=A=lib\n",
            f"{ETC}/{{}}.service.d/x.conf": Path("/dev/null"),
        },
        ("a",),
    ),
    "of-all-services": Case(
        "ExecStart=NOTE ${ALL} ${SAME}\n",
        {
            f"{ETC}/service.d/50-all.conf": "[Service]\nEnvironment=ALL=all SAME=service.d\n",
            f"{LIB}/{{}}.service.d/50-all.conf": "[Service]\nEnvironment=SAME=own\n",
        },
        ("", "own"),
    ),
    "of-all-services-too": Case("ExecStart=NOTE ${ALL}\n", {}, ("all",)),
    "alias": Case(
        "ExecStart=NOTE ${A}\n",
        {
            f"{ETC}/other-{{}}.service": Path(f"/{LIB}/alias.service"),
            f"{ETC}/other-{{}}.service.d/x.conf": "[Service]\nEnvironment=A=of-alias\n",
        },
        ("of-alias",),
    ),
    "linked": Case(
        "ExecStart=NOTE no\n",
        {
            f"{ETC}/{{}}.service": Path("/opt/linked.service"),
            "opt/linked.service": f"{OWN}ExecStart=NOTE linked\n",
        },
        ("linked",),
    ),
    "other-section": Case("ExecStart=NOTE a\n[Install]\nExecStart=NOTE b\n", {}, ("a",)),
}  # fmt: skip


def put(root: Chroot) -> None:
    """Write all cases, and a service that ends the container when they have run."""
    tree: dict[str, Content] = {NOTE: SCRIPT, "noted": None}
    tree["etc/systemd/system.conf.d/x.conf"] = '[Manager]\nDefaultEnvironment="OFMANAGER=of manager"\n'
    for name, case in CASES.items():
        unit: Content = f"{OWN}{case.unit}"
        for file, content in {f"{LIB}/{name}.service": unit, **case.files}.items():
            is_text = isinstance(content, str)
            text = str(content).replace("{}", name).replace("NOTE", f"{NOTE}-{name}")
            tree[file.replace("{}", name)] = text if is_text else content
        tree[f"{NOTE}-{name}"] = SCRIPT.replace("[ -n", f"CASE={name}\n[ -n")
    make_tree(root.root, tree)
    for path in root.path("/usr/local/bin").iterdir():
        path.chmod(0o755)
    names = " ".join(f"{name}.service" for name in CASES)
    container.put_units(root, {
        "all.service": f"[Unit]\nWants={names}\nAfter={names}\nSuccessAction=exit-force\nFailureAction=exit-force\n"
        "[Service]\nExecStart=true\n",
        "all.target": "[Unit]\nRequires=all.service\n",
    })  # fmt: skip


REFUSED = {
    "twice": ("[Service]\nType=notify\nExecStart=/bin/true\nExecStart=/bin/true -D\n", "more than one ExecStart="),
    "several": ("[Service]\nType=notify\nExecStart=/bin/true ; /bin/false\n", "more than one ExecStart="),
    "nothing": ("[Service]\nType=notify\n", "(no|lacks both) ExecStart=|lacks both"),
    "taken-back": (
        "[Service]\nType=notify\nExecStart=/bin/true\nExecStart=\n",
        "(no|lacks both) ExecStart=|lacks both",
    ),
    "empty": ("", "masked"),
}


@pytest.mark.root
@pytest.mark.parametrize("release", EACH_RELEASE)
def test_what_systemd_refuses(release: str) -> None:
    with chroot(release) as root:
        for name, (text, said) in REFUSED.items():
            make_tree(root.root, {f"{LIB}/{name}.service": text})
            done = root.run("systemd-analyze", "verify", "--man=no", f"{name}.service", ok=(0, 1))
            assert re.search(said, done.stderr), (name, done.stderr)
            assert service.read(str(root.root), f"{name}.service").refused, name


@pytest.mark.root
@pytest.mark.parametrize("release", EACH_RELEASE)
def test_as_systemd_has_it(release: str) -> None:
    with chroot(release) as root:
        put(root)
        console = container.boot(root, "all.target")
        found, ours = {}, {}
        for name, case in CASES.items():
            noted = root.path(f"/noted/{name}")
            found[name] = noted.read_text().split("\0")[:-1] if noted.exists() else None
            read = service.read(str(root.root), f"{name}.service")
            ours[name] = [word.text for word in read.words] if not (read.refused or read.untold) else read
            assert found[name] is not None, (name, console)
            assert set(case.wanted) <= set(found[name] or []), (name, found[name])
        assert {name: words for name, words in ours.items() if words != found[name]} == {}, found
