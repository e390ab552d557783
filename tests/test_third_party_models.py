"""Other people's trained models, from their .pt files: golden outputs, and what explainers say of them.

The files are not part of the project. Put them in a folder and name it in GENXAI_TEST_DATA.
"""

import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import genxai_core as gx
from genxai_core import registry, storage
from genxai_core.errors import InputError, NotInstalled, StorageError
from genxai_core.registry import Registry

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("GENXAI_TEST_DATA", ROOT.parent / "shared" / "data"))
PLUGIN = ROOT / "examples" / "data" / "wgan_gp.py"
WGAN_GP, DISVAE = DATA / "wgan-gp-mnist", DATA / "disvae-dsprites"


def needs(folder):
    reason = f"needs the third-party models in {folder.name}/: name their folder in GENXAI_TEST_DATA"
    return pytest.mark.skipif(not folder.is_dir(), reason=reason)


@pytest.fixture(scope="module")
def with_plugin():
    """A registry with the plugin file, as --plugin gives it."""
    own = Registry()
    own.host.load_file(PLUGIN)
    with registry.using(own):
        yield own


@pytest.fixture(scope="module")
def golden():
    with np.load(WGAN_GP / "golden.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


@pytest.fixture(scope="module")
def generator(with_plugin):
    return gx.create("generator/wgan-gp", weights=WGAN_GP / "generator.pt")


@pytest.fixture(scope="module")
def critic(with_plugin):
    return gx.create("discriminator/wgan-gp", weights=WGAN_GP / "critic.pt")


def _resolvable(name):
    try:
        gx.resolve(name)
    except NotInstalled as missing:
        pytest.skip(str(missing))


def _create(name, **params):
    _resolvable(name)
    return gx.create(name, **params)


def close(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


# -- WGAN-GP ------------------------------------------------------------------------------------------------------


@needs(WGAN_GP)
def test_the_generator_gives_its_golden_images(generator, golden):
    close(generator(golden["z"]), golden["out"])


@needs(WGAN_GP)
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_its_inner_activations_are_golden_too_under_the_adapters_names(generator, golden, layer):
    seen = []
    with generator.get_submodule(f"module.model.{layer}").register_forward_hook(lambda m, i, out: seen.append(out)):
        generator(golden["z"])
    close(seen[0], golden[f"layer{layer}"])


@needs(WGAN_GP)
def test_the_critic_gives_its_golden_scores(critic, golden):
    scores = critic(golden["out"])
    assert scores.shape == (16, 1)
    close(scores, golden["critic"])


@needs(WGAN_GP)
def test_in_train_mode_the_golden_values_are_missed_by_far(critic, golden):
    """The trap that `eval()` in the plugin avoids: batch statistics make a score depend on its neighbours."""
    critic.train()
    try:
        with gx.guard.guard(critic, freeze=False):
            far = (critic(golden["out"]) - golden["critic"]).abs().max()
    finally:
        critic.eval()
    assert far > 1


@needs(WGAN_GP)
def test_its_samples_are_addressed_by_seed_and_index(generator):
    whole = generator.sample(6, seed=3)
    tail = generator.sample(2, seed=3, start=4)
    close(whole.images[4:], tail.images)
    assert torch.equal(whole.latents[4:], tail.latents)
    assert whole.value_range == (-1.0, 1.0)
    assert whole.image_shape == (1, 28, 28)


@needs(WGAN_GP)
def test_it_saves_and_loads_by_its_recipe(generator, golden, tmp_path):
    again = gx.load_model(gx.save_model(generator, tmp_path / "g"))
    assert torch.equal(again(golden["z"]), generator(golden["z"]))


@needs(WGAN_GP)
def test_images_of_another_size_are_refused(critic):
    explainer = _create("explainer/saliency")
    with pytest.raises(InputError, match=r"\(1, 32, 32\).*\(1, 28, 28\)"):
        explainer.explain(critic, torch.zeros(2, 1, 32, 32))


@needs(WGAN_GP)
def test_weights_of_the_other_model_do_not_load(with_plugin):
    with pytest.raises(RuntimeError, match="size mismatch"):
        gx.create("discriminator/wgan-gp", weights=WGAN_GP / "generator.pt")
    with pytest.raises(StorageError, match="no such file"):
        gx.create("discriminator/wgan-gp", weights=WGAN_GP / "nowhere.pt")


@needs(WGAN_GP)
def test_the_saliency_of_the_critic_is_its_gradient(critic, golden):
    images = golden["out"].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(images).sum(), images)
    result = _create("explainer/saliency").explain(critic, golden["out"])
    assert result.maps.numel() == gradient.numel()
    close(result.maps.reshape(gradient.shape), gradient)
    close(result.logits, golden["critic"][:, 0])


@needs(WGAN_GP)
def test_integrated_gradients_of_the_critic_add_up_to_its_score_difference(critic, golden):
    """Completeness: attributions sum to f(x) - f(baseline) (Sundararajan et al. 2017, proposition 1)."""
    errors, images = [], golden["out"][:4]
    for steps in (64, 1024):
        result = _create("explainer/integrated-gradients", steps=steps).explain(critic, images)
        with torch.no_grad():
            at_baseline = critic(result.baseline.expand_as(images))[:, 0]
        difference = golden["critic"][:4, 0] - at_baseline
        errors.append((result.maps.flatten(1).sum(1) - difference).abs().max() / difference.abs().max())
    assert errors[0] < 0.03  # the kinks of LeakyReLU limit the quadrature: more steps, less error
    assert errors[1] < 0.003


@needs(WGAN_GP)
def test_the_class_activation_map_chooses_the_last_spatial_layer_and_refuses_the_last_one(critic, golden):
    result = _create("explainer/cam").explain(critic, golden["out"])
    assert result.maps.shape == (16, 28, 28)
    assert result.maps.flatten(1).std(1).min() > 0
    assert result.notes["layer"] == "module.model.1.block.2"
    with pytest.raises(InputError, match="1x1"):
        _create("explainer/cam", layer="module.model.2").explain(critic, golden["out"])


# -- a VAE's decoder ------------------------------------------------------------------------------------------------


class Decoder(nn.Module):
    """Burgess et al.'s decoder as github.com/YannDubs/disentangling-vae writes it."""

    def __init__(self):
        super().__init__()
        self.lin1, self.lin2, self.lin3 = nn.Linear(10, 256), nn.Linear(256, 256), nn.Linear(256, 512)
        self.convT_64 = nn.ConvTranspose2d(32, 32, 4, 2, 1)
        self.convT1 = nn.ConvTranspose2d(32, 32, 4, 2, 1)
        self.convT2 = nn.ConvTranspose2d(32, 32, 4, 2, 1)
        self.convT3 = nn.ConvTranspose2d(32, 1, 4, 2, 1)

    def forward(self, z):
        x = z
        for linear in (self.lin1, self.lin2, self.lin3):
            x = torch.relu(linear(x))
        x = x.view(-1, 32, 4, 4)
        for convolution in (self.convT_64, self.convT1, self.convT2):
            x = torch.relu(convolution(x))
        return torch.sigmoid(self.convT3(x))


@needs(DISVAE)
@pytest.mark.parametrize("name", ["VAE", "btcvae"])
def test_a_vaes_decoder_is_a_generator(name):
    weights = storage.load_weights(DISVAE / name / "model.pt")
    decoder = Decoder().eval()
    prefix = "decoder."
    decoder.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
    adapted = gx.adapt.generator(decoder, latent_shape=(10,), module_range=(0, 1))
    with np.load(DISVAE / name / "golden.npz") as arrays:
        z, out = torch.from_numpy(arrays["z"]), torch.from_numpy(arrays["out"])
    close(adapted(z), out * 2 - 1)
    samples = adapted.sample(4, seed=0)
    assert samples.value_range == (-1.0, 1.0)
    assert samples.images.max() > 0.9  # a white sprite
    assert samples.images.min() < -0.9  # on black


# -- the example and the how-to ---------------------------------------------------------------------------------


@needs(WGAN_GP)
def test_the_critic_is_blind_to_six_rows_and_columns(critic, golden):
    """4x4 convolutions of stride 2 without padding: the last one covers 4 of 5, which come of 10 of 13, of 22 of 28."""
    maps = _create("explainer/saliency").explain(critic, golden["out"]).maps
    assert not maps[..., 22:, :].any()
    assert not maps[..., 22:].any()
    assert maps[..., :22, :22].abs().amax(0).min() > 0


@needs(WGAN_GP)
@pytest.mark.slow
def test_the_example_pipeline_runs(critic, tmp_path, genxai):
    for name in ("dataset/generated", "explainer/cam", "explainer/integrated-gradients"):
        _resolvable(name)
    done = genxai(
        "run",
        ROOT / "examples" / "data" / "wgan-gp-critic.yaml",
        *("--plugin", PLUGIN, "--data", DATA, "--out", tmp_path / "run"),
    )
    assert done.returncode == 0, done.stderr
    result = tmp_path / "run" / "steps"
    fakes = gx.load_result(result / "fakes" / "result")
    saliency = gx.load_result(result / "saliency" / "result")
    direct = _create("explainer/saliency").explain(critic, fakes[:16])
    assert len(fakes) == 64
    close(saliency.maps, direct.maps)
    assert (tmp_path / "run" / "report.html").is_file()


def _blocks(path, info):
    found = re.findall(rf"^```python{re.escape(info)}\n(.*?)^```$", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert found
    return found


HOW_TO = ROOT / "docs" / "how-to" / "your-own-model.md"


def test_the_how_to_runs():
    pytest.importorskip("torchmetrics")
    _resolvable("explainer/saliency")
    names = {}
    for block in _blocks(HOW_TO, ""):
        exec(compile(block, HOW_TO.name, "exec"), names)
    assert names["figures"]["StructuralSimilarityIndexMeasure"] < 0.5


@needs(WGAN_GP)
def test_the_how_to_runs_on_the_strangers_model(monkeypatch):
    _resolvable("explainer/saliency")
    monkeypatch.chdir(ROOT)
    fresh = Registry()
    monkeypatch.delitem(sys.modules, "wgan_gp", raising=False)
    with registry.using(fresh):
        names = {"gx": gx, "DATA": str(DATA)}
        for block in _blocks(HOW_TO, ' title="needs wgan-gp-mnist"'):
            exec(compile(block, HOW_TO.name, "exec"), names)
    assert names["seen"].maps.any()


def test_the_how_to_quotes_the_example_as_it_is():
    for block in _blocks(HOW_TO, ' title="from examples/data/wgan_gp.py"'):
        assert block in PLUGIN.read_text()
