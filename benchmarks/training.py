"""The speed of training, and whether reading and augmentation keep up with the network.

The script prints training samples per second, the share of time spent waiting for data, the rate of the network alone
on images that are already on the device, the ratio of the two rates, the rates of reading and of resampling alone, and
peak memory. Run it on an idle machine:

    python benchmarks/training.py configs/nodulemc.yaml --store blocks

Without --store it makes blocks of a usual size (0.7 mm pixels, 1.25 mm slices) in a temporary folder. With
ACCELERATE_DYNAMO_BACKEND=INDUCTOR in the environment the step is compiled, as in training.
"""

import argparse
import itertools
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from measure import record
from torch.utils.data import DataLoader

from nodulemc.data.block_store import BLOCK_MM, BlockStore, BlockWriter, NoduleBlock
from nodulemc.models.upscaled_stem import PatchNetwork
from nodulemc.training.config import ModelConfig, TrainingConfig, read_config
from nodulemc.training.dataset import PREFETCHED, BalancedBatchSampler, Batch, NoduleDataset, make_loader
from nodulemc.training.devices import create_accelerator
from nodulemc.training.step import TrainingStep, freeze_parts
from nodulemc.training.trainer import TrainingData, create_network

Result = TypeVar("Result")

SEED = 2000
SPACING_MM = np.array([0.7, 0.7, 1.25])


def main() -> None:
    """Parse the command line and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, metavar="CONFIG.yaml")
    parser.add_argument("--store", type=Path, help="block store (default: random blocks)")
    parser.add_argument("--blocks", type=int, default=256, help="how many random blocks (default: 256)")
    parser.add_argument("--steps", type=int, default=30, help="steps to time (default: 30)")
    parser.add_argument("--warmup", type=int, default=5, help="steps before (default: 5)")
    args = parser.parse_args()
    config = read_config(args.config)
    with tempfile.TemporaryDirectory() as temporary:
        if args.store is None:
            args.store = Path(temporary)
            write_random_blocks(args.store, args.blocks)
        report(config, measure(config, BlockStore(args.store), args.warmup, args.steps))


def write_random_blocks(folder: Path, count: int) -> None:
    """Write blocks of noise, a tenth of them malignant."""
    random = np.random.default_rng(0)
    shape = np.ceil(BLOCK_MM / SPACING_MM).astype(int)[::-1]
    matrix = np.diag(SPACING_MM)
    point = matrix @ ((shape[::-1] - 1) / 2)
    box = (np.full(3, -np.inf), np.full(3, np.inf))
    with BlockWriter(folder) as writer:
        for k in range(count):
            row = {"PatientID": str(k), "SeriesInstanceUID": str(k), "AnnotationID": str(k), "label": int(k % 10 == 0)}
            row |= dict(zip(("CoordX", "CoordY", "CoordZ"), point.tolist(), strict=True))
            voxels = random.integers(-1000, 400, shape, np.int16)
            writer.add(NoduleBlock(voxels, (voxels > 0).astype(np.uint8), np.zeros(3), matrix, point, box, row))


@dataclass(frozen=True)
class Figures:
    """The cost of one recipe on a device.

    Attributes:
        training, network, reading, resampling: Samples per second, of training and of its parts alone.
        waiting: The share of training's time spent waiting for data.
        start: The seconds of the first step, including compilation but not waiting for data.
        compiler: The step's compiler, "no" for none.
        gpu_memory: The peak in bytes. None without a GPU.
    """

    training: float
    network: float
    reading: float
    resampling: float
    waiting: float
    start: float
    compiler: str
    gpu_memory: int | None


def measure(
    config: TrainingConfig,
    store: BlockStore,
    warmup: int,
    steps: int,
    create: Callable[[ModelConfig, int], PatchNetwork] = create_network,
) -> Figures:
    """Time training, and the network, reading and resampling alone.

    Args:
        config: The recipe.
        store: The blocks.
        warmup: The number of steps before the clock runs, at least 1.
        steps: The number of steps to time.
        create: Builds the network.
    """
    accelerator = create_accelerator(config.run.precision)
    torch.manual_seed(SEED)
    # Random weights are as fast as the recipe's own.
    model = replace(config.model, kinetics=None, start_from=None)
    undecided = any(row["label"] is None for row in store.table)
    network = create(model, SEED)
    freeze_parts(network.network, model.frozen)
    step = TrainingStep(network, config, accelerator, undecided=undecided)
    step.prepare_to_train()
    rate, samples = config.optimizer.learning_rate, steps * config.run.batch_size
    # One epoch for everything below, because the queue runs dry between two epochs.
    read_ahead = PREFETCHED * config.run.workers
    batches = iter(make_batches(config, store, accelerator, warmup + 2 * steps + read_ahead))

    def train() -> tuple[float, tuple[torch.Tensor, ...]]:
        start = time.perf_counter()
        raw = next(batches)
        waited = time.perf_counter() - start
        batch = raw.to(accelerator.device)
        inputs = (*batch.resample(), batch.labels, rate, batch.ratings)
        # As in training, which reads each step's loss.
        step(*inputs).tolist()
        return waited, inputs

    def read() -> Batch:
        # Reading a value waits for the device.
        batch = next(batches).to(accelerator.device)
        batch.labels.tolist()
        return batch

    first, (waited, inputs) = timed(train)
    for _ in range(warmup - 1):
        train()
    training_s, waits = timed(lambda: [train()[0] for _ in range(steps)])
    network_s, _ = timed(lambda: [step(*inputs).tolist() for _ in range(steps)])
    # Samples read while the network worked would make reading look faster than it is.
    for _ in itertools.islice(batches, read_ahead):
        pass
    reading_s, (*_, batch) = timed(lambda: [read() for _ in range(steps)])
    resampling_s, _ = timed(lambda: [batch.resample()[1].sum().item() for _ in range(steps)])
    device = accelerator.device
    return Figures(
        training=samples / training_s,
        network=samples / network_s,
        reading=samples / reading_s,
        resampling=samples / resampling_s,
        waiting=sum(waits) / training_s,
        start=first - waited,
        compiler=accelerator.state.dynamo_plugin.backend.value.lower(),
        gpu_memory=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
    )


def timed(work: Callable[[], Result]) -> tuple[float, Result]:
    """Return the seconds that some work takes, and its result."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def report(config: TrainingConfig, figures: Figures) -> None:
    """Print and keep the figures."""
    accelerator = create_accelerator(config.run.precision)
    device, size = accelerator.device, config.run.batch_size
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    rows = {
        "device": f"{name}, {accelerator.mixed_precision} mixed precision",
        "compiled by": figures.compiler,
        "network": f"{config.model.backbone}, decoder {list(config.model.decoder_widths)}, batch {size}",
        "training": f"{figures.training:.2f} samples/s ({size / figures.training:.3f} s per step)",
        "waiting for data": f"{100 * figures.waiting:.1f} % of the time",
        "network alone": f"{figures.network:.2f} samples/s ({size / figures.network:.3f} s per step)",
        "training / network alone": f"{100 * figures.training / figures.network:.1f} %",
        "reading alone": f"{figures.reading:.0f} samples/s, reading processes: {config.run.workers}",
        "resampling alone": f"{figures.resampling:.0f} samples/s",
    }
    if figures.gpu_memory is not None:
        rows["peak GPU memory"] = f"{figures.gpu_memory / 2**30:.2f} GiB"
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    rows["peak memory"] = f"{resident / 2**30:.2f} GiB, without the {config.run.workers} reading processes"
    for label, value in rows.items():
        print(f"{label:26}{value}")
    record(f"training_{device.type}", rows)


def make_batches(config: TrainingConfig, store: BlockStore, accelerator: Accelerator, steps: int) -> DataLoader:
    """Return the loader of training, over all blocks."""
    labels = [row["label"] for row in store.table]
    data = TrainingData(store, labels, range(len(store)), ())
    targets, ratings = data.targets(soft=config.run.soft_labels), data.ratings(config.model.attributes)
    dataset = NoduleDataset(store, targets, config.augmentation, SEED, ratings)
    size = config.run.batch_size
    draws = BalancedBatchSampler(range(len(store)), labels, batch_size=size, samples=steps * size, seed=SEED)
    return make_loader(dataset, draws, workers=config.run.workers, pin_memory=accelerator.device.type == "cuda")


if __name__ == "__main__":
    main()
