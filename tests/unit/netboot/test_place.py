"""Where rendered files are written, and what of the ones that are there stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from rpinfs.errors import RpinfsError, quoted
from rpinfs.netboot import place
from rpinfs.netboot.render.text import Rendered


def test_all_or_nothing_is_written(tmp_path: Path) -> None:
    made = [Rendered("a", "", "x", "a\n"), Rendered("b/c", "", "x", "c\n")]
    (tmp_path / "b").mkdir()
    (tmp_path / "b/c").write_text("mine\n")
    with pytest.raises(RpinfsError) as caught:
        place.write_all(made, str(tmp_path))
    assert caught.value.message == f"{tmp_path}/b/c: there is another one already"
    there = f"{tmp_path}/b/c"
    assert caught.value.remedy == (
        f"name another --output, or move it away: mv -T --backup=numbered {there} {quoted(there + '.odd~')}"
    )
    assert not (tmp_path / "a").exists()
    (tmp_path / "b/c").write_text("c\n")
    place.write_all(made, str(tmp_path))
    assert (tmp_path / "a").read_text() == "a\n" and sorted(path.name for path in tmp_path.rglob("*")) == [
        "a",
        "b",
        "c",
    ]


def test_what_would_change(tmp_path: Path) -> None:
    there = tmp_path / "etc/exports"
    one = Rendered("exports", str(there), "the NAS", "new\nboth\n")
    assert place.changes(one) == f"--- {there}\n+++ {there} (new)\n@@ -0,0 +1,2 @@\n+new\n+both\n"
    place.apply(one)
    assert place.changes(one) == "" and [path.name for path in there.parent.iterdir()] == ["exports"]
    there.write_bytes(b"ol\xff\nboth\n")
    assert place.changes(one).encode("utf-8", "surrogateescape").endswith(b"\n-ol\xff\n+new\n both\n")


@pytest.mark.parametrize("link", [False, True])
def test_what_is_there_is_kept_once(tmp_path: Path, link: bool) -> None:
    """A link stays the link that it was, also one that leads nowhere."""
    there, kept = tmp_path / "conf", tmp_path / f"conf{place.KEPT}"
    there.symlink_to("gone") if link else there.write_text("old\n")
    one = Rendered("conf", str(there), "the NAS", "new\n")
    place.apply(one)
    assert there.read_text() == "new\n" and not there.is_symlink() and kept.is_symlink() is link
    with pytest.raises(RpinfsError) as caught:
        place.apply(one)
    assert caught.value.message == f"{kept}: is there already, from an earlier time"
    away = quoted(str(kept), f"{there}.before-rpinfs.odd~")
    assert caught.value.remedy == f"move it away: mv -T --backup=numbered {away}" and there.read_text() == "new\n"
