"""Debian's archive as this machine is configured to reach it, for a release of our choice.

The lab names no mirror: it takes the entries that the machine's own apt uses for Debian and puts another suite's
name in. Whatever else is configured (other vendors, backports) stays out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .process import LabError, run

DEBIAN_SUITES = ("stable", "testing", "oldstable", "bullseye", "bookworm", "trixie", "forky", "sid")
POCKETS = ("", "-updates", "-security")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
APT_OPTIONS = ("Acquire::Check-Valid-Until", "Acquire::Check-Date", "Acquire::http::Proxy", "Acquire::https::Proxy")


@dataclass(frozen=True)
class Source:
    """One archive: where it is, which suite, which components, and apt's options in brackets."""

    uri: str
    suite: str
    components: tuple[str, ...]
    options: Mapping[str, str] = field(default_factory=dict)

    def line(self) -> str:
        """The entry in the one-line form of sources.list(5)."""
        options = " ".join(f"{key}={value}" for key, value in self.options.items())
        words = ("deb", f"[{options}]" if options else "", self.uri, self.suite, *self.components)
        return " ".join(filter(None, words))


def sources_for(release: str, apt: Path = Path("/etc/apt")) -> str:
    """sources.list text for a Debian release ("trixie"), made from the machine's own entries."""
    chosen = {moved.line() for source in configured(apt) if (moved := moved_to(source, release))}
    if not chosen:
        raise LabError(f"{apt}: no entry for Debian's archive in sources.list or sources.list.d")
    return "".join(f"{line}\n" for line in sorted(chosen))


def options_in_force() -> str:
    """The machine's apt settings without which its mirror may not be usable (proxy, date checks), as apt.conf text."""
    settings = run(["apt-config", "dump"]).splitlines()
    return "".join(f"{line}\n" for line in settings if line.split(" ", 1)[0] in APT_OPTIONS)


def configured(apt: Path) -> list[Source]:
    """All deb entries of sources.list and sources.list.d, both forms."""
    lists = [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))]
    found: list[Source] = []
    for path in lists:
        if path.suffix == ".list" and path.is_file():
            found += one_line_entries(path.read_text())
        elif path.suffix == ".sources" and path.is_file():
            found += deb822_entries(path.read_text())
    return found


def one_line_entries(text: str) -> list[Source]:
    """The deb lines of a sources.list."""
    line_form = re.compile(r"deb\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)(?P<components>[^#]*)")
    return [
        Source(found["uri"], found["suite"], tuple(found["components"].split()), _options(found["options"] or ""))
        for line in text.splitlines()
        if (found := line_form.match(line.strip()))
    ]


def deb822_entries(text: str) -> list[Source]:
    """The enabled deb stanzas of a .sources file, one Source for each URI and suite."""
    found: list[Source] = []
    for stanza in re.split(r"\n\s*\n", text):
        fields = _fields(stanza.splitlines())
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in ("no", "false", "0"):
            continue
        components = tuple(fields.get("components", "").split())
        options: dict[str, str] = {key: fields[key] for key in ("trusted", "signed-by") if key in fields}
        if "\n" in options.get("signed-by", ""):
            options["signed-by"] = KEYRING  # A key within the stanza has no one-line form.
        uris, suites = fields.get("uris", "").split(), fields.get("suites", "").split()
        found += [Source(uri, suite, components, options) for uri in uris for suite in suites]
    return found


def moved_to(source: Source, release: str) -> Source | None:
    """The same archive for another release; None when it is not Debian's own main archive or security."""
    pocket_form = re.match(r"(?P<suite>[a-z]+)(?P<pocket>-[a-z]+|/updates)?$", source.suite)
    if not pocket_form or pocket_form["suite"] not in DEBIAN_SUITES or "main" not in source.components:
        return None
    pocket = (pocket_form["pocket"] or "").replace("/updates", "-security")
    if pocket not in POCKETS or not source.uri.startswith(("http:", "https:", "file:", "copy:")):
        return None
    return Source(source.uri, release + pocket, ("main",), source.options or {"signed-by": KEYRING})


def _options(text: str) -> dict[str, str]:
    words = (word.partition("=") for word in text.split())
    return {key.lower(): value for key, _, value in words if key.lower() in ("trusted", "signed-by")}


def _fields(lines: Iterable[str]) -> dict[str, str]:
    fields: dict[str, str] = {}
    key = ""
    for line in lines:
        if line.startswith("#"):
            continue
        if line[:1].isspace() and key:
            fields[key] += "\n" + line.strip()
        elif ":" in line:
            key, _, value = line.partition(":")
            key = key.strip().lower()
            fields[key] = value.strip()
    return fields
