"""An intervention that was stopped goes on where it was, and ends bit for bit as one that was not."""

import dataclasses
from collections.abc import Mapping

import pytest
import torch
from genxai_dissection import intervention
from genxai_dissection.paired import Paired
from planted_painter import Channels, Hard, Painter, iou

import genxai_core as gx
from genxai_core import Runtime
from genxai_core.errors import StorageError

EFFECTS = ("unit-effects", {"layers": ("units",), "samples": 9, "mean_samples": 12})
SET = (
    "unit-intervention",
    {
        **{"concept": "twice", "layer": "units", "scores": iou(), "count": 3, "steps": 5, "draws": 2, "pairs": True},
        **{"samples": 9, "mean_samples": 12, "alpha_samples": 8, "batch": 4, "examples": 2},
    },
)


def explain(method, model=None, segmenter=None, changes=None, **runtime):
    name, how = method
    explainer = gx.create(f"explainer/{name}", segmenter=segmenter or Channels(), **{**how, **(changes or {})})
    return explainer.explain(model or Painter(), runtime=Runtime(**{"device": "cpu", "quiet": True, **runtime}))


def same(one, other):
    """Compare every field of two results, bit for bit."""

    def check(a, b):
        if isinstance(a, torch.Tensor):
            assert torch.equal(a.nan_to_num(7), b.nan_to_num(7))
        elif isinstance(a, Mapping):
            assert list(a) == list(b)
            for key in a:
                check(a[key], b[key])
        else:
            assert a == b

    for field in dataclasses.fields(one):
        check(getattr(one, field.name), getattr(other, field.name))


def count_edits(monkeypatch, stop_at=None):
    """Count the runs of edited samples; the one after ``stop_at`` is interrupted."""
    run, edits = Paired._shares, []

    def counting(self, *how):
        if len(edits) == stop_at:
            raise KeyboardInterrupt
        edits.append(how)
        return run(self, *how)

    monkeypatch.setattr(Paired, "_shares", counting)
    return edits


@pytest.mark.parametrize("locations", ["all", "cell", "concept"])
@pytest.mark.parametrize("method", [EFFECTS, SET], ids=["effects", "set"])
def test_a_run_that_was_stopped_goes_on_and_ends_alike(method, locations, tmp_path, monkeypatch):
    where = {"locations": locations}
    with monkeypatch.context() as patch:
        edits = count_edits(patch)
        whole = explain(method, changes=where, batch_size=4)
        needed = len(edits)
    saving = {"checkpoints": tmp_path, "checkpoint_seconds": 0.0, "batch_size": 4}
    with monkeypatch.context() as patch:
        count_edits(patch, stop_at=needed // 2)
        with pytest.raises(KeyboardInterrupt):
            explain(method, changes=where, **saving)
    with monkeypatch.context() as patch:
        patch.setattr(intervention, "optimised", None)  # alpha is not searched for again
        edits = count_edits(patch)
        same(explain(method, changes=where, **saving), whole)
    # of unit-effects the unit in which it was stopped begins anew: off, and put in for each of three concepts; at the
    # concept's places both for each
    begun = {"all": 4, "cell": 4, "concept": 6}[locations] if method is EFFECTS else 0
    assert needed - needed // 2 <= len(edits) < needed - needed // 2 + max(begun, 1)
    with monkeypatch.context() as patch:
        patch.setattr(intervention, "optimised", None)
        edits = count_edits(patch)
        same(explain(method, changes=where, **saving), whole)  # all of it was kept
        assert not edits


def test_what_was_not_written_is_found_again(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        count_edits(patch, stop_at=9)
        with pytest.raises(KeyboardInterrupt):
            explain(SET, checkpoints=tmp_path, checkpoint_seconds=3600.0)
    assert not any(tmp_path.iterdir())
    same(explain(SET, checkpoints=tmp_path), explain(SET))


@pytest.mark.parametrize("method", [EFFECTS, SET], ids=["effects", "set"])
def test_the_checkpoint_of_another_run_is_refused(method, tmp_path):
    saving = {"checkpoints": tmp_path, "checkpoint_seconds": 0.0, "batch_size": 4}
    found = explain(method, **saving)
    name = method[0]
    other = Painter()
    other.gain.data *= 1.01
    others = [
        {"seed": 1},
        {"batch_size": 5},
        {"model": other},
        {"segmenter": Hard()}
        if method is EFFECTS
        else {"changes": {"scores": dataclasses.replace(iou(), measure="x")}},
        {"changes": {"samples": 10}},
        {"changes": {"locations": "cell"}},
        {"changes": {"call": 0}},
    ]
    for changed in others:
        with pytest.raises(StorageError, match=f"is the checkpoint of another {name}; delete it"):
            explain(method, **{**saving, **changed})
    same(explain(method, **saving), found)
    (tmp_path / name / "state.json").write_text("{")
    with pytest.raises(StorageError, match="changed since it was written"):
        explain(method, **saving)
