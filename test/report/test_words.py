from types import SimpleNamespace

import pytest
from data.lidc_files import import_pylidc

from nodulemc.ratings import ATTRIBUTES, HIGHEST, LOWEST
from nodulemc.report.words import UNKNOWN, meaning, ratings, risks

# pylidc's words for what the page says more briefly.
SHORTER = {
    "No Spiculation": "none", "Marked Spiculation": "marked", "No Lobulation": "none", "Marked Lobulation": "marked",
    "Non-Solid/GGO": "ground glass",
}  # fmt: skip


@pytest.mark.heavy
def test_the_ends_of_the_scales_mean_what_pylidc_says(monkeypatch):
    pylidc, _ = import_pylidc(monkeypatch)

    def said(name: str, number: int) -> str:
        word = getattr(pylidc.Annotation, name.title()).fget(SimpleNamespace(**{name: number}))
        return f"{number} {SHORTER.get(word, word.lower())}"

    found = ratings(ATTRIBUTES, tuple(2.25 + k for k in range(len(ATTRIBUTES))))
    assert [fact.note for fact in found] == [f"{said(n, LOWEST)}, {said(n, HIGHEST[n])}" for n in ATTRIBUTES]
    for name in ATTRIBUTES:
        with pytest.raises(AssertionError, match="out of bounds"):
            said(name, HIGHEST[name] + 1)


def test_a_risk_is_a_number_a_category_or_what_it_lacks():
    found = {
        "brock": {"probability": 0.12345, "caution": "for others"},
        "lung_rads": {"category": "4A"},
        "herder": {"missing": ["fdg_uptake", "diameter_mm"]},
    }
    assert risks(found) == [
        ("Brock", "0.123", "for others"),
        ("Lung-RADS", "4A", ""),
        ("Herder", UNKNOWN, "missing: fdg uptake, diameter"),
    ]


def test_a_calibrated_probability_is_a_number_of_a_thousand_nodules():
    manifest = SimpleNamespace(trained_on="LUNA25", calibration_map={"prevalence": 0.0125})
    said = meaning(manifest, 0.0374)
    assert "Where 1.25 % of all nodules are malignant" in said
    assert "about 37 of 1,000 nodules" in said
    assert "of 1,000" not in meaning(manifest, None)
    assert "means nothing" in meaning(SimpleNamespace(trained_on=None), None)
