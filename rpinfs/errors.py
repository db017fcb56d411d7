"""Errors of our own: a message, and where one is known a remedy. They become text in one place, the command line.

Boot path: imports nothing.
"""


def printable(text: str) -> str:
    """Make one line of a text, without what a terminal, the journal or sd_notify(3) would act on, such as ESC.

    Names, labels and records on the share are written by whoever can write there; so is what programs say of them.
    Bytes of names that are no UTF-8 stay surrogates: who writes them out escapes them.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or "\ud800" <= c <= "\udfff" else " " for c in text)


_PLAIN = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./-_"


def quoted(*words: str) -> str:
    """Words for a command that people paste into a shell, as shlex.quote() has it, which the boot path cannot afford.

    Names of files are made by whoever can write to the share, and names of mount units have backslashes.
    """
    return " ".join(
        word if word and not word.strip(_PLAIN) else "'" + word.replace("'", "'\"'\"'") + "'" for word in words
    )


def reason_of(error: Exception) -> str:
    """What went wrong, without a path. Not every OSError is of a system call: a socket's time-out has a text alone."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


class RpinfsError(Exception):
    """Something a person should read. Message and remedy are made printable: they may quote what the share says.

    Args:
        message: one line that says what was expected and what was found.
        remedy: one line that says what to do, where that is known.
        status: exit status of a command that ends so.
    """

    def __init__(self, message: str, remedy: "str | None" = None, status: int = 1) -> None:
        self.message = printable(message)
        self.remedy = remedy and printable(remedy)
        self.status = status
        super().__init__(self.message)


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
        # So that it comes whole out of a child process, see system/deadline.py.
        return ConfigError, (self.file, self.line, self.what, self.rule, self.remedy)
