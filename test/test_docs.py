"""What the documents show is what the programs do, and what they point to is there."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

import nodulemc
from nodulemc import cli

REPOSITORY = Path(__file__).parents[1]
PAGES = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md")])


def headings(page: Path) -> set[str]:
    """The anchors that GitHub and the site give a page's headings."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    found = re.findall(r"^#+ (.*)", prose, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", text.replace("`", "")).strip().lower().replace(" ", "-") for text in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    broken = []
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text(encoding="utf-8")):
        name, _, anchor = target.partition("#")
        there = page.parent / name if name else page
        if not there.exists() or (anchor and anchor not in headings(there)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_files_that_are_named_are_there(page):
    places = "nodulemc|test|benchmarks|scripts|configs"
    named = re.findall(rf"`((?:{places})/[\w/.]+\.\w+)`", page.read_text(encoding="utf-8"))
    assert [name for name in named if not (REPOSITORY / name).exists()] == []


@pytest.mark.heavy
def test_the_first_example_of_the_readme_prints_what_it_shows(monkeypatch, capsys):
    """But for where the ensemble is, and rounding that differs from CPU to CPU."""
    (shown,) = re.findall(r"```console\n\$ (.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
    command, *expected = shown.splitlines()
    monkeypatch.chdir(REPOSITORY)
    assert cli.main(shlex.split(command)[1:]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == len(expected)
    assert (printed[0], printed[-1]) == (expected[0], expected[-1])
    assert printed[-2].split("resources")[1] == expected[-2].split("resources")[1]
    for row, truth in zip(printed[1:-2], expected[1:-2], strict=True):
        for word, expected_word in zip(row.split(), truth.split(), strict=True):
            decimals = len(expected_word.partition(".")[2])
            if word != expected_word:
                assert float(word) == pytest.approx(float(expected_word), abs={4: 0.005, 1: 0.11}[decimals])


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == nodulemc.__version__
