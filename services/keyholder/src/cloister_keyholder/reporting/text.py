"""Values as text. Names and numbers may come from a service that is not trusted."""

from datetime import UTC, datetime

LONGEST = 400
"""Characters of one text."""
LARGEST = 10**15
"""Above which a count is no measurement, and of a number of any length."""


def shown(text: str, longest: int = LONGEST) -> str:
    """Return text on one line that cannot turn what stands around it, and is not too long."""
    plain = "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}"
        for character in text[: longest + 1]
    )
    return plain if len(plain) <= longest else f"{plain[: longest - 1]}…"


def moment(when: datetime | None) -> str:
    """Return a time to the minute; one without a zone is taken for UTC."""
    if when is None:
        return "-"
    try:
        when = when.astimezone(UTC) if when.tzinfo else when
    except OverflowError:
        return "-"
    return f"{when.isoformat(sep=' ', timespec='minutes')[:16]} UTC"


def number(value: float | None, form: str = ".4g") -> str:
    """Return a number, or a dash where there is none."""
    return "-" if value is None else format(value, form)


def count(value: int | None) -> str:
    """Return a whole number with its thousands apart, or a dash."""
    if value is None:
        return "-"
    return f"{value:,}" if value <= LARGEST else "over 10^15"


def yes_no(value: bool) -> str:
    """Return a word for it."""
    return "yes" if value else "no"
