from nodulemc.util.words import counted, plural


def test_one_is_no_plural():
    assert [counted(number, "scan") for number in (0, 1, 2, 1000)] == ["0 scans", "1 scan", "2 scans", "1000 scans"]
    assert plural("line", 1) == "line"
