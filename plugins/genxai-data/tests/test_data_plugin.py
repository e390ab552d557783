import subprocess
import sys

import pytest
from genxai_data import plugin

import genxai_core as gx
from genxai_core import parameters, saving
from genxai_core.interfaces import Dataset

NAMES = ["digits", "folder", "generated", "scenes", "torchvision"]


def test_the_plugin_declares_its_five_datasets():
    assert sorted(c.full_name for c in plugin.genxai_components()) == [f"dataset/{name}" for name in NAMES]


@pytest.mark.parametrize("component", list(plugin.genxai_components()), ids=lambda c: c.name)
def test_every_component_resolves_to_a_documented_dataset(component):
    target = gx.resolve(component.full_name)
    module, _, attribute = component.target.partition(":")
    assert (target.__module__, target.__name__) == (module, attribute)
    assert issubclass(target, Dataset)
    for parameter in parameters.of(target):
        assert parameter.doc, f"{component.full_name}: {parameter.name} is not documented"
        assert parameter.annotation


def test_declaring_imports_neither_torch_nor_what_the_datasets_need():
    code = (
        "import sys, genxai_data.plugin as p; list(p.genxai_components());"
        "print([m for m in ('torch', 'numpy', 'sklearn', 'torchvision', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["digits", "scenes"])
def test_a_saved_dataset_comes_back_with_the_same_images(name, tmp_path):
    params = {"digits": {"size": 12, "split": "test"}, "scenes": {"n": 5, "seed": 3, "value_range": [0, 1]}}[name]
    data = gx.create(f"dataset/{name}", **params)
    again = saving.load_result(saving.save_result(data, tmp_path / name))
    assert len(again) == len(data)
    assert again[:5].images.equal(data[:5].images)
    assert again.value_range == data.value_range


def test_datasets_draw_themselves():
    for name, params in (("digits", {}), ("scenes", {"n": 4})):
        data = gx.create(f"dataset/{name}", **params)
        assert data.plot(4).axes
        html = data[:4]._repr_html_()
        assert "data:image/png;base64," in html
