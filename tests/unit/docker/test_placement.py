"""Whether what Docker writes lies on an image, and what is said where it does not."""

from __future__ import annotations

import pytest

from rpinfs.boot.config import Image, load
from rpinfs.boot.host import Host
from rpinfs.docker.placement import image_of, problems
from rpinfs.docker.rules import expected
from rpinfs.docker.told import Choice, Settings

TWO = "[Image docker]\n[Image data]\nWhere=/srv/data\nBind=/srv/d\n"


def images(text: str = TWO) -> list[Image]:
    return load(Host(config_files=[("x", text)], cmdline="root=/dev/nfs nfsroot=10.0.0.1:/pi", serial="5e")).images


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/var/lib/docker", "docker"),
        ("/var/lib/docker/", "docker"),
        ("/var/lib/docker/overlay2", "docker"),
        ("/var/lib/docker-2", ""),
        ("/var/lib", ""),
        ("/var/lib/containerd/x", "docker"),
        ("/srv/data", "data"),
        ("/srv/d", "data"),
        ("/", ""),
    ],
)
def test_the_image_that_a_folder_is_on(path: str, name: str) -> None:
    image = image_of(path, images())
    assert (image.name if image else "") == name


def says(version: str, data_root: str, config: str | None = TWO, **more: str) -> list[tuple[str, str | None]]:
    settings = Settings(keys={"data-root": data_root} if data_root else {}, containerd_root=CONTAINERD.get(version))
    found = problems(
        expected(version, settings),
        None if config is None else images(config),
        lambda path: path.replace("/link", "/srv/elsewhere"),
        **more,
    )
    return [(problem.message, problem.remedy) for problem in found]


CONTAINERD = {"29.1": Choice("/mnt/c", "/etc/containerd/config.toml:1")}
OFF = "[Image docker]\nEnabled=no\n"
NOWHERE = "Docker's data root /mnt/d is on no image ("
IMAGES = "Docker keeps its images in /mnt/c, which is on no image (/etc/containerd/config.toml:1)"


@pytest.mark.parametrize(
    ("version", "data_root", "config", "off", "said"),
    [
        ("26.1", "", TWO, "", []),
        ("26.1", "/mnt/d", None, "", []),
        ("26.1", "/mnt/d", TWO, "",
         [(NOWHERE, "make data-root in daemon.json and Where= of an image agree; Where=/var/lib/docker is one")]),
        ("26.1", "/link/d", TWO, "",
         [("Docker's data root /link/d, a symbolic link to /srv/elsewhere/d, is on no image (", "make data-root")]),
        ("26.1", "/mnt/d", OFF, "", [(NOWHERE, "there is no image in use: rpinfs config show")]),
        ("26.1", "", OFF, "x:2",
         [("Docker's data root /var/lib/docker is on no image (default of Docker 26.1)",
           "[Image docker] is not in use: take Enabled=no out (x:2), and reboot")]),
        ("29.1", "", TWO, "", [(IMAGES, "add to [Image docker]: Bind=/mnt/c")]),
        ("29.1", "/mnt/d", OFF, "", [(NOWHERE, "there is no image"), (IMAGES, "there is no image in use")]),
        ("29.0", "", TWO, "", []),
    ],
)  # fmt: skip
def test_what_is_said(version: str, data_root: str, config: str | None, off: str, said: list[tuple[str, str]]) -> None:
    found = says(version, data_root, config, switched_off=off)
    assert len(found) == len(said)
    for (message, remedy), (expected_message, expected_remedy) in zip(found, said, strict=True):
        assert message.startswith(expected_message) and (remedy or "").startswith(expected_remedy)
