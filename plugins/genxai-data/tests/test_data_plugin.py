import subprocess
import sys

import pytest
from genxai_data import plugin

import genxai_core as gx
from genxai_core import saving

NAMES = ["digits", "folder", "generated", "npz", "scenes", "torchvision"]


def test_the_plugin_declares_its_datasets():
    assert sorted(c.full_name for c in plugin.genxai_components()) == [f"dataset/{name}" for name in NAMES]


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
