"""The first user of a board and their ssh key, by what the image takes: rpi-preseed, cloud-init, userconf, or useradd.

Nobody gets a password: boot files are given out by TFTP, to whoever asks. Who logs in has the key, and may use sudo.

What the image reads from its boot partition is put into the root's folder for it as well: /boot/firmware is mounted
over NFS, later than the services that read it. Sources: rpi-preseed's examples/rpi-preseed.toml, config_version 1.1;
cloud-init's NoCloud (/var/lib/cloud/seed/nocloud); userconf-pi, whose userconf moves the home of uid 1000.
"""

from __future__ import annotations

import json
import re
import stat
from dataclasses import dataclass

from rpinfs.errors import RpinfsError
from rpinfs.netboot.add.identity import boot_inside, enable, switch_off_wizard
from rpinfs.netboot.add.programs import Image
from rpinfs.netboot.add.tree import Tree

_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
_TYPES = ("ssh-", "ecdsa-", "sk-ssh-", "sk-ecdsa-")
_GROUPS = ("sudo", "docker", "adm", "video", "gpio", "i2c", "spi")
_NO_ID = 2**32 - 1
"""(uid_t) -1: to chown(2) it means "leave it as it is"."""
NO_PASSWORD = "*"
"""What no password has as its hash."""


@dataclass(frozen=True)
class User:
    """A user to be. `keys`: lines of an authorized_keys file."""

    name: str
    keys: tuple[str, ...] = ()


def user_of(name: str, key_file: str) -> User:
    """Check what was asked for. Raises RpinfsError, OSError."""
    if not _NAME.fullmatch(name) or name == "root":
        raise RpinfsError(
            f"--user {name}: expected a name of lower-case letters, digits and dashes, and not root", status=2
        )
    if not key_file:
        return User(name)
    with open(key_file, encoding="utf-8", errors="replace") as file:
        lines = [line.strip() for line in file.read(65536).splitlines()]
    keys = tuple(line for line in lines if line and not line.startswith("#"))
    if not keys or not all(key.startswith(_TYPES) and key.isprintable() and len(key.split()) > 1 for key in keys):
        private = any("PRIVATE KEY" in line for line in lines)
        found = "a private one, which nobody else may have" if private else "something else"
        raise RpinfsError(
            f"{key_file}: expected a public ssh key, found {found}", "a public one ends in .pub", status=2
        )
    return User(name, keys)


def way_of(root: Tree) -> str:
    """What an image takes: "rpi-preseed", "cloud-init", "userconf"; "useradd" where it is a plain Debian."""
    for way, program in (
        ("rpi-preseed", "usr/bin/rpi-preseed"),
        ("cloud-init", "usr/bin/cloud-init"),
        ("userconf", "usr/lib/userconf-pi/userconf"),
    ):
        if root.has(program):
            return way
    return "useradd"


def seed(user: User | None, root: Tree, boot: Tree, image: Image, host: str, digits: str) -> list[str]:
    """Have a board have its user; returns what was done, and what nobody was made. Raises RpinfsError, OSError.

    Args:
        digits: random ones, by which cloud-init knows a new board.
    """
    if user is None:
        return switch_off_wizard(root)
    way = way_of(root)
    if way == "useradd":
        _useradd(user, root, image)
    elif way == "userconf":
        _place(root, boot, {"userconf.txt": f"{user.name}:{NO_PASSWORD}\n"})
        _keys_of_first_user(user, root)
    elif way == "rpi-preseed":
        _place(root, boot, {"rpi-preseed.toml": preseed(user, host)})
        switch_off_wizard(root)
    else:
        texts = {"user-data": user_data(user, host), "meta-data": meta_data(host, digits)}
        _place(root, boot, texts)
        for name, text in texts.items():
            root.write(f"var/lib/cloud/seed/nocloud/{name}", text, 0o600)
        switch_off_wizard(root)
    did = [f"user {user.name}: by {way}, {len(user.keys)} ssh key{'' if len(user.keys) == 1 else 's'}, no password"]
    if user.keys and enable(root, "ssh.service"):
        did.append("ssh: starts at boot")
    return did


def _place(root: Tree, boot: Tree, texts: dict[str, str]) -> None:
    inside = boot_inside(root)
    for name, text in texts.items():
        boot.write(name, text)
        root.write(f"{inside}/{name}", text)


def user_data(user: User, host: str) -> str:
    """cloud-init's user-data. JSON is YAML, but for escapes in surrogate pairs."""
    document = {
        "hostname": host,
        "ssh_pwauth": False,
        "users": [{
            "name": user.name, "groups": list(_GROUPS[:1]), "shell": "/bin/bash", "lock_passwd": True,
            "sudo": "ALL=(ALL) NOPASSWD:ALL", "ssh_authorized_keys": list(user.keys),
        }],
    }  # fmt: skip
    return f"#cloud-config\n{json.dumps(document, indent=2, ensure_ascii=False)}\n"


def meta_data(host: str, digits: str) -> str:
    """cloud-init's meta-data: another instance than the one that an image was copied from."""
    return f"instance-id: {host}-{digits}\nlocal-hostname: {host}\n"


def preseed(user: User, host: str) -> str:
    """rpi-preseed.toml. JSON's strings and lists are TOML's."""
    # TOML knows no escapes in surrogate pairs, as JSON has them beyond the BMP.
    keys = ",\n".join(f"  {json.dumps(key, ensure_ascii=False)}" for key in user.keys)
    return f"""\
config_version = "1.1"

[system]
hostname = "{host}"

[user]
name = "{user.name}"
password = "{NO_PASSWORD}"
password_encrypted = true
passwordless_sudo = true

[ssh]
enabled = true
password_authentication = false
authorized_keys = [
{keys}
]
"""


def _keys_of_first_user(user: User, root: Tree) -> None:
    """userconf gives the user with uid 1000 its name, and moves the home: the keys go along."""
    for line in root.read("etc/passwd").splitlines():
        fields = line.split(":")
        if len(fields) == 7 and fields[2] == "1000":
            _authorize(user, root, fields)
            return
    raise RpinfsError(f"user {user.name}: expected one with uid 1000 in the image, as userconf does, found none")


def _useradd(user: User, root: Tree, image: Image) -> None:
    image.insist_it_runs()
    groups = {line.split(":")[0] for line in root.read("etc/group").splitlines()}
    there = {line.split(":")[0]: line.split(":") for line in root.read("etc/passwd").splitlines()}
    chosen = [group for group in _GROUPS if group in groups]
    if user.name in there:
        image.run("usermod", "--append", "--groups", ",".join(chosen), user.name)
    else:
        image.run("useradd", "--create-home", "--shell", "/bin/bash", "--groups", ",".join(chosen), user.name)
    if root.kind("etc/sudoers.d") == stat.S_IFDIR:
        root.write(f"etc/sudoers.d/010-{user.name}", f"{user.name} ALL=(ALL) NOPASSWD:ALL\n", 0o440)
    for line in root.read("etc/passwd").splitlines():
        fields = line.split(":")
        if len(fields) == 7 and fields[0] == user.name:
            _authorize(user, root, fields)


def _authorize(user: User, root: Tree, fields: list[str]) -> None:
    if not user.keys:
        return
    numbers, home = fields[2:4], fields[5].strip("/")
    if not all(re.fullmatch(r"[0-9]{1,10}", number) and int(number) < _NO_ID for number in numbers):
        raise RpinfsError(
            f"user {fields[0]}: expected numbers of a user and a group in the image, found {':'.join(numbers)!r}"
        )
    owner = (int(numbers[0]), int(numbers[1]))
    if "\0" in home or not home or ".." in home.split("/"):
        raise RpinfsError(f"user {fields[0]}: expected a home in the image, found {fields[5]!r}")
    if root.kind(home) != stat.S_IFDIR:
        root.make_folder(home, 0o755, owner)
    root.make_folder(f"{home}/.ssh", 0o700, owner)
    root.write(f"{home}/.ssh/authorized_keys", "".join(f"{key}\n" for key in user.keys), 0o600, owner)


def anew(root: Tree, boot: Tree, host: str, digits: str) -> None:
    """Have cloud-init take a clone for another board, which has its user already. Raises OSError."""
    _place(root, boot, {"meta-data": meta_data(host, digits)})
    root.write("var/lib/cloud/seed/nocloud/meta-data", meta_data(host, digits), 0o600)


_SEEDS = ("user-data", "meta-data", "rpi-preseed.toml", "custom.toml")
_HOST_KEYS = ("hostname", "fqdn", "local-hostname")
_HOST_LINE = re.compile(
    r"""^((?:hostname|fqdn|local-hostname)[ \t]*[:=][ \t]*)("[^"\n]*"|'[^'\n]*'|[^\s"'#]+)""", re.MULTILINE
)


def rename(root: Tree, boot: Tree, host: str) -> None:
    """Give the board's host name to all seeds that say another one: theirs would win at boot. Raises OSError."""
    inside = boot_inside(root)
    config = "etc/cloud/cloud.cfg.d/"
    names = (
        [name for name in root.names(config) if name.endswith(".cfg")] if root.kind(config[:-1]) == stat.S_IFDIR else []
    )
    for tree, folder, seeds in (
        (boot, "", _SEEDS), (root, f"{inside}/", _SEEDS), (root, "var/lib/cloud/seed/nocloud/", _SEEDS),
        (root, "etc/cloud/", ("cloud.cfg",)), (root, config, names),
    ):  # fmt: skip
        for name in seeds:
            text = tree.read(f"{folder}{name}")
            renamed = seed_of(text, host)
            if renamed != text:
                tree.write(f"{folder}{name}", renamed, 0o600 if folder.startswith("var/") else 0o644)


def seed_of(text: str, host: str) -> str:
    """A seed for a host of this name: cloud-init's YAML, whose JSON is ours, or TOML of rpi-preseed."""
    first, _, rest = text.partition("\n")
    try:
        document = json.loads(rest)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        return _HOST_LINE.sub(lambda found: found[0] if found[2].strip("\"'") == host else f'{found[1]}"{host}"', text)
    there = [key for key in _HOST_KEYS if document.get(key, host) != host]
    renamed = json.dumps(document | dict.fromkeys(there, host), indent=2, ensure_ascii=False)
    return f"{first}\n{renamed}\n" if there else text
