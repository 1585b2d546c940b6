"""The agreement of probabilities with observed frequencies, in ten equal-width bins.

Source of the expected calibration error: Naeini, Cooper & Hauskrecht, AAAI 2015.
"""

from dataclasses import dataclass

import numpy as np

from nodulemc.arrays import Array

BINS = 10


@dataclass(frozen=True)
class Reliability:
    """The bins of B weighted samples.

    Attributes:
        count: (B, BINS), the number of nodules in each bin.
        predicted: (B, BINS), their mean probability, NaN in an empty bin.
        observed: (B, BINS), their malignant share, NaN in an empty bin.
    """

    count: Array
    predicted: Array
    observed: Array

    def expected_calibration_error(self) -> Array:
        """Return the mean distance between ``predicted`` and ``observed``, bins weighted by their nodules: (B,)."""
        distance = np.nan_to_num(np.abs(self.predicted - self.observed))
        error: Array = (self.count * distance).sum(axis=1) / self.count.sum(axis=1)
        return error


def reliability(labels: Array, probabilities: Array, weights: Array) -> Reliability:
    """Bin labels int (n,) and probabilities (n,) for each sample of ``weights`` (B, n).

    A probability on a bin's lower edge is in that bin. 1 is in the last bin.
    """
    bin_of = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    member = (bin_of[:, None] == np.arange(BINS)).astype(np.float64)
    count = weights @ member
    filled = np.where(count > 0, count, np.nan)
    return Reliability(
        count=count,
        predicted=weights @ (member * probabilities[:, None]) / filled,
        observed=weights @ (member * labels[:, None]) / filled,
    )
