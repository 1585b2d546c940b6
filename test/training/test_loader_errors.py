import pytest
from training.toy_store import UnreadableStore

from nodulemc.errors import ResourceError, TableError
from nodulemc.training.dataset import NoduleDataset, SequentialBatchSampler, make_loader
from nodulemc.training.loader_errors import reading_error


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("block", "kind", "message"),
    [
        (0, TableError, "the file holds 7 of 9 bytes: store: voxels: copy it again"),
        (1, ResourceError, "a process that reads samples has died: run.workers 1: see the messages above; "),
    ],
)
def test_an_error_in_a_reading_process_is_the_users_own(block, kind, message):
    dataset = NoduleDataset(UnreadableStore(2), [0, 1], None, seed=1)
    loader = make_loader(dataset, SequentialBatchSampler([block], batch_size=1), workers=1, pin_memory=False)
    with pytest.raises(RuntimeError) as caught:
        next(iter(loader))
    error = reading_error(caught.value, 1)
    assert type(error) is kind
    assert str(error).startswith(message)


def test_other_errors_are_none():
    assert reading_error(RuntimeError("Caught ZeroDivisionError in DataLoader worker process 0."), 1) is None
