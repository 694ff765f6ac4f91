"""PEFT adapters: what they mean, what is refused. tests/git/test_adapters.py compares with peft itself."""

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from git_theta import adapter
from git_theta.adapter import Brought
from git_theta.depot import Depot
from git_theta.errors import InputError
from git_theta.targets import Targets
from tests.checkpoints import Tensor, opened, safetensors, take, weights

LORA = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}
IA3 = {"peft_type": "IA3", "feedforward_modules": ["down"]}
PREFIX = "base_model.model."


def f32(*shape: int, seed: int = 0) -> Tensor:
    count = 1
    for dim in shape:
        count *= dim
    return "F32", shape, weights(count, seed)


BASE = {
    "up.weight": f32(6, 4),
    "up.bias": f32(6),
    "down.weight": f32(4, 6, seed=1),
    "square.weight": f32(4, 4, seed=2),
    "turned.weight": f32(4, 8, seed=3),
    "words.weight": f32(10, 4, seed=4),
    "kernel.weight": f32(5, 3, 2, 2, seed=5),
    "double.weight": ("F64", (4, 4), bytes(128)),
}


@pytest.fixture
def depot(tmp_path: Path) -> Iterator[Depot]:
    with opened(tmp_path / "theta") as depot:
        yield depot


class Bench:
    """A base, and adapters read for it."""

    def __init__(self, folder: Path, depot: Depot, base: Mapping[str, Tensor] = BASE) -> None:
        self._folder = folder / "adapter"
        self._folder.mkdir()
        self.base = take(safetensors(base), depot)

    def read(self, config: Mapping[str, object], tensors: Mapping[str, Tensor]) -> dict[str, Brought]:
        (self._folder / "adapter_config.json").write_text(json.dumps(config))
        content = safetensors({PREFIX + name: tensor for name, tensor in tensors.items()})
        (self._folder / "adapter_model.safetensors").write_bytes(content)
        update = "ia3" if config.get("peft_type") == "IA3" else "low-rank"
        return {item.target.name: item for item in adapter.read(self._folder, Targets(self.base), update)}

    def refuses(self, config: Mapping[str, object], tensors: Mapping[str, Tensor]) -> str:
        with pytest.raises(InputError) as caught:
            self.read(config, tensors)
        return str(caught.value)


@pytest.fixture
def bench(tmp_path: Path, depot: Depot) -> Bench:
    return Bench(tmp_path, depot)


def lora(module: str, outputs: int, inputs: int, rank: int = 2) -> dict[str, Tensor]:
    return {f"{module}.lora_A.weight": f32(rank, inputs), f"{module}.lora_B.weight": f32(outputs, rank)}


def scaling(brought: Brought) -> float:
    [found] = struct.unpack("<f", brought.tensors["scaling"].data)
    return float(found)


UP = lora("up", 6, 4)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa_niter_4"),
        ({"init_lora_weights": "olora"}, "olora"),
        ({"init_lora_weights": "corda"}, "corda"),
        ({"init_lora_weights": "loftq"}, "loftq"),
        ({"layer_replication": [[0, 1], [1, 2]]}, "layer_replication"),
        ({"target_parameters": ["weight"]}, "target_parameters"),
        ({"lora_bias": True}, "lora_bias"),
        ({"trainable_token_indices": [1, 2]}, "trainable_token_indices"),
        ({"a_later\nsetting": 1}, r"a_later\nsetting"),
        ({"peft_type": "ADALORA"}, "ADALORA"),
        ({"peft_type": None}, "'None'"),
        ({"r": 8}, "parameter 'up.weight': factors of the ranks 2 and 2, where adapter_config.json says 8"),
        ({"r": "8"}, "r in adapter_config.json is '8'"),
        ({"rank_pattern": {"up": 3}}, "says 3"),
        ({"rank_pattern": {"up": 4.5}}, "rank_pattern in adapter_config.json has '4.5'"),
        ({"rank_pattern": ["up"]}, "rank_pattern"),
        ({"alpha_pattern": {"(?=up)": 3}}, "alpha_pattern in adapter_config.json: '(?=up)': is no regular expression"),
        ({"alpha_pattern": {"(.*.*.*.*){100}b": 3, "up": 1}}, None),
        ({"alpha_pattern": {"up": "3"}}, "'3', not a number"),
        ({"lora_alpha": 1e300}, "lora_alpha"),
        ({"lora_alpha": float("nan")}, "lora_alpha"),
        ({"use_rslora": 1}, "use_rslora"),
    ],
    ids=str,
)
def test_settings_that_are_not_supported_are_named(bench: Bench, changes: dict[str, object], said: str | None) -> None:
    if said is None:
        assert scaling(bench.read(LORA | changes, UP)["up.weight"]) == 0.5
    else:
        assert said in bench.refuses(LORA | changes, UP)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"peft_type": "LORA"', b'{"r": 1, "r": 2}', b" " * (2**20 + 1)], ids=range(5)
)
def test_configuration_that_is_none(bench: Bench, tmp_path: Path, content: bytes) -> None:
    bench.read(LORA, UP)
    (tmp_path / "adapter" / "adapter_config.json").write_bytes(content)
    with pytest.raises(InputError, match=r"adapter_config\.json is no"):
        adapter.read(tmp_path / "adapter", Targets(bench.base), "low-rank")


@pytest.mark.parametrize(
    ("config", "tensors", "said"),
    [
        (LORA, lora("nowhere", 6, 4), "'nowhere.weight' is no parameter of the base"),
        (LORA, {**UP, "nowhere.bias": f32(6)}, "'nowhere.bias' is no parameter of the base"),
        (LORA, {"up.lora_A.weight": f32(2, 4)}, "parameter 'up.weight': the adapter has lora_A.weight for it"),
        (LORA, {**UP, "up.ia3_l": f32(6, 1)}, "parameter 'up.weight': the adapter has"),
        (LORA, lora("up", 6, 5), "parameter 'up.weight': the adapter is for 6 outputs of 5 inputs, not for [6, 4]"),
        (LORA, lora("words", 10, 4, 3), "parameter 'words.weight': factors of the ranks 3 and 3"),
        (LORA, {**UP, "up.lora_B.weight": f32(6, 3)}, "parameter 'up.weight': factors of the ranks 2 and 3"),
        (LORA, {**UP, "up.lora_A.weight": f32(8)}, "parameter 'up.weight': a factor of the shape [8] is no matrix"),
        (LORA, {"up.lora_A.weight": f32(0, 4), "up.lora_B.weight": f32(6, 0)}, "factors of the ranks 0 and 0"),
        (LORA, lora("double", 4, 4), "parameter 'double.weight': a LoRA of F64 values is not supported"),
        (LORA, {**UP, "up.lora_magnitude_vector": f32(6)}, "tensor 'up.lora_magnitude_vector': DoRA is not supported"),
        (LORA, {**UP, "up.lora_B.bias": f32(6)}, "tensor 'up.lora_B.bias': 'lora_B' is not supported"),
        (
            LORA,
            {**UP, "words.token_adapter.trainable_tokens_delta": f32(6)},
            "trainable_token_indices is not supported",
        ),
        (
            LORA,
            {**UP, "words.base_layer.weight": f32(10, 4)},
            "parameter 'words.weight': the adapter is for another base",
        ),
        (LORA, {"words.weight": BASE["words.weight"]}, "it changes no parameter"),
        (LORA | {"fan_in_fan_out": True}, {**UP, **lora("square", 4, 4)}, "parameter 'square.weight': it is square"),
        (IA3, {"up.ia3_l": f32(1, 6)}, "parameter 'up.weight': factors of the shape [1, 6], where [6, 1] is expected"),
        (IA3, {"up.ia3_l": f32(5, 1)}, "parameter 'up.weight': the adapter is for 5 outputs of any inputs"),
        (IA3 | {"feedforward_modules": {"up": 1}}, {"up.ia3_l": f32(6, 1)}, "feedforward_modules"),
        (IA3 | {"feedforward_modules": "(?=up)"}, {"up.ia3_l": f32(6, 1)}, "'(?=up)': is no regular expression"),
    ],
    ids=range(20),
)
def test_adapters_that_do_not_fit_are_refused_by_name(
    bench: Bench, config: dict[str, object], tensors: dict[str, Tensor], said: str
) -> None:
    assert said in bench.refuses(config, tensors)


def test_missing_files_are_named(bench: Bench, tmp_path: Path) -> None:
    bench.read(LORA, UP)
    with pytest.raises(InputError, match="--update-type low-rank, not ia3"):
        adapter.read(tmp_path / "adapter", Targets(bench.base), "ia3")
    (tmp_path / "adapter" / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match=r"adapter_model\.safetensors: no such file"):
        adapter.read(tmp_path / "adapter", Targets(bench.base), "low-rank")
    (tmp_path / "adapter" / "adapter_config.json").unlink()
    with pytest.raises(InputError, match="it is no PEFT adapter"):
        adapter.read(tmp_path / "adapter", Targets(bench.base), "low-rank")


def test_scaling_by_rank_and_by_pattern(bench: Bench) -> None:
    tensors = UP | lora("down", 4, 6, 4)
    config = LORA | {"rank_pattern": {"down": 4}, "alpha_pattern": {r"^u\w": 3}}
    found = bench.read(config, tensors)
    assert [scaling(found[name]) for name in ("up.weight", "down.weight")] == [1.5, 1.0]
    found = bench.read(config | {"use_rslora": True}, tensors)
    assert [scaling(found[name]) for name in ("up.weight", "down.weight")] == [pytest.approx(3 / 2**0.5), 2.0]


def test_shape_tells_how_a_weight_is_stored(bench: Bench) -> None:
    """A weight stored (in, out) takes the product transposed; a square one goes by the setting."""
    found = bench.read(LORA, UP | lora("square", 4, 4) | lora("kernel", 5, 12))
    assert [name for name, item in found.items() if "transposed" in item.tensors] == []
    found = bench.read(LORA | {"fan_in_fan_out": True}, lora("turned", 8, 4) | lora("square", 4, 4))
    assert {name for name, item in found.items() if "transposed" in item.tensors} == {"turned.weight", "square.weight"}
    embedding = {"words.lora_embedding_A": f32(2, 10), "words.lora_embedding_B": f32(4, 2)}
    assert "transposed" in bench.read(LORA, embedding)["words.weight"].tensors


def test_ia3_multiplies_a_bias_unless_it_is_of_inputs(bench: Bench) -> None:
    found = bench.read(IA3, {"up.ia3_l": f32(6, 1), "down.ia3_l": f32(1, 6), "kernel.ia3_l": f32(1, 5, 1, 1)})
    shapes = {name: item.tensors["ia3"].shape for name, item in found.items()}
    assert shapes == {"up.weight": (6, 1), "up.bias": (6,), "down.weight": (1, 6), "kernel.weight": (5, 1, 1, 1)}
    found = bench.read(IA3 | {"feedforward_modules": "kern.*"}, {"kernel.ia3_l": f32(1, 3, 1, 1)})
    assert found["kernel.weight"].tensors["ia3"].shape == (1, 3, 1, 1)


def test_whole_tensors_take_the_place_of_parameters(bench: Bench) -> None:
    found = bench.read(LORA, UP | {"up.base_layer.bias": f32(6, seed=9), "square.weight": f32(4, 4, seed=8)})
    assert {name: item.update for name, item in found.items()} == {
        "up.weight": "low-rank",
        "up.bias": "dense",
        "square.weight": "dense",
    }
