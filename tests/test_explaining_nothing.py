"""An explainer that brings its own models: called without one, in Python and in a pipeline."""

from __future__ import annotations

import sys

import pytest
import torch

import genxai_core as gx
from genxai_core import Attribution, Explainer, pipeline
from genxai_core.errors import InputError, PipelineError, TargetError

PLUGIN = '''
import torch
from genxai_core import Attribution, Component, Explainer, hookimpl


class Alone(Explainer):
    """Maps [N, H, W] drawn from the step's seed."""

    explains, accepts, returns, stochastic = "nothing", "nothing", Attribution, True

    def _explain(self, model, inputs, target):
        assert model is None and inputs is None
        return Attribution(torch.rand(2, 3, 3))


@hookimpl
def genxai_components():
    return [Component("explainer", "alone", "genxai_alone:Alone", "needs nothing")]
'''


class Alone(Explainer):
    """Maps [N, H, W]."""

    explains, accepts, returns = "nothing", "nothing", Attribution

    def _explain(self, model, inputs, target):
        return Attribution(torch.rand(2, 3, 3))


def test_it_is_called_without_a_model_and_seeded():
    first, again = Alone().explain(), Alone().explain()
    assert torch.equal(first.maps, again.maps)
    assert not torch.equal(first.maps, Alone().explain(runtime=gx.Runtime(seed=1)).maps)
    assert first.provenance["explainer"]


def test_a_model_or_inputs_are_refused():
    with pytest.raises(InputError, match="brings its own models; call it without one"):
        Alone().explain(torch.nn.Linear(1, 1))
    with pytest.raises(TargetError, match="takes no target"):
        Alone().explain(target=0)
    with pytest.raises(InputError, match="takes no inputs"):
        Alone().explain(None, torch.zeros(1, 1, 2, 2))


def test_it_may_take_images():
    class Mean(Alone):
        accepts = "images"

        def _explain(self, model, inputs, target):
            assert model is None
            return Attribution(inputs.mean(1))

    images = torch.rand(3, 2, 4, 4)
    found = Mean().explain(None, images, runtime=gx.Runtime(batch_size=2))
    assert torch.equal(found.maps, images.mean(1))
    assert torch.equal(found.images, images)


@pytest.fixture
def run(tmp_path, monkeypatch):
    from genxai_core import registry
    from genxai_core.plugins import PluginHost
    from genxai_core.registry import Registry

    file = tmp_path / "genxai_alone.py"
    file.write_text(PLUGIN)

    host = PluginHost(builtin=[registry.builtin])
    monkeypatch.delitem(sys.modules, file.stem, raising=False)  # an earlier test's, of another folder
    host.load_file(file)

    def go(call=""):
        (tmp_path / "p.yaml").write_text(
            f"genxai: 1\nname: alone\nseed: 3\nsteps:\n  a: {{use: explainer/alone{call}}}\n  "
            f"b: {{use: explainer/alone, seed: 4}}\n"
        )
        with registry.using(Registry(host)):
            plan = pipeline.plan(pipeline.read(tmp_path / "p.yaml"))
            return pipeline.run(plan, out=tmp_path / "out", cache=tmp_path / "cache", runtime=gx.Runtime(quiet=True))

    return go


def test_a_pipeline_calls_it_without_a_model(run):
    done = run()
    assert done.ran == ("a", "b")
    assert not torch.equal(done.result("a").maps, done.result("b").maps)
    assert run().found == ("a", "b")


def test_a_pipeline_that_gives_it_a_model_is_refused(run):
    with pytest.raises(
        PipelineError, match=r"explainer/alone is not called with 'model' \(it is called with: nothing\)"
    ):
        run(", call: {model: $b}")
