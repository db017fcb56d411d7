"""What groups of commands share: the image that is meant, and what is shown on the way."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from rpinfs.commands.common import Progress, image_on_share, paint, print_document
from rpinfs.errors import RpinfsError
from tests.support import make_pi

SHARE = "40 22 0:40 / /nfs/docker rw - {} 10.0.0.1:/docker rw\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("name", "mounted", "message"),
    [
        ("docker", SHARE.format("nfs4"), ""),
        ("docker", SHARE.format("nfs"), ""),
        # A lease below an empty mount point is none, and neither is one on a disk.
        ("docker", "", "the share is not mounted at /nfs/docker"),
        ("docker", SHARE.format("ext4"), "the share is not mounted at /nfs/docker"),
        ("data", SHARE.format("nfs4"), "unknown image data; known are docker"),
    ],
)
def test_an_image_whose_share_is_mounted(
    root: Path, monkeypatch: pytest.MonkeyPatch, name: str, mounted: str, message: str
) -> None:
    monkeypatch.setenv("RPINFS_ROOT", str(make_pi(root, files={"proc/self/mountinfo": mounted})))
    if not message:
        assert image_on_share(name)[1].name == name
        return
    with pytest.raises(RpinfsError) as caught:
        image_on_share(name)
    assert caught.value.message == message
    assert (caught.value.remedy, caught.value.status) == (
        ("rpinfs config show", 2) if name == "data" else ("rpinfs status", 1)
    )


@pytest.mark.parametrize("there", [True, False])
def test_progress_is_one_line_that_is_gone_afterwards(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    said = Terminal() if there else io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    with Progress() as progress:
        progress("one")
        progress("two\n\x1b[31m")
    expected = "\r\x1b[Kone\r\x1b[Ktwo  [31m\r\x1b[K"
    assert said.getvalue() == (expected if there else "")


@pytest.mark.parametrize(
    ("terminal", "no_color", "coloured"),
    [(True, "", True), (True, "1", False), (False, "", False), (False, "1", False)],
)
def test_colours(monkeypatch: pytest.MonkeyPatch, terminal: bool, no_color: str, coloured: bool) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setattr(sys, "stdout", Terminal() if terminal else io.StringIO())
    assert (paint()("bold", "x") != "x") is coloured


def test_a_document_is_ascii_on_lines(capsys: pytest.CaptureFixture[str]) -> None:
    print_document({"a": "ä", "b": [1]})
    assert capsys.readouterr().out == '{\n  "a": "\\u00e4",\n  "b": [\n    1\n  ]\n}\n'
