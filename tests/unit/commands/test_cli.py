"""The command line: words, errors as lines, exit status, and what is not imported on the way of the boot."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rpinfs import __version__
from rpinfs.boot.config import examine, load
from rpinfs.boot.host import Host
from rpinfs.commands import cli
from rpinfs.errors import RpinfsError
from rpinfs.image.fstab import parse
from tests.support import TOP, Installed, listing, make_tree
from tests.unit.image.test_takeover import RECIPE

Captured = pytest.CaptureFixture[str]


def complaint(capsys: Captured) -> list[str]:
    """The lines on standard error, without the prefix that all of them must have."""
    output = capsys.readouterr()
    assert output.out == ""
    lines = output.err.splitlines()
    assert all(line.startswith("rpinfs: ") for line in lines), output.err
    return [line.removeprefix("rpinfs: ") for line in lines]


# Usage

WRONG_USAGE = [
    ("", "expected a command: rpinfs status | check | metrics | units", "see rpinfs --help"),
    ("statsu", "unknown command: rpinfs statsu; did you mean rpinfs status?", "see rpinfs --help"),
    ("boto run", "unknown command: rpinfs boto; did you mean rpinfs boot?", "see rpinfs --help"),
    ("format-everything", "unknown command: rpinfs format-everything; known are status, check,", "see rpinfs --help"),
    ("config", "expected a command: rpinfs config show | check | import-fstab", "see rpinfs config --help"),
    ("config shwo", "rpinfs config shwo; did you mean rpinfs config show?", "see rpinfs config --help"),
    ("image creat x", "rpinfs image creat; did you mean rpinfs image create?", "see rpinfs image --help"),
    ("status --jsn", "unrecognized arguments: --jsn", "see rpinfs --help"),
    ("status --json --watch", "argument --watch: not allowed with argument --json", "see rpinfs status --help"),
    ("status --js", "unrecognized arguments: --js", "see rpinfs --help"),
    ("image create x --siz 64M", "the following arguments are required: --size", "see rpinfs image create --help"),
    ("--vers", "the following arguments are required: COMMAND", "see rpinfs --help"),
    ("status now", "unrecognized arguments: now", "see rpinfs --help"),
    ("image create x", "the following arguments are required: --size", "see rpinfs image create --help"),
    ("image create x --size ten", "--size ten: expected a size such as 20G", "see rpinfs image create --help"),
    ("image create x --size 1K", "--size 1K: expected a multiple of 4096", "see rpinfs image create --help"),
    ("image create x --size 1M", "--size 1M: expected at least 64M", "see rpinfs image create --help"),
    ("image create x --size 64M --filesystem xfs", "expected at least 300M for xfs", "see rpinfs image create --help"),
    ("image create x --size 1G --filesystem ntfs", "ntfs: expected ext4 or xfs", "see rpinfs image create --help"),
    ("boot run", "expected a command: rpinfs boot run -- COMMAND", "see rpinfs boot run --help"),
    ("trim dokcer", "unknown image dokcer; known are docker", "rpinfs config show"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message", "remedy"), WRONG_USAGE, ids=[case[0] or "nothing" for case in WRONG_USAGE]
)
@pytest.mark.usefixtures("pi")
def test_wrong_usage(words: str, message: str, remedy: str, capsys: Captured) -> None:
    assert cli.main(words.split()) == 2
    lines = complaint(capsys)
    assert len(lines) == 2
    assert message in lines[0]
    assert lines[1] == remedy


@pytest.mark.parametrize("group", [*cli.COMMANDS, ""])
def test_help_is_for_every_command(group: str, capsys: Captured) -> None:
    names = cli.COMMANDS[group].names if group else ()
    for words in [[group], *([group, name] for name in names)]:
        with pytest.raises(SystemExit) as ended:
            cli.main([*filter(None, words), "--help"])
        assert ended.value.code == 0
        text = capsys.readouterr().out
        assert f"usage: {' '.join(['rpinfs', *filter(None, words)])}" in text
        assert len(text.splitlines()) > 4, text
        # A sentence, its first word in small letters but the first: where it has none of its own, the one line of help.
        said = text.partition("\n\n")[2]
        assert said[0].isupper() and not said[1].isupper(), text


def test_the_one_line_of_help_is_a_sentence_where_there_is_no_other(capsys: Captured) -> None:
    with pytest.raises(SystemExit):
        cli.main(["config", "check", "--help"])
    assert "\n\nCheck the configuration" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "examples"),
    [
        ("image show", "  rpinfs image show docker.img\n"),
        ("status", "  rpinfs status\n"),
        ("config check", ""),
        ("config", ""),
    ],
)
def test_examples_stand_at_the_end_of_the_help(words: str, examples: str, capsys: Captured) -> None:
    with pytest.raises(SystemExit):
        cli.main([*words.split(), "--help"])
    said, _, end = capsys.readouterr().out.partition("\n\nexamples:\n")
    assert end.startswith(examples) and bool(end) is bool(examples) and "examples:" not in said


# Errors


def test_an_error_and_its_remedy_are_a_line_each(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: list[str]) -> int:
        raise RpinfsError("one\nline", "and  another", status=7)

    monkeypatch.setattr(cli, "_dispatch", fail)
    assert cli.main([]) == 7
    assert complaint(capsys) == ["one line", "and  another"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (FileNotFoundError(2, "No such file or directory", "/x/y"), ["/x/y: No such file or directory"]),
        (OSError(5, "Input/output error"), ["[Errno 5] Input/output error"]),
    ],
)
def test_an_error_of_the_system(
    error: OSError, expected: list[str], capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: list[str]) -> int:
        raise error

    monkeypatch.setattr(cli, "_dispatch", fail)
    assert cli.main([]) == 1
    assert complaint(capsys) == expected


@pytest.mark.parametrize("words", ["--version", "--help", "status --help", "config show", "units"])
@pytest.mark.parametrize(
    ("where", "said"), [(">/dev/full", "1\nrpinfs: standard output: No space left on device\n"), (">&-", "0\n")]
)
def test_what_is_printed_cannot_be_written(pi: Path, installed: Installed, words: str, where: str, said: str) -> None:
    """One line, and no success; where nobody wants it, it is not missed."""
    done = installed.run(
        "bash", "-c", f'"$0" {words} {where} 2>"$1"; echo $?; cat "$1"', installed.rpinfs, pi / "errors", root=pi
    )
    assert done.stdout == said


@pytest.mark.parametrize("where", ["2>/dev/full", "2>&-", ">&- 2>&-"])
def test_an_error_that_cannot_be_written_keeps_its_status(pi: Path, installed: Installed, where: str) -> None:
    done = installed.run("bash", "-c", f'"$0" nonsense {where}', installed.rpinfs, root=pi)
    assert done.returncode == cli.BAD_USAGE


def test_nobody_reads_on(pi: Path, installed: Installed) -> None:
    command = f"{installed.rpinfs} units; echo $? >&2"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; ({command}) | true"],
        env={"PATH": "/usr/bin:/bin", "RPINFS_ROOT": str(pi)},
        capture_output=True,
        text=True,
        check=False,
    )
    # Which comes first, the reader's end or the output, is open.
    assert done.stderr in (f"{cli.BROKEN_PIPE}\n", "0\n")


def test_ctrl_c(pi: Path, installed: Installed) -> None:
    """--watch is ended by it in order; no traceback."""
    process = subprocess.Popen(
        [installed.rpinfs, "status", "--watch"],
        env={"PATH": "/usr/bin:/bin", "RPINFS_ROOT": str(pi)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    # One picture has fewer lines; with none that says so, it would be drawn for ever.
    drawn = "What is wrong, and what to do:\n" in itertools.islice(process.stdout, 50)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert drawn and errors == ""
    assert process.returncode in (0, cli.INTERRUPTED)


# What is imported


def imported(words: str, root: Path) -> tuple[set[str], str]:
    """The modules that a command has imported when it ends, and its output."""
    code = (
        "import sys; from rpinfs.__main__ import main; before = set(sys.modules)\n"
        f"status = main({words.split()!r})\nprint(status, *sys.modules, sep='\\n', file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-IS", "-c", f"import sys; sys.path.insert(0, {str(TOP)!r}); {code}"],
        env={"RPINFS_ROOT": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stderr.splitlines()), done.stdout


HEAVY = {"argparse", "json", "re", "subprocess", "typing", "dataclasses", "socket"}


def test_nothing_heavy_is_imported_on_the_way_to_docker(other: Path) -> None:
    modules, _ = imported("gate", other)
    assert "0" in modules
    assert modules & HEAVY == set()


def test_the_same_would_be_seen(other: Path) -> None:
    modules, _ = imported("status", other)
    assert {"argparse", "json"} <= modules
    # The windows on the system are imported only by the children that look through them.
    assert modules & {"psutil", "pystemd", "pyroute2"} == set()
    assert modules & {"typing", "dataclasses", "inspect"} == set()


@pytest.mark.parametrize(
    ("words", "expected"),
    [("config check", {"rpinfs.commands.common", "rpinfs.commands.config"}), ("confg check", set())],
)
def test_of_the_commands_only_the_one_that_is_called_is_imported(words: str, expected: set[str], other: Path) -> None:
    modules, _ = imported(words, other)
    found = {name for name in modules if name.startswith("rpinfs.commands")}
    assert found == expected | {"rpinfs.commands", "rpinfs.commands.cli"}


def test_version(capsys: Captured, installed: Installed) -> None:
    assert installed.run(installed.rpinfs, "--version").stdout == f"rpinfs {__version__}\n"
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"rpinfs {__version__}\n"


@pytest.mark.parametrize("words", [["gate"], ["gate", "--help"]])
def test_the_gate_is_a_command_too(words: list[str], other: Path, installed: Installed) -> None:
    assert installed.run(installed.rpinfs, *words, root=other).returncode == 0


# config


@pytest.mark.usefixtures("pi")
def test_config_check(capsys: Captured) -> None:
    assert cli.main(["config", "check"]) == 0
    assert capsys.readouterr().out == "the configuration is right\n"


def test_config_check_lists_every_error(pi: Path, capsys: Captured) -> None:
    make_tree(pi, {"etc/rpinfs/rpinfs.conf": "[Server]\nVersion=5\n[Boot]\nWhere=/etc\n"})
    assert cli.main(["config", "check"]) == 2
    first, second = complaint(capsys)
    assert first.startswith("/etc/rpinfs/rpinfs.conf:2: [Server] Version=5: expected 3, 4.0, 4.1 or 4.2")
    assert second.startswith("/etc/rpinfs/rpinfs.conf:4: [Boot] Where=/etc: ")


def test_config_show(pi: Path, capsys: Captured) -> None:
    make_tree(pi, {"etc/rpinfs/rpinfs.conf": "[Image docker]\nSize=20G\n"})
    assert cli.main(["config", "show"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("[Server]\n# ") and "\n\n\n" not in shown and not shown.endswith("\n\n")
    parts = [part.partition("\n")[0] for part in shown.split("\n\n")]
    assert parts == ["[Server]", "[Boot]", "[Share]", "[Image docker]", "[Notify]"]
    lines = shown.splitlines()
    pairs = itertools.pairwise(lines)
    origins = {setting: origin.removeprefix("# ") for origin, setting in pairs if origin.startswith("# ")}
    assert origins["Address=192.168.1.10"] == "nfsroot= on the kernel command line"
    assert origins["Size=20G"] == "/etc/rpinfs/rpinfs.conf:2"
    assert origins["Export=/docker"] == "default"


@pytest.mark.usefixtures("pi")
def test_config_show_as_json(capsys: Captured) -> None:
    assert cli.main(["config", "show", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["in_use"] is True
    assert {"section": "Share", "name": None, "key": "Export", "text": "/docker", "origin": "default"} in found[
        "settings"
    ]


def test_config_check_names_an_ordering_cycle_by_fstab(pi: Path, capsys: Captured) -> None:
    """It called this right, and systemd dropped var-lib-docker.mount, or dbus.socket."""
    make_tree(pi, {"etc/fstab": "/dev/sda1 /var/lib/docker/volumes ext4 defaults,noatime 0 2\n"})
    assert cli.main(["config", "check"]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("rpinfs: line 1 of /etc/fstab makes an ordering cycle")
    assert output.err.endswith("add nofail,_netdev to its options\n")


@pytest.mark.parametrize(
    ("link", "target", "said"),
    [
        (
            "var/lib/docker",
            "/srv/docker",
            "[Image docker] Where=/var/lib/docker leads by a symbolic link to /srv/docker",
        ),
        ("var/lib/containerd", "/srv/c", "[Image docker] Bind=/var/lib/containerd leads by a symbolic link to /srv/c"),
        ("nfs", "/mnt/nas", "[Share] Where=/nfs/docker leads by a symbolic link to /mnt/nas/docker"),
    ],
)
def test_config_check_names_a_mount_point_that_is_a_link(
    pi: Path, capsys: Captured, link: str, target: str, said: str
) -> None:
    """All was called right, the mount failed, and the remedies went in a circle."""
    make_tree(pi, {link: Path(target)})
    assert cli.main(["config", "check"]) == 1
    assert f"rpinfs: {said}, and systemd mounts on no link\n" in capsys.readouterr().err


def test_what_config_show_says_is_a_configuration(pi: Path, capsys: Captured) -> None:
    """A comment behind a value became a part of it when the output was pasted into a file."""
    text = '[Server]\nOptions=timeo=50,\\\n acl\n[Boot]\nExport=\n[Image data]\nWhere=/srv/d\nBind="/srv/a b" /srv/c\n'
    make_tree(pi, {"etc/rpinfs/rpinfs.conf": text})
    assert cli.main(["config", "show"]) == 0
    shown = capsys.readouterr().out
    host = Host.read(str(pi))
    host.config_files = [("pasted", shown)]
    config, errors = examine(host)
    assert errors == []
    before = load(Host.read(str(pi)))
    assert [(v.section, v.name, v.key, v.text) for v in config.values] == [
        (v.section, v.name, v.key, v.text) for v in before.values
    ]
    assert "[Server]\n# nfsroot= on the kernel command line\nAddress=192.168.1.10\n" in shown


def test_config_show_with_errors_says_so_as_well(pi: Path, capsys: Captured) -> None:
    make_tree(pi, {"etc/rpinfs/rpinfs.conf": "[Server]\nVersion=5\n"})
    assert cli.main(["config", "show"]) == 2
    output = capsys.readouterr()
    assert "[Share]" in output.out
    assert output.err.startswith("rpinfs: /etc/rpinfs/rpinfs.conf:2: ")


NOT_IN_USE = "rpinfs is not in use here: the root is not on NFS and there is no configuration\n"


@pytest.mark.parametrize("words", ["config check", "config show", "status", "check"])
@pytest.mark.usefixtures("other")
def test_not_in_use(words: str, capsys: Captured) -> None:
    assert cli.main(words.split()) == 0
    assert capsys.readouterr().out == NOT_IN_USE


@pytest.mark.parametrize("words", ["config show --json", "status --json", "check --json"])
@pytest.mark.usefixtures("other")
def test_not_in_use_as_json(words: str, capsys: Captured) -> None:
    assert cli.main(words.split()) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["in_use"], found["reason"]) == (False, "the root is not on NFS and there is no configuration")


def test_import_fstab(other: Path, capsys: Captured) -> None:
    """What is printed is a configuration of which the same three mounts come, for a machine with no root on NFS."""
    make_tree(other, {"etc/fstab": RECIPE})
    assert cli.main(["config", "import-fstab"]) == 0
    text = capsys.readouterr().out
    for line in RECIPE.splitlines():
        assert f": {line}\n" in text
    make_tree(other, {"etc/rpinfs/rpinfs.conf": text, "etc/fstab": ""})
    assert cli.main(["units", "--output", str(other / "units")]) == 0
    made = listing(other / "units")
    for mount in parse(RECIPE)[:2]:
        unit = made[f"{mount.where.strip('/').replace('/', '-')}.mount"]
        assert f"What={mount.what}\nWhere={mount.where}\nType=nfs\n" in unit
    assert "/nfs/docker/loop" in made["var-lib-docker.mount"]


def test_import_fstab_sees_the_file(other: Path, capsys: Captured) -> None:
    make_tree(other, {"etc/fstab": RECIPE})
    cli.main(["config", "import-fstab"])
    assert "could not be seen" in capsys.readouterr().out
    make_tree(other, {"nfs/docker/loop": bytes(8192)})
    cli.main(["config", "import-fstab"])
    assert "could not be seen" not in capsys.readouterr().out


def test_import_fstab_into_a_file_says_what_became_of_the_lines_too(other: Path, capsys: Captured) -> None:
    make_tree(other, {"etc/fstab": RECIPE})
    assert cli.main(["config", "import-fstab", "--output", "/etc/rpinfs/rpinfs.conf"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert any("could not be seen" in line for line in said[:-1])
    assert said[-1].startswith("/etc/rpinfs/rpinfs.conf: written; comment out in /etc/fstab: ")


def test_import_fstab_into_a_file(other: Path, capsys: Captured) -> None:
    """Whole or not at all: an empty file would be a configuration, and mount what nobody asked for."""
    conf, file = "/etc/rpinfs/rpinfs.conf", other / "etc/rpinfs/rpinfs.conf"
    make_tree(other, {"etc/fstab": "LABEL=a / ext4\n/srv/x /var/lib/docker ext4 loop\n"})
    assert cli.main(["config", "import-fstab", "--output", conf]) == 1
    assert not file.parent.exists() or not list(file.parent.iterdir())
    told = complaint(capsys)
    assert told[0] == "line 2: /srv/x does not lie on an NFS mount of this fstab; left alone"
    assert told[1].startswith("found no line that mounts an image file from an NFS share")
    make_tree(other, {"etc/fstab": RECIPE})
    assert cli.main(["config", "import-fstab", "--output", conf]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"{conf}: written; comment out in /etc/fstab: lines 1, 2, 3, then reboot"
    )
    assert cli.main(["config", "import-fstab"]) == 0
    assert file.read_text() == capsys.readouterr().out
    file.write_text("")
    assert cli.main(["config", "import-fstab", "--output", conf]) == 1
    assert complaint(capsys) == [
        f"{conf} is there already and stays as it is",
        f"write it beside that one, and compare: rpinfs config import-fstab --output {conf}.new",
    ]
    assert file.read_text() == ""
    assert cli.main(["config", "import-fstab", "--output", conf, "--force"]) == 0
    assert file.read_text().endswith("File=loop\n")
    assert [path.name for path in file.parent.iterdir()] == ["rpinfs.conf"]
    assert cli.main(["config", "import-fstab", "--force"]) == 2


def test_import_fstab_into_a_file_here(other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tree(other, {"etc/fstab": RECIPE})
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    assert cli.main(["config", "import-fstab", "--output", "new.conf"]) == 0
    assert (here / "new.conf").read_text().endswith("File=loop\n")
    (here / "link").symlink_to("new.conf")
    assert cli.main(["config", "import-fstab", "--output", "link", "--force"]) == 1
    assert cli.main(["config", "import-fstab", "--output", ".", "--force"]) == 1
    assert sorted(path.name for path in here.iterdir()) == ["link", "new.conf"]


@pytest.mark.usefixtures("other")
def test_import_fstab_from_a_file(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "my.fstab").write_text(RECIPE)
    assert cli.main(["config", "import-fstab", str(tmp_path / "my.fstab")]) == 0
    assert f"Comment out in {tmp_path}/my.fstab what" in capsys.readouterr().out
    assert cli.main(["config", "import-fstab", "/no/such"]) == 1
    assert complaint(capsys) == ["/no/such: No such file or directory"]


# units


@pytest.mark.usefixtures("pi")
def test_units(capsys: Captured) -> None:
    assert cli.main(["units"]) == 0
    text = capsys.readouterr().out
    assert "# In use: the root is on NFS." in text
    assert "\n# /run/systemd/generator/nfs-docker.mount\n# Written by rpinfs-generator(8).\n[Unit]\n" in text
    assert "\n# /run/systemd/generator/remote-fs.target.wants/nfs-docker.mount -> ../nfs-docker.mount\n" in text


def test_units_says_where_fstab_wins(pi: Path, capsys: Captured) -> None:
    make_tree(pi, {"etc/fstab": "nas:/d /nfs/docker nfs vers=4.1\n"})
    assert cli.main(["units"]) == 0
    assert (
        "# /nfs/docker is mounted by line 1 of /etc/fstab; rpinfs writes no nfs-docker.mount\n"
        in capsys.readouterr().out
    )


@pytest.mark.usefixtures("other")
def test_units_of_nothing(capsys: Captured) -> None:
    assert cli.main(["units"]) == 0
    assert capsys.readouterr().out.startswith("# rpinfs writes no units: the root is not on NFS")


def test_units_of_a_wrong_configuration(pi: Path, capsys: Captured) -> None:
    make_tree(pi, {"etc/rpinfs/rpinfs.conf": "[Server]\nVersion=5\n"})
    assert cli.main(["units"]) == 2
    assert complaint(capsys)[0].startswith("/etc/rpinfs/rpinfs.conf:2: ")


# status and check


@pytest.mark.usefixtures("pi")
def test_status_and_check_agree(capsys: Captured) -> None:
    """A Pi on which nothing is mounted."""
    assert cli.main(["status", "--json"]) == 2
    from_status = json.loads(capsys.readouterr().out)
    assert cli.main(["check", "--json"]) == 2
    from_check = json.loads(capsys.readouterr().out)
    assert from_check["checks"] == from_status["checks"]
    assert from_check["status"] == from_status["status"] == "critical"


@pytest.mark.usefixtures("pi")
def test_check_of_some(capsys: Captured) -> None:
    assert cli.main(["check", "config", "fstab.conflicts"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "ok        config.valid: the configuration is right",
        "ok        fstab.conflicts: /etc/fstab has no line for a mount point of rpinfs",
    ]
    assert cli.main(["check", "boot.mounted"]) == 1
    warning, remedy = capsys.readouterr().out.splitlines()
    assert warning.startswith("warning   boot.mounted: the boot files 192.168.1.10:/tftpboot are not mounted")
    assert remedy.endswith("; else: systemctl start boot-firmware.mount")


@pytest.mark.usefixtures("pi")
def test_no_colour_where_there_is_no_terminal(capsys: Captured) -> None:
    cli.main(["status"])
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize(("no_color", "expected"), [("", True), ("1", False)])
def test_colour_on_a_terminal(pi: Path, installed: Installed, no_color: str, expected: bool) -> None:
    command = f"{installed.rpinfs} status"
    done = installed.run("script", "-qec", command, "/dev/null", root=pi, NO_COLOR=no_color, TERM="xterm")
    assert ("\x1b[31mcritical" in done.stdout) is expected, done.stdout


# boot


@pytest.mark.usefixtures("pi")
def test_boot_is_for_the_running_system(capsys: Captured) -> None:
    assert cli.main(["boot", "run", "--", "true"]) == 1
    assert complaint(capsys) == ["rpinfs boot works on the running system only, and RPINFS_ROOT is set"]
