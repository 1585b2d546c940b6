import xml.etree.ElementTree as ET

import pytest

from nodulemc.evaluation.svg import Chart


def drawn(chart):
    """The chart's elements."""
    return ET.fromstring(str(chart.render()))  # noqa: S314, what was just made


@pytest.fixture
def chart():
    """A box of 100 x 50 units whose lower left corner is at (10, 60)."""
    return Chart("t", size=(120, 80), x=(-1, 1), y=(0, 100), margins=(10, 10, 10, 20))


def test_a_line_and_an_area_go_through_the_points(chart):
    chart.line([(-1, 0), (0, 50), (1, 100)], "roc")
    chart.area([(-0.5, 10), (0.5, 10)], "band")
    line, area = drawn(chart)
    assert (line.tag, line.get("class"), line.get("points")) == ("polyline", "roc", "10,60 60,35 110,10")
    assert (area.tag, area.get("class"), area.get("points")) == ("polygon", "band", "35,55 85,55")


def test_a_bar_covers_its_ranges_whichever_way_they_run(chart):
    for heights in ((20, 80), (80, 20)):
        chart.bar((-1, 0), heights, "count", "3 nodules")
    for bar in drawn(chart):
        assert [float(bar.get(name)) for name in ("x", "y", "width", "height")] == [10, 20, 50, 30]
        assert [child.text for child in bar] == ["3 nodules"]


def test_a_dot_and_its_label_stand_at_the_point(chart):
    chart.dot(0.5, 100, "point", "here")
    chart.label(0.5, 100, "0.95", dx=3, dy=-2, anchor="end")
    dot, label = drawn(chart)
    assert (dot.get("cx"), dot.get("cy")) == ("85", "10")
    assert (label.get("x"), label.get("y"), label.get("text-anchor"), label.text) == ("88", "8", "end", "0.95")


def test_ticks_stand_at_their_values(chart):
    chart.axes("x name", "y name", x_ticks=(-1, 0.5), y_ticks=(0, 25))
    elements = list(drawn(chart))
    grid = [element for element in elements if element.get("class") == "grid"]
    assert [(line.get("x1"), line.get("y1")) for line in grid] == [
        ("10", "10"),
        ("85", "10"),
        ("10", "60"),
        ("10", "47.5"),
    ]
    texts = [element.text for element in elements if element.tag == "text"]
    assert texts == ["-1", "0.5", "0", "25", "x name", "y name"]


def test_text_is_escaped_and_the_title_is_read_out(chart):
    named = Chart("a < b & c")
    named.dot(0, 0, "x", "<script>")
    root = drawn(named)
    assert root.get("aria-label") == "a < b & c"
    assert root[0][0].text == "<script>"
    assert "<script>" not in str(named.render())
