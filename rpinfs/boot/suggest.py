"""What an unknown word was meant to be. Imported where there is one: at a boot whose configuration is right, never."""


def unknown_key(section: str, key: str, known: "list[tuple[str, str]]") -> str:
    """Tell what is wrong with a key that a section does not have; `known` are all sections with their keys."""
    for other, name in known:
        if name == key:
            return f"unknown key in this section; {key}= belongs to [{other}]"
    return "unknown key" + suggestion(key, [name for other, name in known if other == section], "{}=")


def suggestion(word: str, known: "tuple[str, ...] | list[str]", form: str) -> str:
    """Name the known word that is nearest, or all of them; `form` is how messages write one, such as `[{}]`."""
    nearest = min(known, key=lambda candidate: distance(word.lower(), candidate.lower()))
    if distance(word.lower(), nearest.lower()) <= max(2, len(word) // 3):
        return "; did you mean " + form.format(nearest) + "?"
    return "; known are " + ", ".join(form.format(candidate) for candidate in known)


def distance(left: str, right: str) -> int:
    """Levenshtein's distance between two words."""
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        previous, row[0] = row[0], i
        for j, b in enumerate(right, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (a != b))
    return row[-1]
