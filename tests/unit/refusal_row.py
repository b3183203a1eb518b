"""A row of the tables of refusals: one change to one policy file, and what is said of it where."""

from __future__ import annotations

from dataclasses import dataclass

from bus.errors import PolicyError


@dataclass(frozen=True)
class Row:
    """One change and its refusal: where, what is said, and the nearest known name."""

    name: str
    old: str
    new: str
    at: tuple[int, int]
    message: str
    nearest: str = ""
    file: str = "mesh.yaml"

    @property
    def text(self) -> str:
        """The refusal as it is printed."""
        line, column = self.at
        return f"{self.file}:{line}:{column}: {self.message}"

    def check_place(self, error: PolicyError) -> None:
        """Place, nearest name and hint of a file that was parsed and refused."""
        assert (error.file, error.line, error.column, error.nearest) == (self.file, *self.at, self.nearest)
        assert error.hint == (f"did you mean {self.nearest}?" if self.nearest else "")
        assert error.parsed
