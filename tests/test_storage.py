"""Reading what may be hostile, writing what must survive a crash."""

import json
import math
import os
import pickle
import random
import re
import signal
import subprocess
import sys
import textwrap
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from genxai_core import storage
from genxai_core.errors import StorageError

# -- the crash-safe directory ----------------------------------------------------------------------------------------


def fill(folder, text):
    (folder / "a.txt").write_text(text)
    (folder / "sub").mkdir()
    (folder / "sub" / "b.txt").write_text(text * 2)


def write(target, text):
    with storage.directory(target) as folder:
        fill(folder, text)


def siblings(target):
    return sorted(p.name for p in target.parent.iterdir() if p != target)


def test_a_directory_is_written_whole_and_replaced_whole(tmp_path):
    target = tmp_path / "deep" / "out"
    write(target, "old")
    with storage.directory(target) as folder:
        (folder / "only.txt").write_text("new")
    assert sorted(p.name for p in target.iterdir()) == ["hashes.json", "only.txt"]
    assert storage.verify(target) == {"only.txt": storage.file_hash(target / "only.txt")}
    assert siblings(target) == []


def test_an_empty_directory_is_a_complete_one(tmp_path):
    with storage.directory(tmp_path / "out"):
        pass
    assert storage.verify(tmp_path / "out") == {}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_exception_leaves_the_old_directory(tmp_path, error):
    target = tmp_path / "out"
    write(target, "old")

    def half_way():
        with storage.directory(target) as folder:
            (folder / "a.txt").write_text("new")
            raise error

    with pytest.raises(error):
        half_way()
    assert (target / "a.txt").read_text() == "old"
    assert storage.is_complete(target)
    assert siblings(target) == []


def test_an_exception_at_the_first_writing_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), storage.directory(tmp_path / "out"):
        1 / 0  # noqa: B018
    assert list(tmp_path.iterdir()) == []


def test_an_error_between_the_two_renames_puts_the_old_directory_back(tmp_path, monkeypatch):
    target = tmp_path / "out"
    write(target, "old")
    rename = Path.rename

    def fails(self, to):
        if ".new-" in self.name:
            raise KeyboardInterrupt
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(KeyboardInterrupt):
        write(target, "new")
    assert (target / "a.txt").read_text() == "old"
    assert siblings(target) == []


def killed_between_the_renames(target, text):
    """Write in another process, which kills itself once the old directory is away and the new one has not come."""
    code = f"""
        import os, signal
        from pathlib import Path
        from genxai_core import storage
        rename = Path.rename
        def one(self, to):
            rename(self, to)
            os.kill(os.getpid(), signal.SIGKILL)
        with storage.directory({str(target)!r}) as folder:
            (folder / "a.txt").write_text({text!r})
            Path.rename = one
    """
    return subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False).returncode


def test_a_kill_between_the_two_renames_is_undone_by_recover(tmp_path):
    target = tmp_path / "out"
    write(target, "old")
    assert killed_between_the_renames(target, "new") == -signal.SIGKILL
    assert not target.exists()
    assert storage.recover(target)
    assert (target / "a.txt").read_text() == "old"
    assert storage.recover(target), "again, with nothing to do"
    write(target, "newest")
    assert (target / "a.txt").read_text() == "newest"


def test_recover_prefers_the_latest_complete_one_and_never_a_damaged_one(tmp_path):
    for number, text in ((11, "first"), (22, "second"), (33, "damaged")):
        write(tmp_path / "w", text)
        (tmp_path / "w").rename(tmp_path / f".out.old-{number}")
        os.utime(tmp_path / f".out.old-{number}", (number, number))
    (tmp_path / ".out.old-33" / "a.txt").write_text("?")
    assert storage.recover(tmp_path / "out")
    assert (tmp_path / "out" / "a.txt").read_text() == "second"


def test_recover_says_no_where_there_is_nothing(tmp_path):
    assert not storage.recover(tmp_path / "out")
    assert not storage.recover(tmp_path / "nowhere" / "out")


def test_what_genxai_did_not_write_is_not_replaced(tmp_path):
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "chapter.txt").write_text("years of work")
    with pytest.raises(StorageError, match="did not write"):
        write(thesis, "new")
    assert (thesis / "chapter.txt").read_text() == "years of work"
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StorageError, match="did not write"):
        write(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty", "new")
    assert storage.is_complete(tmp_path / "empty")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda d: (d / "a.txt").write_text("x"), "a.txt: changed"),
        (lambda d: (d / "sub" / "b.txt").unlink(), "b.txt: missing"),
        (lambda d: (d / "sub" / "c.txt").write_text(""), "c.txt: not part of it"),
        (lambda d: (d / "sub" / "hashes.json").write_text("{}"), "hashes.json: not part of it"),
        (lambda d: (d / "hashes.json").unlink(), "hashes.json is missing"),
        (lambda d: (d / "hashes.json").write_text("[]"), "hashes.json: damaged"),
        (lambda d: (d / "hashes.json").write_text("{"), "damaged JSON"),
        (lambda d: (d / "hashes.json").write_text("{}"), "a.txt: not part of it"),
        (lambda d: (d / "hashes.json").write_bytes(b"\xff\xff"), "damaged JSON"),
    ],
)
def test_every_damage_is_found_and_named(tmp_path, damage, said):
    write(tmp_path / "out", "text")
    damage(tmp_path / "out")
    with pytest.raises(StorageError, match=re.escape(said)) as caught:
        storage.verify(tmp_path / "out")
    assert len(str(caught.value).splitlines()) == 1
    assert not storage.is_complete(tmp_path / "out")
    assert not storage.recover(tmp_path / "out")


def test_a_text_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "f.json"
    storage.write_json(path, {"b": 1, "a": [1.5, None]})
    assert path.read_text() == '{\n  "a": [\n    1.5,\n    null\n  ],\n  "b": 1\n}\n'
    for bad in ({"x": math.nan}, {"x": object()}):
        with pytest.raises((ValueError, TypeError)):
            storage.write_json(path, bad)
    assert json.loads(path.read_text()) == {"b": 1, "a": [1.5, None]}
    assert [p.name for p in tmp_path.iterdir()] == ["f.json"], "no temporary file is left"
    assert path.stat().st_mode & 0o777 == 0o666 & ~storage._umask(), "as any program's file, not a private one"


# -- reading ---------------------------------------------------------------------------------------------------------


def test_unreadable_files_are_named(tmp_path):
    for read in (storage.read_yaml, storage.read_json, storage.read_tensors, storage.load_weights):
        with pytest.raises(StorageError, match="gone"):
            read(tmp_path / "gone.safetensors")
        with pytest.raises(StorageError):
            read(tmp_path)
    (tmp_path / "big.yaml").write_text("a: " + "x" * 1_000_001)
    with pytest.raises(StorageError, match="larger than the limit"):
        storage.read_yaml(tmp_path / "big.yaml")


@pytest.mark.parametrize("text", ["", "{", "nul", "[" * 200_000, "1" * 5000, '"\x01"'])
def test_damaged_json_is_a_storage_error_on_one_line(tmp_path, text):
    (tmp_path / "f.json").write_text(text)
    with pytest.raises(StorageError, match="damaged JSON") as caught:
        storage.read_json(tmp_path / "f.json")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("content", [b"", b"\x00" * 7, b"\xff" * 8 + b"{}", b"{}", b"x" * 100])
def test_damaged_safetensors_are_a_storage_error(tmp_path, content):
    (tmp_path / "f.safetensors").write_bytes(content)
    for read in (storage.read_tensors, storage.load_weights):
        with pytest.raises(StorageError, match="safetensors"):
            read(tmp_path / "f.safetensors")


def test_weights_are_read_from_every_allowed_form(tmp_path):
    weights = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).state_dict()
    save_file(dict(weights), tmp_path / "a.safetensors")
    torch.save(weights, tmp_path / "b.pt")
    torch.save(dict(weights), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    torch.save({"epoch": 3, "state_dict": weights, "lr": [0.1]}, tmp_path / "c.ckpt")
    torch.save({"model": OrderedDict(weights)}, tmp_path / "d.bin")
    torch.save({k: nn.Parameter(v) if v.is_floating_point() else v for k, v in weights.items()}, tmp_path / "e.pt")
    for path in sorted(tmp_path.iterdir()):
        found = storage.load_weights(path)
        assert list(found) == list(weights) or path.suffix == ".safetensors"
        assert all(torch.equal(found[k], v) and found[k].dtype == v.dtype for k, v in weights.items()), path


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize(
    "wrap", [lambda b: b, lambda b: {"w": b}, lambda b: {"state_dict": {"w": torch.zeros(1), "x": b}}]
)
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_is_refused_and_nothing_runs(tmp_path, wrap, zipped):
    trace = tmp_path / "executed"
    path = tmp_path / "f.pt"
    torch.save(wrap(Bomb(trace)), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(StorageError, match="refused"):
        storage.load_weights(path)
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists(), "the bomb works, so that its silence above means something"


def test_a_bare_pickle_with_code_is_refused_and_nothing_runs(tmp_path):
    (tmp_path / "f.pt").write_bytes(pickle.dumps({"w": Bomb(tmp_path / "executed")}))
    with pytest.raises(StorageError, match="refused"):
        storage.load_weights(tmp_path / "f.pt")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "content",
    [nn.Linear(2, 2), {}, [torch.zeros(1)], torch.zeros(1), {"w": 1.0}, {0: torch.zeros(1)}, {"state_dict": {}}, None],
    ids=["module", "empty", "list", "tensor", "number", "integer name", "nested empty", "none"],
)
def test_what_is_no_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "f.pt")
    with pytest.raises(StorageError, match="state_dict") as caught:
        storage.load_weights(tmp_path / "f.pt")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_damaged_weights_only_ever_give_weights_or_a_storage_error(tmp_path):
    path, rng = tmp_path / "f.pt", random.Random(0)
    seeds = []
    for content in (nn.Linear(2, 2).state_dict(), nn.Linear(2, 2)):
        for zipped in (True, False):
            torch.save(content, path, _use_new_zipfile_serialization=zipped)
            seeds.append(path.read_bytes())
    refused = 0
    for round_ in range(400):
        data = bytearray(seeds[round_ % len(seeds)])
        for _ in range(rng.randint(1, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        if rng.random() < 0.3:
            data = data[: rng.randrange(len(data))]
        path.write_bytes(data)
        try:
            found = storage.load_weights(path)
        except StorageError:
            refused += 1
        else:
            assert all(isinstance(k, str) and torch.is_tensor(v) for k, v in found.items())
    for _ in range(200):
        path.write_bytes(b"\x80\x02" + rng.randbytes(rng.randrange(60)))
        with pytest.raises(StorageError):
            storage.load_weights(path)
    assert refused > 200


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


# -- hashing ---------------------------------------------------------------------------------------------------------


def test_digests_ignore_the_order_of_keys_and_nothing_else():
    assert storage.digest({"a": 1, "b": [1, 2]}) == storage.digest({"b": [1, 2], "a": 1})
    different = [{"a": 1}, {"a": 1.0}, {"a": "1"}, {"a": True}, {"a": None}, {"a": [1]}, {"A": 1}, {"a": math.nan}]
    assert len({storage.digest(v) for v in different}) == len(different)


def test_content_hashes_see_names_and_bytes(tmp_path):
    def tree(name, **files):
        for path, text in files.items():
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / path).write_text(text)
        return storage.content_hash(tmp_path / name)

    assert tree("a", x="1", y="2") == tree("b", y="2", x="1")
    assert len({tree("a", x="1", y="2"), tree("c", x="2", y="1"), tree("d", x="12"), tree("e", z="1", y="2")}) == 4
    assert storage.content_hash(tmp_path / "a" / "x") == storage.content_hash(tmp_path / "b" / "x")


def test_what_a_killed_process_left_is_swept_up_after_a_day(tmp_path):
    old, young = tmp_path / ".target.new-old", tmp_path / ".target.new-young"
    for left in (old, young):
        left.mkdir()
    os.utime(old, (0, 0))
    with storage.directory(tmp_path / "target") as folder:
        (folder / "a.txt").write_text("a")
    assert not old.exists()
    assert young.exists()
