"""Values with tensors in them come back exactly."""

import math
import re
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from genxai_core import storage
from genxai_core.errors import StorageError

# -- values with tensors in them --------------------------------------------------------------------------------------


def round_trip(value, folder):
    tree, tensors = storage.pack(value)
    storage.write_json(folder / "tree.json", tree, sort=False)
    storage.write_tensors(folder / "t.safetensors", tensors)
    return storage.unpack(storage.read_json(folder / "tree.json"), storage.read_tensors(folder / "t.safetensors"))


def same(a, b):
    if isinstance(a, torch.Tensor):
        return (
            isinstance(b, torch.Tensor)
            and a.dtype == b.dtype
            and a.shape == b.shape
            and torch.equal(a.reshape(-1).contiguous().view(torch.uint8), b.reshape(-1).contiguous().view(torch.uint8))
        )
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(type(x) is type(y) and same(a[x], b[y]) for x, y in zip(a, b))
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or (isinstance(a, float) and math.isnan(a) and math.isnan(b))


T1, T2, T3 = torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor([3.0])

VALUES = {
    "none": None,
    "bools and ints": [True, False, 0, 1, -(10**30)],
    "floats": [0.1, -0.0, math.nan, math.inf, -math.inf, 5e-324],
    "strings": ["", "é\n\x00\u2028", "$tensor", "nan"],
    "nested tuples": ((1, (2, ())), [(3,), [4]], {"a": (5, [6.5])}),
    "int keys": {1: "a", "1": "b", -3: {0: T1}},
    "bool key": {True: 1, "x": 2},
    "dollar keys": {"$tensor": "x", "$tuple": [1], "$dict": {"$float": "nan"}},
    "single dollar key": {"$float": "nan"},
    "order of keys": {"z": 1, "a": {"y": 2, "b": T1}, "m": 3},
    "float": torch.tensor([math.nan, -0.0, math.inf, 1e-45]),
    "double": torch.tensor([0.1], dtype=torch.float64),
    "long": torch.tensor([2**62, -1]),
    "bool": torch.tensor([True, False]),
    "uint8": torch.tensor([0, 255], dtype=torch.uint8),
    "bf16": torch.tensor([1.5, -0.0], dtype=torch.bfloat16),
    "complex": torch.tensor([1 + 2j]),
    "0-d": {"x": torch.tensor(3), "y": [torch.tensor(True)]},
    "empty": {"x": torch.empty(0, 3), "y": torch.empty(2, 0, dtype=torch.int64)},
    "lists of tensors": [T1, [T2, T3], (T1, T2)],
    "same tensor twice": [T1, T1],
    "colliding names": {"a.b": T1, "a": {"b": T2}, "a.b'": T3},
    "colliding list and key": {"a": [T1], "a.0": T2},
    "colliding int and string": {0: T1, "0": T2},
    "colliding dots": {".a": T1, "a": T2, "..a": T3, "": {"a": T1}},
    "empty key": {"": T1, "value": T2},
    "the format's own key": {"__metadata__": T1, "__metadata__'": T2},
}


@pytest.mark.parametrize("name", VALUES)
def test_values_come_back_exactly(tmp_path, name):
    value = VALUES[name]
    found = round_trip(value, tmp_path)
    assert same(value, found), found


def test_same_sees_differences():
    assert not same(torch.tensor([0.0]), torch.tensor([-0.0]))
    assert not same({"a": 1, "b": 2}, {"b": 2, "a": 1})
    assert not same((1,), [1])
    assert not same(True, 1)


def test_views_and_lazy_tensors_are_saved_by_value(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    z = torch.tensor([1 + 2j, 3 - 4j])
    value = [
        base.t(),
        base[:, 1],
        base[1].expand(2, 4),
        z.conj(),
        z.conj().imag,
        nn.Parameter(T1),
        base.requires_grad_(),
    ]
    found = round_trip(value, tmp_path)
    for a, b in zip(value, found):
        assert torch.equal(a.detach().resolve_conj().resolve_neg(), b)
        assert not b.requires_grad
    assert (tmp_path / "t.safetensors").stat().st_size < 2000


def test_packing_copies(tmp_path):
    x = torch.zeros(2)
    _, tensors = storage.pack({"x": x})
    x += 1
    assert torch.equal(tensors["x"], torch.zeros(2))


def test_numpy_arrays_and_numbers(tmp_path):
    value = [
        np.arange(3)[::-1],
        np.array(2.5),
        np.array([1.0], dtype=">f4"),
        np.float64(0.1),
        np.int8(3),
        np.bool_(True),
    ]
    found = round_trip([*value, np.float32("nan")], tmp_path)
    assert found[0].tolist() == [2, 1, 0]
    assert found[1].shape == ()
    assert found[1].item() == 2.5
    assert found[2].dtype == torch.float32
    assert found[2].tolist() == [1.0]
    assert [type(v) for v in found[3:]] == [float, int, bool, float]
    assert found[3:6] == [0.1, 3, True]


def test_paths_become_text_and_mappings_dicts(tmp_path):
    found = round_trip({"p": Path("a/b"), "m": OrderedDict(x=1)}, tmp_path)
    assert found == {"p": "a/b", "m": {"x": 1}}


@pytest.mark.parametrize(
    "value",
    [
        *({1, 2}, b"x", object(), 1j, {1.5: 2}, {(1, 2): 3}, {None: 1}, lambda: 0),
        *(np.array(["a"]), np.array([object()]), np.array(["2020-01-01"], dtype="M8[D]"), np.datetime64("2020-01-01")),
        *(torch.zeros(2).to_sparse(), torch.zeros(1, dtype=torch.complex128), nn.Linear(1, 1)),
    ],
    ids=lambda v: f"{type(v).__name__} {getattr(v, 'dtype', '')}",
)
def test_anything_else_is_refused_with_its_place(value):
    with pytest.raises(StorageError, match=re.escape("a.1.b: ")):
        storage.pack({"a": [0, {"b": value}]})


def test_a_missing_array_is_named():
    tree, tensors = storage.pack({"a": {"b": T1}})
    del tensors["a.b"]
    with pytest.raises(StorageError, match=re.escape("'a.b'")):
        storage.unpack(tree, tensors)
