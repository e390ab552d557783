"""Models, datasets, samples, trainings and values: saved as recipes and safetensors, rebuilt through the registry."""

import json
import random
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

import genxai_core as gx
from genxai_core import Attribution, Component, Dataset, Explainer, Generator, Samples, Spec, Trained, saving, storage
from genxai_core.errors import NotInstalled, StorageError, UnknownComponent
from genxai_core.plugins import Plugin, PluginHost
from genxai_core.registry import Registry, using

MODULE = "genxai_saving_targets"


class Net(Generator):
    value_range = (-1.0, 1.0)

    def __init__(self, width: int = 2, name: str = "x", sizes: tuple[int, ...] = (1,)):
        super().__init__()
        self.width, self.name, self.sizes = width, name, sizes
        self.body = nn.utils.parametrizations.spectral_norm(nn.Linear(width, width))
        self.norm = nn.BatchNorm1d(width)
        self.norm.register_buffer("scratch", torch.rand(1), persistent=False)

    def forward(self, z):
        return self.norm(self.body(z))


class Edited(Generator):
    """A model around another: its weights are part of its own."""

    value_range = (-1.0, 1.0)

    def __init__(
        self,
        base: nn.Module,
        factors: list[float] | None = None,
        spec: Spec | None = None,
        why: Attribution | None = None,
        shown: Samples | None = None,
    ):
        super().__init__()
        self.base, self.factors, self.spec, self.why, self.shown = base, factors, spec, why, shown

    def forward(self, z):
        return self.base(z)


class Shown(Dataset):
    image_shape = (1, 2, 2)

    def __init__(self, n: int, model: nn.Module | None = None, where: Path | None = None):
        self.n, self.model, self.where = n, model, where

    def __len__(self):
        return self.n

    def _samples(self, rows):
        return Samples(torch.zeros(len(rows), 1, 2, 2), value_range=(-1, 1))


class Judge(Explainer):
    def __init__(self, classifier: nn.Module, options: dict[str, list[nn.Module]] | None = None):
        self.classifier, self.options = classifier, options

    def _explain(self, model, inputs, target): ...


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    module = ModuleType(MODULE)
    rows = {"net": ("generator", Net), "edited": ("generator", Edited)}
    rows |= {"shown": ("dataset", Shown), "judge": ("explainer", Judge)}
    components = [Component("explanation", "attribution", "genxai_core.explanation:Attribution", "s")]
    for name, (kind, target) in rows.items():
        setattr(module, target.__name__, target)
        components.append(Component(kind, name, f"{MODULE}:{target.__name__}", "s"))
    monkeypatch.setitem(sys.modules, MODULE, module)
    host = PluginHost(entry_points=[])
    host.plugins.append(Plugin("mine", "1", tuple(components)))
    with using(Registry(host)) as registry:
        yield registry


def trained(**params):
    """A net whose every weight and buffer has moved away from what a seed gives."""
    net = gx.create("generator/net", **params)
    net.train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    for _ in range(3):
        net(torch.randn(8, net.width)).pow(2).sum().backward()
        optimizer.step()
    return net.eval()


def same_weights(a, b):
    x, y = a.state_dict(), b.state_dict()
    return list(x) == list(y) and all(x[k].dtype == y[k].dtype and torch.equal(x[k], y[k]) for k in x)


# -- models ----------------------------------------------------------------------------------------------------------


def test_a_model_comes_back_with_its_weights_and_recipe(tmp_path):
    net = trained(width=3, sizes=[1, 2], name="n")
    assert gx.save_model(net, tmp_path / "m") == tmp_path / "m"
    found = gx.load_model(tmp_path / "m")
    assert type(found) is Net
    assert (found.width, found.name, found.sizes) == (3, "n", (1, 2))
    assert same_weights(net, found)
    assert not found.training
    assert saving.recipe_of(found) == Spec("generator/net", {"width": 3, "sizes": [1, 2], "name": "n"})
    z = torch.randn(4, 3)
    assert torch.equal(net(z), found(z))
    gx.save_model(found, tmp_path / "again")
    assert storage.verify(tmp_path / "m") == storage.verify(tmp_path / "again"), "bit for bit, file by file"


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_precision_comes_back(tmp_path, dtype):
    net = trained().to(dtype)
    gx.save_model(net, tmp_path / "m")
    assert same_weights(net, gx.load_model(tmp_path / "m"))


def test_every_precision_of_a_model_comes_back(tmp_path):
    net = trained()
    net.norm.double()
    net.norm.weight.data = net.norm.weight.data.half()
    assert same_weights(net, found := gx.load_model(gx.save_model(net, tmp_path / "m")))
    assert isinstance(found.norm.weight, nn.Parameter)

    model = gx.create("generator/edited", base=trained().double())
    model.base.body.float()
    found = gx.load_model(gx.save_model(model, tmp_path / "part"))
    assert same_weights(model, found)
    assert found.base.norm.scratch.dtype == torch.float64, "not saved, in a part that is double"


def test_loading_draws_nothing_from_the_callers_generators(tmp_path):
    gx.save_model(trained(), tmp_path / "m")
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    gx.load_model(tmp_path / "m")
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before


def test_a_model_that_is_not_registered_is_refused_with_the_way_to_do_it(tmp_path):
    for save in (gx.save_model, gx.save_result):
        with pytest.raises(StorageError, match=r"Net was not built through the registry.*--plugin \./my_models\.py"):
            save(Net(), tmp_path / "m")
    with pytest.raises(StorageError, match="--plugin"):
        gx.save_result(Trained({"generator": Net()}), tmp_path / "m")
    with pytest.raises(StorageError, match="--plugin"):
        gx.save_model(gx.create("generator/edited", base=Net()), tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_a_model_around_a_model(tmp_path):
    net = trained(width=3)
    spec = Spec("generator/net", {"width": 5, "deeper": [Spec("a/b", {"x": (1, 2)})]})
    edited = gx.create("generator/edited", base=net, factors=[0.5, float("inf")], spec=spec)
    gx.save_model(edited, tmp_path / "m")
    found = gx.load_model(tmp_path / "m")
    assert type(found.base) is Net
    assert found.factors == [0.5, float("inf")]
    assert found.spec == spec
    assert same_weights(edited, found)
    once = (tmp_path / "m" / "model.safetensors").stat().st_size
    gx.save_model(net, tmp_path / "base")
    assert once < 1.7 * (tmp_path / "base" / "model.safetensors").stat().st_size, "the weights are there once"


def test_a_recipe_may_hold_results(tmp_path):
    why = Attribution(torch.randn(2, 3, 3), target=4, notes={"layer": "a"}, provenance={"seed": 3})
    shown = Samples(torch.rand(2, 1, 3, 3), captions=("a", "b"), value_range=(0.0, 1.0))
    gx.save_model(gx.create("generator/edited", base=trained(), why=why, shown=shown), tmp_path / "m")
    found = gx.load_model(tmp_path / "m")
    assert torch.equal(found.why.maps, why.maps)
    assert found.why.target.tolist() == [4, 4]
    assert (found.why.notes, found.why.provenance) == ({"layer": "a"}, {"seed": 3})
    assert torch.equal(found.shown.images, shown.images)
    assert (found.shown.captions, found.shown.value_range) == (("a", "b"), (0.0, 1.0))
    gx.save_model(found, tmp_path / "again")
    assert storage.verify(tmp_path / "m") == storage.verify(tmp_path / "again")


def test_what_holds_a_trained_model_without_being_one_keeps_its_weights(tmp_path):
    first, second = trained(width=3), trained(width=2)
    judge = gx.create("explainer/judge", classifier=first, options={"a": [second]})
    gx.save_result(judge, tmp_path / "j")
    found = gx.load_result(tmp_path / "j")
    assert type(found) is Judge
    assert same_weights(found.classifier, first)
    assert same_weights(found.options["a"][0], second)
    data = gx.create("dataset/shown", n=3, model=first)
    gx.save_result(data, tmp_path / "d")
    assert same_weights(gx.load_result(tmp_path / "d").model, first)


def test_weights_that_do_not_fit_are_told(tmp_path):
    gx.save_model(trained(width=3), tmp_path / "m")
    rewrite(tmp_path / "m", lambda head: head["model"]["with"].update(width=4))
    with pytest.raises(StorageError, match=r"the weights do not fit the architecture: .*size mismatch") as caught:
        gx.load_model(tmp_path / "m")
    assert len(str(caught.value).splitlines()) == 1


def test_a_component_that_is_gone_is_told(tmp_path):
    gx.save_model(trained(), tmp_path / "m")
    with using(Registry(PluginHost(entry_points=[]))), pytest.raises(UnknownComponent, match="generator/net"):
        gx.load_model(tmp_path / "m")
    assert not issubclass(NotInstalled, UnknownComponent)


def test_a_folder_with_something_else_is_no_model(tmp_path):
    gx.save_result({"a": 1}, tmp_path / "v")
    with pytest.raises(StorageError, match="holds a dict, not a model"):
        gx.load_model(tmp_path / "v")


# -- every result ----------------------------------------------------------------------------------------------------


def test_samples(tmp_path):
    samples = Samples(
        torch.rand(2, 3, 4, 4),
        latents=torch.randn(2, 5),
        labels=torch.tensor([1, 0]),
        masks=torch.rand(2, 2, 4, 4) > 0.5,
        factors=torch.rand(2, 1).double(),
        captions=("a", "é"),
        value_range=(0.0, 1.0),
        class_names=("x", "y"),
        concepts=("sky", "tree"),
        factor_names=("size",),
    )
    gx.save_result(samples, tmp_path / "s")
    found = gx.load_result(tmp_path / "s")
    for name in ("images", "latents", "labels", "masks", "factors"):
        a, b = getattr(samples, name), getattr(found, name)
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    for name in ("captions", "value_range", "class_names", "concepts", "factor_names"):
        assert getattr(samples, name) == getattr(found, name)
    gx.save_result(Samples(torch.zeros(0, 1, 2, 2), value_range=(0, 1)), tmp_path / "none")
    assert len(gx.load_result(tmp_path / "none")) == 0


def test_a_training(tmp_path):
    result = Trained(
        {"generator": trained(width=3), "discriminator": trained(width=2)},
        history={"step": [0.0, 1.0], "zeta": [0.5, float("nan")], "alpha": [1.0, float("inf")]},
        info={"steps": 2, "decided": {"layer": "a", "sizes": (1, 2)}},
    )
    gx.save_result(result, tmp_path / "t")
    found = gx.load_result(tmp_path / "t")
    assert list(found.models) == ["generator", "discriminator"]
    assert all(same_weights(found.models[k], result.models[k]) for k in result.models)
    assert same_weights(found.generator, result.generator)
    assert list(found.history) == ["step", "zeta", "alpha"], "tables have their columns in the same order"
    assert repr(dict(found.history)) == repr(dict(result.history))
    assert found.info == result.info
    assert repr(found.table()) == repr(result.table())
    with pytest.raises(AttributeError, match="no model 'critic' was trained; there are: generator, discriminator"):
        _ = found.critic


@pytest.mark.parametrize("name", ["training", "../escape", "a/b", "", "result.json"])
def test_a_models_name_cannot_collide_or_escape(tmp_path, name):
    with pytest.raises(StorageError, match="cannot be saved under the name"):
        gx.save_result(Trained({name: trained()}), tmp_path / "t")
    assert list(tmp_path.iterdir()) == []


def test_a_dataset_and_a_component(tmp_path):
    gx.save_result(gx.create("dataset/shown", n=4, where=Path("some/folder")), tmp_path / "d")
    found = gx.load_result(tmp_path / "d")
    assert type(found) is Shown
    assert (len(found), found.where) == (4, Path("some/folder"))
    assert saving.describe(found) == {"use": "dataset/shown", "with": {"n": 4, "where": "folder"}}
    with pytest.raises(StorageError, match="Shown was not built through the registry"):
        gx.save_result(Shown(3), tmp_path / "e")


def test_an_explanation_and_values(tmp_path):
    maps = Attribution(torch.rand(2, 3, 3), notes={"layer": "x"})
    gx.save_result(maps, tmp_path / "a")
    assert torch.equal(gx.load_result(tmp_path / "a").maps, maps.maps)
    assert type(gx.Explanation.load(tmp_path / "a")) is Attribution
    values = {"z": 1.5, "a": {"kid": float("nan"), "n": 3}, "curve": torch.arange(3), 7: (1, None)}
    gx.save_result(values, tmp_path / "v")
    found = gx.load_result(tmp_path / "v")
    assert list(found) == ["z", "a", "curve", 7]
    assert torch.equal(found.pop("curve"), values.pop("curve"))
    assert repr(found) == repr(values)


def test_a_generic_explanation_is_saved_back_identically_as_a_result(tmp_path):
    gx.save_result(Attribution(torch.rand(2, 3, 3)), tmp_path / "a")
    with using(Registry(PluginHost(entry_points=[]))):
        gx.save_result(gx.load_result(tmp_path / "a"), tmp_path / "b")
    assert storage.verify(tmp_path / "a") == storage.verify(tmp_path / "b")


@pytest.mark.parametrize(
    "value",
    [3, None, "x", [1], object(), {"a": object()}, {"a": Samples}],
    ids=["integer", "none", "text", "list", "object", "object inside", "class inside"],
)
def test_anything_else_is_refused(tmp_path, value):
    with pytest.raises(StorageError):
        gx.save_result(value, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


# -- damage ----------------------------------------------------------------------------------------------------------


def rewrite(folder, change):
    """Change result.json as a stranger would, hashes included."""
    head = json.loads((folder / "result.json").read_text())
    changed = change(head)
    (folder / "result.json").write_text(json.dumps(head if changed is None else changed))
    storage.write_json(folder / "hashes.json", storage.hashes(folder))


@pytest.mark.parametrize(
    "change",
    [
        lambda h: [],
        lambda h: {},
        lambda h: {**h, "format": 99},
        lambda h: {**h, "type": "pickle"},
        lambda h: {**h, "type": "samples"},
        lambda h: {**h, "type": "trained"},
        lambda h: {**h, "type": "dataset"},
        lambda h: {**h, "model": None},
        lambda h: {**h, "model": {"use": "generator/net"}},
        lambda h: {**h, "model": {"use": 3, "with": []}},
        lambda h: {**h, "model": {"use": "dataset/shown", "with": {"n": 1}}},
        lambda h: {**h, "model": {"$tuple": 3}},
        lambda h: {**h, "model": {"$dict": [[[1], 2]]}},
        lambda h: {"format": 1, "type": "trained", "models": {"../../x": h["model"]}, "training": {}},
    ],
)
def test_what_a_stranger_changed_is_a_genxai_error_on_one_line(tmp_path, change):
    gx.save_model(trained(), tmp_path / "m")
    rewrite(tmp_path / "m", change)
    with pytest.raises(gx.GenxaiError) as caught:
        gx.load_result(tmp_path / "m")
    assert len(str(caught.value).splitlines()) == 1


def test_every_file_is_checked(tmp_path):
    gx.save_result(Trained({"generator": trained()}, {"step": [0.0]}), tmp_path / "t")
    for file in sorted((tmp_path / "t").iterdir()):
        content = file.read_bytes()
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(StorageError, match=re.escape(str(tmp_path / "t"))):
            gx.load_result(tmp_path / "t")
        file.write_bytes(content)
    gx.load_result(tmp_path / "t")


# -- recipes in words ------------------------------------------------------------------------------------------------


def test_describing_is_for_readers():
    net = gx.create("generator/net", width=3)
    judge = gx.create("explainer/judge", classifier=net)
    assert saving.describe(judge) == {
        "use": "explainer/judge",
        "with": {"classifier": {"use": "generator/net", "with": {"width": 3}}},
    }
    described = saving.describe(
        {"p": Path("/home/me/secret/data"), "t": torch.zeros(2, 3), "s": Spec("a/b"), "x": (1,)}
    )
    assert described == {"p": "data", "t": "tensor [2, 3]", "s": {"use": "a/b", "with": {}}, "x": [1]}
    assert saving.describe(Net()) == "Net"
