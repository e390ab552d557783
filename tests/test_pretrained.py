"""Weights that ship with a plugin: asked for by name, checked, matched strictly."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from torch import nn

from genxai_core import Discriminator, Spec, create, parameters, pretrained, saving
from genxai_core.describing import describe
from genxai_core.errors import BadParameter, StorageError
from genxai_core.testing import isolated_registry as isolated_registry


class Head(Discriminator):
    """A linear map of the pixels.

    Parameters
    ----------
    size
        Side.
    classes
        How many logits.
    names
        What they mean.
    pretrained
        Name of weights that ship.
    """

    value_range = (-1.0, 1.0)

    def __init__(self, size: int, classes: int = 2, names: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.size, self.class_names = size, names or tuple(map(str, range(classes)))
        self.linear = nn.Linear(size * size, classes)

    def forward(self, images):
        return self.linear(images.flatten(1))


class Other(Head):
    """The same under another name, which ships nothing."""


@pytest.fixture
def shipped(isolated_registry, tmp_path, monkeypatch):
    """discriminator/head with weights "good" for size 4 and three named classes, kept in half precision."""
    monkeypatch.setattr(Head, "pretrained_folder", tmp_path / "head", raising=False)
    isolated_registry.register("discriminator/head", Head)
    isolated_registry.register("discriminator/other", Other)
    model = create("discriminator/head", size=4, classes=3, names=("a", "b", "c"))
    pretrained.ship(model.half(), "good", {"data": "none", "metrics": {"accuracy": 0.5}, "seed": 0})
    return model


def test_shipped_weights_come_back_as_they_are_in_single_precision(shipped):
    loaded = create("discriminator/head", pretrained="good")
    assert type(loaded) is Head
    assert not loaded.training
    assert (loaded.size, loaded.class_names) == (4, ("a", "b", "c"))
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert torch.equal(loaded.linear.weight, shipped.linear.weight.float())
    assert pretrained.cards(Head)["good"]["metrics"] == {"accuracy": 0.5}


def test_double_precision_is_kept(shipped):
    model = create("discriminator/head", size=4).double()
    pretrained.ship(model, "double", {})
    assert torch.equal(create("discriminator/head", pretrained="double").linear.weight, model.linear.weight)
    assert list(pretrained.cards(Head)) == ["double", "good"]  # what was there stays


def test_a_model_that_is_saved_again_does_not_need_what_was_shipped(shipped, tmp_path):
    loaded = create("discriminator/head", pretrained="good")
    with torch.no_grad():
        loaded.linear.weight.add_(1.0)
    saving.save_model(loaded, tmp_path / "tuned")
    shutil.rmtree(Head.pretrained_folder)
    again = saving.load_model(tmp_path / "tuned")
    assert torch.equal(again.linear.weight, loaded.linear.weight)
    assert again.class_names == ("a", "b", "c")


def test_drawing_random_numbers_goes_on_as_before(shipped):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    create("discriminator/head", pretrained="good")
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("params", [{"size": 4}, {"classes": 3, "size": 4}, {"names": ["a", "b", "c"]}])
def test_parameters_that_agree_may_be_given(shipped, params):
    assert create("discriminator/head", pretrained="good", **params).size == 4


def test_parameters_that_disagree_are_refused(shipped):
    with pytest.raises(BadParameter, match=r"head: size: the weights 'good' are for 4, not 8; take parameters"):
        create("discriminator/head", pretrained="good", size=8)
    with pytest.raises(BadParameter, match="names"):
        Spec("discriminator/head", {"pretrained": "good"}).build(size=4, names=("a", "b", "d"))


def test_data_that_agree_fill_in_nothing_new(shipped):
    assert Spec("discriminator/head", {"pretrained": "good"}).build(size=4, channels=1).size == 4


def test_without_the_name_everything_is_as_ever(shipped):
    assert create("discriminator/head", size=8, pretrained=None).size == 8
    with pytest.raises(BadParameter, match="'size', which is not given"):
        create("discriminator/head")
    assert [p.name for p in parameters.of(Other)] == ["size", "classes", "names"]  # a subclass ships nothing
    with pytest.raises(BadParameter, match="no such parameter"):
        create("discriminator/other", size=4, pretrained="good")


def test_a_parameter_of_that_name_that_a_class_has_already_is_its_own(shipped, isolated_registry):
    class Own(Head):
        pretrained_folder = Head.pretrained_folder

        def __init__(self, size: int, pretrained: str) -> None:
            super().__init__(size)
            self.given = pretrained

    isolated_registry.register("discriminator/own", Own)
    assert create("discriminator/own", pretrained="good", size=4).given == "good"
    with pytest.raises(BadParameter, match="'size', which is not given"):
        create("discriminator/own", pretrained="good")


def test_an_unknown_name_is_told_with_those_that_are(shipped):
    with pytest.raises(BadParameter, match=r"pretrained: 'god' does not fit .*'good'"):
        create("discriminator/head", pretrained="god")


def test_the_parameter_is_described(shipped):
    row = next(p for p in describe("discriminator/head")["parameters"] if p["name"] == "pretrained")
    assert row["type"] == "'good' | None"
    assert row["doc"] == "Name of weights that ship."
    assert not row["required"]


def test_changed_files_are_refused(shipped):
    weights = Head.pretrained_folder / "good" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-2] + b"\0\1")
    with pytest.raises(StorageError, match="not what its card says; reinstall"):
        create("discriminator/head", pretrained="good")


def test_weights_of_another_architecture_are_refused(shipped):
    folder = Head.pretrained_folder / "good"
    head = json.loads((folder / "result.json").read_text())
    head["model"]["with"]["classes"], head["model"]["with"]["names"] = 2, {"$tuple": ["a", "b"]}
    (folder / "result.json").write_text(json.dumps(head))
    rehash(folder)
    with pytest.raises(StorageError, match="do not fit the architecture"):
        create("discriminator/head", pretrained="good")


def test_weights_of_another_component_are_refused(shipped):
    folder = Head.pretrained_folder / "good"
    shutil.rmtree(folder)
    saving.save_model(create("discriminator/other", size=4), folder)
    rehash(folder)
    with pytest.raises(StorageError, match="holds discriminator/other, not discriminator/head"):
        create("discriminator/head", pretrained="good")


def rehash(folder):
    """Make hashes and card those of the files, as an author would who ships something else."""
    from genxai_core import storage

    (folder / "hashes.json").unlink()
    storage.write_json(folder / "hashes.json", storage.hashes(folder))
    cards = json.loads((folder.parent / "cards.json").read_text())
    cards["good"]["hash"] = storage.content_hash(folder)
    storage.write_json(folder.parent / "cards.json", cards)


def test_what_a_subclass_ships_leaves_its_base_alone(shipped, isolated_registry):
    isolated_registry.register("discriminator/heir", type("Heir", (Head,), {}))
    with pytest.raises(StorageError, match="Heir has no pretrained_folder"):
        pretrained.ship(create("discriminator/heir", size=4), "bad", {})
    assert list(pretrained.cards(Head)) == ["good"]


def test_free_parameters_may_differ(shipped, monkeypatch):
    monkeypatch.setattr(Head, "pretrained_free", ("names",), raising=False)
    assert create("discriminator/head", pretrained="good", names=("x", "y", "z")).class_names == ("x", "y", "z")


def test_of_two_providers_the_one_that_is_named_loads_its_own(shipped, isolated_registry):
    from types import ModuleType

    from genxai_core import Component, hookimpl

    module = ModuleType("another_provider")
    component = Component("discriminator", "head", f"{Other.__module__}:Other", "another")
    module.genxai_components = hookimpl(lambda: [component])
    isolated_registry.host._add(module, "somebody-else", "0")
    loaded = create("discriminator/head@registered-by-a-test", pretrained="good")
    assert saving.recipe_of(loaded).use == "discriminator/head@registered-by-a-test"


def test_bfloat16_comes_back_in_single_precision(shipped):
    pretrained.ship(create("discriminator/head", size=4).bfloat16(), "brain", {})
    assert create("discriminator/head", pretrained="brain").linear.weight.dtype == torch.float32


@pytest.mark.parametrize("content", ["{", "[]", '{"good": 3}', '{"good": {}}'])
def test_damaged_cards_are_told(shipped, content):
    (Head.pretrained_folder / "cards.json").write_text(content)
    with pytest.raises(StorageError, match=r"cards\.json: damaged; reinstall the plugin"):
        create("discriminator/head", pretrained="good")


PLUGIN = """
from pathlib import Path
import torch
from torch import nn
from genxai_core import Component, Discriminator, hookimpl


class Flat(Discriminator):
    value_range, pretrained_folder = (-1.0, 1.0), Path(__file__).parent / "weights"

    def __init__(self, size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(size * size, 1)

    def forward(self, images):
        return self.linear(images.flatten(1))


@hookimpl
def genxai_components():
    return [Component("discriminator", "flat", "flat_plugin:Flat", "for a test")]
"""
PIPELINE = """
genxai: 1
name: p
steps:
  flat: {use: discriminator/flat, with: {pretrained: mine}}
"""


def test_a_pipeline_notices_other_weights_of_a_plugin_file_and_a_contradiction(tmp_path):
    (tmp_path / "flat_plugin.py").write_text(PLUGIN)
    (tmp_path / "p.yaml").write_text(PIPELINE)

    def run(*code):
        done = subprocess.run([sys.executable, *code], capture_output=True, text=True, cwd=tmp_path, timeout=300)
        return done.stdout + done.stderr

    def ship(value):
        return run(
            "-c",
            "from genxai_core import registry, pretrained, create; registry.default().host.load_file('flat_plugin.py');"
            f"m = create('discriminator/flat', size=4); m.linear.bias.data.fill_({value});"
            "pretrained.ship(m, 'mine', {})",
        )

    def genxai(*arguments):
        return run("-m", "genxai_core", *arguments, "--plugin", "flat_plugin.py")

    assert ship(1.0) == ""
    pipeline = ("run", "p.yaml", "--cache", "cache", "--out", "out")
    assert "discriminator/flat" in genxai(*pipeline)
    assert "nothing to do" in genxai(*pipeline)
    assert ship(2.0) == ""
    assert "nothing to do" not in genxai(*pipeline)
    (tmp_path / "p.yaml").write_text(PIPELINE.replace("mine}", "mine, size: 8}"))
    assert "size: the weights 'mine' are for 4, not 8" in genxai("check", "p.yaml")


def test_what_cannot_be_shipped_is_told(shipped):
    with pytest.raises(StorageError, match=r"cannot be shipped as '\.\./up'"):
        pretrained.ship(shipped, "../up", {})
    with pytest.raises(StorageError, match="Linear has no pretrained_folder"):
        pretrained.ship(nn.Linear(1, 1), "good", {})
