"""What netboot says to do, pasted in the state in which it is said, in folders whose names a shell may not like."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from rpinfs.errors import RpinfsError
from rpinfs.netboot import place
from rpinfs.netboot.render.text import Rendered
from tests import remedies
from tests.support import PATH, Installed, listing, make_tree
from tests.tools.conftest import Mount, command
from tests.tools.netboot import test_add
from tests.tools.netboot.stock import BOOT, make_root
from tests.tools.netboot.test_add import PI1, dies_before_the_names

pytestmark = pytest.mark.root
image = test_add.image

PLACE = ("--plan", "plan", "--root", "roots", "--tftp", "tftp")
"""With a plan these folders may have any name: it says what the NAS calls them."""

Paste = Callable[..., str]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    top = tmp_path / "it's $(touch hurt); #"
    plan = '[network]\nsubnet = "192.168.1.0/24"\n[nas]\naddress = "192.168.1.10"\n'
    return make_tree(top, {"roots": None, "tftp": None, "plan": plan})


@pytest.fixture
def run(here: Path, installed: Installed) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `rpinfs netboot` in the folder."""

    def run_netboot(*words: str | Path) -> subprocess.CompletedProcess[str]:
        argv = ["rpinfs", "netboot", *(str(word) for word in words)]
        env = {"PATH": f"{installed.rpinfs.parent}:{PATH}"}
        return subprocess.run(argv, cwd=here, env=env, capture_output=True, text=True, check=False)

    return run_netboot


@pytest.fixture
def paste(here: Path, installed: Installed) -> Paste:
    """Paste what a line that was printed says to do, into a shell in the folder; what that prints. It has to work."""

    def paste_remedy(printed: str, serial: str = "SERIAL") -> str:
        text = printed.strip().splitlines()[-1].removeprefix("rpinfs: ")
        assert any(remedies.form_of(row).search(text) for row in remedies.ELSEWHERE), text
        env = {"PATH": f"{installed.rpinfs.parent}:{PATH}"}
        said = ""
        for line in remedies.commands(text.replace("SERIAL", serial)):
            done = subprocess.run(["sh", "-c", line], cwd=here, env=env, capture_output=True, text=True, check=False)
            assert (done.returncode, done.stderr) == (0, ""), line
            said += done.stdout
        assert not list(here.rglob("hurt"))
        return said

    return paste_remedy


Run = Callable[..., subprocess.CompletedProcess[str]]


def well(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def refused(done: subprocess.CompletedProcess[str], said: str) -> str:
    assert done.returncode in (1, 2), done.stdout
    assert said in done.stderr
    return done.stderr


def test_a_name_that_somebody_took_meanwhile(image: Path, here: Path, run: Run, paste: Paste) -> None:
    dies_before_the_names(here, image, *PLACE, *PI1)
    make_tree(here, {"roots/pi1/mine": "root", "tftp/a1b2c3d4/mine": "boot"})
    for folder in ("roots/pi1", "tftp/a1b2c3d4"):
        paste(refused(run("add", image, *PLACE, *PI1), f"{folder}: was made by somebody else meanwhile"))
    assert "completed what an interrupted attempt had made" in well(run("add", image, *PLACE, *PI1))
    assert listing(here / "roots/pi1.odd") == {"mine": "root"}
    assert listing(here / "tftp/a1b2c3d4.odd") == {"mine": "boot"}


def test_two_boards_of_one_number(image: Path, here: Path, run: Run, paste: Paste) -> None:
    """The one that came first keeps its boot files."""
    dies_before_the_names(here, image, *PLACE, "--name", "pi2", *PI1[2:])
    well(run("add", image, *PLACE, *PI1))
    files = sorted(os.listdir(here / "tftp/a1b2c3d4"))
    paste(refused(run("add", image, *PLACE, "--name", "pi2", *PI1[2:]), "tftp/a1b2c3d4: is pi1's by now"))
    well(run("add", image, *PLACE, "--name", "pi2", "--serial", "5e6f7a8b"))
    assert sorted(os.listdir(here / "tftp/a1b2c3d4")) == files
    assert sorted(os.listdir(here / "tftp")) == ["5e6f7a8b", "a1b2c3d4"]


def test_what_was_interrupted_below_another_tftp_folder(image: Path, here: Path, run: Run) -> None:
    dies_before_the_names(here, image, *PLACE, *PI1)
    (here / "other").mkdir()
    words = [word.replace("tftp", "other") if word == "tftp" else word for word in PLACE]
    said = refused(run("add", image, *words, *PI1), "was interrupted when it was whole, but for its name in")
    more = said.splitlines()[1].removeprefix("rpinfs: run it again with: --tftp ")
    (folder,) = command("sh", "-c", f"printf '%s\\n' {more}").splitlines()
    well(run("add", image, *words, *PI1, "--tftp", folder))
    assert (sorted(os.listdir(here / "tftp")), os.listdir(here / "other")) == (["a1b2c3d4"], [])


def test_folders_that_are_not_there(image: Path, here: Path, run: Run, paste: Paste) -> None:
    for name in ("roots", "tftp"):
        (here / name).rmdir()
        paste(refused(run("add", image, *PLACE, *PI1), "expected the folder with the"))
    well(run("add", image, *PLACE, *PI1))


def test_something_is_mounted_in_a_leftover(image: Path, here: Path, run: Run, paste: Paste) -> None:
    make_tree(here / "precious", {"all": "I have"})
    inside = here / f"roots/.pi1.rpinfs-new-{0:016x}/image"
    inside.mkdir(parents=True)
    command("mount", "--bind", here / "precious", inside)
    paste(refused(run("add", image, *PLACE, *PI1), "is mounted"))
    well(run("add", image, *PLACE, *PI1))
    assert listing(here / "precious") == {"all": "I have"}
    assert sorted(os.listdir(here / "roots")) == [".pi1.rpinfs-board", "pi1"]


def test_boards_that_are_there(image: Path, here: Path, run: Run, paste: Paste) -> None:
    """Without a plan, and wherever the roots are."""
    well(run("add", image, *PLACE, *PI1))
    for words, said in (
        (("add", image, *PLACE, *PI1), "there is a board of this name already"),
        (("clone", "pi9", "pi2", *PLACE), "expected a board that add has made"),
    ):
        assert "a1b2c3d4" in paste(refused(run(*words), said))
    shutil.rmtree(here / "tftp/a1b2c3d4")
    assert "a1b2c3d4" in paste(refused(run("clone", "pi1", "pi2", *PLACE), "expected a folder of pi1, found none"))


def test_without_a_plan(image: Path, here: Path, run: Run, installed: Installed) -> None:
    """It asks, so it is pasted into a terminal."""
    said = refused(run("render"), "there is no plan").splitlines()[1]
    assert refused(run("add", image, *PI1), "--root: is missing, and there is no plan").splitlines()[1] == said
    master, slave = os.openpty()
    env = {"PATH": f"{installed.rpinfs.parent}:{PATH}"}
    argv = ["sh", "-c", said.removeprefix("rpinfs: ")]
    with subprocess.Popen(argv, cwd=here, env=env, stdin=slave, stderr=slave, stdout=subprocess.PIPE) as process:
        os.close(slave)
        os.write(master, b"192.168.1.10\n\n192.168.1.0/24\n\npi1,4,1a2b3c4d\n\n")
        assert process.stdout
        page = process.stdout.read().decode()
    os.close(master)
    assert process.returncode == 0
    assert "everything from the NAS" in page
    well(run("render", "--output", "out"))


def test_a_plan_that_is_there(run: Run, paste: Paste) -> None:
    words = ("plan", "my plan.toml", "--nas", "192.168.1.10", "--subnet", "192.168.1.0/24")
    page = well(run(*words))
    assert paste(refused(run(*words), "there is a plan already")) == page
    step = re.search(r"1\. (.*)", page)
    assert step
    assert "netboot/exports" in paste(step[1])


def test_what_is_left_to_do(image: Path, here: Path, run: Run, paste: Paste) -> None:
    said = well(run("add", image, *PLACE, "--name", "pi1", "--board", "3B+"))
    left = [line.removeprefix("left to do: ") for line in said.splitlines() if line.startswith("left to do: ")]
    for line in left:
        if "SERIAL" in line or "bootcode.bin" in line:
            paste(line, "1a2b3c4d")
    assert (here / "tftp/bootcode.bin").read_text() == BOOT["bootcode.bin"]
    assert (here / "tftp/1a2b3c4d/cmdline.txt").read_text() == (here / "tftp/pi1/cmdline.txt").read_text()
    assert "fault" not in run("check", "tftp", "roots").stdout


def test_rendered_files_in_the_way(here: Path, run: Run, paste: Paste) -> None:
    well(run("plan", "--nas", "192.168.1.10", "--subnet", "192.168.1.0/24"))
    make_tree(here, {"out/exports": "mine\n"})
    paste(refused(run("render", "--output", "out"), "there is another one already"))
    well(run("render", "--output", "out"))
    assert "mine\n" in listing(here / "out").values()
    folder = here / "dnsmasq.d"
    for text in ("one\n", "two\n", "three\n", "four\n"):
        made = Rendered("x", str(folder / "rpi.conf"), "the NAS", text)
        try:
            place.apply(made)
        except RpinfsError as error:
            paste(f"{error.remedy}")
            place.apply(made)
    assert sorted(listing(folder).values()) == ["four\n", "one\n", "three\n", "two\n"]
    # dnsmasq reads whatever lies in its folder, but for these.
    assert [name for name in os.listdir(folder) if not name.endswith("~")] == ["rpi.conf"]


def test_the_steps_of_a_page(tmp_path: Path, image: Path, run: Run, here: Path) -> None:
    plain = tmp_path / "srv"
    make_tree(plain, {"roots": None, "tftp": None})
    text = f'[network]\nsubnet = "192.168.1.0/24"\n[nas]\naddress = "192.168.1.10"\nroot = "{plain}/roots"\n'
    text += f'boot = "{plain}/tftp"\n[[pi]]\nname = "pi1"\nboard = "4"\nserial = "1a2b3c4d"\n'
    (here / "my plan.toml").write_text(text)
    page = well(run("plan", "my plan.toml"))
    (step,) = re.findall(r"\d\. (pi1, to .*)", page)
    os.link(image, here / "i.img")
    command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", here / "key")
    # What stands in capitals a person fills in; a package and Docker are for tests with a whole Debian.
    words = {"IMAGE": "i.img", "--user U": "--user me", "FILE --deb FILE --docker": "key.pub"}
    for blank, filled in words.items():
        assert blank in step
        step = step.replace(blank, filled)
    (line,) = remedies.commands(step)
    assert "pi1: " in well(run(*shlex.split(line)[2:]))
    (proof,) = re.findall(r"proof: (no fault is named by: .*)", page)
    (line,) = remedies.commands(proof)
    said = run(*shlex.split(line)[2:]).stdout
    assert not [one for one in said.splitlines() if one.startswith("fault") and str(plain) in one]


def test_a_partition_alone(here: Path, run: Run, mounted: Mount) -> None:
    """What is said of an image without a table: mounted, and its folder named, it is one."""
    root = make_root(here / "stock-root")
    boot = make_tree(here / "boot", BOOT)
    alone = here / "part.img"
    command("truncate", "--size", "48M", alone)
    command("mkfs.ext4", "-q", "-d", root, alone)
    said = refused(run("add", alone, *PLACE, *PI1), "expected an image of a disk with a partition table")
    assert "name the folder that it is mounted at, and --boot DIR" in said
    with mounted("-o", "ro,loop", alone) as where:
        well(run("add", where, "--boot", boot, *PLACE, *PI1))
