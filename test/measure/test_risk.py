"""Risk models against independent statements of them: other forms of the equations, published odds ratios, tables."""

import math

import pytest

from nodulemc.measure.risk import MODELS, assess

PATIENT = {
    "age": 62, "gender": "male", "family_history": False, "emphysema": False, "nodule_count": 4,
    "smoking_status": "never", "cancer_history": False,
}  # fmt: skip
NODULE = {
    "type": "solid", "upper_lobe": False, "spiculation": False, "long_axis_mm": 4.0, "short_axis_mm": 4.0,
    "solid_long_axis_mm": 4.0, "solid_short_axis_mm": 4.0,
}  # fmt: skip
KNOWN = PATIENT | NODULE


def probability(model, **changes):
    return assess(KNOWN | changes)[model]["probability"]


def log_odds(model, **changes):
    p = probability(model, **changes)
    return math.log(p / (1 - p))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"age": 71, "gender": "female", "long_axis_mm": 12.0, "spiculation": True, "upper_lobe": True},
        {"type": "part-solid", "long_axis_mm": 8.5, "family_history": True, "emphysema": True, "nodule_count": 1},
        {"type": "ground-glass", "long_axis_mm": 25.0, "age": 50, "nodule_count": 9},
    ],
)
def test_brock_is_the_equation_with_an_intercept_of_its_own(changes):
    """Uncentred, as Eur Radiol 2019;29:5367, table 2 (PMC6717521), writes the full model."""
    v = KNOWN | changes
    expected = (
        0.2761 + 0.0287 * v["age"] + 0.6011 * (v["gender"] == "female") + 0.2961 * v["family_history"]
        + 0.2953 * v["emphysema"] + 0.6581 * v["upper_lobe"] + 0.7729 * v["spiculation"] - 0.0824 * v["nodule_count"]
        + {"solid": 0, "part-solid": 0.377, "ground-glass": -0.1276}[v["type"]]
        - 5.3854 * (v["long_axis_mm"] / 10) ** -0.5
    )  # fmt: skip
    assert log_odds("brock_full", **changes) == pytest.approx(expected, abs=1e-3)


def test_brock_of_a_small_nodule_by_hand():
    # Reference patient, 4 mm: every term is 0. 1 / (1 + e^6.7892) and 1 / (1 + e^6.6144).
    assert probability("brock_full") == pytest.approx(0.001125, abs=1e-6)
    assert probability("brock_parsimonious") == pytest.approx(0.001339, abs=1e-6)
    # A woman of 62, 10 mm, spiculated, upper lobe, one nodule: −6.7892 + 0.6011 + 3.1297 + 0.6581 + 0.2472 + 0.7729.
    changes = {"gender": "female", "long_axis_mm": 10.0, "upper_lobe": True, "spiculation": True, "nodule_count": 1}
    assert log_odds("brock_full", **changes) == pytest.approx(-1.3802, abs=1e-3)
    # −6.6144 + 0.6467 + 3.2275 + 0.6009 + 0.9309
    assert log_odds("brock_parsimonious", **changes) == pytest.approx(-1.2084, abs=1e-3)


@pytest.mark.parametrize(
    ("model", "change", "ratio"),
    [
        ("brock_full", {"gender": "female"}, 1.82),
        ("brock_full", {"family_history": True}, 1.34),
        ("brock_full", {"emphysema": True}, 1.34),
        ("brock_full", {"age": 63}, 1.03),
        ("brock_full", {"type": "part-solid"}, 1.46),
        ("brock_full", {"type": "ground-glass"}, 0.88),
        ("brock_full", {"upper_lobe": True}, 1.93),
        ("brock_full", {"nodule_count": 5}, 0.92),
        ("brock_full", {"spiculation": True}, 2.17),
        ("brock_parsimonious", {"gender": "female"}, 1.91),
        ("brock_parsimonious", {"upper_lobe": True}, 1.82),
        ("brock_parsimonious", {"spiculation": True}, 2.54),
        ("mayo", {"age": 63}, 1.04),
        ("mayo", {"smoking_status": "former"}, 2.2),
        ("mayo", {"smoking_status": "current"}, 2.2),
        ("mayo", {"cancer_history": True}, 3.8),
        ("mayo", {"long_axis_mm": 5.0}, 1.14),
        ("mayo", {"spiculation": True}, 2.8),
        ("mayo", {"upper_lobe": True}, 2.2),
    ],
)
def test_odds_ratios_are_those_of_the_papers(model, change, ratio):
    found = math.exp(log_odds(model, **change) - log_odds(model))
    assert found == pytest.approx(ratio, abs=0.5 * 10 ** -len(str(ratio).split(".")[1]))


def test_mayo_and_herder_by_hand():
    """A smoker of 70 with a spiculated nodule of 15 mm in an upper lobe."""
    changes = {"age": 70, "smoking_status": "current", "long_axis_mm": 15.0, "spiculation": True, "upper_lobe": True}
    # −6.8272 + 2.737 + 0.7917 + 1.911 + 1.0407 + 0.7838 = 0.437
    assert probability("mayo", **changes) == pytest.approx(0.60754, abs=1e-4)
    # −4.739 + 3.691 · 0.60754 = −2.49657, and 0, 2.322, 4.617, 4.771
    for uptake, expected in (("none", 0.0761), ("faint", 0.4565), ("moderate", 0.8929), ("intense", 0.9068)):
        assert probability("herder", **changes, fdg_uptake=uptake) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("type_", "axes", "solid", "category"),
    [
        ("solid", (5.9, 5.9), None, "2"), ("solid", (6.0, 6.0), None, "3"), ("solid", (7.0, 4.8), None, "2"),
        ("solid", (7.94, 7.94), None, "3"), ("solid", (8.0, 8.0), None, "4A"), ("solid", (7.95, 7.95), None, "4A"),
        ("solid", (14.9, 14.9), None, "4A"), ("solid", (16.0, 14.0), None, "4B"),
        ("part-solid", (5.9, 5.9), (5.0, 5.0), "2"), ("part-solid", (6.0, 6.0), (0.0, 0.0), "3"),
        ("part-solid", (20.0, 20.0), (5.9, 5.9), "3"), ("part-solid", (20.0, 20.0), (6.0, 6.0), "4A"),
        ("part-solid", (20.0, 20.0), (7.9, 7.9), "4A"), ("part-solid", (20.0, 20.0), (8.0, 8.0), "4B"),
        ("ground-glass", (29.9, 29.9), None, "2"), ("ground-glass", (30.0, 30.0), None, "3"),
    ],
)  # fmt: skip
def test_lung_rads_size_categories_at_baseline(type_, axes, solid, category):
    names = ("long_axis_mm", "short_axis_mm", "solid_long_axis_mm", "solid_short_axis_mm")
    known = KNOWN | {"type": type_} | dict(zip(names, (*axes, *(solid or axes)), strict=True))
    assert assess(known)["lung_rads_size"] == {"category": category}


def test_what_is_missing_is_named_and_nothing_guessed():
    found = assess({"age": 60, "gender": "female", "emphysema": None, "long_axis_mm": 9.0, "type": "solid"})
    assert found == {
        "brock_full": {"missing": ["family_history", "emphysema", "upper_lobe", "nodule_count", "spiculation"]},
        "brock_parsimonious": {"missing": ["upper_lobe", "spiculation"]},
        "mayo": {"missing": ["smoking_status", "cancer_history", "spiculation", "upper_lobe"]},
        "herder": {"missing": ["smoking_status", "cancer_history", "spiculation", "upper_lobe", "fdg_uptake"]},
        "lung_rads_size": {"missing": ["short_axis_mm", "solid_long_axis_mm", "solid_short_axis_mm"]},
    }
    assert all(found["missing"] == list(MODELS[name].needs) for name, found in assess({}).items())


def test_a_mass_is_told():
    found = assess(KNOWN | {"long_axis_mm": 31.0, "fdg_uptake": "none"})
    assert all("mass" in found[name]["caution"] for name in ("brock_full", "brock_parsimonious", "mayo", "herder"))
    assert "caution" not in assess(KNOWN | {"long_axis_mm": 30.0})["mayo"]
