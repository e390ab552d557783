"""Guided training with every attribution that is installed, by registry name, on the zoo's DCGAN."""

import pytest
import torch

from genxai_core import Attributes, Runtime, Spec, create, registry
from genxai_core.errors import RegistryError

INSTALLED = registry.default()
NAMES = sorted(found.component.name for found in INSTALLED.provided() if found.component.kind == "explainer")
NESTED = {"noise-tunnel": {"explainer": Spec("explainer/input-x-gradient")}}
TWO_PER_STEP = {"steps": 2, "batch": 4, "start": 0.0}


def attributes(name):
    with registry.using(INSTALLED):
        return issubclass(INSTALLED.resolve(f"explainer/{name}"), Attributes)


@pytest.fixture
def fit(samples):
    def run(name, **params):
        with registry.using(INSTALLED):
            try:
                return create(f"trainer/{name}", **params).fit(samples, Runtime(device="cpu", seed=3))
            except RegistryError as error:
                pytest.skip(str(error))  # the zoo is another distribution

    return run


@pytest.mark.parametrize("name", [name for name in NAMES if attributes(name)])
def test_an_attribution_guides_and_leaves_nothing_behind(fit, same_weights, name):
    """With alpha 0 only side effects would be left of the explanation, at every step: there are none."""
    explainer = Spec(f"explainer/{name}", NESTED.get(name, {}))
    trained = fit("xai-gan", explainer=explainer, alpha=0.0, **TWO_PER_STEP)
    assert all(0 < m < 1 for m in trained.history["mask_mean"])
    assert f"explainer/{name}" in trained.info["mask"] or name == "saliency"
    assert same_weights(trained, fit("gan", steps=2, batch=4))
    guided = fit("xai-gan", explainer=explainer, alpha=5.0, **TWO_PER_STEP)
    assert not same_weights(trained, guided)
    assert all(torch.isfinite(p).all() for p in guided.generator.parameters())
