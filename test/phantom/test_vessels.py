"""The published law of the vessels' radii, and what makes branches a tree."""

import numpy as np
import pytest

from nodulemc.phantom.vessels import Tubes, _tree

ROOT = np.array([-38.0, 9.0, -10.0])
POINTS = np.random.default_rng(5).uniform((-120, -80, -90), (-20, 80, 100), (37, 3))
# Radii of pulmonary arteries fall with the number of terminals to the power 1/2.4. Source: Huang et al., J Appl Physiol
# 1996;81:2123-2133.
EXPONENT = 2.4


@pytest.fixture(scope="module")
def tree() -> Tubes:
    return _tree(ROOT, POINTS, np.random.default_rng(6))


def key(point: np.ndarray) -> tuple[float, ...]:
    return tuple(point.round(6).tolist())


def test_the_branches_are_one_tree_that_ends_in_the_points(tree):
    starts, ends = [[*map(key, side)] for side in (tree.start, tree.end)]
    assert len({*ends}) == len(ends)  # nothing is reached twice
    assert {*starts} - {*ends} == {key(ROOT)}  # everything but the root is reached
    assert {*ends} - {*starts} == {*map(key, POINTS)}


def test_radii_follow_the_published_law_at_every_fork(tree):
    starts = [*map(key, tree.start)]
    forks = 0
    for end, radius in zip(tree.end, tree.end_radius, strict=True):
        children = [k for k, start in enumerate(starts) if start == key(end)]
        if len(children) < 2:  # a bend, or an end
            continue
        forks += 1
        # A child's own radius is that at its far end, which lies behind its bend.
        far = [tree.end_radius[starts.index(key(tree.end[child]))] for child in children]
        assert (np.array(far) ** EXPONENT).sum() == pytest.approx(radius**EXPONENT)
    assert forks == len(POINTS) - 1  # as in any tree of forks in two


def test_every_end_is_a_terminal_of_0_45_mm_and_no_branch_widens(tree):
    terminal = [k for k, end in enumerate(tree.end) if key(end) in {*map(key, POINTS)}]
    assert tree.end_radius[terminal] == pytest.approx(0.45)
    assert (tree.end_radius <= tree.start_radius + 1e-12).all()
