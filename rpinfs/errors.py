"""Errors of our own: a message, and where one is known a remedy. They become text in one place, the command line.

Boot path: imports nothing.
"""


class RpinfsError(Exception):
    """Something a person should read.

    Args:
        message: one line that says what was expected and what was found.
        remedy: one line that says what to do, where that is known.
        status: exit status of a command that ends so.
    """

    def __init__(self, message: str, remedy: "str | None" = None, status: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.status = status


class ConfigError(RpinfsError):
    """One wrong thing in the configuration; the message reads `FILE:LINE: WHAT: RULE`. Exit status 2.

    Args:
        file: the configuration file, or the words for another origin.
        line: line number from 1, or 0 where the origin has no lines.
        what: the section, key and value, or the text at fault.
        rule: the rule that it breaks.
    """

    def __init__(self, file: str, line: int, what: str, rule: str, remedy: "str | None" = None) -> None:
        place = f"{file}:{line}" if line else file
        super().__init__(": ".join(part for part in (place, what, rule) if part), remedy, status=2)
        self.file = file
        self.line = line
        self.what = what
        self.rule = rule

    def __reduce__(self) -> "tuple[object, ...]":
        # So that it comes whole out of a child process, see probe.py.
        return ConfigError, (self.file, self.line, self.what, self.rule, self.remedy)
