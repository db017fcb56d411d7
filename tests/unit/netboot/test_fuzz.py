"""10,000 random offers, and 10,000 random files of five syntaxes: an error of ours in one line, or findings.

What is random is near to what is right: a packet or a file that servers take, and a few things broken in it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from rpinfs.errors import RpinfsError, printable
from rpinfs.netboot import plan as plans
from rpinfs.netboot.boards import BOARDS
from rpinfs.netboot.check import check
from rpinfs.netboot.doctor import Diagnosis, sentence
from rpinfs.netboot.judge import judge
from rpinfs.netboot.model import Pi, Plan
from rpinfs.netboot.packet import OFFER, Reply, boot_menu, parse, request, suboptions
from rpinfs.netboot.read import dnsmasq, exports, isc, kea, nfsconf, uci
from rpinfs.netboot.render.targets import render
from rpinfs.netboot.seen import BootFolder, Seen
from rpinfs.netboot.watch import asking
from tests.support import Tell, random_seed, thorough

ROUNDS = 10_000
FILES = 10_000 if thorough() else 2_000
"""Of each syntax."""
LONGEST = 1000
"""Characters of a sentence. What somebody else writes is quoted, and not in full where it is long."""

MAC = bytes.fromhex("dca632123456")


def offer(chance: random.Random) -> bytes:
    """An answer with options of any code and length, overloaded into the header, cut short, with bytes turned over."""
    options = {53: bytes([OFFER]), 54: bytes([192, 168, 1, 10]), 43: boot_menu(), 1: bytes([255, 255, 255, 0])}
    for _ in range(chance.randrange(6)):
        options[chance.choice((1, 3, 43, 52, 53, 54, 60, 66, 67, 97, chance.randrange(256)))] = chance.randbytes(
            chance.choice((0, 1, 2, 3, 4, 5, 17, 255))
        )
    packet = bytearray(request(MAC, b"abcd", options))
    packet[16:28] = chance.randbytes(12)
    if chance.random() < 0.3:
        packet[44:236] = chance.randbytes(192)
    if chance.random() < 0.3:
        at = packet.find(b"\x35\x01")
        packet[at:at] = bytes([52, 1, chance.randrange(4)])
    for _ in range(chance.choice((0, 0, 1, 3, 30))):
        packet[chance.randrange(len(packet))] = chance.randrange(256)
    if chance.random() < 0.2:
        del packet[chance.randrange(len(packet)) :]
    if chance.random() < 0.1:
        packet += chance.randbytes(chance.choice((1, 500, 60_000)))
    return bytes(packet)


GOOD = Reply("192.168.1.1", b"abcd", OFFER, "192.168.1.50", "0.0.0.0", "", {1: bytes([255, 255, 255, 0])})


def test_ten_thousand_offers(tell: Tell) -> None:
    chance, seed = random_seed()
    refused = 0
    for number in range(ROUNDS):
        packet = offer(chance)
        try:
            reply = parse(packet, "192.168.1.1")
        except RpinfsError as error:
            assert_one_sentence(error.message, (seed, number))
            refused += 1
            continue
        suboptions(reply.options.get(43, b""))
        for board in BOARDS.values():
            found = judge(board, [reply, GOOD])
            for text in (sentence(Diagnosis(Pi("pi1", board), found, remarks=list(found.remarks))),
                         *(f"{one.message} {one.remedy}" for one in found.remarks)):  # fmt: skip
                assert_one_sentence(text, (seed, number))
        try:
            asking(packet)
        except RpinfsError as error:
            assert_one_sentence(error.message, (seed, number))
    assert 0 < refused < ROUNDS
    tell(f"{ROUNDS} offers (seed {seed}): {refused} were no packet")


def assert_one_sentence(text: str, where: object) -> None:
    assert text, where
    assert len(text) <= LONGEST, (where, text)
    assert printable(text).isprintable() or max(printable(text)) >= "\ud800", where


# Files

PLAN = {
    "topology": "B",
    "network": {
        "subnet": "192.168.1.0/24", "dhcp": "kea", "pool": "192.168.1.100-192.168.1.200", "router": "192.168.1.1",
    },
    "nas": {"address": "192.168.1.10"},
    "box": {"address": "192.168.1.11", "interface": "eth0"},
    "pi": [
        {"name": "pi1", "board": "3B", "serial": "1a2b3c4d", "mac": "b8:27:eb:2b:3c:4d"},
        {"name": "pi2", "board": "5", "serial": "2a2b3c4d", "eeprom": "2023-10-30"},
    ],
}  # fmt: skip
PIECES = [*'{}[]()";\'\\#,=:/*\n\t <>?', "//", "/*", "*/", "\\040", "\x00", "\x1b[2J", "é", "\udcff", "9" * 400,
          "tag:!x", '<?include "x"?>', "0x", "-1", "null", "subnet", "class", "option", "initramfs ", "[pi4]", "ip=",
          "nfsroot=", "vers=", "conf-file=", "\\\n"]  # fmt: skip


def broken_text(chance: random.Random, text: str) -> str:
    """A text with a few pieces put in, left out, doubled, or swapped; now and then nested deeply."""
    for _ in range(chance.choice((1, 1, 2, 5, 20))):
        at = chance.randrange(len(text) + 1)
        end = min(len(text), at + chance.choice((0, 1, 5, 40)))
        text = text[:at] + chance.choice((chance.choice(PIECES), "", text[at:end] * 2, text[:end])) + text[end:]
        text = text[:20_000]
    return text + chance.choice('{[("') * 3000 if chance.random() < 0.01 else text


def broken_document(chance: random.Random, value: object) -> object:
    """A document with another value in the place of one of its own, of any kind."""
    if chance.random() < 0.08:
        return chance.choice((None, 0, -1, 1e300, True, "", "x" * 300, "\x1b", [], {}, [[]], [{}], {"code": 43},
                              [1, "a"], {"option-data": 5}, nested(chance)))  # fmt: skip
    if isinstance(value, dict):
        names = [key if chance.random() > 0.02 else "?" for key in value]
        return {name: broken_document(chance, one) for name, one in zip(names, value.values(), strict=True)}
    if isinstance(value, list):
        return [broken_document(chance, one) for one in value]
    return value


def nested(chance: random.Random) -> object:
    """A value deep in lists and maps."""
    value: object = "end"
    for _ in range(chance.choice((3, 90, 400))):
        value = {"option-data": [value]} if chance.random() < 0.5 else [value]
    return value


def made_by_render(name: str) -> str:
    return next(one.text for one in render(plans.parse(PLAN, "plan"), TARGETS) if one.name == name)


TARGETS = ("dnsmasq-proxy", "dnsmasq", "isc", "kea", "exports", "boards")


def read_dnsmasq(seen: Seen, text: str) -> None:
    seen.dnsmasq += dnsmasq.parse(text, "file")


def read_isc(seen: Seen, text: str) -> None:
    seen.isc += isc.parse(text, "file")


def read_kea(seen: Seen, text: str) -> None:
    seen.kea.append(kea.parse(text, "file"))


def read_exports(seen: Seen, text: str) -> None:
    seen.exports += exports.parse(text, "file")


def read_nfs_conf(seen: Seen, text: str) -> None:
    seen.nfsd += nfsconf.parse(text, "file")


def read_uci(seen: Seen, text: str) -> None:
    seen.dnsmasq += uci.parse(text, "file")


SYNTAXES: dict[str, tuple[Callable[[Seen, str], None], str]] = {
    "dnsmasq": (read_dnsmasq, made_by_render("dnsmasq.conf") + made_by_render("dnsmasq-proxy.conf")),
    "ISC": (read_isc, made_by_render("dhcpd.conf")),
    "Kea": (read_kea, made_by_render("kea-dhcp4.conf")),
    "exports": (read_exports, made_by_render("exports") + '"/a b" -sync @x(rw) \\\n  10.0.0.0/8(ro,all_squash)\n'),
    "uci": (read_uci, "config dnsmasq\n\toption dhcp_boot 'a' # x\nconfig dhcp 'l'\n\tlist dhcp_option \"66,c\"\n"),
    "nfs.conf": (read_nfs_conf, "[nfsd]\nvers4.1=n\n# x\n[mountd]\nthreads=1\n[nfsd]\nvers3 = yes\n"),
}


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_random_files(syntax: str, tell: Tell) -> None:
    chance, seed = random_seed()
    read, text = SYNTAXES[syntax]
    document = kea.parse(text, "file").dhcp4 if syntax == "Kea" else None
    plan = plans.parse(PLAN, "plan")
    refused = 0
    for number in range(FILES):
        seen = Seen(chance.choice((plan, None)))
        if document and number % 2:
            changed = json.dumps({"Dhcp4": broken_document(chance, document)})
        else:
            changed = broken_text(chance, text)
        try:
            read(seen, changed)
        except RpinfsError as error:
            assert error.message.startswith("file:"), (seed, number)
            refused += 1
            continue
        judged(seen, (seed, number))
    assert 0 < refused < FILES or syntax == "nfs.conf"
    tell(f"{FILES} files of {syntax} (seed {seed}): {refused} were none")


def judged(seen: Seen, where: object) -> None:
    for finding in check(seen):
        assert finding.message, where
        assert finding.rule in range(1, 35)


def test_random_boot_folders(tmp_path: Path, tell: Tell) -> None:
    """cmdline.txt, config.txt, boot.conf and fstab, as somebody's Pi may write them."""
    chance, seed = random_seed()
    plan = plans.parse(PLAN, "plan")
    texts = {name: made_by_render(f"pi2/{name}") for name in ("cmdline.txt", "config.txt", "boot.conf", "fstab")}
    texts["config.txt"] += "[pi5]\nkernel=kernel_2712.img\ninitramfs initramfs_2712 followkernel\n[all]\ninitramfs=x\n"
    folder, root = tmp_path / "tftpboot/2a2b3c4d", tmp_path / "nfsroot/pi2"
    (root / "etc").mkdir(parents=True)
    folder.mkdir(parents=True)
    for number in range(FILES // 4):
        name = chance.choice(list(texts))
        path = (root / "etc" if name == "fstab" else folder) / name
        path.write_text(broken_text(chance, texts[name]), errors="surrogateescape")
        files = frozenset(one.name for one in folder.iterdir())
        judged(seen_of(plan, folder, files, root), (seed, number))
    tell(f"{FILES // 4} boot folders (seed {seed})")


def seen_of(plan: Plan, folder: Path, files: frozenset[str], root: Path) -> Seen:
    boot = BootFolder(str(folder), files, str(folder.parent))
    return Seen(plan, tftp={str(folder.parent): "x"}, boots=[boot], roots=[str(root)])


def test_random_plans(tell: Tell) -> None:
    chance, seed = random_seed()
    refused = 0
    for number in range(FILES):
        document = broken_document(chance, PLAN)
        try:
            made = plans.parse(document, "plan") if isinstance(document, dict) else None
        except RpinfsError as error:
            assert error.message.startswith("plan"), (seed, number, error.message)
            refused += 1
            continue
        if made:
            render(made)
    assert 0 < refused < FILES
    tell(f"{FILES} plans (seed {seed}): {refused} were none")
