"""Tables as lines of text for a terminal: made to fit its width, and never broken within a cell."""

import io
import re
import shutil
import sys
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genexp.tables import Table

LEAST = 16  # characters to which words are shortened before columns are left out
BETWEEN = 2  # spaces between columns
NOTES = 120  # the longest lines of notes, which are hard to read if they are longer
ELSEWHERE = 100  # characters of a line of notes that goes to no terminal


def terminal_width() -> int | None:
    """Return the width of the terminal that is printed to; None for a pipe or a file, where lines have no end."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


@dataclass
class Fitted:
    """A column as it is shown: its cells, and how wide they may be."""

    title: str
    head: list[str]  # lines of the title
    cells: list[str]
    left: bool  # aligned to the left
    cut: str  # the end at which a cell may be shortened, "start" or "end"; "" if it may not
    stays: bool  # it is not left out
    width: int

    @property
    def least(self) -> int:
        """The width down to which the column may be shortened."""
        return min(self.width, max(LEAST, *map(_length, self.head))) if self.cut else self.width


def lines_of(table: "Table", width: int | None) -> list[str]:
    """Return the lines of a table of numbers and names, at most `width` wide if that can be.

    Paths and other names become short ones, words are shortened, and then columns are left out, each from the last to
    the first; empty columns are left out before others. A line below the table says which are left out.
    """
    columns = _columns(table, brief=False)
    if width is not None and _total(columns) > width:
        columns = _columns(table, brief=True)
        while _total(columns, least=True) > width and (last := _first_to_go(columns)) is not None:
            del columns[last]
        for column in reversed(columns):
            column.width = max(column.least, column.width - max(0, _total(columns) - width))
    height = max(len(column.head) for column in columns)
    heads = [[*[""] * (height - len(column.head)), *column.head] for column in columns]
    lines = ["", *(_line(columns, cells) for cells in zip(*heads, strict=True)), " " + "─" * (_total(columns) - 1)]
    lines += [_line(columns, cells) for cells in zip(*(column.cells for column in columns), strict=True)]
    shown = [column.title for column in columns]
    left_out = [title for title in table.header() if title not in shown]
    lines += wrapped(f"not shown in {width} columns: {', '.join(left_out)}", width) if left_out else []
    return [*lines, ""]


def prose_of(table: "Table", width: int | None) -> list[str]:
    """Return the lines of a table of words, which are wrapped in their cells."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    rich_table = RichTable(box=box.SIMPLE, padding=(0, 1, 0, 0))
    for title in table.header():
        rich_table.add_column(title)
    for cells in table.cells():
        rich_table.add_row(*map(Text, cells), end_section=True)
    stream = io.StringIO()
    Console(file=stream, width=ELSEWHERE if width is None else min(width, NOTES)).print(rich_table)
    return stream.getvalue().splitlines()


def wrapped(text: str, width: int | None) -> list[str]:
    """Return a note in lines. They are broken between words only: a path or a command is copied whole."""
    longest = ELSEWHERE if width is None else min(width, NOTES)
    return textwrap.wrap(text, longest, break_long_words=False, break_on_hyphens=False) or [""]


def _columns(table: "Table", brief: bool) -> list[Fitted]:
    columns = []
    for index, (column, cells) in enumerate(zip(table.columns, table.columns_of_cells(brief), strict=True)):
        head = re.sub(r" \((\w+-)(\w+)\)$", r"\n\1\n\2", column.title).split("\n")  # fid (classifier-0123abcd)
        width = max(map(_length, [*head, *cells]))
        stays = not index or column.brief is not None
        columns.append(Fitted(column.title, head, cells, table.is_left(index), column.cut, stays, width))
    return columns


def _total(columns: list[Fitted], least: bool = False) -> int:
    """Return the width of a line of the columns, as they are or shortened as far as may be."""
    return 1 - BETWEEN + sum((column.least if least else column.width) + BETWEEN for column in columns)


def _first_to_go(columns: list[Fitted]) -> int | None:
    """Return the index of the column that is left out next; None if all have to stay."""
    going = [index for index, column in enumerate(columns) if not column.stays]
    empty = [index for index in going if not any(columns[index].cells)]
    return max(empty or going, default=None)


def _line(columns: list[Fitted], cells: tuple[str, ...]) -> str:
    parts = []
    for column, cell in zip(columns, cells, strict=True):
        text = _shortened(cell, column)
        space = " " * (column.width - _length(text))
        parts.append(text + space if column.left else space + text)
    return (" " + (" " * BETWEEN).join(parts)).rstrip()


def _shortened(cell: str, column: Fitted) -> str:
    """Return the cell, with … for what does not fit."""
    if _length(cell) <= column.width:
        return cell
    while cell and _length(cell) >= column.width:
        cell = cell[1:] if column.cut == "start" else cell[:-1]
    return f"…{cell}" if column.cut == "start" else f"{cell}…"


def _length(text: str) -> int:
    """Return how many places the text takes in a terminal."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)
