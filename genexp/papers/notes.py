"""Notes below a paper's tables: marks, sources, and what the numbers mean."""

from dataclasses import dataclass, field

THEIS = (
    "Theis, van den Oord and Bethge (2016) showed that such estimates say little about likelihood or look: centroids "
    "of k-means score above images of the data themselves. A score above that of the training images means smoother "
    "samples, not better ones."
)
MARKS = {
    "*": "as recalled, not verified at the source",
    "°": "quoted by another source than its own",
    "†": "fewer epochs than the recipe",
    "‡": "scored with another number of samples, or other settings, than the rest of the column",
    "ᵐ": "samples are means of distributions, not draws from them; of published numbers it is marked where it is known",
}


@dataclass
class Footnotes:
    """The marks and sources that the cells of a table refer to."""

    marks: set[str] = field(default_factory=set)
    sources: dict[str, int] = field(default_factory=dict)

    def mark(self, marks: str) -> str:
        """Return the marks; each will be explained below the table."""
        self.marks |= set(marks)
        return marks

    def number(self, source: str) -> str:
        """Return the number of a source: [1]."""
        return f"[{self.sources.setdefault(source, len(self.sources) + 1)}]"

    def lines(self) -> list[str]:
        """Return a line for each mark."""
        return [f"{mark} {meaning}." for mark, meaning in MARKS.items() if mark in self.marks]


def minus(text: str) -> str:
    """Return a number with a minus sign in the place of the hyphen."""
    return text.replace("-", "−")
