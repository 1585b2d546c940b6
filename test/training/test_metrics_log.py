import csv

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nodulemc.training.metrics_log import CSV_NAME, MetricsLog


def test_rows_and_steps_are_written_and_a_resumed_run_replaces_what_was_cut_short(tmp_path):
    log = MetricsLog(tmp_path, 0)
    rows = [{"epoch": 1, "train_loss": 0.9}, {"epoch": 2, "train_loss": 0.8}]
    for step in range(3):
        log.step(step, {"loss": float(step)})
    log.epoch(1, rows[:1])
    log.close()
    log = MetricsLog(tmp_path, 2)
    for step in range(2, 4):
        log.step(step, {"loss": 10.0 + step})
    log.epoch(3, rows)
    log.close()
    with (tmp_path / CSV_NAME).open() as file:
        assert list(csv.DictReader(file)) == [{k: str(v) for k, v in row.items()} for row in rows]
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("step/loss")] == [(0, 0.0), (1, 1.0), (2, 12.0), (3, 13.0)]
    epochs = [(e.step, e.value) for e in events.Scalars("epoch/train_loss")]
    assert epochs == [(1, pytest.approx(0.9)), (3, pytest.approx(0.8))]
