"""The syntax: systemd.syntax(7) files and the kernel command line, read to assignments.

Boot path: imports nothing but its neighbours. Pure: texts in, assignments and errors out.
"""

from rpinfs.boot.host import COMMAND_LINE, words
from rpinfs.boot.settings import SECTIONS, SETTINGS
from rpinfs.errors import ConfigError

LONGEST_QUOTE = 200
"""Characters. What a message quotes of a value."""
NO_COMMENT = 'expected a value without " #" and " ;": comments stand on lines of their own'
_NAME_CHARACTERS = frozenset("0123456789abcdefghijklmnopqrstuvwxyz_-")


class Assignment:
    """One `Key=value` and where it stands."""

    __slots__ = ("section", "name", "key", "text", "file", "line")

    def __init__(self, section: str, name: str, key: str, text: str, file: str, line: int) -> None:
        self.section = section
        self.name = name
        self.key = key
        self.text = text
        self.file = file
        self.line = line

    @property
    def origin(self) -> str:
        """Where the value comes from: `FILE:LINE`, the kernel command line, or default."""
        return f"{self.file}:{self.line}" if self.line else self.file

    def error(self, rule: str) -> ConfigError:
        """Make the error for this value."""
        what = f"{header(self.section, self.name)} {self.key}={quoted(self.text)}"
        return ConfigError(self.file, self.line, what, rule)


# Files


def parse_lines(file: str, text: str) -> "tuple[list[Assignment], list[tuple[str, int]], list[ConfigError]]":
    """Parse one file: assignments, the images that its headers name with their lines, and the errors."""
    assignments: list[Assignment] = []
    images: list[tuple[str, int]] = []
    errors: list[ConfigError] = []
    section = name = ""
    skip = False
    for line, content in _logical_lines(text):
        if any("\ud800" <= character <= "\udfff" or character == "\0" for character in content):
            errors.append(ConfigError(file, line, quoted(content), "expected UTF-8 text"))
            skip = skip or content.startswith("[")
        elif content.startswith("["):
            try:
                section, name = _parse_header(content)
                skip = False
            except ValueError as error:
                errors.append(ConfigError(file, line, quoted(content), str(error)))
                # What stands below a header that is wrong would only repeat the complaint.
                skip = True
                continue
            if section == "Image":
                images.append((name, line))
        elif skip:
            continue
        else:
            key, equals, value = content.partition("=")
            assignment = Assignment(section, name, key.strip(), value.strip(), file, line)
            if not equals:
                rule = "expected Key=value, a [Section] or a comment (# or ;)"
                errors.append(ConfigError(file, line, quoted(content), rule))
            elif not section:
                rule = "expected a [Section] before the first Key=value"
                errors.append(ConfigError(file, line, quoted(content), rule))
                skip = True
            elif wrong := _unknown_key(section, assignment.key) or (has_comment(value) and NO_COMMENT):
                errors.append(assignment.error(wrong))
            else:
                assignments.append(assignment)
    return assignments, images, errors


def has_comment(value: str) -> bool:
    """Whether somebody wrote a comment behind a value, where systemd.syntax(7) has none.

    It became a part of the value: `File=docker.img # the old one` would have had another image made.
    """
    return any(blank + mark in value for blank in " \t" for mark in "#;")


def _logical_lines(text: str) -> "list[tuple[int, str]]":
    """Join continued lines (a backslash at the end; comments in between are skipped), with the first line's number."""
    logical: list[tuple[int, str]] = []
    pending = ""
    start = 0
    for number, raw in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        line = raw.strip(" \t\r")
        if line[:1] in ("#", ";") or (not line and not start):
            continue
        if not start:
            start = number
        if line.endswith("\\"):
            pending += line[:-1] + " "
            continue
        logical.append((start, (pending + line).strip()))
        pending, start = "", 0
    if start:
        logical.append((start, pending.strip()))
    return [(number, line) for number, line in logical if line]


def _parse_header(content: str) -> "tuple[str, str]":
    if not content.endswith("]"):
        raise ValueError("expected a closing ]")
    section, _, name = content[1:-1].strip().partition(" ")
    name = name.strip()
    if section not in SECTIONS:
        from rpinfs.boot.suggest import suggestion

        raise ValueError("unknown section" + suggestion(section, SECTIONS, "[{}]"))
    if section == "Image":
        _check_image_name(name)
    elif name:
        raise ValueError(f"expected [{section}] without a name")
    return section, name


def _unknown_key(section: str, key: str) -> str:
    known = [(setting.section, setting.key) for setting in SETTINGS]
    if (section, key) in known:
        return ""
    from rpinfs.boot.suggest import unknown_key

    return unknown_key(section, key, known)


def _check_image_name(name: str) -> None:
    if not name:
        raise ValueError("expected a name, such as [Image docker]")
    if not set(name) <= _NAME_CHARACTERS or name[0] in "-_" or len(name) > 32:
        raise ValueError(
            "expected a name of at most 32 lower-case letters, digits, - and _, which begins with a letter or digit"
        )


# The kernel command line


def parse_command_line(cmdline: str) -> "tuple[list[Assignment], list[ConfigError]]":
    """Take `rpinfs.SECTION.KEY=VALUE` and `rpinfs.image.NAME.KEY=VALUE` from a kernel command line."""
    assignments: list[Assignment] = []
    errors: list[ConfigError] = []
    for word, value in words(cmdline):
        try:
            if word == "rpinfs":
                if value.lower() not in ("off", "no", "false", "0", "on", "yes", "true", "1"):
                    raise ValueError("expected on or off")
            elif word.startswith("rpinfs."):
                section, name, key = _command_line_key(word)
                if has_comment(value):
                    raise ValueError(NO_COMMENT)
                assignments.append(Assignment(section, name, key, value.strip(), COMMAND_LINE, 0))
        except ValueError as error:
            errors.append(ConfigError(COMMAND_LINE, 0, f"{word}={value}", str(error)))
    return assignments, errors


def _command_line_key(word: str) -> "tuple[str, str, str]":
    parts = word.split(".")[1:]
    section = next((section for section in SECTIONS if section.lower() == parts[0]), "")
    if not section:
        from rpinfs.boot.suggest import suggestion

        raise ValueError("unknown section" + suggestion(parts[0], [s.lower() for s in SECTIONS], "rpinfs.{}"))
    expected = 3 if section == "Image" else 2
    if len(parts) != expected:
        form = f"rpinfs.{parts[0]}.KEY=VALUE" if expected == 2 else "rpinfs.image.NAME.KEY=VALUE"
        raise ValueError("expected " + form)
    if section == "Image":
        _check_image_name(parts[1])
    keys = [setting.key for setting in SETTINGS if setting.section == section]
    for key in keys:
        if key.lower() == parts[-1]:
            return section, parts[1] if expected == 3 else "", key
    from rpinfs.boot.suggest import suggestion

    raise ValueError("unknown key" + suggestion(parts[-1], [key.lower() for key in keys], "{}="))


# What messages quote


def quoted(text: str) -> str:
    """Quote a text in a message: without what a terminal would act on, and not so long that the rule gets lost."""
    shown = "".join(c if c.isprintable() else "?" for c in text)
    return shown if len(shown) <= LONGEST_QUOTE else shown[: LONGEST_QUOTE - 3] + "..."


def header(section: str, name: str) -> str:
    """Write the header of a section."""
    return f"[{section} {name}]" if name else f"[{section}]"
