"""The training recipe: what a YAML file may say, its defaults (the published ones) and its limits."""

import math
from collections.abc import Callable, Hashable
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from nodulemc.data.block_store import MAX_SHIFT_MM
from nodulemc.errors import ConfigError
from nodulemc.hardware import PRECISIONS
from nodulemc.models.architecture import BACKBONES, Architecture
from nodulemc.ratings import ATTRIBUTES

DECAYS = ("none", "cosine")
DICE = ("batch", "nodule")
PARTS = ("backbone", "classifier_head")
KINETICS_DOWNLOAD = "download"


@dataclass(frozen=True)
class _Rule:
    """Which values a key takes: ``text`` for messages, ``accepts`` to check, ``convert`` from YAML's value."""

    text: str
    accepts: Callable[[Any], bool]
    convert: Callable[[Any], Any] = lambda value: value


def _real(low: float, high: float, *, above: bool = False, below: bool = False) -> _Rule:
    """A finite number from ``low`` to ``high``; ``above`` and ``below`` exclude the ends."""

    def accepts(value: Any) -> bool:
        if type(value) not in (int, float) or not math.isfinite(value):
            return False
        return bool((value > low if above else value >= low) and (value < high if below else value <= high))

    bounds = f"{'above' if above else 'from'} {low:g} {'to below' if below else 'to'} {high:g}"
    return _Rule(f"a number {bounds} (YAML writes 1e-4 as 1.0e-4)", accepts, float)


def _whole(low: int, high: int) -> _Rule:
    return _Rule(f"a whole number from {low} to {high}", lambda value: type(value) is int and low <= value <= high)


def _optional(rule: _Rule) -> _Rule:
    return _Rule(
        f"null or {rule.text}",
        lambda value: value is None or rule.accepts(value),
        lambda value: None if value is None else rule.convert(value),
    )


def _list(item: _Rule, length: int | None = None) -> _Rule:
    return _Rule(
        f"a list of {'' if length is None else f'{length} '}values, each {item.text}",
        lambda value: isinstance(value, list) and length in (None, len(value)) and all(map(item.accepts, value)),
        lambda value: tuple(map(item.convert, value)),
    )


def _some_of(names: tuple[str, ...]) -> _Rule:
    return _Rule(
        f"a list of some of {', '.join(names)}, each once",
        lambda value: isinstance(value, list) and all(map(names.__contains__, value)) and len({*value}) == len(value),
        tuple,
    )


def _one_of(names: tuple[str, ...]) -> _Rule:
    return _Rule(f"one of {', '.join(names)}", lambda value: value in names)


_TEXT = _Rule("a text that is not empty", lambda value: isinstance(value, str) and bool(value.strip()))
_SWITCH = _Rule("true or false", lambda value: type(value) is bool)
_WIDTH = _whole(1, 4096)


def _setting(default: Any, rule: _Rule) -> Any:
    return field(default=default, metadata={"rule": rule})


@dataclass(frozen=True)
class ModelConfig:
    """The network.

    Attributes:
        backbone: one of ``nodulemc.models.architecture.BACKBONES``.
        head_widths: hidden widths of the classification MLP.
        decoder_widths: output widths of the decoder's five stages, coarse to fine.
        kinetics: file with the backbone's Kinetics-400 weights, or "download"; None trains from random weights. With
            them the backbone's BatchNorm stays frozen, without them BatchNorm learns.
        start_from: ensemble folder with decoders, whose weights of the same seed, or of the only one, training starts
            from, all of them, BatchNorm learning on; instead of Kinetics-400 weights, which need not be named then.
        start_averaged: start every seed from the mean of that ensemble's members' weights instead.
        attributes: the readers' ratings that a second head learns; none for no such head. It starts from random
            weights where ``start_from`` has none.
        frozen: the parts, "backbone" or "classifier_head", that keep the weights they start with.
    """

    backbone: str = _setting("inception_i3d", _one_of(tuple(BACKBONES)))
    head_widths: tuple[int, ...] = _setting((), _list(_WIDTH))
    decoder_widths: tuple[int, ...] = _setting((832, 480, 192, 64, 64), _list(_WIDTH, 5))
    kinetics: str | None = _setting(KINETICS_DOWNLOAD, _optional(_TEXT))
    start_from: str | None = _setting(None, _optional(_TEXT))
    start_averaged: bool = _setting(False, _SWITCH)
    attributes: tuple[str, ...] = _setting((), _some_of(ATTRIBUTES))
    frozen: tuple[str, ...] = _setting((), _some_of(PARTS))

    @property
    def architecture(self) -> Architecture:
        """As ``ensemble.json`` states it, the decoder included."""
        return Architecture(self.backbone, self.head_widths, self.decoder_widths, attributes=self.attributes)


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam and its learning rate.

    Attributes:
        learning_rate: the highest.
        weight_decay: L2, on all parameters.
        betas: Adam's moment decays.
        warmup_steps: over how many steps the learning rate rises linearly to its highest.
        decay: "none", or "cosine" to fall to zero at the last step.
    """

    learning_rate: float = _setting(1e-4, _real(0, 1, above=True))
    weight_decay: float = _setting(5e-4, _real(0, 1))
    betas: tuple[float, float] = _setting((0.9, 0.999), _list(_real(0, 1, below=True), 2))
    warmup_steps: int = _setting(0, _whole(0, 1_000_000))
    decay: str = _setting("none", _one_of(DECAYS))

    def rate_at(self, step: int, steps: int) -> float:
        """Learning rate of step ``step`` (from 0) of ``steps``."""
        rate = self.learning_rate
        if self.decay == "cosine":
            rate *= (1 + math.cos(math.pi * step / steps)) / 2
        return rate * min(1.0, (step + 1) / (self.warmup_steps + 1))


@dataclass(frozen=True)
class AugmentationConfig:
    """Random transforms of training samples.

    Attributes:
        rotation_degrees: largest angle about each axis.
        shift_mm: largest distance of a shift; the block store has room for 2.5.
        flip_probability: per sample, of flips and transposition of array axes 1 and 2.
    """

    rotation_degrees: float = _setting(20.0, _real(0, 180))
    shift_mm: float = _setting(2.5, _real(0, MAX_SHIFT_MM))
    flip_probability: float = _setting(0.3, _real(0, 1))


@dataclass(frozen=True)
class RunConfig:
    """How long, in which portions, how exactly.

    Attributes:
        epochs: passes over the training set.
        central_epochs: how many of them, from the first on, learn from the central half of the patch along each axis
            (25 mm), an eighth of the work.
        batch_size: samples per step over all processes.
        samples_per_epoch: draws per epoch, rounded up to whole batches; None for the size of the training set.
        segmentation_weight: λ on the Dice loss.
        dice: "batch" for one Dice over all voxels of the batch, which large nodules dominate, as published; "nodule"
            for the mean of each nodule's.
        attribute_weight: that on the attributes' loss, where the model has some.
        soft_labels: learn the class from the readers' mean malignancy rating, 1…5 made 0…1, where it is known; else
            from the label.
        ema_decay: of the moving average, per step.
        precision: "auto" is bf16 where the device is fast at it, fp16 on older CUDA GPUs, else fp32.
        workers: processes that read samples ahead; 0 reads in the training process.
    """

    epochs: int = _setting(15, _whole(1, 10_000))
    central_epochs: int = _setting(0, _whole(0, 10_000))
    batch_size: int = _setting(32, _whole(1, 4096))
    samples_per_epoch: int | None = _setting(None, _optional(_whole(1, 10_000_000)))
    segmentation_weight: float = _setting(0.5, _real(0, 100))
    dice: str = _setting("batch", _one_of(DICE))
    attribute_weight: float = _setting(0.5, _real(0, 100))
    soft_labels: bool = _setting(False, _SWITCH)
    ema_decay: float = _setting(0.998, _real(0, 1, below=True))
    precision: str = _setting("auto", _one_of(PRECISIONS))
    workers: int = _setting(8, _whole(0, 256))


@dataclass(frozen=True)
class CardConfig:
    """What the ensemble says of itself; there is no default for it, as only whoever trains knows.

    Attributes:
        trained_on: the data, in a few words.
        licence: of the weights.
    """

    trained_on: str | None = _setting(None, _optional(_TEXT))
    licence: str | None = _setting(None, _optional(_TEXT))

    def require(self, where: object) -> None:
        """Raise ConfigError, with the key's name, where a value is missing."""
        for key, example in (("trained_on", "LUNA25 training set (NLST)"), ("licence", "CC-BY-4.0")):
            if getattr(self, key) is None:
                raise ConfigError(f"card.{key} is not given", where, f"state it in the recipe, for example: {example}")


@dataclass(frozen=True)
class TrainingConfig:
    """The whole recipe; sections and keys as in the YAML file."""

    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    run: RunConfig = field(default_factory=RunConfig)
    card: CardConfig = field(default_factory=CardConfig)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Sections -> keys -> plain values, lists for tuples."""
        return {
            section: {key: list(value) if isinstance(value, tuple) else value for key, value in content.items()}
            for section, content in asdict(self).items()
        }


def read_config(path: str | Path) -> TrainingConfig:
    """Read a recipe; keys that are left out have the published values.

    Raises:
        ConfigError: the file is unreadable or no YAML, or a key is unknown, repeated, of the wrong type or outside
            its limits; the message has the key and the value.
    """
    path = Path(path)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)  # noqa: S506 (a SafeLoader)
    except OSError as error:
        raise ConfigError(f"cannot read the recipe ({error.strerror})", path, "check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"malformed YAML ({error})", path, "repair the file") from error
    return parse_config({} if content is None else content, path)


def parse_config(content: Any, where: object) -> TrainingConfig:
    """Check a recipe given as sections -> keys -> plain values; errors as ``read_config``."""
    sections = {}
    for section, default in _entries(TrainingConfig, content, "the recipe", where):
        keys = type(default)
        values = {}
        for key, _ in _entries(keys, content[section], section, where):
            rule = keys.__dataclass_fields__[key].metadata["rule"]
            value = content[section][key]
            if not rule.accepts(value):
                raise ConfigError(f"{section}.{key} is {value!r}", where, f"give {rule.text}")
            values[key] = rule.convert(value)
        if values.get("start_from") is not None:
            values.setdefault("kinetics", None)
        sections[section] = keys(**values)
    config = TrainingConfig(**sections)
    if config.model.kinetics is not None and config.model.start_from is not None:
        raise ConfigError("model.kinetics and model.start_from are both given", where, "leave one of them out")
    if config.model.start_averaged and config.model.start_from is None:
        raise ConfigError("model.start_averaged without model.start_from", where, "name the ensemble to average")
    if config.model.frozen and config.model.start_from is None:
        raise ConfigError("model.frozen without model.start_from", where, "name the ensemble whose weights are kept")
    return config


def _entries(kind: type, content: Any, name: str, where: object) -> list[tuple[str, Any]]:
    """The (key, default) pairs of dataclass ``kind`` that ``content`` names; refuses everything else."""
    defaults = {f.name: f.default if f.default_factory is MISSING else f.default_factory() for f in fields(kind)}
    if not isinstance(content, dict):
        raise ConfigError(f"{name} is {content!r}", where, f"give a mapping with keys from {', '.join(defaults)}")
    for key in content:
        if key not in defaults:
            known = ", ".join(defaults)
            raise ConfigError(f"unknown key {key!r} in {name}, value {content[key]!r}", where, f"known are {known}")
    return [(key, defaults[key]) for key in content]


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses repeated keys, of which YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in seen:
            if seen.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"repeated key {key!r}", node.start_mark)
        return super().construct_mapping(node, deep)
