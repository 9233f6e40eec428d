"""One self-contained page of HTML: pictures and charts are in it, and it needs no network and no server.

Charts are matplotlib's SVG: it is small, it prints, its text is text, and it is legible without JavaScript, as the
whole page is. A short script moves the sliders, and sorts and filters tables. Jinja escapes whatever is shown.
"""

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from genexp.figures.canvas import LEAST_WIDTH
from genexp.rundirs.names import pictures_by_epoch
from genexp.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

THUMBNAIL = 140  # pixels
INK = {"#000000": "currentColor", "#ebebeb": "var(--rule)", "#999999": "var(--faint)", "#666666": "var(--faint)"}


@dataclass(frozen=True)
class Frame:
    """A picture, and what it shows."""

    label: str
    source: str  # a data: address
    small: bool = False  # True if it is enlarged on the page: its pixels then stay sharp


@dataclass(frozen=True)
class Film:
    """Pictures of one kind, by epoch, of which one is seen at a time."""

    title: str
    frames: list[Frame]
    caption: str = ""


@dataclass(frozen=True)
class Cell:
    """A cell of a table, and the value by which its column is sorted."""

    text: str
    order: str | float = ""
    picture: str = ""
    link: str = ""


@dataclass(frozen=True)
class Grid:
    """A table. One that `sorts` can be sorted by each column, and filtered by words."""

    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    left: Sequence[bool]
    sorts: bool = False


@dataclass(frozen=True)
class Section:
    """A part of a page; what is empty is left out."""

    title: str
    facts: Sequence[tuple[str, str]] = ()  # a name, and what it is
    grids: Sequence[Grid] = ()
    charts: Sequence[tuple[str, str]] = ()  # the alternative text of an SVG image, and the image
    films: Sequence[Film] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Page:
    title: str
    subtitle: str
    sections: list[Section] = field(default_factory=list)
    command: str = ""  # that repeats what the page shows

    def html(self) -> str:
        """Return the page. No string in it is taken for HTML, but for the charts."""
        return _rendered("page.html", page=self)


def fragment(section: Section) -> str:
    """Return a section as HTML to be shown inside another page, such as a notebook."""
    return _rendered("section.html", section=section)


def _rendered(template: str, **shown: Page | Section) -> str:
    from jinja2 import Environment, FileSystemLoader

    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template(template).render(**shown)


def svg(figure: "Figure", cropped: bool = False) -> str:
    """Return a matplotlib figure as SVG that takes the colours of text and lines from the page around it.

    With `cropped` it is as large as what is drawn, for figures that were laid out elsewhere.
    """
    from matplotlib import rc_context

    stream = io.StringIO()
    if (layout := figure.get_layout_engine()) is not None:
        layout.execute(figure)  # once: savefig would do it twice, and it takes longer than all the rest
        figure.set_layout_engine("none")
    with rc_context({"svg.hashsalt": "genexp", "svg.fonttype": "none"}):
        edges = "tight" if cropped else None
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None}, bbox_inches=edges)
    text = stream.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    for ink, instead in INK.items():
        text = text.replace(f": {ink}", f": {instead}")
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', 'role="img"', text, count=1)


def data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def film(folder: Path, title: str, caption: str = "", most: int = 1) -> Film | None:
    """Return the pictures of a folder by epoch, `most` of them, evenly spaced, the last one among them."""
    found = pictures_by_epoch(folder)
    count = min(most, len(found))
    chosen = [found[len(found) - 1 - round(k * (len(found) - 1) / max(count - 1, 1))] for k in range(count)][::-1]
    frames = []
    for epoch, stage, file in chosen:
        of_stage = f", {stage.replace('_', ' ')}" if stage else ""
        png = file.read_bytes()
        small = int.from_bytes(png[16:20], "big") < LEAST_WIDTH  # the width; those of earlier versions are smaller
        frames.append(Frame(f"epoch {epoch}{of_stage}", data_uri(png), small))
    return Film(title, frames, caption) if frames else None


def thumbnail(folder: Path) -> str:
    """Return the newest picture of a folder, made small, as an address; nothing if there is none."""
    from PIL import Image

    found = pictures_by_epoch(folder)
    if not found:
        return ""
    with Image.open(found[-1].file) as picture:
        side = min(picture.size)
        small = picture.convert("RGB").crop((0, 0, side, side)).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    stream = io.BytesIO()
    small.quantize(64).save(stream, format="PNG", optimize=True)
    return data_uri(stream.getvalue())


def grid_of(table: Table) -> Grid:
    """Return a table of the terminal as one of the page."""
    left = [table.is_left(index) for index in range(len(table.columns))]
    rows = [[Cell(text) for text in row] for row in table.cells()]
    return Grid(table.header(), rows, left)
