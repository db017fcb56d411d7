"""What `netboot check` says to write or to do, done as it stands: the fault is gone, and no other has come.

On every configuration that breaks a rule (test_rules.py) and every public form (test_public_forms.py).
"""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rpinfs.netboot.check import check
from rpinfs.netboot.finding import Finding, Gravity
from rpinfs.netboot.model import Plan
from rpinfs.netboot.plan import load, parse
from rpinfs.netboot.seen import look
from tests import remedies
from tests.support import Content, listing, make_tree
from tests.unit.netboot import test_public_forms, test_rules

HERE = "tests/unit/netboot/test_mended.py::test_what_is_named_mends_it"
ROWS = {*remedies.LINES, *(row for row, test in remedies.ELSEWHERE.items() if test == HERE)}
ODD = "it's a folder $(touch x); #"
"""What the folder of all is called: what is printed has to stand a shell."""

MORE: dict[str, dict[str, Content]] = {
    "not readable": test_rules.boot(),
    "an interface": {
        "etc/dnsmasq.conf": "dhcp-range=192.168.1.0,proxy\nenable-tftp=eth7\n",
        "sys/class/net/enp1": None,
    },
    "several clients": {"exports": "/nfsroot 192.168.1.5(ro,fsid=0) 192.168.1.6(rw,async,insecure)\n"},
}
PLACES = {"etc", "sys"}
Case = tuple[dict[str, Content], Plan | None]


class World:
    """A folder with what is there, and what check says of it."""

    def __init__(self, folder: Path, files: dict[str, Content], plan: Plan | None) -> None:
        self.top = folder / ODD
        self.top.mkdir(parents=True)
        if isinstance(text := files.get("plan.toml"), str):
            (folder / "plan.toml").write_text(text)
            plan = load(str(folder / "plan.toml"))
        make_tree(self.top, {name: text for name, text in files.items() if name != "plan.toml"})
        self.plan = plan
        if files is MORE["not readable"]:
            (self.top / "tftpboot/1a2b3c4d/kernel8.img").chmod(0o600)
        self.whole = any(name.partition("/")[0] in PLACES for name in files)

    def check(self) -> list[Finding]:
        if self.whole:
            return check(look([], self.plan, root=str(self.top)))
        return check(look([str(path) for path in sorted(self.top.iterdir())], self.plan))


def cases() -> dict[str, Case]:
    """Every configuration of the tests that is faulty, and the plan beside it."""
    found: dict[str, Case] = {}
    for name, (files, rule, *_) in test_rules.CASES.items():
        found[name] = files, test_rules.plan("3B" if rule == 6 else "4")
    for name, (path, text, _) in test_public_forms.FORMS.items():
        more: dict[str, Content] = {"tftpboot/2a2b3c4d/config.txt": "auto_initramfs=0\n"} if "tftpboot" in path else {}
        files = {"sys/class/net/enp1s0": None, **more, path: text}
        found[f"form: {name}"] = files, parse(test_public_forms.PLAN, "plan")
    return found | {name: (files, test_rules.plan()) for name, files in MORE.items()}


def row_of(finding: Finding) -> str | None:
    """The row that what is named belongs to; None for words."""
    rows = sorted(ROWS, key=lambda row: (row.count("{"), -len(row)))
    return next((row for row in rows if remedies.form_of(row).match(finding.write)), None)


def is_line(finding: Finding) -> bool:
    """Whether what is named goes into the file: a line, made of those of the file where it is no row of its own."""
    said = any(remedies.form_of(row).match(finding.write) for row in remedies.WORDS)
    return bool(finding.write) and not said and not remedies.commands(finding.write)


def do(finding: Finding, cwd: Path) -> bool:
    """Do what is named, as it stands; False where it is for a person."""
    if remedies.commands(finding.write) and row_of(finding):
        for command in remedies.commands(finding.write):
            done = subprocess.run(["sh", "-c", command], cwd=cwd, capture_output=True, text=True, check=False)
            assert (done.returncode, done.stderr) == (0, ""), command
        return True
    if not is_line(finding):
        return False
    path = Path(finding.file)
    text = path.read_text()
    if path.name.startswith("kea"):
        path.write_text(json.dumps(in_kea(json.loads(text), finding)))
    elif path.name == "cmdline.txt":
        path.write_text(f"{finding.write}\n")
    elif finding.write.startswith("add the line: "):
        path.write_text(f"{text.rstrip()}\n{finding.write.removeprefix('add the line: ')}\n")
    else:
        lines = text.split("\n")
        line = lines[finding.line - 1]
        if path.name.startswith("dhcpd"):
            # A statement, which need not have its line for itself.
            begin = line.index(f"{finding.write.split()[0]} ")
            lines[finding.line - 1] = line[:begin] + finding.write + line[line.index(";", begin) + 1 :]
        else:
            lines[finding.line - 1] = "" if finding.write == "(leave the line out)" else finding.write
        path.write_text("\n".join(lines))
    return True


def in_kea(document: dict[str, Any], finding: Finding) -> dict[str, Any]:
    """What is named for Kea: keys, or a map for the one of the same name."""
    keys = finding.write.removeprefix('add to "Dhcp4": ')
    wanted = json.loads(keys if keys.startswith("{") else f"{{{keys}}}")

    def put(value: object) -> object:
        if isinstance(value, list):
            return [put(one) for one in value]
        if not isinstance(value, dict):
            return value
        if "name" in wanted and (value.get("code") == 43 or value.get("name") == wanted["name"]) and "data" in value:
            return wanted
        value = {key: put(one) for key, one in value.items()}
        return value | wanted if "test" in wanted and "test" in value else value

    if keys != finding.write:
        return {"Dhcp4": document["Dhcp4"] | wanted}
    made = put(document)
    assert isinstance(made, dict)
    return made


def test_what_is_named_mends_it(tmp_path: Path, subtests: pytest.Subtests) -> None:
    """Each fault alone, in a world of its own."""
    tried = set()
    for number, (name, case) in enumerate(cases().items()):
        for place, _ in enumerate(World(tmp_path / f"{number}", *case).check()):
            world = World(tmp_path / f"{number}-{place}", *case)
            before = world.check()
            if not do(before[place], tmp_path):
                continue
            tried.add(row_of(before[place]))
            with subtests.test(f"{name}: {before[place].message}"):
                after = world.check()
                write = before[place].write
                assert (before[place].rule, before[place].message) not in [(one.rule, one.message) for one in after], (
                    write
                )
                assert grave(after) - grave(before) == Counter(), write
    assert ROWS - tried == set(), "nothing of the tests has this named"
    assert not (tmp_path / "x").exists()


def grave(found: list[Finding]) -> Counter[int]:
    """How often each rule is broken, but for what is good to know."""
    return Counter(one.rule for one in found if one.gravity is not Gravity.NOTE)


def mended(folder: Path, name: str) -> str:
    """The file of a public form when all is done that check names for it, one after the other."""
    world = World(folder, *cases()[f"form: {name}"])
    for _ in range(20):
        if not any(do(one, folder) for one in world.check()):
            break
    return (world.top / test_public_forms.FORMS[name][0]).read_text()


def test_nothing_is_lost_by_a_move(tmp_path: Path) -> None:
    """Two folders for one board, the name with the ten digits too many first: `mv -n` would do nothing at all."""
    files = {f"tftp/{name}/cmdline.txt": f"of {name}\n" for name in ("100000001a2b3c4d", "1a2b3c4d")}
    world = World(tmp_path, dict(files), None)
    (finding,) = [one for one in world.check() if one.rule == 17]
    assert do(finding, tmp_path)
    assert sorted(listing(world.top).values()) == sorted(map(str, files.values()))
    assert [one for one in world.check() if one.rule == 17] == []


def test_several_clients_of_one_line(tmp_path: Path) -> None:
    """What else stands in an export stays: the other client, and options that are no fault."""
    world = World(tmp_path, MORE["several clients"], test_rules.plan())
    while todo := [one for one in world.check() if one.rule == 22]:
        assert do(todo[0], tmp_path)
    assert (world.top / "exports").read_text() == (
        "/nfsroot  192.168.1.5(rw,sync,no_subtree_check,no_root_squash,fsid=0)"
        " 192.168.1.6(rw,sync,no_subtree_check,no_root_squash,insecure)\n"
    )
