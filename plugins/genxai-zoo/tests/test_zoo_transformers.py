"""Image classifiers in a local folder of transformers: the same logits as the library's, and differentiable."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from genxai_core import create, saving
from genxai_core.errors import InputError, NotInstalled, StorageError

transformers = pytest.importorskip("transformers")
NAME = "discriminator/transformers"
TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
VIT = {**TINY, "image_size": 32, "patch_size": 8, "num_labels": 4, "initializer_range": 0.3}


def noise(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


def written(folder, model, processor):
    """Write a model with its preprocessing, and return it in eval mode."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model.eval()


def seeded(kind, config):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(config)


def resnet():
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=4
    )
    return seeded(transformers.ResNetForImageClassification, config)


def deit():
    return seeded(transformers.DeiTForImageClassification, transformers.DeiTConfig(**VIT))


def convnext():
    config = transformers.ConvNextConfig(hidden_sizes=[8, 8, 8, 16], depths=[1, 1, 1, 1], num_labels=4)
    return seeded(transformers.ConvNextForImageClassification, config)


def swin():
    config = transformers.SwinConfig(
        image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4, num_labels=4
    )
    return seeded(transformers.SwinForImageClassification, config)


def dinov2():
    config = transformers.Dinov2Config(**{**TINY, "image_size": 28, "patch_size": 14, "num_labels": 4})
    return seeded(transformers.Dinov2ForImageClassification, config)


SQUARE, EDGE, CROP = {"height": 40, "width": 40}, {"shortest_edge": 40}, {"height": 32, "width": 32}
FAMILIES = {
    "resnet, cropped share": (resnet, "ConvNextImageProcessor", {"size": {"shortest_edge": 32}, "crop_pct": 0.875}),
    "convnext, warped": (convnext, "ConvNextImageProcessor", {"size": {"shortest_edge": 384}}),
    "deit, resized and cropped": (deit, "DeiTImageProcessor", {"size": SQUARE, "crop_size": CROP}),
    "swin, neither normalised": (swin, "ViTImageProcessor", {"size": CROP, "do_normalize": False}),
    "dinov2, shortest edge": (
        dinov2,
        "BitImageProcessor",
        {"size": EDGE, "crop_size": {"height": 28, "width": 28}},
    ),
}


def levels(options):
    """What one of 255 levels becomes by the preprocessing; the smallest standard deviation is 0.224 or more."""
    return 1 / 255 if options.get("do_normalize") is False else 1 / 255 / 0.224


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_the_librarys(tmp_path, family):
    make, processor, options = FAMILIES[family]
    prepare = getattr(transformers, processor)(**options)
    module = written(tmp_path, make(), prepare)
    model = create(NAME, folder=tmp_path)
    images = noise(3, 3, 50, 44)
    pixels = prepare(images=list((images + 1) * 127.5), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = module(pixel_values=pixels).logits
        assert torch.allclose(model(images), expected, atol=1e-6 * float(expected.abs().max()))
        assert model.features(images).shape == (3, model.head.in_features)
        assert torch.equal(model.head(model.features(images)), model(images))
    assert model.class_names == ("LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3")
    # bytes, which the library is usually given, are rounded before and after resizing, and clipped to 0…255
    smooth = F.interpolate(0.6 * noise(1, 3, 4, 4), (50, 44), mode="bilinear", align_corners=False)
    rounded = prepare(images=list(((smooth + 1) * 127.5).round().byte()), return_tensors="pt")["pixel_values"]
    assert float((rounded - model.prepared(smooth)).abs().max()) < 1.5 * levels(options)


def test_features_are_the_pooled_hidden_state(vit_folder):
    model = create(NAME, folder=vit_folder)
    module = transformers.ViTForImageClassification.from_pretrained(vit_folder).eval()
    images = noise(2, 3, 32, 32)
    with torch.no_grad():
        states = module.vit(pixel_values=model.prepared(images)).last_hidden_state
        assert torch.allclose(model.features(images), states[:, 0], atol=1e-6)
    assert model.class_names == ("cat", "dog", "newt")
    assert dict(model.module.named_modules()).keys() == dict(module.named_modules()).keys()


def test_images_are_prepared_as_the_folder_says(vit_folder):
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    images = (noise(2, 3, 50, 44) + 1) / 2
    resized = F.interpolate(images, (32, 32), mode="bilinear", align_corners=False, antialias=True)
    expected = (resized - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    model = create(NAME, folder=vit_folder, value_range=(0.0, 1.0))
    assert torch.allclose(model.prepared(images), expected, atol=1e-5)
    gray = images[:, :1]
    assert torch.equal(model(gray), model(gray.expand(-1, 3, -1, -1)))
    with pytest.raises(InputError, match="2 channels"):
        model(images[:, :2])


def test_gradients_go_through_the_preprocessing(vit_folder):
    """It is affine, so that a finite difference is exact."""
    model = create(NAME, folder=vit_folder)
    with torch.inference_mode():  # what is kept from here must not stand in the way of a gradient
        model(noise(1, 3, 20, 20))
    images, step = noise(1, 3, 20, 24).double(), noise(1, 3, 20, 24).double().flip(3) / 10
    model.module.double()
    images.requires_grad_()
    prepared = model.prepared(images)
    weights = torch.linspace(-1, 1, prepared.numel()).view_as(prepared)
    (gradient,) = torch.autograd.grad((weights * prepared).sum(), images)
    with torch.no_grad():
        difference = (weights * (model.prepared(images + step) - prepared)).sum()
    assert float((gradient * step).sum()) == pytest.approx(float(difference), rel=1e-4)
    with torch.no_grad():
        assert not model.prepared(images).requires_grad


def test_a_saved_model_needs_its_folder_under_the_same_path(vit_folder, tmp_path, monkeypatch):
    images = noise(1, 3, 32, 32)
    monkeypatch.chdir(vit_folder.parent)
    for name, folder in (("absolute", vit_folder), ("relative", Path(vit_folder.name))):
        saving.save_model(create(NAME, folder=folder), tmp_path / name)
        assert torch.equal(saving.load_model(tmp_path / name)(images), create(NAME, folder=vit_folder)(images))
    monkeypatch.chdir(tmp_path)
    saving.load_model(tmp_path / "absolute")
    with pytest.raises(StorageError, match="finds no such folder"):
        saving.load_model(tmp_path / "relative")


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(vit_folder, tmp_path):
    """A copy of the transformer's folder, to spoil."""
    return shutil.copytree(vit_folder, tmp_path / "vit")


def refusal(folder, error=StorageError):
    with pytest.raises(error) as told:
        create(NAME, folder=folder)
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 600
    return str(told.value)


def test_a_folder_without_its_files_is_refused(folder, tmp_path):
    assert "finds no such folder; give one that save_pretrained wrote" in refusal(tmp_path / "google" / "vit")
    (folder / "preprocessor_config.json").unlink()
    assert "finds no preprocessor_config.json in it" in refusal(folder)
    (folder / "config.json").write_text("[]")
    assert "damaged" in refusal(folder)
    (folder / "config.json").unlink()
    assert "finds no config.json in it" in refusal(folder)


def test_pickled_weights_are_refused(folder):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    assert "holds no weights" in refusal(folder)
    torch.save(weights, folder / "pytorch_model.bin")
    assert "only pickled weights (pytorch_model.bin), which can hold code" in refusal(folder)


def test_weights_in_several_files_are_read_and_must_be_safetensors_in_the_folder(folder):
    model, images = create(NAME, folder=folder), noise(2, 3, 32, 32)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = [f"model-0000{1 + i % 2}-of-00002.safetensors" for i in range(len(weights))]
    for each in set(names):
        part = {k: v for (k, v), name in zip(weights.items(), names, strict=True) if name == each}
        save_file(part, folder / each, metadata={"format": "pt"})
    index, mapped = folder / "model.safetensors.index.json", dict(zip(weights, names, strict=True))

    def named(where):
        index.write_text(json.dumps({"metadata": {}, "weight_map": {**mapped, "classifier.bias": where}}))

    named(mapped["classifier.bias"])
    assert torch.equal(create(NAME, folder=folder)(images), model(images))
    torch.save({"classifier.bias": weights["classifier.bias"]}, folder / "p.bin")
    save_file({"classifier.bias": weights["classifier.bias"]}, folder.parent / "outside.safetensors", {"format": "pt"})
    (folder / "inner.safetensors").mkdir()
    outside = str(folder.parent / "outside.safetensors")
    for where in ("p.bin", "../outside.safetensors", outside, "inner.safetensors", "none.safetensors", ["p.bin"], None):
        named(where)
        told = refusal(folder)
        assert f"index.json names {where!r}, which is no safetensors file right in the folder" in told
    for damaged in ("[]", '{"weight_map": ["p.bin"]}', "{}"):
        index.write_text(damaged)
        assert "index.json is damaged: it has no weight_map" in refusal(folder)
    named(mapped["classifier.bias"])
    edited(folder / "config.json", transformers_weights="adapter_model.bin")
    assert "config.json names 'adapter_model.bin', which is no safetensors file" in refusal(folder)


def test_weights_must_be_all_of_the_model_and_nothing_else(folder):
    weights = load_file(folder / "model.safetensors")
    lacking = {key: value for key, value in weights.items() if key != "classifier.bias"}
    save_file(lacking, folder / "model.safetensors", metadata={"format": "pt"})
    assert "the file lacks classifier.bias" in refusal(folder)
    save_file({**weights, "strange.weight": torch.zeros(1)}, folder / "model.safetensors", metadata={"format": "pt"})
    assert "the file has besides strange.weight" in refusal(folder)
    wrong = {**weights, "classifier.weight": torch.zeros(5, 16)}
    save_file(wrong, folder / "model.safetensors", metadata={"format": "pt"})
    assert "cannot load it" in refusal(folder)
    (folder / "model.safetensors").write_bytes(b"damaged")
    assert "cannot load it" in refusal(folder)


def edited(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_what_is_no_image_classifier_is_refused(folder):
    edited(folder / "config.json", model_type="bert", architectures=["BertModel"])
    assert "cannot load it" in refusal(folder)


def test_quantised_weights_are_refused(folder):
    edited(folder / "config.json", quantization_config={"quant_method": "bitsandbytes"})
    assert "its weights are quantised" in refusal(folder)


def test_code_in_the_folder_is_not_run(folder):
    (folder / "evil.py").write_text("raise SystemExit('the code of the folder has run')\n")
    edited(folder / "config.json", model_type="evil", auto_map={"AutoModelForImageClassification": "evil.Model"})
    assert "cannot load it" in refusal(folder)


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_kernels_of_a_hub_are_not_asked_for(folder, monkeypatch, key):
    """The library would import code from there for the attention."""

    def fetch(name, **_):
        raise SystemExit(f"{name} is fetched")

    monkeypatch.setattr(transformers.modeling_utils, "lazy_import_flash_attention", fetch)
    expected = create(NAME, folder=folder)(noise(1, 3, 32, 32))
    edited(folder / "config.json", **{key: "kernels-community/flash-attn2"})
    with pytest.raises(SystemExit, match="flash-attn2 is fetched"):
        transformers.AutoModelForImageClassification.from_pretrained(folder, local_files_only=True)
    model = create(NAME, folder=folder)
    assert model.module.config._attn_implementation == "eager"
    assert torch.equal(model(noise(1, 3, 32, 32)), expected)


@pytest.mark.parametrize(
    "said",
    [
        {"model_type": "timm_wrapper", "architecture": "hf-hub:some/one"},
        {"backbone_config": {"model_type": "timm_backbone"}},
        {"parts": [{"backbone": "some/one"}]},
    ],
    ids=str,
)
def test_models_of_timm_or_of_a_hub_are_refused(folder, said):
    edited(folder / "config.json", **said)
    assert "config.json names a model of timm or of a hub" in refusal(folder)


def test_additions_to_another_model_are_refused(folder):
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "some/one"}')
    assert "adapter_config.json makes it an addition to another model" in refusal(folder)


def test_a_preprocessing_that_is_unknown_or_does_not_fit_is_refused(folder):
    edited(folder / "preprocessor_config.json", size={"height": 24, "width": 24})
    assert "cannot run it on an image" in refusal(folder)
    edited(folder / "preprocessor_config.json", image_processor_type="StrangeImageProcessor")
    assert "cannot read its preprocessing" in refusal(folder)


def test_logits_that_are_not_one_linear_layer_on_one_vector_are_refused(tmp_path):
    """A distilled transformer takes the mean of two heads."""
    module = seeded(transformers.DeiTForImageClassificationWithTeacher, transformers.DeiTConfig(**VIT))
    written(tmp_path, module, transformers.ViTImageProcessor(size=CROP))
    assert "the logits of a DeiTForImageClassificationWithTeacher are not one linear layer" in refusal(tmp_path)


@pytest.mark.parametrize("missing", ["transformers", "torchvision"])
def test_a_missing_library_is_told_in_one_line(vit_folder, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    told = refusal(vit_folder, NotInstalled)
    assert "needs transformers, which cannot be imported" in told
    assert "-m pip install 'transformers>=5.3' 'torchvision>=0.25'" in told
