import pytest

from nodulemc.cohort.names import file_names


def test_a_json_file_is_called_as_its_ct():
    assert file_names(["ct/1.2.3.mha", "a/series", "b.nii.gz"], ".json") == {
        "ct/1.2.3.mha": "1.2.3.json", "a/series": "series.json", "b.nii.gz": "b.json"
    }  # fmt: skip


@pytest.mark.parametrize(
    "scans",
    [
        ["a/b_c/ct.mha", "a_b/c/ct.mha"],
        ["a/ct.mha", "b/ct.nii"],
        ["a/CT.mha", "b/ct.mha"],
        ["x" * 300 + ".mha", "x" * 301 + ".mha"],
        ["é" * 200, "é" * 201],
    ],
)
def test_each_scan_has_a_file_of_its_own(scans):
    names = file_names(scans, ".json").values()
    assert len({name.casefold() for name in names}) == len(scans)
    assert max(len(name.encode()) for name in names) < 200
    # A scan that is called as another's file.
    more = [*scans, *(f"c/{name.removesuffix('.json')}.mha" for name in names)]
    assert len(set(file_names(more, ".json").values())) == len(more)


def test_a_file_keeps_its_name_while_its_scan_is_listed():
    first, *_ = file_names(["a/ct.mha", "b/ct.mha"], ".json").values()
    assert file_names(["c/ct.mha", "a/ct.mha"], ".json")["a/ct.mha"] == first
