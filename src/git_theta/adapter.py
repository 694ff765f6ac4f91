"""PEFT adapters as updates: LoRA and IA3, so that what they make of a base is what `merge_and_unload()` makes of it.

Scope: what `PeftModel.from_pretrained` reads and merges on a CPU, in its defaults (an adapter of 16-bit floats is used
in F32): LoRA of linear layers, Conv1D, convolutions and embeddings, with `use_rslora`, `rank_pattern`, `alpha_pattern`
and `fan_in_fan_out`; IA3; whole tensors (`modules_to_save`, trained biases). A setting that is not known to leave the
result alone is refused by name. The names in the two files are those of the modules, which say nothing of their kinds:
what a layer is follows from the shapes, and for a square matrix from `fan_in_fan_out`, if no other layer contradicts.

Source: peft 0.21, `tuners/lora/layer.py`, `tuners/ia3/layer.py`, `utils/save_and_load.py`.
"""

import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from git_theta import jsontext
from git_theta.errors import InputError
from git_theta.expression import Expression
from git_theta.names import shown
from git_theta.targets import Target, Targets, by_plain_name
from git_theta.tensor import Tensor
from git_theta.tensorfile import TensorFile, opened

__all__ = ["CONFIG_NAME", "Brought", "read"]

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAMES = ("adapter_model.safetensors", "adapter_model.bin")
MAX_CONFIG_BYTES = 2**20

_PREFIX = "base_model.model."
_UPDATES = {"LORA": "low-rank", "IA3": "ia3"}
_FACTORS = (".lora_A.weight", ".lora_B.weight", ".lora_embedding_A", ".lora_embedding_B", ".ia3_l")
_MARKS = ("lora_", "ia3_", "trainable_tokens_", "modules_to_save")
_REASONS = {"lora_magnitude_vector": "DoRA", "trainable_tokens_": "trainable_token_indices"}
_NARROW = ("F16", "BF16")

# Settings that do not change what an adapter makes of its base, or that are dealt with below.
_HARMLESS = frozenset(
    {
        "alpha_pattern",
        "auto_mapping",
        "base_model_name_or_path",
        "bias",
        "corda_config",
        "eva_config",
        "exclude_modules",
        "fan_in_fan_out",
        "feedforward_modules",
        "inference_mode",
        "init_ia3_weights",
        "init_lora_weights",
        "layers_pattern",
        "layers_to_transform",
        "loftq_config",
        "lora_alpha",
        "lora_dropout",
        "lora_ga_config",
        "megatron_core",
        "modules_to_save",
        "peft_type",
        "peft_version",
        "qalora_group_size",
        "r",
        "rank_pattern",
        "revision",
        "runtime_config",
        "target_modules",
        "task_type",
        "use_rslora",
    }
)
_INITS = (True, False, None, "gaussian", "eva", "orthogonal")  # all others change the base

_Kind = TypeVar("_Kind")


@dataclass(frozen=True, slots=True)
class Brought:
    """What a user brought for one parameter: the tensors, by the names that its update has for them."""

    target: Target
    update: str
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class _Config:
    """What of adapter_config.json has a say in the result."""

    update: str
    rank: int
    alpha: float
    ranks: Mapping[Expression, int]
    alphas: Mapping[Expression, float]
    use_rslora: bool
    fan_in_fan_out: bool
    feedforward: Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class _Layer:
    """A module's tensors, by the ends of their names; `target` is its weight, `bias` the name that its bias has."""

    module: str
    target: Target
    bias: str
    tensors: Mapping[str, Tensor]

    @property
    def where(self) -> str:
        return f"parameter '{shown(self.target.name)}'"


def read(folder: Path, targets: Targets, update: str) -> list[Brought]:
    """The updates that an adapter in a folder makes of parameters of a base.

    Raises InputError, naming the parameter or the setting, for what is not supported or does not fit.
    """
    config = _read_config(folder / CONFIG_NAME)
    if config.update != update:
        raise InputError(f"it is an adapter for --update-type {config.update}, not {update}")
    path = next((folder / name for name in WEIGHTS_NAMES if (folder / name).is_file()), folder / WEIGHTS_NAMES[0])
    with _naming(path.name), opened(path) as file:
        layers, whole = _modules(file, targets)
    brought = [*_updated(layers, config, targets), *whole]
    if not brought:
        raise InputError("it changes no parameter")
    return brought


def _modules(file: TensorFile, targets: Targets) -> tuple[list[_Layer], list[Brought]]:
    """The layers that the file has factors for, and the tensors that take a parameter's place."""
    factors: dict[str, dict[str, str]] = {}
    whole: dict[str, str] = {}
    for key, name in by_plain_name(file.names).items():
        full = key.removeprefix(_PREFIX)
        end = next((end for end in _FACTORS if full.endswith(end)), "")
        if end:
            factors.setdefault(full.removesuffix(end), {})[end] = name
        else:
            _check_plain(full)
            whole[full] = name
    stated = [f"{module}.weight" for module in factors]
    renamed = targets.renaming([*stated, *(key.replace(".base_layer.", ".") for key in whole)])
    layers = [
        _Layer(
            module,
            targets.get(renamed(f"{module}.weight")),
            renamed(f"{module}.bias"),
            {end: file.read(name) for end, name in ends.items()},
        )
        for module, ends in factors.items()
    ]
    brought = [_whole(key, targets.get(renamed(key.replace(".base_layer.", "."))), file, whole[key]) for key in whole]
    return layers, [item for item in brought if item is not None]


def _check_plain(key: str) -> None:
    """Raise InputError for the name of a tensor that is not one of a parameter's value."""
    for part in key.split("."):
        mark = next((mark for mark in _MARKS if part.startswith(mark)), "")
        if mark:
            reason = next((text for start, text in _REASONS.items() if part.startswith(start)), f"'{shown(part)}'")
            raise InputError(f"tensor '{shown(key)}': {reason} is not supported")


def _whole(key: str, target: Target, file: TensorFile, name: str) -> Brought | None:
    """A tensor that takes the place of a parameter; None for the base's own, as PEFT saves it with embeddings."""
    from blake3 import blake3

    tensor = file.read(name)
    base = target.record
    if (tensor.dtype, tensor.shape, blake3(tensor.data).hexdigest()) == (base.dtype, base.shape, base.digest):
        return None
    if key.endswith(".base_layer.weight"):
        raise InputError(f"parameter '{shown(target.name)}': the adapter is for another base, with other values of it")
    if target.shared:
        raise InputError(
            f"parameter '{shown(target.name)}' is '{shown(target.shared[0])}' too, and the adapter replaces only one"
        )
    return Brought(target, "dense", {"value": tensor})


def _updated(layers: Sequence[_Layer], config: _Config, targets: Targets) -> Iterator[Brought]:
    turned = _evidence(layers)
    for layer in layers:
        with _naming(layer.where):
            if config.update == "ia3":
                yield from _ia3(layer, config, turned, targets)
            else:
                yield _low_rank(layer, config, turned)


def _low_rank(layer: _Layer, config: _Config, turned: set[bool]) -> Brought:
    """LoRA: B A times a scaling is added to the weight."""
    embedding = ".lora_embedding_A" in layer.tensors
    ends = (".lora_embedding_A", ".lora_embedding_B") if embedding else (".lora_A.weight", ".lora_B.weight")
    if layer.tensors.keys() != {*ends}:
        raise InputError(f"the adapter has {_listed(layer.tensors)} for it, where {_listed(ends)} are expected")
    first, second = _flat(layer.tensors[ends[0]]), _flat(layer.tensors[ends[1]])
    rank = first.shape[0]
    with _naming("rank_pattern"):
        stated = next((value for key, value in config.ranks.items() if key.matches_end(layer.module)), config.rank)
    if not rank or second.shape[1] != rank or stated != rank:
        raise InputError(f"factors of the ranks {rank} and {second.shape[1]}, where {CONFIG_NAME} says {stated}")
    if layer.target.record.dtype == "F64":
        raise InputError("a LoRA of F64 values is not supported")
    with _naming("alpha_pattern"):
        alpha = next((value for key, value in config.alphas.items() if key.matches_end(layer.module)), config.alpha)
    tensors = {"R": second, "C": first, "scaling": _scaling(alpha / (math.sqrt(rank) if config.use_rslora else rank))}
    if embedding or (not _is_conv(layer) and _is_turned(layer, (second.shape[0], first.shape[1]), config, turned)):
        tensors["transposed"] = Tensor("U8", (), b"\x01")
    if embedding and layer.target.record.dtype in _NARROW:
        tensors["rounded"] = Tensor(layer.target.record.dtype, (), bytes(2))
    return Brought(layer.target, "low-rank", tensors)


def _ia3(layer: _Layer, config: _Config, turned: set[bool], targets: Targets) -> Iterator[Brought]:
    """IA3: a vector multiplies the inputs of a feedforward layer, the outputs and the bias of any other."""
    if layer.tensors.keys() != {".ia3_l"}:
        raise InputError(f"the adapter has {_listed(layer.tensors)} for it, where .ia3_l is expected")
    factors = layer.tensors[".ia3_l"]
    count = math.prod(factors.shape)
    with _naming("feedforward_modules"):
        feedforward = config.feedforward(layer.module)
    expected: tuple[int, ...] = (1, count) if feedforward or _is_conv(layer) else (count, 1)
    if _is_conv(layer):
        expected += (1,) * (len(layer.target.shape) - 2)
    if factors.shape != expected:
        raise InputError(f"factors of the shape {list(factors.shape)}, where {list(expected)} is expected")
    shape = expected
    if _is_conv(layer):
        shape = expected if feedforward else (count, 1, *expected[2:])
    elif _is_turned(layer, (0, count) if feedforward else (count, 0), config, turned):
        shape = expected[::-1]
    yield Brought(layer.target, "ia3", {"ia3": replace(factors, shape=shape)})
    if not feedforward and targets.has(layer.bias):
        found = targets.get(layer.bias)
        if found.shape != (count,):
            raise InputError(f"{count} factors, where its bias has the shape {list(found.shape)}")
        yield Brought(found, "ia3", {"ia3": replace(factors, shape=(count,))})


def _flat(factor: Tensor) -> Tensor:
    """A factor as a matrix; that of a convolution has more dimensions."""
    if len(factor.shape) < 2:
        raise InputError(f"a factor of the shape {list(factor.shape)} is no matrix")
    return replace(factor, shape=(factor.shape[0], math.prod(factor.shape[1:])))


def _scaling(value: float) -> Tensor:
    """The factor of the product, in F32 as torch takes it."""
    try:
        return Tensor("F32", (), struct.pack("<f", value))
    except OverflowError as error:
        raise InputError(f"a scaling of {value} is beyond F32") from error


def _is_conv(layer: _Layer) -> bool:
    return len(layer.target.shape) > 2


def _evidence(layers: Sequence[_Layer]) -> set[bool]:
    """What the matrices that are not square tell: whether layers are stored (in, out) instead of (out, in)."""
    found: set[bool] = set()
    for layer in layers:
        if len(layer.target.shape) == 2 and layer.target.shape[0] != layer.target.shape[1]:
            fits = _fits(layer.target.shape, _outward(layer))
            found.update(fits if len(fits) == 1 else ())
    return found


def _outward(layer: _Layer) -> tuple[int, int]:
    """How many outputs and inputs the adapter's tensors are for; 0 where they do not tell."""
    first, second, vector = (layer.tensors.get(end) for end in (".lora_A.weight", ".lora_B.weight", ".ia3_l"))
    if first is not None and second is not None and first.shape and second.shape:
        return second.shape[0], first.shape[-1]
    if vector is not None and len(vector.shape) == 2 and 1 in vector.shape:
        outputs, inputs = vector.shape
        return (outputs, 0) if inputs == 1 else (0, inputs)
    return 0, 0


def _fits(shape: Sequence[int], outward: tuple[int, int]) -> list[bool]:
    """The ways in which a matrix can be that of so many outputs and inputs: as (out, in), False, as (in, out), True."""
    ways = ((False, shape), (True, shape[::-1]))
    return [way for way, dims in ways if all(mine in (0, dim) for mine, dim in zip(outward, dims, strict=True))]


def _is_turned(layer: _Layer, shape: tuple[int, int], config: _Config, turned: set[bool]) -> bool:
    """Whether the weight of a linear layer is stored (in, out).

    `shape` is (out, in) as far as the adapter tells, 0 where it does not. Raises InputError where it fits neither way.
    """
    if len(layer.target.shape) != 2:
        raise InputError(f"the adapter is for a matrix, and this has the shape {list(layer.target.shape)}")
    fits = _fits(layer.target.shape, shape)
    if not fits:
        dims = [dim or "any" for dim in shape]
        raise InputError(
            f"the adapter is for {dims[0]} outputs of {dims[1]} inputs, not for {list(layer.target.shape)}"
        )
    if len(fits) == 1:
        return fits[0]
    if turned - {config.fan_in_fan_out}:
        raise InputError(f"it is square, and fan_in_fan_out in {CONFIG_NAME} is not what other layers are like")
    return config.fan_in_fan_out


def _read_config(path: Path) -> _Config:
    """What adapter_config.json says; raises InputError for a setting that is not supported."""
    if not path.is_file():
        raise InputError(f"it has no {CONFIG_NAME}: it is no PEFT adapter")
    with path.open("rb") as file:
        text = file.read(MAX_CONFIG_BYTES + 1)
    try:
        config = jsontext.parse(text) if len(text) <= MAX_CONFIG_BYTES else None
    except ValueError as error:
        raise InputError(f"{CONFIG_NAME} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise InputError(f"{CONFIG_NAME} is no JSON object of at most {MAX_CONFIG_BYTES} bytes")
    kind = config.get("peft_type")
    if not isinstance(kind, str) or kind not in _UPDATES:
        raise InputError(f"an adapter of the type {_got(kind)} is not supported; LORA and IA3 are")
    _check_settings(config)
    return _Config(
        _UPDATES[kind],
        _setting(config, "r", int, 8),
        _number(config.get("lora_alpha", 8), "lora_alpha"),
        dict(_pattern(config, "rank_pattern", lambda value, _: _integer(value))),
        dict(_pattern(config, "alpha_pattern", _number)),
        _setting(config, "use_rslora", bool, False),
        _setting(config, "fan_in_fan_out", bool, False),
        _feedforward(config.get("feedforward_modules")),
    )


def _check_settings(config: Mapping[str, object]) -> None:
    for key, value in config.items():
        if value and key not in _HARMLESS:
            raise InputError(f"{CONFIG_NAME} has {shown(key[:80])}, which is not supported")
    if config.get("init_lora_weights") not in _INITS:
        raise InputError(f"init_lora_weights {_got(config['init_lora_weights'])} is not supported: it changes the base")


def _setting(config: Mapping[str, object], key: str, kind: type[_Kind], default: _Kind) -> _Kind:
    value = config.get(key)
    if value is None:
        return default
    if type(value) is not kind:
        raise InputError(f"{key} in {CONFIG_NAME} is {_got(value)}")
    return value


def _integer(value: object) -> int:
    if type(value) is not int:
        raise InputError(f"rank_pattern in {CONFIG_NAME} has {_got(value)}")
    return value


def _number(value: object, key: str) -> float:
    if type(value) not in (int, float) or not isinstance(value, (int, float)) or not abs(value) < 2.0**127:
        raise InputError(f"{key} in {CONFIG_NAME} is {_got(value)}, not a number")
    return value


def _pattern(
    config: Mapping[str, object], key: str, checked: Callable[[object, str], _Kind]
) -> Iterator[tuple[Expression, _Kind]]:
    """The regular expressions of a setting, in the order in which they are tried, and their values."""
    rows = config.get(key) or {}
    if not isinstance(rows, dict):
        raise InputError(f"{key} in {CONFIG_NAME} is {_got(rows)}")
    for pattern, value in rows.items():
        with _naming(f"{key} in {CONFIG_NAME}: '{shown(pattern[:80])}'"):
            yield Expression(pattern), checked(value, key)


def _feedforward(value: object) -> Callable[[str], bool]:
    """Whether a module's inputs are multiplied."""
    if isinstance(value, str):
        with _naming(f"feedforward_modules in {CONFIG_NAME}: '{shown(value[:80])}'"):
            return Expression(value).matches
    names = value if isinstance(value, list) else []
    ends = tuple(name for name in names if isinstance(name, str))
    if (value is not None and not isinstance(value, list)) or len(ends) != len(names):
        raise InputError(f"feedforward_modules in {CONFIG_NAME} is {_got(value)}")
    return lambda module: module.endswith(ends)


def _listed(words: Sequence[str] | Mapping[str, object]) -> str:
    return " and ".join(sorted(word.removeprefix(".") for word in words))


def _got(value: object) -> str:
    return f"'{shown(str(value)[:80])}'"


@contextmanager
def _naming(where: str) -> Iterator[None]:
    """Say where what is wrong was found."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
