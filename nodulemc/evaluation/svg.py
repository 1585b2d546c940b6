"""Small line charts as inline SVG: a frame with axes, and marks in data units. The page's CSS sets the colours."""

from collections.abc import Sequence

from markupsafe import Markup

Points = Sequence[tuple[float, float]]


class Chart:
    """A chart that scales with the page.

    Args:
        title: The chart's title, which screen readers read out.
        size: The width and height in SVG units. Text is 12 units high.
        x: The range of the horizontal axis in data units.
        y: The range of the vertical axis in data units.
        margins: The left, right, top and bottom margins, in SVG units.
    """

    def __init__(
        self,
        title: str,
        *,
        size: tuple[float, float] = (420, 380),
        x: tuple[float, float] = (0, 1),
        y: tuple[float, float] = (0, 1),
        margins: tuple[float, float, float, float] = (52, 14, 12, 46),
    ) -> None:
        self._title = title
        self._size = size
        self._x, self._y = x, y
        left, right, top, bottom = margins
        self._box = (left, top, size[0] - right, size[1] - bottom)
        self._marks: list[Markup] = []

    def axes(self, x_label: str, y_label: str, x_ticks: Sequence[float] = (), y_ticks: Sequence[float] = ()) -> None:
        """Draw grid lines, tick labels and axis names."""
        left, top, right, bottom = self._box
        for tick in x_ticks:
            x = self._at_x(tick)
            self._add('<line class="grid" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>', _n(x), _n(top), _n(bottom))
            self._text("tick", x, bottom + 17, f"{tick:g}", "middle")
        for tick in y_ticks:
            y = self._at_y(tick)
            self._add('<line class="grid" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/>', _n(left), _n(right), _n(y))
            self._text("tick", left - 7, y + 4, f"{tick:g}", "end")
        self._text("axis", (left + right) / 2, bottom + 37, x_label, "middle")
        self._add(
            '<text class="axis" transform="translate(13 {}) rotate(-90)" text-anchor="middle">{}</text>',
            _n((top + bottom) / 2), y_label,
        )  # fmt: skip

    def line(self, points: Points, style: str) -> None:
        """Draw a line through points."""
        self._add('<polyline class="{}" points="{}"/>', style, self._path(points))

    def area(self, points: Points, style: str) -> None:
        """Draw a filled outline."""
        self._add('<polygon class="{}" points="{}"/>', style, self._path(points))

    def bar(self, x: tuple[float, float], y: tuple[float, float], style: str, note: str) -> None:
        """Draw a rectangle between two x and two y. ``note`` shows under the pointer."""
        left, right = self._at_x(x[0]), self._at_x(x[1])
        top, bottom = self._at_y(max(y)), self._at_y(min(y))
        self._add(
            '<rect class="{}" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>',
            style, _n(left), _n(top), _n(right - left), _n(bottom - top), note,
        )  # fmt: skip

    def dot(self, x: float, y: float, style: str, note: str) -> None:
        """Draw a round mark. ``note`` shows under the pointer."""
        self._add(
            '<circle class="{}" cx="{}" cy="{}" r="4.5"><title>{}</title></circle>',
            style, _n(self._at_x(x)), _n(self._at_y(y)), note,
        )  # fmt: skip

    def label(self, x: float, y: float, text: str, *, dx: float = 0, dy: float = 0, anchor: str = "start") -> None:
        """Write text beside a point, moved by SVG units."""
        self._text("label", self._at_x(x) + dx, self._at_y(y) + dy, text, anchor)

    def render(self) -> Markup:
        """Return the chart as an ``svg`` element."""
        return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
            _n(self._size[0]), _n(self._size[1]), self._title, Markup("").join(self._marks)
        )

    def _text(self, style: str, x: float, y: float, text: str, anchor: str) -> None:
        self._add('<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>', style, _n(x), _n(y), anchor, text)

    def _add(self, template: str, *values: str) -> None:
        # Templates are this module's own; the values are escaped by Markup.format.
        self._marks.append(Markup(template).format(*values))  # noqa: S704

    def _at_x(self, value: float) -> float:
        left, _, right, _ = self._box
        return left + (value - self._x[0]) / (self._x[1] - self._x[0]) * (right - left)

    def _at_y(self, value: float) -> float:
        _, top, _, bottom = self._box
        return bottom - (value - self._y[0]) / (self._y[1] - self._y[0]) * (bottom - top)

    def _path(self, points: Points) -> str:
        return " ".join(f"{_n(self._at_x(x))},{_n(self._at_y(y))}" for x, y in points)


def _n(value: float) -> str:
    """Return a coordinate to a tenth of a unit."""
    return f"{value:.1f}".removesuffix(".0")
