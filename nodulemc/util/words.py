"""Numbers of things, in words."""


def plural(noun: str, number: int) -> str:
    """The noun as it stands behind a number: "scan" behind 1, "scans" behind any other."""
    return noun if number == 1 else f"{noun}s"


def counted(number: int, noun: str) -> str:
    """So many things: "1 scan", "2 scans"."""
    return f"{number} {plural(noun, number)}"
