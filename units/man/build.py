"""Make the man pages and the example config: the sources beside this file, the tables put in.

    build.py FOLDER     writes the man pages (PAGES) and an example rpinfs.conf into FOLDER

The same sources give the same bytes: version and date come from debian/changelog by way of SOURCE_DATE_EPOCH.
"""

from __future__ import annotations

import os
import re
import sys
import textwrap
import time
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

HERE = Path(__file__).resolve().parent
TREE = HERE.parent.parent
PAGES = ("rpinfs.8", "rpinfs-checks.7", "rpinfs-generator.8", "rpinfs-netboot.8", "rpinfs.conf.5")
COMMENT_WIDTH = 100
PLACES = re.compile(r"\{(\w+)\}")
"""What a remedy has where the name of an image, a file or a mount point is filled in."""

sys.path.insert(0, str(TREE))

from rpinfs.boot.settings import SETTINGS, Setting  # noqa: E402
from rpinfs.commands.check import CHECK_SECONDS  # noqa: E402
from rpinfs.health.checks import CHECKS, Check  # noqa: E402  the tree is in the path only now
from rpinfs.health.metrics import METRICS, Metric  # noqa: E402
from rpinfs.netboot.boards import BOARDS  # noqa: E402
from rpinfs.netboot.check import RULES  # noqa: E402
from rpinfs.netboot.model import NASES, ROUTERS  # noqa: E402
from rpinfs.netboot.render.targets import TARGETS  # noqa: E402


def main(folder: Path) -> None:
    """Write everything into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    fields = {"VERSION": version(), "DATE": date()}
    fields |= {"SETTINGS": settings_as_roff(SETTINGS), "CHECKS": checks_as_roff(CHECKS)}
    fields |= {"EXPLANATIONS": explanations_as_roff(CHECKS), "SECONDS": f"{CHECK_SECONDS:g}"}
    fields |= {"METRICS": metrics_as_roff(METRICS)}
    fields |= {"ROUTERS": ", ".join(ROUTERS), "NASES": ", ".join(NASES), "BOARDS": ", ".join(BOARDS)}
    fields |= {"TARGETS": "\n".join(tagged(name, target.help) for name, target in TARGETS.items())}
    fields |= {"RULES": "\n".join(f".IP \\(bu 2\n{roff(' '.join((rule.__doc__ or '').split()))}" for rule in RULES)}
    for page in PAGES:
        (folder / page).write_text(filled((HERE / f"{page}.in").read_text(), fields))
    (folder / "rpinfs.conf").write_text(example(SETTINGS))


def filled(text: str, fields: dict[str, str]) -> str:
    """Put the values for @NAME@ in; a name without a value is a KeyError."""
    return re.sub(r"@([A-Z]+)@", lambda found: fields[found[1]], text)


def version() -> str:
    """The version of the newest entry of debian/changelog."""
    found = re.match(r"rpinfs \(([^)]+)\)", (TREE / "debian" / "changelog").read_text())
    if not found:
        raise SystemExit("debian/changelog: expected it to begin with rpinfs (VERSION)")
    return found[1]


def date() -> str:
    """The day of the newest entry of debian/changelog, as dpkg-buildpackage tells it; outside of it none."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    return time.strftime("%Y-%m-%d", time.gmtime(int(epoch))) if epoch else ""


def settings_as_roff(settings: Iterable[Setting]) -> str:
    """A subsection for each section, a tagged paragraph for each key."""
    parts: list[str] = []
    for section, keys in groupby(settings, lambda setting: setting.section):
        parts.append(f".SS {roff(header(section))}")
        for setting in keys:
            parts += [".TP", f'.BR {roff(setting.key)}= " ({roff(setting.kind)})"', roff(setting.help)]
            parts += [roff(f"Default: {default_of(setting)}.")]
            if setting.is_list:
                parts += ["Several assignments add up."]
    return "\n".join(parts)


def checks_as_roff(checks: Iterable[Check]) -> str:
    """A tagged paragraph for each check."""
    return "\n".join(line for check in checks for line in (".TP", f".B {roff(check.name)}", roff(check.title)))


def explanations_as_roff(checks: Iterable[Check]) -> str:
    """A subsection for each check: what it looks at, what its statuses mean, and what to do."""
    parts: list[str] = []
    for check in checks:
        parts += [f".SS {roff(check.name)}", f"Well: {roff(check.title)}."]
        parts += [".PP", roff(" ".join(check.explanation.split()))]
        parts += [".PP", f".I {roff(remark)}"] if (remark := " ".join(remarks(check))) else []
        parts += [".PP", f"To do: {roff(PLACES.sub(lambda found: found[1].upper(), check.remedy))}."]
    return "\n".join(parts)


def metrics_as_roff(metrics: Iterable[Metric]) -> str:
    """A tagged paragraph for each metric, with its labels as they are written in a query."""
    return "\n".join(
        tagged(metric.name + (f"{{{', '.join(metric.labels)}}}" if metric.labels else ""), metric.help)
        for metric in metrics
    )


def tagged(name: str, text: str) -> str:
    """A tagged paragraph."""
    return f".TP\n.B {roff(name)}\n{roff(text)}"


def remarks(check: Check) -> Iterable[str]:
    """When and for what it runs, where that is not the usual."""
    if check.per_image:
        yield "For each image."
    if check.thorough:
        yield "Only by rpinfs check, not by rpinfs status."


def header(section: str) -> str:
    """A section as it is written."""
    return "[Image NAME]" if section == "Image" else f"[{section}]"


def default_of(setting: Setting) -> str:
    """The default for a reader."""
    return (setting.default_help or setting.default or "none").rstrip(".")


def roff(text: str) -> str:
    """Plain text for roff: nothing in it is a request, an escape, or a hyphen where a minus is meant."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    return f"\\&{escaped}" if escaped.startswith(".") else escaped


def example(settings: Iterable[Setting]) -> str:
    """A config of nothing but comments: every key with its default."""
    lines = [
        "# Example for /etc/rpinfs/rpinfs.conf, see rpinfs.conf(5). On a Pi with its root on NFS none is needed: these",
        "# are the defaults. Take over only what you change.",
    ]
    for section, keys in groupby(settings, lambda setting: setting.section):
        lines += ["", f"#[{'Image docker' if section == 'Image' else section}]"]
        for setting in keys:
            lines += ["", *commented(f"{setting.help} Default: {default_of(setting)}.")]
            lines += [f"#{setting.key}={'' if setting.default_help else setting.default}"]
    return "\n".join(lines) + "\n"


def commented(text: str) -> list[str]:
    """Lines of a comment."""
    return [f"# {line}" for line in textwrap.wrap(text, COMMENT_WIDTH, break_long_words=False, break_on_hyphens=False)]


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        raise SystemExit("usage: build.py FOLDER")
    main(Path(sys.argv[1]))
