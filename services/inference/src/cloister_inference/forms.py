"""In which forms a version's messages are exchanged."""

from dataclasses import dataclass
from enum import StrEnum


class Form(StrEnum):
    """How an input or a result is written."""

    CONCRETE = "concrete"
    """As Concrete serialises it."""
    COMPACT = "compact"
    """Rounded and packed."""


@dataclass(frozen=True)
class Forms:
    """The forms of an input and of its result."""

    input: Form = Form.CONCRETE
    output: Form = Form.CONCRETE

    @property
    def are_concretes(self) -> bool:
        """Whether Concrete reads the one and writes the other."""
        return self.input == self.output == Form.CONCRETE
