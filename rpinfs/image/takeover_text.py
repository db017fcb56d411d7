"""The text of a configuration that takes over hand-written mounts, with what a person should know as comments."""

from __future__ import annotations

import textwrap

from rpinfs.boot.config import examine
from rpinfs.boot.host import Host
from rpinfs.boot.values import dataclass, field
from rpinfs.errors import RpinfsError
from rpinfs.image import fstab
from rpinfs.image.fstab import Line


@dataclass
class Imported:
    """A configuration made from an fstab.

    Attributes:
        config: text of the configuration, without comments.
        replaced: lines that it replaces, to be commented out.
        remarks: what a person should know, each with the line that it is about.
    """

    config: str = ""
    replaced: list[Line] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    remarked: set[int] = field(default_factory=set)

    def remark(self, line: Line, text: str) -> None:
        """Note something about a line."""
        self.remarks.append(f"line {line.number}: {text}")
        self.remarked.add(line.number)


def render(made: Imported, path: str) -> str:
    """Write out an imported configuration with what is to be done about the fstab, as comments."""
    comments = [f"Made by rpinfs config import-fstab from {path}.", ""]
    comments.append(f"Comment out in {path} what this replaces; as long as a line stands there, it wins:")
    comments += [f"  line {line.number}: {line.text}" for line in made.replaced]
    if made.remarks:
        comments += ["", "Remarks:"]
        for remark in made.remarks:
            comments += textwrap.wrap(
                remark,
                110,
                initial_indent="  ",
                subsequent_indent="    ",
                break_long_words=False,
                break_on_hyphens=False,
            )
    return "".join(f"# {comment}".rstrip() + "\n" for comment in comments) + "\n" + made.config


def section(header: str, values: list[tuple[str, str]]) -> str:
    """Write a section; settings without a value are left to their default."""
    return "".join([f"[{header}]\n", *(f"{key}={value}\n" for key, value in values if value)])


def boot_section(boot: Line | None, options: list[str]) -> str:
    """The section of the boot files."""
    if boot is None:
        # The default would mount what was not mounted before.
        return "[Boot]\nExport=\n"
    return section(
        "Boot",
        [
            ("Export", fstab.source(boot).export),
            ("Where", boot.where),
            ("Options", ",".join(["ro", *options]) if options else ""),
        ],
    )


def insist_that_it_loads(made: Imported) -> None:
    """Read the configuration back. Raises RpinfsError: it says something that no configuration may."""
    # A machine of its own: the kernel command line and the files of this one have their say only when it is used.
    _, errors = examine(Host(config_files=[("the imported configuration", made.config)], serial="0"))
    if errors:
        error = errors[0]
        lines = ", ".join(str(line.number) for line in made.replaced)
        reason = error.message.removeprefix(f"{error.file}:{error.line}: ")
        raise RpinfsError(f"lines {lines} cannot be said in a configuration: {reason}", error.remedy)
