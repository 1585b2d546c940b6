"""A run's metrics: one row per epoch in a CSV file, every step in TensorBoard."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from nodulemc.util.files import write_atomically

CSV_NAME = "metrics.csv"


class MetricsLog:
    """Writes a run's metrics into its folder."""

    def __init__(self, folder: Path, first_step: int) -> None:
        """Continue from ``first_step``. TensorBoard's values from there on belong to a run that was cut short."""
        self._csv = folder / CSV_NAME
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step)

    def step(self, step: int, values: dict[str, float]) -> None:
        """Add one training step's values to TensorBoard."""
        for name, value in values.items():
            self._board.add_scalar(f"step/{name}", value, step)

    def epoch(self, step: int, history: Sequence[dict[str, float]]) -> None:
        """Write all epochs' rows to the CSV file, and the last one to TensorBoard.

        Raises:
            FileError: the file cannot be written.
        """
        for name, value in history[-1].items():
            self._board.add_scalar(f"epoch/{name}", value, step)
        self._board.flush()
        text = io.StringIO()
        writer = csv.DictWriter(text, list(history[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
        write_atomically(self._csv, text.getvalue().encode())

    def close(self) -> None:
        """Finish the TensorBoard file."""
        self._board.close()
