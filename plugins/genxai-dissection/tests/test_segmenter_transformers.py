"""segmenter/transformers against the library's own processing, on tiny models with random weights."""

import json

import pytest
import torch

import genxai_core as gx
from genxai_core.errors import BadParameter, InputError

transformers = pytest.importorskip("transformers")

LABELS = {0: "wall", 1: "sky", 2: "tree", 3: "door", 4: "sky"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    config = transformers.SegformerConfig(
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[2, 1],
        hidden_sizes=[8, 16],
        patch_sizes=[3, 3],
        strides=[2, 2],
        num_attention_heads=[1, 2],
        mlp_ratios=[2, 2],
        decoder_hidden_size=16,
        id2label=LABELS,
        label2id={"wall": 0, "sky": 1, "tree": 2, "door": 3},
    )
    path = tmp_path_factory.mktemp("segformer")
    model = transformers.SegformerForSemanticSegmentation(config).eval()
    with torch.no_grad():
        model.decode_head.classifier.weight.mul_(40)  # or one label wins everywhere
    model.save_pretrained(path)
    transformers.SegformerImageProcessor(size={"height": 24, "width": 24}).save_pretrained(path)
    return path


def samples(n=4, channels=3, size=(20, 28), value_range=(-1.0, 1.0)):
    """Images of which every value is one of 256, as the library's processor takes them."""
    raw = torch.randint(0, 256, (n, channels, *size), generator=torch.Generator().manual_seed(2)).float()
    smooth = torch.nn.functional.avg_pool2d(raw, 5, 1, 2).round()
    return gx.Samples(smooth, value_range=(0.0, 255.0)).rescale(value_range)


def by_the_library(folder, samples):
    """Label of each pixel: the folder's processor, the model, the processor's own post-processing."""
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    model = transformers.AutoModelForSemanticSegmentation.from_pretrained(folder).eval()
    images = samples.rescale((0.0, 255.0)).images.round().to(torch.uint8)
    with torch.no_grad():
        outputs = model(**processor(images=list(images), return_tensors="pt"))
    sizes = [tuple(images.shape[2:])] * len(images)
    return torch.stack(processor.post_process_semantic_segmentation(outputs, target_sizes=sizes))


def changed(folder, tmp_path, name="preprocessor_config.json", **changes):
    """A copy of the folder with some of a file's values changed; None takes one away."""
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    said = {**json.loads((tmp_path / name).read_text()), **changes}
    (tmp_path / name).write_text(json.dumps({k: v for k, v in said.items() if v is not None}))
    return tmp_path


def test_masks_are_the_librarys_labels(folder):
    labels = by_the_library(folder, samples())
    segmenter = gx.create("segmenter/transformers", folder=folder)
    assert segmenter.concepts == ("wall", "sky", "tree", "door")
    masks = segmenter.segment(samples())
    assert (labels.flatten(1).amax(1) > labels.flatten(1).amin(1)).all(), "one label would prove nothing"
    for k, name in enumerate(segmenter.concepts):
        expected = sum((labels == i for i, label in LABELS.items() if label == name), torch.zeros_like(labels)).bool()
        # the library rounds resized images to 8 bits, which may tip a pixel between two labels that are nearly even
        assert float((masks[:, k] == expected).float().mean()) > 0.995


@pytest.mark.parametrize(
    "changes",
    [
        {"do_resize": False},
        {"size": {"height": 32, "width": 48}, "resample": 0},
        {"size": {"height": 32, "width": 48}, "resample": 3},
        {"size": {"height": 12, "width": 16}},
        {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]},
        {"do_normalize": False},
        {"do_rescale": False, "image_mean": [100.0, 90.0, 110.0], "image_std": [50.0, 60.0, 40.0]},
        {"rescale_factor": 1 / 128},
    ],
    ids=lambda c: "-".join(c),
)
def test_what_the_model_sees_is_what_the_librarys_processor_makes(folder, tmp_path, changes):
    path = changed(folder, tmp_path, **changes)
    segmenter = gx.create("segmenter/transformers", folder=path)
    given = samples()
    processor = transformers.AutoImageProcessor.from_pretrained(path)
    images = given.rescale((0.0, 255.0)).images  # as floats: bytes it would round after resizing
    expected = torch.stack(list(processor(images=list(images), return_tensors="pt")["pixel_values"]))
    torch.testing.assert_close(segmenter._prepare(given.rescale((0.0, 1.0)).images), expected, atol=2e-4, rtol=1e-5)


def test_shorter_edges_and_flipped_channels(folder, tmp_path):
    path = changed(folder, tmp_path, size={"shortest_edge": 40}, do_flip_channel_order=True, do_normalize=False)
    prepare = gx.create("segmenter/transformers", folder=path)._prepare
    images = samples().rescale((0.0, 1.0)).images
    wanted = torch.nn.functional.interpolate(images, (40, 56), mode="bilinear", align_corners=False)
    torch.testing.assert_close(prepare(images), wanted[:, [2, 1, 0]])


def test_a_choice_of_concepts_keeps_their_masks(folder):
    every = gx.create("segmenter/transformers", folder=folder).segment(samples())
    some = gx.create("segmenter/transformers", folder=folder, concepts=("tree", "wall")).segment(samples())
    assert torch.equal(some, every[:, [2, 0]])


def test_gray_images_are_gray_in_colour(folder):
    segmenter = gx.create("segmenter/transformers", folder=folder)
    gray = samples(channels=1)
    colour = gx.Samples(gray.images.repeat(1, 3, 1, 1), value_range=gray.value_range)
    assert torch.equal(segmenter.segment(gray), segmenter.segment(colour))
    with pytest.raises(InputError, match="not 2 channels"):
        segmenter.segment(samples(channels=2))


def test_folders_that_do_not_fit_are_refused(folder, tmp_path):
    def refused(said, path, **params):
        with pytest.raises(BadParameter, match=said):
            gx.create("segmenter/transformers", folder=path, **params)

    refused("has no preprocessor_config.json; give the folder", tmp_path)
    refused("has no label grass; it has: wall, sky, tree, door", folder, concepts=("grass",))
    for number, (said, changes) in enumerate(
        {
            "resample 5 is not one of": {"resample": 5},
            "size .* is neither height and width nor shortest_edge": {"size": {"longest_edge": 3}},
            "keep_aspect_ratio": {"keep_aspect_ratio": True},
            "image_std": {"image_std": None},
        }.items()
    ):
        path = tmp_path / str(number)
        path.mkdir()
        refused(said, changed(folder, path, **changes))


def test_weights_must_be_safetensors_and_complete(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    pickled, partial = tmp_path / "pickled", tmp_path / "partial"
    for path in (pickled, partial):
        path.mkdir()
        changed(folder, path)
    weights = load_file(folder / "model.safetensors")
    (pickled / "model.safetensors").unlink()
    torch.save(weights, pickled / "pytorch_model.bin")
    with pytest.raises(BadParameter, match="cannot be read as a semantic-segmentation model"):
        gx.create("segmenter/transformers", folder=pickled)
    save_file(
        {k: v for k, v in weights.items() if "classifier" not in k}, partial / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(BadParameter, match=r"weights are missing or do not fit, such as .*classifier"):
        gx.create("segmenter/transformers", folder=partial)


def test_code_in_the_folder_is_not_run(folder, tmp_path):
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')")
    path = changed(
        folder,
        tmp_path,
        "config.json",
        model_type="evil",
        auto_map={"AutoConfig": "evil.Config", "AutoModelForSemanticSegmentation": "evil.Model"},
    )
    with pytest.raises(BadParameter, match="cannot be read as a semantic-segmentation model"):
        gx.create("segmenter/transformers", folder=path)


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_kernels_of_a_hub_are_not_asked_for(folder, tmp_path, monkeypatch, key):
    """The library would import code from there for the attention."""

    def fetch(name, **_):
        raise SystemExit(f"{name} is fetched")

    monkeypatch.setattr(transformers.modeling_utils, "lazy_import_flash_attention", fetch)
    path = changed(folder, tmp_path, "config.json", **{key: "kernels-community/flash-attn2"})
    with pytest.raises(SystemExit, match="flash-attn2 is fetched"):
        transformers.AutoModelForSemanticSegmentation.from_pretrained(path, local_files_only=True)
    masks = gx.create("segmenter/transformers", folder=path).segment(samples())
    assert torch.equal(masks, gx.create("segmenter/transformers", folder=folder).segment(samples()))


@pytest.mark.parametrize(
    "said",
    [
        {"model_type": "timm_wrapper", "architecture": "hf-hub:some/one"},
        {"backbone_config": {"model_type": "timm_backbone"}},
        {"parts": [{"backbone": "some/one"}]},
    ],
    ids=str,
)
def test_models_of_timm_or_of_a_hub_are_refused(folder, tmp_path, said):
    path = changed(folder, tmp_path, "config.json", **said)
    with pytest.raises(BadParameter, match=r"config\.json names a model of timm or of a hub"):
        gx.create("segmenter/transformers", folder=path)


def test_weights_in_several_files_must_be_safetensors_in_the_folder(folder, tmp_path):
    from safetensors.torch import load_file

    path = tmp_path / "model"
    path.mkdir()
    changed(folder, path)
    weights = load_file(path / "model.safetensors")
    (path / "model.safetensors").rename(path / "part.safetensors")
    torch.save(weights, path / "p.bin")
    (tmp_path / "outside.safetensors").write_bytes((path / "part.safetensors").read_bytes())

    def named(where):
        index = {"metadata": {}, "weight_map": dict.fromkeys(weights, where)}
        (path / "model.safetensors.index.json").write_text(json.dumps(index))
        return gx.create("segmenter/transformers", folder=path)

    expected = gx.create("segmenter/transformers", folder=folder).segment(samples())
    assert torch.equal(named("part.safetensors").segment(samples()), expected)
    for where in ("p.bin", "../outside.safetensors", str(tmp_path / "outside.safetensors"), "none.safetensors"):
        with pytest.raises(BadParameter, match=f"index.json names '{where}', which is no safetensors file right in"):
            named(where)
    (path / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(BadParameter, match="is damaged: it has no weight_map"):
        gx.create("segmenter/transformers", folder=path)
    changed(folder, path, "config.json", transformers_weights="adapter_model.bin")
    (path / "model.safetensors.index.json").unlink()
    with pytest.raises(BadParameter, match=r"config\.json names 'adapter_model\.bin', which is no safetensors file"):
        gx.create("segmenter/transformers", folder=path)


def test_additions_to_another_model_and_damaged_files_are_refused(folder, tmp_path):
    path = changed(folder, tmp_path)
    (path / "adapter_config.json").write_text('{"base_model_name_or_path": "some/one"}')
    with pytest.raises(BadParameter, match=r"adapter_config\.json makes it an addition to another model"):
        gx.create("segmenter/transformers", folder=path)
    (path / "config.json").write_text("[]")
    with pytest.raises(BadParameter, match=r"config\.json: damaged: it holds a list, not an object"):
        gx.create("segmenter/transformers", folder=path)
