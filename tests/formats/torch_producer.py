"""Real files of torch, and what torch itself says is in them."""

import io
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch

from git_theta import names
from git_theta.testing import Example, Tensor

DTYPES: Mapping[torch.dtype, str] = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.complex128: "C128",
    torch.complex64: "C64",
    torch.complex32: "C32",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e8m0fnu: "F8_E8M0",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
}
QUANTISED: Mapping[torch.dtype, str] = {torch.quint8: "QU8", torch.qint8: "QI8", torch.qint32: "QI32"}


def tensor_of(value: torch.Tensor) -> Tensor:
    """What torch says a dense tensor is."""
    dtype = QUANTISED.get(value.dtype) or DTYPES[value.dtype]
    plain = value.detach().int_repr() if value.dtype in QUANTISED else value.detach()
    copy = plain.clone(memory_format=torch.contiguous_format)
    size = copy.numel() * copy.element_size()
    return Tensor(dtype, tuple(value.shape), bytes(copy.untyped_storage())[:size])


def named(tensors: Mapping[str, torch.Tensor], *prefix: object) -> dict[str, Tensor]:
    """A flat state dict's tensors by their names in a file."""
    return {names.join((*prefix, key)): tensor_of(value) for key, value in tensors.items()}


def saved(path: Path, value: object, tensors: Mapping[str, Tensor], *, zipped: bool = True) -> Example:
    """An example of a file written by torch.save."""
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    return Example(path, tensors)


def save_bytes(value: object, *, zipped: bool = True) -> bytes:
    """What torch.save writes."""
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def numbered(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A tensor whose elements differ as far as its dtype lets them, from its bytes up."""
    count = 1
    for dim in shape:
        count *= dim
    if dtype == torch.bool:
        return (torch.arange(count) % 2 == 0).reshape(shape)
    return (torch.arange(count * dtype.itemsize) * 37 % 251).to(torch.uint8).view(dtype).reshape(shape)


class Block(torch.nn.Module):
    """A module with parameters, a buffer, a submodule and a plain tensor attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 3)
        self.norm = torch.nn.BatchNorm1d(3)
        self.scale = torch.nn.Parameter(numbered(3))
        self.register_buffer("mask", numbered(3, dtype=torch.bool))
        self.cached = numbered(2, dtype=torch.int32)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        values: torch.Tensor = self.norm(self.linear(inputs)) * self.scale
        return values


def state_dict(directory: Path, *, zipped: bool = True) -> Example:
    state = Block().state_dict()
    return saved(directory / "state.pt", state, named(state), zipped=zipped)


def training(directory: Path, *, zipped: bool = True) -> Example:
    """A checkpoint of a training run, with the optimizer's state, scalars and objects of other classes."""
    model = Block()
    optimizer = torch.optim.AdamW(model.parameters())
    model(numbered(2, 4, dtype=torch.int8).to(torch.float32)).sum().backward()
    optimizer.step()
    state = optimizer.state_dict()
    random_state = torch.get_rng_state()[:64].clone()
    value = {
        "model": model.state_dict(),
        "optimizer": state,
        "epoch": 3,
        "loss": [0.5, 0.25],
        "run": Path("runs") / "1",
        "rng": random_state,
    }
    expected = named(model.state_dict(), "model")
    for index, moments in state["state"].items():
        expected |= named(moments, "optimizer", "state", index)
    return saved(directory / "training.pt", value, expected | {"rng": tensor_of(random_state)}, zipped=zipped)


def views(directory: Path, *, zipped: bool = True) -> Example:
    """Ties, slices, transposed and expanded tensors, a flat buffer and overlaps, each in storages of their own."""
    weight = numbered(6, 4)
    large = numbered(100)
    flat = numbered(24)
    shared = numbered(20, dtype=torch.int16)
    state = {
        "embed.weight": weight,
        "head.weight": weight.view(6, 4),
        "slice": large[10:20],
        "matrix": large[50:62].view(3, 4),
        "transposed": numbered(4, 5).t(),
        "channels_last": numbered(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "flat.a": flat[:8].view(2, 4),
        "flat.b": flat[8:20],
        "flat.c": flat[20:],
        "overlap.low": shared[:12],
        "overlap.high": shared[8:].view(3, 4),
        "overlap.steps": shared[1::3],
        "expanded": numbered(3, 1).expand(3, 4),
        "one": numbered(1, 5)[:, 2:3],
        "scalar": numbered(),
    }
    return saved(directory / "views.pt", state, named(state), zipped=zipped)


def dtypes(directory: Path, *, zipped: bool = True) -> Example:
    """Every dtype that torch can save, quantised ones with their scales."""
    with warnings.catch_warnings():
        # complex32 is experimental, and quantised tensors are to move to another package; files with them stay.
        warnings.simplefilter("ignore", UserWarning)
        state = {str(dtype): numbered(3, 2, dtype=dtype) for dtype in DTYPES}
        for dtype, name in QUANTISED.items():
            state[name] = torch.quantize_per_tensor(numbered(4, dtype=torch.int8).float(), 0.5, 3, dtype)
        scales, zeros = torch.tensor([0.5, 0.25], dtype=torch.float64), torch.tensor([0, 1])
        channels = torch.quantize_per_channel(torch.ones(2, 3), scales, zeros, 0, torch.qint8)
        expected = named({**state, "channels": channels})
        expected |= named({"scales": scales, "zero_points": zeros}, "channels")
        return saved(directory / "dtypes.pt", {**state, "channels": channels}, expected, zipped=zipped)


def layouts(directory: Path, *, zipped: bool = True) -> Example:
    """Sparse and nested tensors, whose parts are ordinary tensors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # both are of torch's prototype stage
        coo = torch.eye(3).to_sparse().coalesce()
        csr = torch.eye(3).to_sparse_csr()
        csc = torch.eye(3).to_sparse_csc()
        nested = torch.nested.nested_tensor([numbered(2), numbered(3)])
        value = {"coo": coo, "csr": csr, "csc": csc, "nested": nested}
        torch.save(value, directory / "layouts.pt", _use_new_zipfile_serialization=zipped)
    expected = named({"indices": coo.indices(), "values": coo.values()}, "coo")
    expected |= named(
        {"crow_indices": csr.crow_indices(), "col_indices": csr.col_indices(), "values": csr.values()}, "csr"
    )
    expected |= named(
        {"ccol_indices": csc.ccol_indices(), "row_indices": csc.row_indices(), "values": csc.values()}, "csc"
    )
    sizes, strides, offsets = torch.tensor([[2], [3]]), torch.tensor([[1], [1]]), torch.tensor([0, 2])
    values = torch.cat([numbered(2), numbered(3)])
    expected |= named({"values": values, "sizes": sizes, "strides": strides, "offsets": offsets}, "nested")
    return Example(directory / "layouts.pt", expected)


def odd(directory: Path, *, zipped: bool = True) -> Example:
    """Keys of all kinds, empty tensors, containers of all kinds."""
    keys = ["a.b", "a/b", "a~b", "~0", "0", "-1", "", " ", "\n\x00", "gewicht-ß-重", "../../etc/passwd", "~storage"]
    value: dict[object, object] = {key: numbered(index + 1) for index, key in enumerate(keys)}
    expected = {names.join((key,)): tensor_of(numbered(index + 1)) for index, key in enumerate(keys)}
    extra: dict[object, object] = {
        0: numbered(2, 2),
        (1, "x"): numbered(2, 3),
        None: numbered(2, 4),
        "empty": torch.empty(0),
        "empty matrix": torch.empty(0, 3, dtype=torch.int16),
        "list": [numbered(3), (numbered(4), OrderedDict(deep=numbered(5)))],
        "parameter": torch.nn.Parameter(numbered(6)),
    }
    expected |= {
        "0": tensor_of(numbered(2, 2)),
        "~k(1, 'x')": tensor_of(numbered(2, 3)),
        "~kNone": tensor_of(numbered(2, 4)),
        "empty": Tensor("F32", (0,), b""),
        "empty matrix": Tensor("I16", (0, 3), b""),
        "list/0": tensor_of(numbered(3)),
        "list/1/0": tensor_of(numbered(4)),
        "list/1/1/deep": tensor_of(numbered(5)),
        "parameter": tensor_of(numbered(6)),
    }
    return saved(directory / "odd.pt", value | extra, expected, zipped=zipped)


def module(directory: Path, *, zipped: bool = True) -> Example:
    """A whole module: its class is a global that we do not know; its tensors have the names of its state dict."""
    block = Block()
    expected: dict[str, Tensor] = {}
    for key, value in block.state_dict().items():
        expected[names.join(key.split("."))] = tensor_of(value)
    expected["cached"] = tensor_of(block.cached)
    return saved(directory / "module.pt", block, expected, zipped=zipped)


def script(directory: Path) -> Example:
    """TorchScript, with a constant."""

    class Scaled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = torch.nn.Linear(3, 2)
            self.shift = torch.nn.Parameter(numbered(2).to(torch.bfloat16))

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            values: torch.Tensor = self.block(inputs) + torch.tensor([1.0, 2.0])
            return values

    model = Scaled()
    with warnings.catch_warnings():
        # torch.jit is deprecated, and its tracer warns about the constant that this example wants.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", "torch.tensor results are registered as constants")
        traced = torch.jit.trace(model, torch.ones(1, 3))  # type: ignore[no-untyped-call]  # torch has no types here
        torch.jit.save(traced, directory / "script.pt")
    expected = named({"weight": model.block.weight, "bias": model.block.bias}, "block")
    expected |= {"shift": tensor_of(model.shift), "constants/0": tensor_of(torch.tensor([1.0, 2.0]))}
    return Example(directory / "script.pt", expected)
