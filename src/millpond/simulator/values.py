"""How single values are spelt in options. What cannot be read is a BadValue that says why."""


class BadValue(ValueError):
    """The message names the fault and the accepted form; the option is named by who catches it."""


def number(text: str, what: str) -> float:
    """A number of at least 0."""
    try:
        value = float(text)
    except ValueError:
        raise BadValue(f"{what} is {text!r}, which is not a number") from None
    if not 0 <= value < float("inf"):
        raise BadValue(f"{what} is {text!r}; it must be 0 or more")
    return value


def whole(text: str, what: str) -> int:
    """A whole number of at least 0."""
    if not (text.isascii() and text.isdigit()):
        raise BadValue(f"{what} is {text!r}, which is not a whole number of 0 or more")
    return int(text)


def quota(text: str) -> int | None:
    """`500000`, or `none`: as many characters as anyone likes."""
    return None if text == "none" else whole(text, "the quota (characters, or none)")
