"""Classifiers of torchvision as discriminators: the same logits, the input of the last layer, strict weights."""

from __future__ import annotations

import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from genxai_core import Spec, create
from genxai_core.errors import BadParameter, InputError, NotInstalled, StorageError
from genxai_core.testing import PatchDataset

models = pytest.importorskip("torchvision").models

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NAME = "discriminator/torchvision"


def seeded(build):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build().eval()


def adapted(**params):
    return seeded(lambda: create(NAME, **params))


def noise(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="module")
def shuffle():
    """A network of torchvision with three classes and batch statistics that are not trivial, and its state dict."""
    net = seeded(lambda: models.shufflenet_v2_x0_5(num_classes=3))
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        net.train()(torch.randn(8, 3, 64, 64))
    return net.eval()


SMALL = [
    ("resnet18", 32),
    ("shufflenet_v2_x0_5", 32),
    ("mobilenet_v2", 32),
    ("mobilenet_v3_small", 32),
    ("efficientnet_b0", 32),
    ("regnet_y_400mf", 32),
    ("densenet121", 32),
    ("convnext_tiny", 32),
    ("swin_t", 32),
    pytest.param("vit_b_32", 32, marks=pytest.mark.slow),
    pytest.param("vgg11", 32, marks=pytest.mark.slow),
    pytest.param("alexnet", 64, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("architecture", "size"), SMALL)
def test_logits_are_torchvisions_and_features_enter_the_last_layer(architecture, size):
    options = {"image_size": size} if architecture.startswith("vit") else {}
    net = seeded(lambda: models.get_model(architecture, weights=None, num_classes=4, **options))
    model = adapted(architecture=architecture, num_classes=4, size=size)
    images = noise(2, 3, size, size)
    entered = []
    last = [part for part in net.modules() if isinstance(part, nn.Linear)][-1]
    last.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
    with torch.no_grad():
        expected = net(torch.stack([((images[:, c] + 1) / 2 - MEAN[c]) / STD[c] for c in range(3)], 1))
        assert torch.allclose(model(images), expected, atol=1e-6 * float(expected.abs().max()))
        features = model.features(images)
    assert torch.allclose(features, entered[0], atol=1e-6 * float(entered[0].abs().max()))
    assert features.shape == (2, model.head.in_features)


REFUSED = ("googlenet", "inception", "mnasnet", "squeezenet")


@pytest.mark.slow
def test_every_classifier_of_torchvision_is_adapted_or_refused_by_name():
    """Without memory; RegNets cannot be built so, and one of them is tested above."""
    names = [name for name in models.list_models(module=models) if not name.startswith("regnet")]
    for architecture in names:
        with torch.device("meta"):
            if architecture.startswith(REFUSED):
                with pytest.raises(BadParameter, match="cannot be adapted: it"):
                    create(NAME, architecture=architecture)
                continue
            model = create(NAME, architecture=architecture, num_classes=5, size=224).eval()
            images = torch.zeros(2, 3, 224, 224)
        assert model.features(images).shape == (2, model.head.in_features), architecture
        assert model(images).shape == (2, 5), architecture
    assert len(names) > 60


# -- weights ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_of_a_file_are_read(tmp_path, shuffle, suffix):
    file = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(shuffle.state_dict(), file)
    else:
        save_file(shuffle.state_dict(), file)
    model = create(NAME, architecture="shufflenet_v2_x0_5", num_classes=3, weights=file, value_range=(0.0, 1.0)).eval()
    images = (noise(2, 3, 64, 64) + 1) / 2
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (MEAN, STD))
    assert torch.allclose(model(images), shuffle((images - mean) / std), atol=1e-6)


def test_densenet_files_with_their_old_names_are_read(tmp_path):
    net = seeded(lambda: models.densenet121(num_classes=3))
    state = net.state_dict()
    old = {key.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2."): value for key, value in state.items()}
    assert old.keys() != state.keys()
    torch.save(old, tmp_path / "old.pth")
    model = create(NAME, architecture="densenet121", num_classes=3, weights=tmp_path / "old.pth")
    assert all(
        torch.equal(value, model.module.state_dict()[key]) for key, value in state.items() if "classifier" not in key
    )
    assert torch.equal(model.head.weight, state["classifier.weight"])


def test_weights_that_do_not_fit_are_refused(tmp_path, shuffle):
    state = shuffle.state_dict()
    torch.save(state, tmp_path / "three.pth")
    torch.save({key: value for key, value in state.items() if key != "conv1.0.weight"}, tmp_path / "lacks.pth")
    torch.save({**state, "more": torch.zeros(1)}, tmp_path / "more.pth")
    torch.save({**state, "code": print}, tmp_path / "code.pth")
    cases = [
        ("three.pth", 5, "has 3 classes, num_classes says 5"),
        ("lacks.pth", 3, "not the weights of a shufflenet_v2_x0_5.*Missing.*conv1.0.weight"),
        ("more.pth", 3, "Unexpected.*more"),
        ("code.pth", 3, "Python objects"),
        ("none.pth", 3, "no such file"),
    ]
    for file, classes, message in cases:
        with pytest.raises(StorageError, match=message) as refused:
            create(NAME, architecture="shufflenet_v2_x0_5", num_classes=classes, weights=tmp_path / file)
        assert "\n" not in str(refused.value)
        assert len(str(refused.value)) < 500


# -- parameters -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"architecture": "resnet19"}, "'resnet19' is no classifier of torchvision; one of alexnet, .*resnet18"),
        ({"architecture": "inception_v3"}, "auxiliary heads; use discriminator/inception"),
        ({"architecture": "squeezenet1_0"}, "last layer is no linear one"),
        ({"architecture": "mnasnet0_5"}, "version number"),
        ({"architecture": "resnet18", "num_classes": 1}, "num_classes 1"),
        ({"architecture": "resnet18", "channels": 2}, "channels 2"),
        ({"architecture": "resnet18", "num_classes": 2, "class_names": ("a",)}, "1 class_names for 2 classes"),
        ({"architecture": "vit_b_32", "num_classes": 2, "size": 40}, "vit_b_32 cannot be built with .*40"),
        ({"architecture": "resnet18", "std": (0.0, 1.0, 1.0)}, "positive std"),
    ],
)
def test_bad_parameters_are_refused(params, message):
    with pytest.raises(BadParameter, match=message):
        create(NAME, **params)


def test_names_and_shapes():
    model = adapted(architecture="shufflenet_v2_x0_5", num_classes=2, size=32, channels=1)
    assert model.class_names == ("0", "1")
    assert model.image_shape == (1, 32, 32)
    gray = noise(2, 1, 32, 32)
    free = adapted(architecture="shufflenet_v2_x0_5", num_classes=2)
    assert free.image_shape is None
    assert torch.equal(model(gray), free(gray.expand(-1, 3, -1, -1)))
    with pytest.raises(InputError, match=r"takes images \['N', 1, 32, 32\], not \[2, 3, 32, 32\]"):
        model(gray.expand(-1, 3, -1, -1))


def test_a_vision_transformer_has_a_size_of_its_own(monkeypatch):
    monkeypatch.setattr(
        models, "get_model", lambda name, **options: nn.Sequential(nn.Linear(2, options["num_classes"]))
    )
    assert create(NAME, architecture="vit_b_16", num_classes=2).image_shape == (3, 224, 224)
    assert create(NAME, architecture="resnet18", num_classes=2).image_shape is None


def test_a_recorded_layer_is_not_overwritten_by_what_follows():
    model = adapted(architecture="resnet18", num_classes=2, size=32)
    recorded = {}
    model.module.bn1.register_forward_hook(lambda _, inputs, output: recorded.update(bn=output))
    model(noise(1, 3, 32, 32))
    assert float(recorded["bn"].detach().min()) < 0  # a ReLU in place would have left none


def test_it_is_trained_by_name():
    trainer = create(
        "trainer/classifier", model=Spec(NAME, {"architecture": "shufflenet_v2_x0_5"}), steps=3, batch=8, holdout=0.0
    )
    data = PatchDataset(16)
    trained = trainer.fit(data)
    model = trained.classifier
    assert model.image_shape == data.image_shape
    assert model(data[:4].images).shape == (4, len(model.class_names))


def test_a_missing_library_is_told_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(NotInstalled, match=r"needs torchvision, .* -m pip install 'torchvision>=0.25'") as told:
        create(NAME, architecture="resnet18")
    assert "\n" not in str(told.value)
