"""What an import costs: discovery and names must not load the heavy libraries."""

import subprocess
import sys

import pytest

HEAVY = (
    "torch",
    "numpy",
    "pydantic",
    "matplotlib",
    "pandas",
    "accelerate",
    "safetensors",
    "scipy",
    "sklearn",
    "rich",
    "jinja2",
)


def loaded(code):
    """Which heavy libraries are in sys.modules after some code, in a fresh interpreter."""
    probe = f"{code}\nimport sys\nprint('loaded:', *[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().split("loaded:")[1].split()


def test_the_probe_sees_what_is_loaded():
    assert "numpy" in loaded("import numpy")


@pytest.mark.parametrize(
    "code",
    [
        "import genxai_core",
        "import genxai_core as gx; gx.__version__; dir(gx)",
        "from genxai_core import Component, Explainer, hookimpl",
        "from genxai_core import Metric, Trainer, Dataset, Segmenter, Attributes, Spec, Samples, Attribution",
        "from genxai_core import Runtime; Runtime(seed=1, device='cuda')",
        "from genxai_core import registry; registry.catalogue()",
        "from genxai_core import registry; list(registry.default().provided())",
        "from genxai_core import registry; registry.default().find('explanation/attribution')",
        "from genxai_core import resolve; resolve('explanation/attribution')",
        "from genxai_core import safe_yaml, storage; safe_yaml.parse('a: 1', 'f'); storage.digest([1])",
        "from genxai_core import hookspecs, errors, component, interfaces, explanation, trained, plugins",
    ],
)
def test_light(code):
    assert loaded(code) == []


def test_discovery_imports_every_installed_plugin_and_none_of_them_is_heavy():
    code = (
        "from genxai_core import registry\n"
        "found = registry.default().host.plugins\n"
        "assert [p.error for p in found] == [None] * len(found), found\n"
        "assert len(found) > 1, 'the plugins of this repository are installed beside it'"
    )
    assert loaded(code) == []


def test_a_one_file_plugin_with_hook_and_class_is_light(tmp_path):
    (tmp_path / "my_plugin.py").write_text(
        "from genxai_core import Attribution, Component, Explainer, hookimpl\n"
        "class Occlude(Explainer):\n"
        "    explains, accepts, returns = 'discriminator', 'images', Attribution\n"
        "    def _explain(self, model, images, target): ...\n"
        "@hookimpl\n"
        "def genxai_components():\n"
        "    return [Component('explainer', 'occlude', 'my_plugin:Occlude', 'mean-fill occlusion')]\n"
    )
    code = (
        "from genxai_core import registry\nfrom pathlib import Path\n"
        f"registry.default().host.load_file(Path({str(tmp_path)!r}) / 'my_plugin.py')\n"
        "assert registry.resolve('explainer/occlude').__name__ == 'Occlude'"
    )
    assert loaded(code) == []


def test_every_public_name_is_there_and_a_wrong_one_is_an_attribute_error():
    import genxai_core as gx

    for name in gx.__all__:
        assert getattr(gx, name) is not None
    assert set(gx._PUBLIC) <= set(dir(gx))
    with pytest.raises(AttributeError, match="no attribute 'Explaner'"):
        _ = gx.Explaner
