import io

from nodulemc.progress import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_items_pass_through_with_ten_plain_lines():
    log = io.StringIO()
    assert list(progress(range(50), 50, "scans", log)) == list(range(50))
    lines = log.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("scans: 5/50")
    assert lines[-1].startswith("scans: 50/50")
    assert "\r" not in log.getvalue()


def test_terminal_gets_one_line():
    log = Terminal()
    list(progress(iter("abc"), 3, "scans", log))
    assert log.getvalue().count("\n") == 1
    assert "3/3" in log.getvalue()


def test_nothing_to_do():
    log = io.StringIO()
    assert list(progress([], 0, "scans", log)) == []
    assert log.getvalue() == ""
