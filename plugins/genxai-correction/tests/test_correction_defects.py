"""Masks and defective scores against literal loops."""

from __future__ import annotations

import warnings

import pytest
import torch
from genxai_correction import defects, masks
from torch import Tensor, nn
from torch.nn import functional as F

import genxai_core as gx
from genxai_core import Discriminator, Explainer, Generator, Runtime, Samples, Spec, UnitEdits, units
from genxai_core.errors import InputError

RUNTIME = Runtime(device="cpu", batch_size=5, quiet=True)


class Small(Generator):
    """Latents [N, 6] to images [N, 3, 13, 13] by maps of 4 and 8 cells and a flat layer."""

    value_range = (-1.0, 1.0)
    latent_shape = (6,)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.flat = nn.Linear(6, 7)
        self.start = nn.Linear(7, 5 * 16)
        self.one = nn.ReLU()
        self.grow = nn.ConvTranspose2d(5, 9, 4, 2, 1)
        self.two = nn.ReLU()
        self.end = nn.Conv2d(9, 3, 3, padding=1)

    def sample_latents(self, n: int, seed: int, start: int = 0) -> Tensor:
        return gx.draws.normal(seed, range(start, start + n), (6,))

    def forward(self, latents: Tensor) -> Tensor:
        low = self.one(self.start(self.flat(latents)).view(-1, 5, 4, 4))
        high = self.two(self.grow(low))
        return F.interpolate(torch.tanh(self.end(high)), size=(13, 13), mode="bilinear", align_corners=False)


LAYERS = ("flat", "one", "two")


@pytest.fixture(scope="module")
def model() -> Small:
    return Small().eval()


@pytest.fixture(scope="module")
def latents(model: Small) -> Tensor:
    return model.sample_latents(12, 0)


@pytest.fixture(scope="module")
def given(latents: Tensor) -> Tensor:
    """Masks of unequal size, one of them empty."""
    return torch.stack([torch.rand(1, 13, 13, generator=torch.Generator().manual_seed(i)) < i / 14 for i in range(12)])


def large_maps(model: nn.Module, latents: Tensor, layer: str, edits: UnitEdits | None = None) -> Tensor:
    with torch.no_grad(), units.applied(model, edits or UnitEdits.ablate({})), units.record(model, layer) as seen:
        model(latents)
    maps = seen[layer] if seen[layer].ndim == 4 else seen[layer][:, :, None, None]
    return F.interpolate(maps, size=(13, 13), mode="bilinear", align_corners=False)


def literal(maps: Tensor, given: Tensor, level: Tensor) -> Tensor:
    """IoU by IoU."""
    found = torch.zeros(maps.shape[:2], dtype=torch.double)
    for n in range(len(maps)):
        for u in range(maps.shape[1]):
            active = maps[n, u] > level[u]
            union = int((active | given[n, 0]).sum())
            found[n, u] = int((active & given[n, 0]).sum()) / union if union else 0.0
    return found


def test_each_iou_is_the_literal_one(model: Small, latents: Tensor, given: Tensor) -> None:
    levels = defects.artifact_thresholds(model, latents, LAYERS, RUNTIME, quantile=0.8)
    found = defects.sample_ious(model, latents, given, levels, RUNTIME)
    for layer in LAYERS:
        expected = literal(large_maps(model, latents, layer), given, levels[layer])
        assert found[layer].dtype == torch.double
        assert torch.equal(found[layer], expected)
        assert expected.unique().numel() > 8


def test_as_many_samples_as_units_are_not_taken_for_each_other(model: Small, latents: Tensor, given: Tensor) -> None:
    level = {"two": torch.full((9,), 0.1)}
    found = defects.sample_ious(model, latents[:9], given[:9], level, RUNTIME)["two"]
    expected = literal(large_maps(model, latents[:9], "two"), given[:9], level["two"])
    assert found.shape == (9, 9)
    assert torch.equal(found, expected)
    assert not torch.allclose(expected, expected.T)


def test_a_pixel_at_its_threshold_is_not_active(model: Small, latents: Tensor, given: Tensor) -> None:
    for layer in LAYERS:
        maps = large_maps(model, latents, layer)
        for at in (2, 40, 111):  # thresholds that are equal to a pixel bit for bit
            level = maps[4].flatten(1)[:, at].clone()
            expected = literal(maps, given, level)
            assert torch.equal(defects.sample_ious(model, latents, given, {layer: level}, RUNTIME)[layer], expected)
            below = torch.nextafter(level, torch.full_like(level, -torch.inf))
            found = defects.sample_ious(model, latents, given, {layer: below}, RUNTIME)[layer]
            assert torch.equal(found, literal(maps, given, below))


def test_an_empty_union_is_0(model: Small, latents: Tensor, given: Tensor) -> None:
    levels = {"one": torch.full((5,), torch.inf)}
    assert not defects.sample_ious(model, latents, given, levels, RUNTIME)["one"].any()
    assert not defects.sample_ious(model, latents, torch.zeros_like(given), levels, RUNTIME)["one"].any()
    maps = large_maps(model, latents[:1], "flat")  # of one cell, so equal all over: active in every pixel
    pixel = torch.zeros(1, 1, 13, 13, dtype=torch.bool)
    high = large_maps(model, latents[:1], "two")[0, 0].flatten()
    pixel.view(-1)[high.argmax()] = True
    one = torch.full((9,), torch.inf)
    one[0] = high.topk(2).values[1]  # only the largest pixel exceeds it
    assert defects.sample_ious(model, latents[:1], pixel, {"two": one}, RUNTIME)["two"][0].tolist() == [1.0] + [0.0] * 8
    below = {"flat": maps[0, :, 0, 0] - 1}
    assert (defects.sample_ious(model, latents[:1], pixel, below, RUNTIME)["flat"] == 1 / 169).all()
    everywhere = {"one": torch.full((5,), -torch.inf)}
    found = defects.sample_ious(model, latents, given, everywhere, RUNTIME)["one"]
    assert torch.equal(found, (given.flatten(1).double().mean(1))[:, None].expand(12, 5))


def test_batches_do_not_matter_and_more_samples_than_one_count_holds_are_counted(model: Small) -> None:
    many = model.sample_latents(150, 1)
    given = torch.rand(150, 1, 13, 13, generator=torch.Generator().manual_seed(0)) < 0.3
    levels = defects.artifact_thresholds(model, many, LAYERS, RUNTIME, quantile=0.9)
    whole = defects.sample_ious(model, many, given, levels, Runtime(device="cpu", batch_size=150, quiet=True))
    parts = defects.sample_ious(model, many, given, levels, Runtime(device="cpu", batch_size=50, quiet=True))
    for layer in LAYERS:
        assert torch.equal(whole[layer], literal(large_maps(model, many, layer), given, levels[layer]))
        assert (whole[layer] - parts[layer]).abs().max() < 0.02  # a forward of another size may round otherwise


def test_thresholds_are_those_of_a_dissection(model: Small, latents: Tensor) -> None:
    found = defects.artifact_thresholds(model, latents, LAYERS, RUNTIME, quantile=0.9)
    coarse = defects.artifact_thresholds(model, latents, LAYERS, RUNTIME, quantile=0.9, size=(4, 4))
    for layer in LAYERS:
        with torch.no_grad(), units.threshold(model, layer, 0.9, size=(13, 13)) as expected:
            model(latents)
        assert torch.allclose(found[layer], expected.values()[layer], atol=1e-6)
    assert not torch.allclose(coarse["two"], found["two"])
    with pytest.raises(InputError, match="too few for the quantile"):
        defects.artifact_thresholds(model, latents[:1], ["one"], RUNTIME, quantile=0.9999)
    with pytest.raises(InputError, match="no latents"):
        defects.artifact_thresholds(model, latents[:0], ["one"], RUNTIME)


def test_edits_come_first_and_reach_later_layers(model: Small, latents: Tensor, given: Tensor) -> None:
    levels = defects.artifact_thresholds(model, latents, LAYERS, RUNTIME, quantile=0.8)
    edits = UnitEdits(("one", "one"), torch.tensor([1, 3]), torch.tensor([0.0, 0.4]))
    plain = defects.sample_ious(model, latents, given, levels, RUNTIME)
    found = defects.sample_ious(model, latents, given, levels, RUNTIME, edits)
    for layer in LAYERS:
        assert torch.equal(found[layer], literal(large_maps(model, latents, layer, edits), given, levels[layer]))
    assert torch.equal(found["flat"], plain["flat"])
    assert not torch.equal(found["two"], plain["two"])
    assert not torch.equal(found["one"][:, 1], plain["one"][:, 1])
    conditional = UnitEdits(("one", "one"), edits.units, edits.factors, condition={"target": 0, "above": 0.5})
    again = defects.sample_ious(model, latents, given, levels, RUNTIME, conditional)
    assert all(torch.equal(found[layer], again[layer]) for layer in LAYERS)


def test_scores_are_means_over_samples_with_normal_intervals() -> None:
    ious = {"a": torch.tensor([[0.0, 0.5], [0.2, 0.5], [0.7, 0.5]], dtype=torch.double)}
    scores, ends = defects.defective_scores(ious)
    assert scores["a"].tolist() == pytest.approx([0.3, 0.5])
    half = 1.96 * (((0.3**2 + 0.1**2 + 0.4**2) / 2) / 3) ** 0.5
    assert ends["a"][0].tolist() == pytest.approx([max(0.0, 0.3 - half), 0.3 + half])
    assert ends["a"][1].tolist() == pytest.approx([0.5, 0.5])
    assert defects.defective_scores({"a": ious["a"][:1]})[1]["a"].tolist() == [[0, 1], [0, 1]]


def test_what_does_not_fit_is_told(model: Small, latents: Tensor, given: Tensor) -> None:
    with pytest.raises(InputError, match="give bool"):
        defects.sample_ious(model, latents, given.float(), {"one": torch.zeros(5)}, RUNTIME)
    with pytest.raises(InputError, match="give bool"):
        defects.sample_ious(model, latents, given[:3], {"one": torch.zeros(5)}, RUNTIME)
    with pytest.raises(InputError, match="5 units, its thresholds are 4"):
        defects.sample_ious(model, latents, given, {"one": torch.zeros(4)}, RUNTIME)
    with pytest.raises(InputError, match="no such layer"):
        defects.sample_ious(model, latents, given, {"three": torch.zeros(4)}, RUNTIME)
    with pytest.raises(InputError, match="NaN or infinity"):
        defects.sample_ious(model, latents / 0, given, {"one": torch.zeros(5)}, RUNTIME)


# -- masks ------------------------------------------------------------------------------------------------------------


class Judge(Discriminator):
    """The artifact is whatever is bright: its logit is the mean of the image's channel 0."""

    class_names = ("normal", "artifact")
    value_range = (0.0, 1.0)

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, images: Tensor) -> Tensor:
        bright = self.scale * images[:, 0].mean((1, 2))
        return torch.stack([-bright, bright], 1)


class Brightness(Explainer):
    """An attribution whose map is channel 0 less a level."""

    explains, accepts, returns = "discriminator", "images", gx.Attribution

    def __init__(self, level: float = 0.0, channels: bool = False) -> None:
        self.level, self.channels = level, channels

    def _explain(self, model, images, target, runtime=None):
        maps = images[:, 0] - self.level
        return gx.Attribution(maps=maps[:, None].repeat(1, 3, 1, 1) if self.channels else maps, target=target or 0)


class OfGenerators(Brightness):
    """Explains something else."""

    explains = "generator"


def bright(largest: list[float]) -> Samples:
    """Images in [-1, 1]; in [0, 1] channel 0 is a ramp up to the given brightness."""
    ramp = torch.linspace(0, 1, 16).view(1, 4, 4)
    images = torch.stack([(ramp * top).repeat(3, 1, 1) for top in largest])
    return Samples(images * 2 - 1, value_range=(-1.0, 1.0))


@pytest.mark.parametrize("channels", [False, True])
def test_a_mask_is_what_exceeds_a_share_of_the_samples_own_maximum(channels: bool) -> None:
    samples = bright([1.0, 0.1, 0.5])
    found = masks.artifact_masks(Brightness(channels=channels), Judge().eval(), samples, 1, 0.3, RUNTIME)
    assert found.dtype == torch.bool
    assert found.shape == (3, 1, 4, 4)
    for row in found:  # of a threshold that is shared by all samples, the second would be empty
        assert torch.equal(row[0].flatten(), torch.arange(16) / 15 > 0.3)
    alone = [masks.artifact_masks(Brightness(), Judge().eval(), samples[i], 1, 0.3, RUNTIME)[0] for i in range(3)]
    assert torch.equal(found, torch.stack(alone))


class Opposed(Brightness):
    """Speaks for the first pixel in one channel as loudly as against it in another, and for the second pixel."""

    def _explain(self, model, images, target, runtime=None):
        maps = torch.zeros_like(images)
        maps[:, 0, 0, 0], maps[:, 1, 0, 0], maps[:, 2, 0, 1] = 5.0, -5.0, 1.0
        return gx.Attribution(maps=maps, target=target or 0)


def test_channels_that_disagree_make_up_for_each_other() -> None:
    found = masks.artifact_masks(Opposed(), Judge().eval(), bright([1.0]), 1, 0.3, RUNTIME)
    assert found[0, 0].nonzero().tolist() == [[0, 1]]


def test_a_map_that_speaks_for_nothing_masks_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = masks.artifact_masks(Brightness(level=0.6), Judge().eval(), bright([0.5, 1.0]), 1, 0.3, RUNTIME)
    assert found.flatten(1).any(1).tolist() == [False, True]


def test_grad_cam_is_the_default_attribution_and_the_judge_is_left_alone() -> None:
    torch.manual_seed(0)
    judge = gx.create("discriminator/classifier", size=16, channels=3, num_classes=2)
    judge.class_names = ("normal", "artifact")
    judge.train()
    before = {name: value.clone() for name, value in judge.state_dict().items()}
    samples = Samples(torch.rand(3, 3, 16, 16) * 2 - 1, value_range=(-1.0, 1.0))
    found = masks.artifact_masks(masks.GRADCAM, judge, samples, 1, 0.3, RUNTIME)
    maps = gx.create("explainer/cam", method="gradcam").explain(judge, samples, target=1).maps.double()
    for mask, single in zip(found[:, 0], maps, strict=True):
        top = float(single.max())
        assert torch.equal(mask, (single > 0.3 * top) if top > 0 else torch.zeros_like(mask))
    assert judge.training
    assert all(torch.equal(before[name], value) for name, value in judge.state_dict().items())


def test_given_masks_are_the_samples_own() -> None:
    images = torch.zeros(2, 3, 4, 4)
    planes = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)) < 0.5
    some = Samples(images, masks=planes, value_range=(-1.0, 1.0), concepts=("sky", "artifact", "tree"))
    assert torch.equal(masks.artifact_masks("given", None, some, None), planes[:, 1:2])
    one = Samples(images, masks=planes[:, :1], value_range=(-1.0, 1.0), concepts=("stamp",))
    assert torch.equal(masks.artifact_masks("given", None, one, None), planes[:, :1])
    other = Samples(images, masks=planes, value_range=(-1.0, 1.0), concepts=("sky", "hill", "tree"))
    with pytest.raises(InputError, match="sky, hill, tree"):
        masks.artifact_masks("given", None, other, None)
    with pytest.raises(InputError, match="have no masks"):
        masks.artifact_masks("given", None, Samples(images, value_range=(-1.0, 1.0)), None)


def test_masks_that_cannot_be_had_are_told() -> None:
    with pytest.raises(InputError, match="need a classifier"):
        masks.artifact_masks(masks.GRADCAM, None, bright([1.0]), 1)
    with pytest.raises(InputError, match="does not attribute"):
        masks.artifact_masks(OfGenerators(), Judge(), bright([1.0]), 1)
    with pytest.raises(InputError, match="does not attribute"):
        masks.artifact_masks(Spec("discriminator/classifier", {"size": 16}), Judge(), bright([1.0]), 1)
    with pytest.raises(InputError, match="mask_threshold 1 "):
        masks.artifact_masks("given", None, bright([1.0]), None, 1)
    assert masks.named("given") == "given"
    assert masks.named(masks.GRADCAM) == "explainer/cam"
