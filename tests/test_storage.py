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


def test_links_and_pipes_in_a_directory_are_refused(tmp_path):
    outside = tmp_path / "outside.txt"
    outside.write_text("a")
    with storage.directory(tmp_path / "target") as folder:
        (folder / "a.txt").write_text("a")
    (tmp_path / "target/a.txt").unlink()
    (tmp_path / "target/a.txt").symlink_to(outside)
    with pytest.raises(StorageError, match="is a link"):
        storage.verify(tmp_path / "target")
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(StorageError, match="is not a file"):
        storage.read_json(tmp_path / "pipe.json")
