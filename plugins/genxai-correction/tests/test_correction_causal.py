"""Effects of ablations, in batches, against one ablation after the other; and which samples count as broken."""

from __future__ import annotations

import pytest
import torch
from genxai_correction import judging
from genxai_correction.causal import _Ablations, ablation_effects
from torch import Tensor, nn

import genxai_core as gx
from genxai_core import Discriminator, Generator, Runtime, Samples, UnitEdits, units
from genxai_core.errors import InputError

RUNTIME = Runtime(device="cpu", batch_size=7, quiet=True)


class Chain(Generator):
    """Latents [N, 6] to images [N, 3, 8, 8], layer after layer."""

    value_range = (-1.0, 1.0)
    latent_shape = (6,)

    def __init__(self, twice: bool = False) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.twice = twice
        self.start = nn.Linear(6, 5 * 16)
        self.one = nn.ReLU()
        self.grow = nn.ConvTranspose2d(5, 6, 4, 2, 1)
        self.two = nn.ReLU()
        self.end = nn.Conv2d(6, 3, 3, padding=1)

    def sample_latents(self, n: int, seed: int, start: int = 0) -> Tensor:
        return gx.draws.normal(seed, range(start, start + n), (6,))

    def forward(self, latents: Tensor) -> Tensor:
        low = self.one(self.start(latents).view(-1, 5, 4, 4) - 0.5)
        if self.twice:
            low = self.one(-low + 0.3)
        return torch.tanh(self.end(self.two(self.grow(low))))


class Skipping(Chain):
    """Reads its latents again after the layers."""

    def forward(self, latents: Tensor) -> Tensor:
        return super().forward(latents) + 0.1 * latents.mean(1)[:, None, None, None]


class Tiling(Chain):
    """Reads its latents again, and takes more rows than latents without complaint, in another order."""

    def forward(self, latents: Tensor) -> Tensor:
        images = super().forward(latents)
        return images + 0.1 * latents.mean(1).repeat(len(images) // len(latents))[:, None, None, None]


class Judge(Discriminator):
    """One logit or two, of another range than the generator's."""

    value_range = (0.0, 1.0)

    def __init__(self, classes: tuple[str, ...] = ("normal", "artifact")) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.class_names = classes
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, len(classes)))

    def forward(self, images: Tensor) -> Tensor:
        return 4 * self.net(images)


def literal(model: Generator, latents: Tensor, judge: Judge, target: int, layer: str, edits: UnitEdits) -> Tensor:
    """One unit after the other, one sample after the other."""

    def chance(row: Tensor) -> float:
        with torch.no_grad(), units.applied(model, edits):
            logits = judge((model(row) + 1) / 2)[0].double()
        return float(logits.sigmoid()[0]) if len(logits) == 1 else float(logits.softmax(0)[target])

    with torch.no_grad(), units.record(model, layer) as seen:
        model(latents[:1])
    found = torch.zeros(seen[layer].shape[1], len(latents), dtype=torch.double)
    for n in range(len(latents)):
        before = chance(latents[n : n + 1])
        for u in range(len(found)):
            with units.edit(model, layer, u):
                found[u, n] = chance(latents[n : n + 1]) - before
    return found


NONE = UnitEdits.ablate({})
SOME = UnitEdits(("one", "one"), torch.tensor([1, 3]), torch.tensor([0.0, 0.4]), condition={"target": 0, "above": 0.2})


@pytest.mark.parametrize("kind", [Chain, Skipping, Tiling])
@pytest.mark.parametrize("layer", ["start", "one", "two"])
def test_batched_effects_are_those_of_one_ablation_after_the_other(kind: type[Chain], layer: str) -> None:
    model, judge = kind().eval(), Judge().eval()
    latents = model.sample_latents(5, 0)
    found = ablation_effects(model, latents, judge, 1, layer, RUNTIME)
    expected = literal(model, latents, judge, 1, layer, NONE)
    assert found.dtype == torch.double
    assert found.shape == expected.shape
    assert expected.abs().max() > 1e-3
    assert torch.allclose(found, expected, atol=1e-6)


def test_effects_after_edits_and_of_a_layer_that_runs_twice() -> None:
    judge = Judge().eval()
    for model in (Chain().eval(), Chain(twice=True).eval()):
        latents = model.sample_latents(6, 3)
        plain = UnitEdits(SOME.layers, SOME.units, SOME.factors)
        for layer in ("one", "two"):
            found = ablation_effects(model, latents, judge, 1, layer, RUNTIME, edits=SOME)
            assert torch.allclose(found, literal(model, latents, judge, 1, layer, plain), atol=1e-6)
    assert not torch.allclose(found, ablation_effects(model, latents, judge, 1, "two", RUNTIME), atol=1e-4)


def test_a_single_logit_a_choice_of_units_and_other_batches() -> None:
    model, judge = Chain().eval(), Judge(("artifact",)).eval()
    latents = model.sample_latents(6, 1)
    expected = literal(model, latents, judge, 0, "two", NONE)
    whole = ablation_effects(model, latents, judge, 0, "two", Runtime(device="cpu", batch_size=500, quiet=True))
    assert torch.allclose(whole, expected, atol=1e-6)
    some = ablation_effects(model, latents, judge, 0, "two", RUNTIME, units=[4, 0, 4])
    assert torch.allclose(some, expected[[4, 0, 4]], atol=1e-6)
    assert ablation_effects(model, latents, judge, 0, "two", RUNTIME, units=[]).shape == (0, 6)


def test_a_dead_unit_changes_exactly_nothing_and_is_not_run() -> None:
    model, judge = Chain().eval(), Judge().eval()
    with torch.no_grad():
        model.start.bias.view(5, 16)[2] = -100
    rows = []
    handle = model.end.register_forward_hook(lambda _m, _i, out: rows.append(len(out)))
    latents = model.sample_latents(6, 1)
    found = ablation_effects(model, latents, judge, 1, "one", RUNTIME, units=[2])
    handle.remove()
    assert not found.any()
    assert sum(rows) == 6 + 4 + 4  # the samples as they are; and two samples twice, each in both ways


def test_a_chain_is_branched_at_the_layer_and_what_reads_its_latents_again_is_not() -> None:
    for kind, branches in ((Chain, True), (Skipping, False), (Tiling, False)):
        model = kind().eval()
        work = _Ablations(model, model.sample_latents(4, 0), Judge().eval(), 1, "one", RUNTIME, None)
        with torch.no_grad():
            assert work._branches() is branches


def test_the_judge_and_the_generator_are_left_alone() -> None:
    model, judge = Chain().eval(), Judge().train()
    kept = {k: v.clone() for k, v in [*model.state_dict().items(), *judge.state_dict().items()]}
    ablation_effects(model, model.sample_latents(3, 0), judge, 1, "one", RUNTIME)
    assert judge.training
    assert not model.one._forward_hooks
    assert all(torch.equal(kept[k], v) for k, v in [*model.state_dict().items(), *judge.state_dict().items()])


class Faint(Chain):
    """Of its first layer, unit 0 is below 0 everywhere, and unit 1 is 0 in the second of its two calls."""

    def forward(self, latents: Tensor) -> Tensor:
        low = torch.cat([-latents.abs()[:, :1] - 0.1, latents[:, 1:2].abs() + 0.1], 1)[:, :, None, None].expand(
            -1, 2, 4, 4
        )
        first = self.both(low)
        second = self.both(low * torch.tensor([1.0, 0.0])[:, None, None])
        return torch.tanh(self.end(self.two(self.grow(torch.cat([first, second, first[:, :1]], 1)))))

    def __init__(self) -> None:
        super().__init__()
        self.both = nn.Identity()


def test_a_unit_is_skipped_only_where_it_is_0_in_every_call() -> None:
    model, judge = Faint().eval(), Judge().eval()
    latents = model.sample_latents(4, 0)
    expected = literal(model, latents, judge, 1, "both", NONE)
    assert bool((expected.abs() > 1e-4).all())
    assert torch.allclose(ablation_effects(model, latents, judge, 1, "both", RUNTIME), expected, atol=1e-6)


def test_one_broken_sample_is_enough() -> None:
    model, judge = Chain().eval(), Judge().eval()
    latents = model.sample_latents(1, 0)
    found = ablation_effects(model, latents, judge, 1, "one", RUNTIME)
    assert torch.allclose(found, literal(model, latents, judge, 1, "one", NONE), atol=1e-6)


def test_a_classifier_on_the_way_is_asked_in_eval_mode_and_left_in_training() -> None:
    model, judge = Chain().eval(), Judge()
    judge.net.insert(1, nn.BatchNorm2d(4))
    judge.net.insert(2, nn.Dropout(0.9))
    latents = model.sample_latents(3, 0)
    expected = ablation_effects(model, latents, judge.eval(), 1, "one", RUNTIME)
    judge.train().net[0].weight.grad = torch.ones(4, 3, 3, 3)
    before = {name: value.clone() for name, value in judge.state_dict().items()}
    assert torch.equal(ablation_effects(model, latents, judge, 1, "one", RUNTIME), expected)
    assert all(module.training for module in judge.modules())
    assert all(torch.equal(before[name], value) for name, value in judge.state_dict().items())
    assert all(p.requires_grad for p in judge.parameters())
    assert bool((judge.net[0].weight.grad == 1).all())


def test_wrong_units_and_layers_are_told() -> None:
    model, judge = Chain().eval(), Judge().eval()
    latents = model.sample_latents(3, 0)
    with pytest.raises(InputError, match="has 5 units; unit 5 is none of them"):
        ablation_effects(model, latents, judge, 1, "one", RUNTIME, units=[1, 5])
    with pytest.raises(InputError, match="no such layer"):
        ablation_effects(model, latents, judge, 1, "three", RUNTIME)


# -- which are broken -------------------------------------------------------------------------------------------------


def samples(labels: list[int] | None, names: tuple[str, ...] = ()) -> Samples:
    images = torch.linspace(-1, 1, 4)[:, None, None, None].expand(4, 3, 8, 8)
    given = None if labels is None else torch.tensor(labels)
    return Samples(images.clone(), labels=given, value_range=(-1.0, 1.0), class_names=names)


def test_labels_say_which_are_broken_and_else_the_classifier() -> None:
    judge = Judge().eval()
    named = samples([0, 1, 2, 0], ("artifact", "normal", "real"))
    assert judging.broken(named, None, None).tolist() == [True, False, False, True]
    assert judging.broken(samples([0, 1, 1, 0]), judge, None).tolist() == [False, True, True, False]
    chance = judge((samples(None).images + 1) / 2).softmax(1)[:, 1].double().detach()
    for few in (1, 2, 3):
        cut = float(chance.sort(descending=True).values[few - 1 : few + 1].mean())
        for given in (samples(None), samples([0, 1, 1, 0], ("cat", "dog")), samples([0, 1, 2, 3])):
            assert torch.equal(judging.broken(given, judge, None, cut), chance > cut)
            assert judging.broken(given, judge, None, cut).sum() == few


def test_nothing_that_says_what_is_broken_is_told() -> None:
    with pytest.raises(InputError, match="have no labels, so a classifier"):
        judging.broken(samples(None), None, None)
    with pytest.raises(InputError, match="none is 'artifact'"):
        judging.broken(samples([0, 1, 0, 1], ("cat", "dog")), None, None)
    with pytest.raises(InputError, match="none of the judge's classes"):
        judging.broken(samples(None), Judge(("cat", "dog")), None)
    with pytest.raises(InputError, match="target 4 is none"):
        judging.broken(samples(None), Judge(), 4)


def test_a_logit_named_real_is_not_taken_for_the_artifacts() -> None:
    """The logit of a GAN's discriminator, which is high where an image is fine."""
    assert Discriminator.class_names == ("real",)
    with pytest.raises(InputError, match="only logit is named 'real', so it is high where nothing is broken"):
        judging.speaks_of_artifacts(Judge(("real",)))
    judging.speaks_of_artifacts(Judge(("real",)), 0)  # asked for
    judging.speaks_of_artifacts(Judge(("glare",)))


def test_a_judge_that_returns_nan_or_no_logits_is_told() -> None:
    judge = Judge().eval()
    with torch.no_grad():
        judge.net[0].bias.fill_(torch.nan)
    with pytest.raises(InputError, match="the judge returns NaN; check its weights"):
        judging.broken(samples(None), judge, None)
    judge.forward = lambda images: images.mean((1, 2, 3))
    with pytest.raises(InputError, match=r"the judge returns \[4\], not logits"):
        judging.broken(samples(None), judge, None)


def test_images_of_another_size_than_the_judges_are_told() -> None:
    judge = Judge().eval()
    judge.image_shape = (3, 16, 16)
    with pytest.raises(InputError, match=r"the images are \(3, 8, 8\), the judge takes \(3, 16, 16\)"):
        judging.broken(samples(None), judge, None)
