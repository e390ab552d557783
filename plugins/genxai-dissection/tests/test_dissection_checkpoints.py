"""What a checkpoint of a dissection is of: the segmenter and the edits count, beside weights and numbers."""

import numpy as np
import pytest
import torch
from genxai_dissection import partial
from genxai_dissection.association import GanDissection
from genxai_dissection.fingerprint import fingerprint
from quadrants import Quadrants, deep, painter

import genxai_core as gx
from genxai_core import Runtime, Segmenter, UnitEdits, units
from genxai_core.errors import StorageError


def dissect(model, segmenter=None, **runtime):
    few = {"samples": 23, "threshold_samples": 11, "quantile": 0.9, "examples": 3}
    method = GanDissection(segmenter or Quadrants(), **few)
    return method.explain(model, runtime=Runtime(device="cpu", quiet=True, **runtime))


def same(one, other):
    for name in ("intersection", "area", "scores", "thresholds", "intervals", "examples", "shown", "regions"):
        mine, theirs = getattr(one, name), getattr(other, name)
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[k], theirs[k]) for k in mine), name
    assert torch.equal(one.concept_area, other.concept_area)
    assert one.pixels == other.pixels
    assert torch.equal(one.images, other.images)


def test_a_run_that_was_stopped_goes_on_and_ends_alike(tmp_path, monkeypatch):
    whole = dissect(deep(), batch_size=4)
    take = partial.Partial.take

    def stopping(self, activations, masks, first):
        if self.batches == 3:
            raise KeyboardInterrupt
        take(self, activations, masks, first)

    saving = {"checkpoints": tmp_path, "checkpoint_seconds": 0.0, "batch_size": 4}
    monkeypatch.setattr(partial.Partial, "take", stopping)
    with pytest.raises(KeyboardInterrupt):
        dissect(deep(), **saving)
    counted = []
    monkeypatch.setattr(
        partial.Partial, "take", lambda self, a, masks, first: counted.append(first) or take(self, a, masks, first)
    )
    monkeypatch.setattr(units.Thresholds, "see", None)  # they are not found again
    same(dissect(deep(), **saving), whole)
    assert counted == [12, 16, 20]
    monkeypatch.undo()
    other = deep()
    with torch.no_grad():
        other.merge.bias += 1e-3
    for changed, options in ((other, saving), (deep(), saving | {"seed": 1}), (deep(), saving | {"batch_size": 5})):
        with pytest.raises(StorageError, match="is the checkpoint of another dissection"):
            dissect(changed, **options)
    (tmp_path / "dissection-0-of-1" / "state.json").write_text("{")
    with pytest.raises(StorageError, match="changed since it was written"):
        dissect(deep(), **saving)


class Own(Segmenter):
    """Of no registry: what it holds says what it is."""

    concepts = ("bright",)

    def __init__(self, level, offset=0.0):
        self.level, self.parts = level, {"offset": [torch.tensor(offset)]}

    def _segment(self, samples):
        return samples.images.mean(1, keepdim=True) > self.level + self.parts["offset"][0]


def fixed(rows):
    masks = torch.zeros(1, 16, 16, dtype=torch.bool)
    masks[:, :rows] = True
    return gx.create("segmenter/fixed", masks=masks, concepts=("top",))


def morphology(threshold):
    return gx.create("segmenter/morphology", threshold=threshold)


def edits(unit, layer="layers", **notes):
    return UnitEdits((layer,), torch.tensor([unit]), torch.tensor([0.0]), notes=notes)


def edited(unit, **notes):
    return gx.create("generator/edited", base=painter(), edits=edits(unit, **notes))


@pytest.mark.parametrize(
    ("one", "again", "other"),
    [
        ((painter(), morphology(0.3)), (painter(), morphology(0.3)), (painter(), morphology(0.8))),
        ((painter(), fixed(8)), (painter(), fixed(8)), (painter(), fixed(9))),
        ((edited(0), Quadrants()), (edited(0, made="again"), Quadrants()), (edited(1), Quadrants())),
        ((painter(), Own(0.3)), (painter(), Own(0.3)), (painter(), Own(0.4))),
        ((painter(), Own(0.3)), (painter(), Own(0.3)), (painter(), Own(0.3, offset=0.1))),
    ],
    ids=["morphology", "fixed", "edited", "own value", "own tensor"],
)
def test_counts_of_another_segmenter_or_other_edits_are_not_gone_on_with(tmp_path, monkeypatch, one, again, other):
    take = partial.Partial.take

    def stopping(self, activations, masks, first):
        if self.batches == 3:
            raise KeyboardInterrupt
        take(self, activations, masks, first)

    saving = {"checkpoints": tmp_path, "checkpoint_seconds": 0.0, "batch_size": 4}
    with monkeypatch.context() as stop:
        stop.setattr(partial.Partial, "take", stopping)
        with pytest.raises(KeyboardInterrupt):
            dissect(*one, **saving)
    with pytest.raises(StorageError, match="is the checkpoint of another dissection"):
        dissect(*other, **saving)
    same(dissect(*again, **saving), dissect(*one, batch_size=4))


def test_a_fingerprint_survives_saving_and_knows_what_files_hold(tmp_path):
    gan = gx.create(
        "generator/edited", base=gx.create("generator/dcgan", size=16, channels=1), edits=edits(0, "layers.1")
    )
    for name, made in (("fixed", fixed(8)), ("edited", gan), ("morphology", morphology(0.3))):
        gx.save_result(made, tmp_path / name)
        assert fingerprint(gx.load_result(tmp_path / name)) == fingerprint(made)
    prints = set()
    for rows in (4, 5):
        masks = torch.arange(8)[None, :, None].expand(1, 8, 8) < rows
        np.savez(tmp_path / "masks.npz", masks=masks.numpy(), concepts=np.array(["top"]))
        prints.add(fingerprint(gx.create("segmenter/fixed", masks=tmp_path / "masks.npz")))
    assert len(prints) == 2
    model = deep()
    before = fingerprint(model)
    model.eval().register_forward_hook(lambda module, inputs, output: None)
    model.train()
    assert fingerprint(model) == before
    model.norm.eps = 0.1
    assert fingerprint(model) != before
    model.itself = [model]  # a module that knows itself has an end
    assert fingerprint(model) != before
