"""Patient-level bootstrap: patients are drawn with replacement, each with all of their nodules.

Nodules of one patient are not independent, so resampling nodules makes intervals too narrow. A resample is a whole
number of copies of each patient, and a statistic is computed from these multiplicities, without copying rows.
"""

from collections.abc import Callable, Iterator

import numpy as np

from nodulemc.arrays import Array
from nodulemc.util.progress import QUIET_S, progress
from nodulemc.util.text import counted

# The number of resamples handled at a time, so that memory stays bounded for any number of them.
_AT_ONCE = 100
_TAILS = (2.5, 97.5)


class PatientBootstrap:
    """The same resamples for every statistic, so that differences between statistics are paired.

    Attributes:
        size: The number of resamples.
        patients: The number of patients that are drawn from.
    """

    def __init__(self, patients: Array, size: int, seed: int = 0) -> None:
        """Draw the resamples.

        Args:
            patients: int (n,), the patient of each nodule, 0…number of patients − 1.
            size: The number of resamples.
            seed: The seed of the random numbers.
        """
        self.size = size
        self.patients = int(patients.max()) + 1
        self._patient_of = patients
        random = np.random.default_rng(seed)
        self._copies = np.empty((size, self.patients), np.int16)
        for copies in self._copies:
            copies[:] = np.bincount(random.integers(self.patients, size=self.patients), minlength=self.patients)

    def weights(self, nodules: Array | None = None) -> Iterator[Array]:
        """Yield how often each nodule is in each resample.

        Args:
            nodules: The positions of the wanted nodules (default: all n).

        Yields:
            int64 (some resamples, nodules), until all resamples are given.
        """
        patient_of = self._patient_of if nodules is None else self._patient_of[nodules]
        starts = range(0, self.size, _AT_ONCE)
        for start in progress(starts, len(starts), f"bootstrap, {counted(len(patient_of), 'nodule')}", quiet_s=QUIET_S):
            yield self._copies[start : start + _AT_ONCE, patient_of].astype(np.int64)

    def apply(self, statistic: Callable[[Array], Array], nodules: Array | None = None) -> Array:
        """Return ``statistic`` of every resample.

        It maps weights (B, nodules) to (B, …). The results are joined along B.
        """
        return np.concatenate([statistic(weights) for weights in self.weights(nodules)])


def interval95(values: Array) -> list[float] | None:
    """Return the percentile interval of resampled values (B,).

    NaN marks a resample in which the statistic does not exist (a single class). Such resamples are left out.

    Returns:
        The 2.5th and 97.5th percentile. None if the statistic exists in less than half of the resamples.
    """
    existing = values[~np.isnan(values)]
    if 2 * len(existing) < len(values) or not len(existing):
        return None
    interval: list[float] = np.percentile(existing, _TAILS).tolist()
    return interval
