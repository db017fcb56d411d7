"""What `make bench` measures with is itself right: it runs for an hour, and nobody reads all that it does."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.bench import docker, report, scale, storage, work
from tests.lab.slow_disk import SlowDisk
from tests.support import PYTHON

COUNTS = {"append": 4, "threads": 8, "create": 4, "overwrite": 4, "sqlite": 2}


def test_each_row_of_the_table_is_done() -> None:
    assert set(storage.ROWS) == {*work.ROWS, work.stall.__name__}


# That of PostgreSQL needs the server, which only the Pi of the bench has.
@pytest.mark.parametrize("row", sorted(storage.ROWS.keys() - {"postgresql"}))
def test_a_row_does_what_it_says(row: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"COUNT": 4, "FILES": 100, "SEQUENTIAL": work.MIB, "BESIDE": work.MIB}
    for name, value in (*small.items(), ("DROP_CACHES", tmp_path / "caches")):
        monkeypatch.setattr(work, name, value)
    for name in ("FOLDER_BY_FOLDER", "IN_TURN"):
        monkeypatch.setattr(work, name, str(tmp_path / name))
    folder = tmp_path / "folder"
    folder.mkdir()
    work.prepare(row, str(folder))
    took, count = work.milliseconds(row, str(folder))
    assert took >= 0 and count == COUNTS.get(row, 1)
    assert any(path.is_file() and path.stat().st_size for path in folder.rglob("*"))
    if row in ("untar", "scatter"):
        assert len([path for path in folder.rglob("*") if path.is_file()]) == 100


def test_an_image_for_docker_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers by their digests, in the order of the manifest; each on top of the container's own."""
    monkeypatch.setattr(docker, "FILES_OF_A_LAYER", 40)
    with tarfile.open(fileobj=io.BytesIO(docker.archive(b"base", "arm64"))) as image:
        content = {member.name: image.extractfile(member).read() for member in image}  # type: ignore[union-attr]
    (manifest,) = json.loads(content["manifest.json"])
    config = json.loads(content[manifest["Config"]])
    layers = [content[name] for name in manifest["Layers"]]
    assert layers[0] == b"base" and config["architecture"] == "arm64" and len(layers) == docker.LAYERS + 1
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    names = set[str]()
    for layer in layers[1:]:
        with tarfile.open(fileobj=io.BytesIO(layer)) as files:
            names.update(files.getnames())
    assert len(names) == 40 * docker.LAYERS


def test_flushes_are_counted_and_take_their_time(tmp_path: Path) -> None:
    disk = SlowDisk(tmp_path)
    disk.take(300)
    code = (
        "import os, time; f = os.open('f', os.O_CREAT | os.O_RDWR); a = time.monotonic(); os.fdatasync(f); os.fsync(f)"
    )
    told = f"{code}; print(time.monotonic() - a)"
    done = subprocess.run(
        [*disk.argv(), *PYTHON, "-c", told], cwd=tmp_path, env={"PATH": os.environ["PATH"]}, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    assert float(done.stdout) >= 0.6 and disk.flushes == 2


def test_an_area_takes_the_place_of_its_last_one() -> None:
    one, other = (report.Area(title, ("a", "b"), [report.Row("x", {"a": 4, "b": 1234.5})]) for title in ("one", "two"))
    text = report.with_area(report.with_area(report.HEAD, one), other)
    assert text.startswith(report.HEAD) and text.index("## one") < text.index("## two")
    assert "| x | 4 | 1,234 |" in text and "![two](two.svg)" in text
    changed = report.Area("one", ("a", "b"), [report.Row("x", {"a": 1.0, "b": 0.754}, ratio=True)])
    text = report.with_area(text, changed)
    assert text.count("## one") == 1 and "| x | 1.00 | 0.75 |" in text and text.index("## one") < text.index("## two")
    assert "one" in report.text(changed)


def test_what_a_rack_needs_is_computed_from_what_each_needs() -> None:
    each = {
        scale.BOOT_REQUESTS: 7000, scale.BOOT_BYTES: 117_500_000, scale.SHARE_FLUSHES: 100, scale.REST_ROOT: 120,
        scale.REST_SHARE: 480, scale.REST_FLUSHES: 60,
    }  # fmt: skip
    area = scale.for_racks(each)
    assert {row.title: list(row.values.values()) for row in area.rows} == {
        "boot: requests for the roots": [70_000, 700_000, 7_000_000],
        "boot: bytes read from the roots": [1_175_000_000, 11_750_000_000, 117_500_000_000],
        "boot: seconds of Gigabit Ethernet for them": [10, 100, 1000],
        "boot: seconds of a disk with 6 ms a flush": pytest.approx([6, 60, 600]),
        "at rest: requests a second": pytest.approx([10 / 6, 100 / 6, 1000 / 6]),
        "at rest: flushes a second": pytest.approx([1 / 6, 10 / 6, 100 / 6]),
        "at rest: part of such a disk's time, %": pytest.approx([0.1, 1, 10]),
    }
    assert area.note in report.text(area) and area.note in report.markdown(area)
    assert area.note == (
        "The limit of a boot is Gigabit Ethernet, for the roots: 1.00 s for each Pi, where a hard disk's flushes take"
        " 0.60 s. A hard disk has enough flushes for 10,000 Pis at rest."
    )
    assert "The limit of a boot is a hard disk's flushes" in scale.limit({**each, scale.SHARE_FLUSHES: 1000})
    assert "At rest nothing is flushed" in scale.limit({**each, scale.REST_FLUSHES: 0})
