"""systemd's way to write a path as a unit name, and a value as unit file text.

Boot path: imports nothing. Source: systemd.unit(5), "String escaping for inclusion in unit names".
"""

_PLAIN = frozenset("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ:_.")


def escape_path(path: str) -> str:
    """Escape an absolute, normalised path as `systemd-escape -p` does: `/var/lib/docker` is `var-lib-docker`."""
    relative = path.strip("/")
    if not relative:
        return "-"
    escaped = []
    for position, byte in enumerate(relative.encode("utf-8", "surrogateescape")):
        character = chr(byte)
        if character == "/":
            escaped.append("-")
        elif character in _PLAIN and not (character == "." and position == 0):
            escaped.append(character)
        else:
            escaped.append(f"\\x{byte:02x}")
    return "".join(escaped)


def mount_unit(path: str) -> str:
    """Name of the mount unit for a mount point; systemd insists on just this name."""
    return escape_path(path) + ".mount"


def specifier(text: str) -> str:
    """Protect a value from systemd's `%` specifiers."""
    return text.replace("%", "%%")


def word(text: str) -> str:
    """Protect a value in a space-separated unit setting; paths hold no quotes (settings.py refuses them)."""
    protected = specifier(text)
    return f'"{protected}"' if " " in protected else protected
