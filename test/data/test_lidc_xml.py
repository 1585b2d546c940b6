import re
from pathlib import Path

import pytest
from data.lidc_files import box, marking, write_reading

from nodulemc.data.lidc_xml import MAX_POINTS, Marking, Outline, Reading, read_reading
from nodulemc.errors import FileError, TableError

MARKINGS = (
    marking(0, (-10, box(5, 6, 9, 9)), (-7.5, box(5, 6, 8, 9)), malignancy=5, calcification=6),
    marking(2, (-10, box(4, 6, 9, 9)), cut_out=[(-10, box(6, 7, 8, 8))], malignancy=2),
    marking(2, (20, box(14, 6, 19, 9))),
)


def write(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


def test_a_reading_comes_back_without_points_and_small_nodules(tmp_path: Path):
    path = write_reading(tmp_path / "069.xml", "1.2.3", MARKINGS)
    assert read_reading(path) == Reading("1.2.3", MARKINGS)
    bare = write(tmp_path / "bare.xml", path.read_text().replace(' xmlns="http://www.nih.gov"', ""))
    assert read_reading(bare) == Reading("1.2.3", MARKINGS)


def test_a_real_reading(shared_data: Path):
    reading = read_reading(shared_data / "lidc/scans/LIDC-IDRI-0003/072.xml")
    assert reading.series.endswith("170706757615202213033480003264")
    assert [one.reader for one in reading.markings] == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 4
    first = reading.markings[0]
    assert [outline.z for outline in first.outlines] == [-199, -196.5, -194, -191.5, -189, -186.5, -184]
    assert first.outlines[0].points[:3] == ((363, 338), (362, 339), (361, 340))
    assert (first.ratings["malignancy"], first.ratings["spiculation"], first.ratings["calcification"]) == (5, 2, 6)


def test_ratings_off_their_scale_are_none(tmp_path: Path):
    ratings = {"malignancy": 0, "calcification": 6, "internalStructure": 5, "texture": 6, "margin": 5}
    path = write_reading(tmp_path / "a.xml", "1.2", [marking(0, (1, box(5, 6, 9, 9)), **ratings)])
    assert read_reading(path).markings[0].ratings == {"calcification": 6, "margin": 5}
    path.write_text(re.sub("<characteristics>.*</characteristics>", "", path.read_text()))
    assert read_reading(path).markings[0].ratings == {}


def test_other_xml_is_no_reading(tmp_path: Path):
    assert read_reading(write(tmp_path / "cxr.xml", '<IdriReadMessage xmlns="http://www.nih.gov"/>')) is None
    assert read_reading(write(tmp_path / "other.xml", "<manifest/>")) is None
    none = write_reading(tmp_path / "none.xml", "1.2", [])
    assert read_reading(none) == Reading("1.2", ())


BOMB = '<!DOCTYPE l [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]><LidcReadMessage>&b;</LidcReadMessage>'
OUTSIDE = '<!DOCTYPE l SYSTEM "file:///etc/passwd"><LidcReadMessage/>'


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("</LidcReadMessage>", "", "cannot read the XML"),
        ("<SeriesInstanceUid>1.2.3</SeriesInstanceUid>", "", "no ResponseHeader/SeriesInstanceUid"),
        ("<imageZposition>-10.000000 ", "<imageZposition>nan", "imageZposition is None"),
        ("<inclusion>TRUE", "<inclusion>MAYBE", "inclusion 'MAYBE'"),
        ("<xCoord>5</xCoord>", "<xCoord>5.5</xCoord>", "xCoord is '5.5'"),
        ("<xCoord>5</xCoord>", "<xCoord>5000000</xCoord>", "xCoord is '5000000'"),
        ("<xCoord>5</xCoord>", "", "edgeMap has no xCoord"),
        ("<malignancy>5", "<malignancy>high", "malignancy is 'high'"),
        ('encoding="UTF-8"', 'encoding="none"', "cannot read the XML"),
        ('<?xml version="1.0" encoding="UTF-8"?>', OUTSIDE.removesuffix("<LidcReadMessage/>"), "a document type"),
    ],
)
def test_damaged_readings_are_refused(tmp_path: Path, old: str, new: str, message: str):
    path = write_reading(tmp_path / "069.xml", "1.2.3", MARKINGS)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(TableError, match=message) as caught:
        read_reading(path)
    assert str(path) in str(caught.value)


def test_hostile_xml_is_refused(tmp_path: Path):
    for content in (BOMB, OUTSIDE):
        with pytest.raises(TableError, match="declares a document type"):
            read_reading(write(tmp_path / "a.xml", content))
    long = Marking(0, (Outline(0.0, True, ((1, 1),) * (MAX_POINTS + 1)),), {})
    with pytest.raises(TableError, match=f"an outline of {MAX_POINTS + 1} points"):
        read_reading(write_reading(tmp_path / "long.xml", "1.2", [long]))
    with pytest.raises(FileError, match="cannot read the file"):
        read_reading(tmp_path / "absent.xml")
