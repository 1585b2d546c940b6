"""Training one seed: epochs, the moving average, validation, checkpoints."""

import hashlib
import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor

from nodulemc.arrays import Array
from nodulemc.data.block_store import BlockStore
from nodulemc.errors import ConfigError, ResourceError, TableError, TrainingError, out_of_memory
from nodulemc.models.checkpoints import fill
from nodulemc.models.kinetics import fetch_kinetics, load_kinetics
from nodulemc.models.multitask import create_model
from nodulemc.models.tensor_shapes import ATTRIBUTE_HEAD
from nodulemc.models.upscaled_stem import PatchNetwork, absorb_upscaling
from nodulemc.patch import SIZE
from nodulemc.ratings import MALIGNANCY, READERS, normalised_rating
from nodulemc.training.config import KINETICS_DOWNLOAD, KINETICS_PACKAGE, ModelConfig, TrainingConfig
from nodulemc.training.dataset import (
    BalancedBatchSampler,
    Batch,
    NoduleDataset,
    SampleRef,
    SequentialBatchSampler,
    make_loader,
)
from nodulemc.training.fitting import fit_heads, measure_batch_norm
from nodulemc.training.loader_errors import reading_error
from nodulemc.training.metrics_log import MetricsLog
from nodulemc.training.run_state import (
    Checkpoint,
    load_checkpoint,
    random_state,
    restore_random_state,
    save_checkpoint,
)
from nodulemc.training.step import TrainingStep, freeze_batch_norm, freeze_parts
from nodulemc.training.validation import validate
from nodulemc.training.warm_start import start_tensors
from nodulemc.util.files import make_folder
from nodulemc.util.locks import holding
from nodulemc.util.progress import QUIET_S, progress

CHECKPOINT_NAME = "checkpoint.pt"
# The losses of a step, in its order.
_LOSSES = ("loss", "cross_entropy", "dice_loss", "attribute_loss")
# So many samples gave the figures in docs/training.md.
_MEASURED_SAMPLES = 320
CACHE = Path.home() / ".cache" / "nodulemc"


@dataclass(frozen=True)
class TrainingData:
    """The data of a training run.

    Attributes:
        store: The nodules' blocks.
        labels: The label of every block, in the store's order. None if undecided.
        train: The numbers of the blocks to train on.
        validation: The numbers of the blocks to validate on. If it is empty, there is no validation.
    """

    store: BlockStore
    labels: Sequence[int | None]
    train: Sequence[int]
    validation: Sequence[int]

    def ratings(self, names: Sequence[str]) -> Array:
        """Return the readers' mean ratings of every block, with their scales mapped to 0…1.

        Returns:
            float32 (blocks, names), NaN if unknown.

        Raises:
            TableError: no block to train on has one of these ratings.
        """
        if not names:
            return np.empty((len(self.labels), 0), np.float32)
        ratings = [[normalised_rating(row, name) for name in names] for row in self.store.table]
        found = np.array(ratings, np.float32)
        unknown = np.isnan(found[list(self.train)]).all(axis=0)
        if unknown.any():
            raise TableError(
                f"no sample to train on has a rating of {names[int(unknown.argmax())]}",
                self.store.folder,
                f"prepare a table with this column and {READERS}, or leave it out of the recipe",
            )
        return found

    def targets(self, *, soft: bool) -> Array:
        """Return the target of each block's class, 0…1 (blocks,).

        The target is the block's label, NaN if undecided. With soft labels it is the mean malignancy rating, if that is
        known.
        """
        labels = np.array(self.labels, float)
        if not soft:
            return labels
        rating = self.ratings((MALIGNANCY,))[:, 0]
        return np.where(np.isnan(rating), labels, rating)

    def fingerprint(self, rated: Sequence[str] = ()) -> str:
        """Return a text that changes with the blocks' labels, their ratings of these names, and their division."""
        labels = [None if label is None else int(label) for label in self.labels]
        text = repr((labels, [int(k) for k in self.train], [int(k) for k in self.validation]))
        if rated:
            text += repr(self.ratings(rated).tolist())
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class TrainedSeed:
    """A finished run.

    Attributes:
        seed: The run's seed.
        state_dict: The tensors of the averaged multi-task network, with the decoder, on the CPU.
        history: One row of metrics per epoch. Without validation samples there are no validation metrics.
    """

    seed: int
    state_dict: dict[str, Tensor]
    history: list[dict[str, float]]


def create_network(config: ModelConfig, seed: int) -> PatchNetwork:
    """Return the network to train, with Kinetics-400 or an ensemble's weights if the recipe names them.

    Raises:
        EnsembleError: the weight file cannot be fetched or used, or the ensemble lacks the seed, its decoder or the
            recipe's architecture.
    """
    network = create_model(config.architecture, with_decoder=True)
    if config.kinetics is not None:
        path: str | Path = config.kinetics
        if path in (KINETICS_DOWNLOAD, KINETICS_PACKAGE):
            path = fetch_kinetics(config.backbone, CACHE, package=path == KINETICS_PACKAGE)
        load_kinetics(network, config.backbone, path)
        if config.freezes_batch_norm:
            freeze_batch_norm(network.backbone)
        freeze_parts(network, config.frozen)
    elif config.start_from is not None:
        tensors = start_tensors(config, seed)
        new = {k: value for k, value in network.state_dict().items() if k.startswith(ATTRIBUTE_HEAD)}
        fill(network, new | tensors)
        freeze_parts(network, config.frozen)
    absorb_upscaling(network)
    return PatchNetwork(network)


def train_seed(
    config: TrainingConfig,
    data: TrainingData,
    folder: Path,
    seed: int,
    accelerator: Accelerator,
    *,
    resume: bool,
    create: Callable[[ModelConfig, int], PatchNetwork] = create_network,
) -> TrainedSeed:
    """Train one seed, or finish its training, with a checkpoint after each epoch.

    Args:
        config: The recipe.
        data: The blocks and their division.
        folder: The folder for the checkpoint and the metrics. It is made if it does not exist.
        seed: The seed of all random numbers.
        accelerator: The device, processes and precision.
        resume: Whether to continue from the folder's checkpoint, if there is one.
        create: Builds the network that maps patches to both tasks' logits, from the recipe's section and the seed.

    Raises:
        FileError: the folder cannot be written.
        ConfigError: the folder holds a run already and ``resume`` is false, another run is at work in it, its
            checkpoint is unreadable or of another recipe, seed or data, or the processes cannot share the batch evenly.
        ResourceError: the device's memory is too small for a process's share of the batch, or a process that reads
            samples has died.
        TrainingError: the loss became NaN or infinite.
    """
    if not resume:
        require_no_run(folder)
    make_folder(folder)
    path = folder / CHECKPOINT_NAME
    # The main process holds the lock for all.
    with holding(path.with_suffix(".lock")) if accelerator.is_main_process else nullcontext(True) as alone:
        if not alone:
            raise ConfigError("another run is training this seed", folder, "wait for it, or give another --output")
        run = _SeedTrainer(config, data, folder, seed, accelerator, create)
        if path.exists():
            run.restore(load_checkpoint(path))
        try:
            run.train()
        except RuntimeError as error:
            reading = reading_error(error, config.run.workers)
            if reading is not None:
                raise reading from error
            if not out_of_memory(error):
                raise
            raise ResourceError(
                f"too little memory for {config.run.batch_size // accelerator.num_processes} samples at a time",
                str(accelerator.device),
                "share the batch among more GPUs with accelerate launch, or set a smaller run.batch_size",
            ) from error
    return TrainedSeed(seed, run.averaged_weights(), run.history)


def require_no_run(folder: Path) -> None:
    """Raise ConfigError if a folder holds a seed's training run."""
    path = folder / CHECKPOINT_NAME
    if path.exists():
        raise ConfigError("a training run is there already", path, "add --resume, or give another --output")


class _SeedTrainer:
    """One seed's training in progress."""

    def __init__(
        self,
        config: TrainingConfig,
        data: TrainingData,
        folder: Path,
        seed: int,
        accelerator: Accelerator,
        create: Callable[[ModelConfig, int], PatchNetwork],
    ) -> None:
        self._config = config
        self._data = data
        self._folder = folder
        self._seed = seed
        self._accelerator = accelerator
        self.history: list[dict[str, float]] = []
        self._attributes = config.model.attributes
        self._rated = (*self._attributes, *((MALIGNANCY,) if config.run.soft_labels else ()))
        targets = data.targets(soft=config.run.soft_labels)
        set_seed(seed)
        undecided = bool(np.isnan(targets[list(data.train)]).any())
        network = create(config.model, seed)
        if config.run.head_copies:
            freeze_parts(network.network, ["classifier_head", *([ATTRIBUTE_HEAD] if self._attributes else [])])
        self._step = TrainingStep(network, config, accelerator, undecided=undecided)
        self._make_loaders(targets)
        self._steps = len(self._draws) * config.run.epochs

    def _make_loaders(self, targets: Array) -> None:
        run, data, accelerator = self._config.run, self._data, self._accelerator
        processes, process = accelerator.num_processes, accelerator.process_index
        if run.batch_size % processes:
            raise ConfigError(
                f"run.batch_size is {run.batch_size}", f"{processes} processes", "give a multiple of their number"
            )
        self._draws = BalancedBatchSampler(
            data.train,
            [data.labels[k] for k in data.train],
            batch_size=run.batch_size,
            samples=run.samples_per_epoch or len(data.train),
            seed=self._seed,
            process=process,
            processes=processes,
        )
        ordered = SequentialBatchSampler(
            data.validation, batch_size=run.batch_size // processes, process=process, processes=processes
        )
        self._loading = {"workers": run.workers, "pin_memory": accelerator.device.type == "cuda"}
        ratings = data.ratings(self._attributes)
        self._augmented = NoduleDataset(data.store, targets, self._config.augmentation, self._seed, ratings)
        plain = NoduleDataset(data.store, data.targets(soft=False), None, self._seed, ratings)
        self._train_loader = make_loader(self._augmented, self._draws, **self._loading)
        self._validation_loader = make_loader(plain, ordered, **self._loading)

    def restore(self, checkpoint: Checkpoint) -> None:
        self._check_same_run(checkpoint)
        accelerator = self._accelerator
        try:
            self._step.network.load_state_dict(checkpoint.network)
        except RuntimeError as error:  # a version whose network was another one, such as its attribute head
            path = self._folder / CHECKPOINT_NAME
            raise ConfigError("another version started the run", path, "delete it to train this seed anew") from error
        self._step.ema.network.load_state_dict(checkpoint.ema)
        self._step.ema.updates = checkpoint.ema_updates
        self._step.optimizer.load_state_dict(checkpoint.optimizer)
        if accelerator.scaler is not None and checkpoint.scaler is not None:
            accelerator.scaler.load_state_dict(checkpoint.scaler)
        self.history = checkpoint.history
        restore_random_state(checkpoint.random)

    def _check_same_run(self, checkpoint: Checkpoint) -> None:
        path = self._folder / CHECKPOINT_NAME
        remedy = "restore what it was started with, or give another --output"
        defaults = TrainingConfig().to_dict()
        for section, content in self._recipe().items():
            for key, value in content.items():
                # The version that started the run may have lacked some keys. Their defaults change nothing.
                before = checkpoint.recipe[section].get(key, defaults[section][key])
                if before != value:
                    what = f"the run was started with {section}.{key} {before!r}, now it is {value!r}"
                    raise ConfigError(what, path, remedy)
        if checkpoint.seed != self._seed:
            raise ConfigError(f"the run's seed is {checkpoint.seed}, not {self._seed}", path, remedy)
        if checkpoint.data != self._data.fingerprint(self._rated):
            raise ConfigError("the run was started with other samples or another split", path, remedy)

    def _recipe(self) -> dict[str, dict[str, object]]:
        """Return the config without the values that do not change the weights."""
        recipe = self._config.to_dict()
        del recipe["run"]["workers"], recipe["card"]
        return recipe

    def train(self) -> None:
        epochs_done = len(self.history)
        if epochs_done == self._config.run.epochs:
            return
        if not epochs_done and (self._config.model.measures_batch_norm or self._config.run.head_copies):
            self._prepare_backbone()
        log = None
        if self._accelerator.is_main_process:
            log = MetricsLog(self._folder, epochs_done * len(self._draws))
        # A stopped run closes it as well, or its thread would write on.
        with nullcontext() if log is None else closing(log):
            self._train_epochs(epochs_done, log)

    def _train_epochs(self, epochs_done: int, log: MetricsLog | None) -> None:
        for epoch in range(epochs_done, self._config.run.epochs):
            row = self._train_epoch(epoch, log)
            row |= self._validate(epoch, log)
            self.history.append({"epoch": epoch + 1, **row})
            self._accelerator.wait_for_everyone()
            if log is not None:
                log.epoch((epoch + 1) * len(self._draws) - 1, self.history)
                save_checkpoint(self._folder / CHECKPOINT_NAME, self._checkpoint())

    def _prepare_backbone(self) -> None:
        """Measure BatchNorm's statistics and fit the heads, if the recipe says so. Processes do all of the fit each."""
        config, network, accelerator = self._config, self._step.network, self._accelerator
        if config.model.measures_batch_norm:
            count = -(-_MEASURED_SAMPLES // config.run.batch_size)
            self._draws.epoch = config.run.epochs
            measure_batch_norm(network, (self._patches(batch) for batch in islice(self._train_loader, count)))
            for value in network.buffers():
                if value.is_floating_point():
                    value.copy_(accelerator.reduce(value.clone(), reduction="mean"))
        if config.run.head_copies:
            network.eval()
            fit_heads(network, *self._features_of_copies(network), config.run.head_penalty)
        self._step.ema.network.load_state_dict(network.state_dict())

    def _features_of_copies(self, network: PatchNetwork) -> tuple[Array, Array, Array]:
        """Return features (N, F), labels (N,) and ratings (N, A) of the copies that the heads are fitted to."""
        run = self._config.run
        # Epochs after the last one, whose transforms no training step sees.
        copies = [SampleRef(index, run.epochs + copy, place)
                  for copy in range(run.head_copies) for place, index in enumerate(self._data.train)]  # fmt: skip
        draws = [copies[k : k + run.batch_size] for k in range(0, len(copies), run.batch_size)]
        batches: Iterable[Batch] = make_loader(self._augmented, draws, **self._loading)
        if self._accelerator.is_main_process:
            batches = progress(batches, len(draws), f"seed {self._seed}, features", quiet_s=QUIET_S)
        parts = []
        with torch.inference_mode():
            for batch in batches:
                found = network.features(self._patches(batch)).float().cpu()
                parts.append((found.numpy(), batch.labels.numpy(), batch.ratings.numpy()))
        features, labels, ratings = (np.concatenate(part) for part in zip(*parts, strict=True))
        return features, labels, ratings

    def _patches(self, batch: Batch) -> Tensor:
        images, _ = batch.to(self._accelerator.device).resample(self._size(0))
        return images

    def _size(self, epoch: int) -> int:
        return SIZE // 2 if epoch < self._config.run.central_epochs else SIZE

    def _validate(self, epoch: int, log: MetricsLog | None) -> dict[str, float]:
        """Return the average's metrics, and check it: the last step can spoil the weights after its loss was finite."""
        steps = (epoch + 1) * len(self._draws)
        if self._data.validation:
            batches: Iterable[Batch] = self._validation_loader
            if log is not None:
                batches = progress(
                    batches, len(self._validation_loader), f"{self._label(epoch)}, validation", quiet_s=QUIET_S
                )
            metrics = validate(self._step.ema.network, batches, self._accelerator, self._attributes)
            self._require_finite("validation cross-entropy", metrics["validation_cross_entropy"], steps)
            return metrics
        tensors = [value for value in self._step.ema.network.state_dict().values() if value.is_floating_point()]
        largest = torch.stack([value.abs().max() for value in tensors]).max().item()
        self._require_finite("largest averaged weight", largest, steps)
        return {}

    def _train_epoch(self, epoch: int, log: MetricsLog | None) -> dict[str, float]:
        self._step.prepare_to_train()
        self._draws.epoch = epoch
        batches: Iterable[Batch] = self._train_loader
        if log is not None:
            batches = progress(batches, len(self._draws), self._label(epoch))
        first = epoch * len(self._draws)
        names = _LOSSES if self._attributes else _LOSSES[:-1]
        sums = torch.zeros(len(names), dtype=torch.float64)
        start = time.monotonic()
        steps = (self._train_step(step, batch, self._size(epoch)) for step, batch in enumerate(batches, start=first))
        pending = next(steps)
        for step, values in enumerate(steps, start=first):
            # The previous step's values are ready by now; asking for this step's would stop the queue of GPU work.
            sums += self._record(step, pending, log)
            pending = values
        sums += self._record(first + len(self._draws) - 1, pending, log)
        means = (sums / len(self._draws)).tolist()
        seconds = {"seconds": round(time.monotonic() - start, 1)}
        return seconds | {f"train_{name}": mean for name, mean in zip(names, means, strict=True)}

    def _label(self, epoch: int) -> str:
        return f"seed {self._seed}, epoch {epoch + 1}/{self._config.run.epochs}"

    def _train_step(self, step: int, raw: Batch, size: int) -> Tensor:
        batch = raw.to(self._accelerator.device)
        images, masks = batch.resample(size)
        rate = self._config.optimizer.rate_at(step, self._steps)
        return self._step(images, masks, batch.labels, rate, batch.ratings)

    def _record(self, step: int, values: Tensor, log: MetricsLog | None) -> Tensor:
        losses = dict(zip(_LOSSES, values.tolist(), strict=False))
        self._require_finite("loss", losses["loss"], step + 1)
        if log is not None:
            log.step(step, losses | {"learning_rate": self._config.optimizer.rate_at(step, self._steps)})
        return torch.tensor([*losses.values()], dtype=torch.float64)

    def _require_finite(self, name: str, value: float, steps: int) -> None:
        if not math.isfinite(value):
            kept = "the checkpoint has the last good epoch" if self.history else "no epoch was finished"
            raise TrainingError(
                f"the {name} became {value} in step {steps}, epoch {(steps - 1) // len(self._draws) + 1}",
                self._folder,
                f"{kept}; lower optimizer.learning_rate, or use bf16 or fp32 instead of run.precision fp16",
            )

    def _checkpoint(self) -> Checkpoint:
        scaler = self._accelerator.scaler
        return Checkpoint(
            recipe=self._recipe(),
            seed=self._seed,
            data=self._data.fingerprint(self._rated),
            epochs_done=len(self.history),
            network=self._step.network.state_dict(),
            ema=self._step.ema.network.state_dict(),
            ema_updates=self._step.ema.updates,
            optimizer=self._step.optimizer.state_dict(),
            scaler=None if scaler is None else scaler.state_dict(),
            random=random_state(),
            history=self.history,
        )

    def averaged_weights(self) -> dict[str, Tensor]:
        return {name: value.cpu() for name, value in self._step.ema.network.network.state_dict().items()}
