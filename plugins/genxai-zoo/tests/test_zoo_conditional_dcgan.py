"""Conditional DCGANs: the formulas, what a label does, and views of one class that other methods can explain."""

import copy

import pytest
import torch
from genxai_zoo.dcgan import DCGANGenerator
from genxai_zoo.dcgan_discriminator import DCGANDiscriminator
from torch import nn

import genxai_core as gx
from genxai_core import Runtime, Spec, models, pipeline, saving, units
from genxai_core.errors import BadParameter, GenxaiError, InputError, MissingCapability, StorageError
from genxai_core.guard import guard
from genxai_core.results import UnitEdits

NAMES = ("a", "b", "c")


@pytest.fixture
def generator():
    torch.manual_seed(0)
    return gx.create("generator/dcgan", size=8, latents=5, width=4, num_classes=3, class_names=NAMES).eval()


@pytest.fixture
def discriminator():
    torch.manual_seed(0)
    return gx.create("discriminator/dcgan", size=16, width=4, num_classes=3).eval()


@pytest.fixture
def images():
    return torch.rand(6, 1, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


# -- the formulas ---------------------------------------------------------------------------------------------------


def test_the_first_layer_takes_the_latent_and_the_embedding_behind_it(generator):
    """Its units at (row, column) are W_z z + W_y e_y + b, before the normalisation."""
    latents, labels = generator.sample_latents(3, seed=0), torch.tensor([2, 0, 2])
    first = generator.layers[0][0]
    with torch.no_grad(), units.record(generator, ["layers.0.0"], detach=True) as seen:
        generator(latents, labels)
    for n in range(3):
        literal = first.bias[:, None, None].clone()
        for k in range(5):
            literal = literal + latents[n, k] * first.weight[k]
            literal = literal + generator.embedding.weight[labels[n], k] * first.weight[5 + k]
        torch.testing.assert_close(seen["layers.0.0"][n], literal, rtol=0, atol=1e-6)


def test_the_logit_is_that_of_the_projection_discriminator(discriminator, images):
    """Miyato and Koyama 2018: f(x, y) = yᵀVφ(x) + ψ(φ(x)), V of spectral norm 1."""
    labels = torch.tensor([0, 1, 2, 2, 1, 0])
    with torch.no_grad():
        V, head = discriminator.embedding.weight, discriminator.head
        phi = torch.stack([discriminator.layers(x[None])[0].flatten() for x in images])
        found = discriminator.given(labels=labels)(images)
        assert found.shape == (6, 1)
        for n in range(6):
            y = torch.eye(3)[labels[n]]
            literal = float(y @ V @ phi[n] + head.weight[0] @ phi[n] + head.bias[0])
            assert float(found[n]) == pytest.approx(literal, rel=1e-4, abs=1e-6)
        for label in range(3):
            one = discriminator.given(labels=label)(images)
            torch.testing.assert_close(one[labels == label], found[labels == label], rtol=1e-5, atol=1e-6)
    assert (one - found).abs().max() > 1e-3  # the label counts


def test_the_embedding_of_the_discriminator_has_spectral_norm_one(discriminator, images):
    judge = discriminator.train().given(labels=1)
    for _ in range(200):
        judge(images)
    assert float(torch.linalg.matrix_norm(discriminator.embedding.weight.detach(), 2)) == pytest.approx(1, abs=1e-3)


def test_without_classes_nothing_is_added():
    for use in ("generator/dcgan", "discriminator/dcgan"):
        torch.manual_seed(4)
        plain = gx.create(use, size=16, width=4)
        assert not any("embedding" in key or "label" in key for key in plain.state_dict())
        assert not isinstance(plain, models.Conditional)
        assert not hasattr(plain, "given")
        torch.manual_seed(4)
        conditional = gx.create(use, size=16, width=4, num_classes=2)
        assert isinstance(conditional, models.Conditional)
        assert set(plain.state_dict()) < set(conditional.state_dict())


# -- drawing --------------------------------------------------------------------------------------------------------


def test_labels_are_kept_and_named(generator):
    labels = torch.tensor([2, 0, 1, 2])
    samples = generator.sample(4, seed=0, labels=labels)
    assert torch.equal(samples.labels, labels)
    assert samples.class_names == NAMES
    assert torch.equal(samples.images, generator(samples.latents, labels))
    other = generator.sample(4, seed=0, labels=torch.tensor([1, 1, 1, 1]))
    assert torch.equal(other.latents, samples.latents)
    assert (other.images - samples.images).flatten(1).abs().amax(1).gt(1e-3).tolist() == [True, True, False, True]


def test_labels_that_are_not_given_are_drawn_by_seed_and_index_uniformly(generator):
    samples, part = generator.sample(600, seed=3), generator.sample(7, seed=3, start=20)
    assert torch.equal(part.labels, samples.labels[20:27])
    torch.testing.assert_close(part.images, samples.images[20:27], rtol=0, atol=1e-6)
    counts = samples.labels.bincount(minlength=3)
    assert counts.sub(200).abs().max() < 50  # four standard deviations of 11.5
    assert not torch.equal(generator.sample(600, seed=4).labels, samples.labels)


def test_generated_data_takes_labels(generator):
    drawn = gx.create("dataset/generated", n=5, labels=2).load(model=generator)
    assert drawn.labels.tolist() == [2] * 5
    assert len(set(gx.create("dataset/generated", n=40).load(model=generator).labels.tolist())) == 3
    with pytest.raises(InputError, match=r"label 3 is out of range; the model's classes are 0…2"):
        gx.create("dataset/generated", n=2, labels=3).load(model=generator)
    with pytest.raises(MissingCapability, match="labels needs the capability Conditional"):
        gx.create("dataset/generated", n=2, labels=1).load(model=generator.given(labels=1))


# -- a view of one class --------------------------------------------------------------------------------------------


def test_a_generator_given_a_class_has_latents_and_draws_that_class(generator):
    one = generator.given(labels=1)
    assert isinstance(one, models.HasLatents)
    assert isinstance(one, models.CanSample)
    assert not isinstance(one, models.Conditional)
    assert not hasattr(one, "given")
    samples, labels = one.sample(4, seed=2), torch.ones(4, dtype=torch.long)
    assert torch.equal(samples.images, generator.sample(4, seed=2, labels=labels).images)
    assert torch.equal(one(samples.latents), samples.images)
    assert torch.equal(samples.labels, labels)
    assert isinstance(generator, models.Conditional)  # making the view has changed nothing


@pytest.mark.parametrize("kind", ["generator", "discriminator"])
def test_a_view_shares_weights_and_names_and_nothing_of_its_own(kind, generator, discriminator):
    base = {"generator": generator, "discriminator": discriminator}[kind]
    state = {key: value.clone() for key, value in base.state_dict().items()}
    view = base.given(labels=2)
    assert type(view) is type(base)
    assert [name for name, _ in view.named_modules()] == [name for name, _ in base.named_modules()]
    assert all(a is b for a, b in zip(view.parameters(), base.parameters(), strict=True))
    assert view.state_dict().keys() == state.keys()
    hook = view.register_forward_hook(lambda *_: None)
    view.note = 1
    assert not base._forward_hooks
    assert not hasattr(base, "note")
    hook.remove()
    view.train()
    assert not base.training
    with torch.no_grad():
        next(base.parameters()).add_(1)
    assert torch.equal(next(view.parameters()), next(base.parameters()))
    assert not torch.equal(next(view.parameters()), state[next(iter(dict(base.named_parameters())))])


@pytest.mark.parametrize("kind", ["generator", "discriminator"])
def test_a_copy_of_a_view_is_a_model_of_its_own(kind, generator, discriminator, images):
    base, inputs = {"generator": (generator, generator.sample_latents(3, 0)), "discriminator": (discriminator, images)}[
        kind
    ]
    view = base.given(labels=2)
    copied, before = copy.deepcopy(view), view(inputs)
    assert torch.equal(copied(inputs), before)
    with torch.no_grad():
        for p in copied.parameters():
            p.zero_()
    assert torch.equal(view(inputs), before)
    assert not torch.equal(copied(inputs), before)


@pytest.mark.parametrize("labels", [1, torch.tensor([0, 2, 1, 1, 0, 2])])
@pytest.mark.parametrize("use", [True, False])
def test_a_discriminator_of_given_labels_is_saved_and_loaded(discriminator, images, tmp_path, labels, use):
    one = gx.create("discriminator/given", base=discriminator, labels=labels) if use else None
    one = one if use else discriminator.given(labels=labels)
    loaded = gx.load_model(gx.save_model(one, tmp_path / "model"))
    assert saving.name_of(loaded) == "discriminator/given"
    assert torch.equal(loaded(images), one(images))
    assert torch.equal(loaded(images), discriminator.given(labels=labels)(images))


def test_a_generator_of_one_class_is_saved_and_loaded_after_its_base_moved(generator, tmp_path):
    one = generator.given(labels=2)
    with torch.no_grad():
        generator.embedding.weight[2].add_(1)
    loaded = gx.load_model(gx.save_model(one, tmp_path / "model"))
    latents = generator.sample_latents(3, seed=0)
    assert torch.equal(loaded(latents), generator(latents, torch.full((3,), 2)))
    assert torch.equal(gx.create("generator/given", base=generator, labels=2)(latents), loaded(latents))


def test_units_of_a_view_are_edited_under_the_names_of_the_base(generator):
    edits = UnitEdits.ablate({"layers.0": [1, 3]})
    of_view = gx.create("generator/edited", base=generator.given(labels=1), edits=edits)
    of_base = gx.create("generator/edited", base=generator, edits=edits)
    drawn = of_base.sample(4, seed=0, labels=torch.ones(4, dtype=torch.long))
    assert torch.equal(of_view.sample(4, seed=0).images, drawn.images)
    assert (of_view(drawn.latents) - generator.given(labels=1)(drawn.latents)).abs().max() > 1e-4


@pytest.mark.parametrize("kind", ["generator", "discriminator"])
def test_a_guard_on_a_view_guards_the_weights(kind, generator, discriminator):
    base = {"generator": generator, "discriminator": discriminator}[kind]
    state = {key: value.clone() for key, value in base.state_dict().items()}
    view = base.given(labels=0)
    with guard(view):
        view.train().requires_grad_(False)
        next(view.parameters()).data.add_(1)
    assert not any(module.training for module in (*view.modules(), *base.modules()))
    assert all(p.requires_grad for p in base.parameters())
    assert all(torch.equal(value, base.state_dict()[key]) for key, value in state.items())


def test_a_view_moves_with_its_labels(discriminator, images):
    one = discriminator.given(labels=1).double()
    assert one(images.double()).dtype == torch.float64
    assert one.labels.dtype == torch.int64
    assert discriminator.given(labels=1)(images.double()).dtype == torch.float64  # the same weights


def test_a_discriminator_of_one_class_is_explained(discriminator, images):
    saliency = gx.create("explainer/saliency")
    maps = saliency.explain(discriminator.given(labels=2), images).maps
    x = images.clone().requires_grad_()
    logits = discriminator.given(labels=torch.full((6,), 2))(x)
    torch.testing.assert_close(maps, torch.autograd.grad(logits.sum(), x)[0].reshape(maps.shape).to(maps))
    lime = gx.create("explainer/occlusion").explain(discriminator.given(labels=2), images[:2])
    assert torch.isfinite(lime.maps).all()


def test_a_pipeline_explains_the_models_of_one_class(tmp_path):
    page = tmp_path / "page.yaml"
    page.write_text("""
genxai: 1
name: one-class
seed: 0
steps:
  digits: {use: dataset/digits, with: {size: 8}}
  gan:
    use: trainer/gan
    with: {generator: {use: generator/dcgan, with: {num_classes: 10, width: 4}}, steps: 2, batch: 8}
    call: {data: $digits}
  threes: {use: generator/given, with: {base: $gan.generator, labels: 3}}
  judge: {use: discriminator/given, with: {base: $gan.discriminator, labels: 3}}
  drawn: {use: dataset/generated, with: {n: 5}, call: {model: $threes}}
  maps: {use: explainer/saliency, call: {model: $judge, inputs: $drawn}}
""")
    plan = pipeline.plan(pipeline.read(page))
    done = pipeline.run(plan, out=tmp_path / "out", cache=tmp_path / "cache", runtime=Runtime(quiet=True))
    drawn, gan = done.result("drawn"), done.result("gan")
    assert drawn.labels.tolist() == [3] * 5
    assert drawn.class_names == tuple("0123456789")
    expected = gan.generator.sample(5, seed=0, labels=torch.full((5,), 3))
    torch.testing.assert_close(drawn.images, expected.images)
    judge = gan.discriminator.given(labels=3)
    maps = gx.create("explainer/saliency").explain(judge, drawn).maps
    torch.testing.assert_close(done.result("maps").maps, maps)


# -- what is refused ------------------------------------------------------------------------------------------------


def test_a_conditional_generator_without_labels_is_refused_and_says_how(generator):
    with pytest.raises(InputError, match=r"conditional on 3 classes.*\(latents, labels\).*\.given\(labels=…\)"):
        generator(generator.sample_latents(2, seed=0))


def test_a_conditional_discriminator_without_labels_is_refused_and_says_how(discriminator, images):
    with pytest.raises(InputError, match=r"conditional on 3 classes: fix the labels with \.given\(labels=…\)"):
        discriminator(images)
    for use in ("explainer/saliency", "explainer/density-ratio"):
        with pytest.raises(GenxaiError, match=r"fix the labels with \.given\(labels=…\)"):
            gx.create(use).explain(discriminator, images)


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        (torch.tensor([0, 3]), "label 3 is out of range; the classes are 0…2"),
        (torch.tensor([-1, 0]), "label -1 is out of range"),
        (torch.tensor([0, 1, 2]), r"integer labels \[2\], one per row, not torch.int64 \[3\]"),
        (torch.tensor([0.0, 1.0]), r"integer labels \[2\], one per row, not torch.float32"),
        (torch.tensor([True, False]), r"integer labels \[2\], one per row, not torch.bool"),
        (torch.tensor(1), r"integer labels \[2\], one per row, not torch.int64 \[\]"),
    ],
)
def test_wrong_labels_are_refused(generator, labels, match):
    with pytest.raises(InputError, match=match):
        generator.sample(2, seed=0, labels=labels)
    with pytest.raises(InputError, match=match):
        generator(generator.sample_latents(2, seed=0), labels)


@pytest.mark.parametrize("wrong", [3, -1, 1.5, True, None, "1", ["a"], torch.tensor([[0, 1]])])
def test_wrong_given_labels_are_refused(generator, discriminator, wrong):
    for model in (generator, discriminator):
        with pytest.raises(InputError, match=r"\.given"):
            model.given(labels=wrong)


def test_a_generator_is_given_one_class_only(generator):
    with pytest.raises(InputError, match=r"takes one class; to draw several use sample\(n, seed, labels=…\)"):
        generator.given(labels=torch.tensor([0, 1]))
    with pytest.raises(InputError, match=r"given the label 1, so it takes no labels; leave labels out"):
        generator.given(labels=1).sample(1, seed=0, labels=torch.tensor([1]))


def test_a_model_without_given_says_why(generator, discriminator):
    for model in (generator, discriminator):
        one = model.given(labels=1)
        with pytest.raises(
            InputError, match=r"/given was given its labels already; call given\(labels=…\) of the cond"
        ):
            one.given(labels=0)
        with pytest.raises(AttributeError, match="no attribute 'gave'"):
            _ = one.gave
    for kind in ("generator", "discriminator"):
        with pytest.raises(InputError, match=rf"{kind}/dcgan is not conditional.*build it with num_classes"):
            gx.create(f"{kind}/dcgan", size=8).given(labels=0)


def test_labels_that_are_not_as_many_as_the_images_are_refused(discriminator, images):
    with pytest.raises(InputError, match=r"given 2 labels for 6 images.*fix one for all"):
        discriminator.given(labels=torch.tensor([0, 1]))(images)


@pytest.mark.parametrize("kind", ["generator", "discriminator"])
def test_an_unconditional_model_cannot_be_given_labels(kind):
    with pytest.raises(InputError, match=rf"{kind}/given: {kind}/dcgan is not conditional"):
        gx.create(f"{kind}/given", base=gx.create(f"{kind}/dcgan", size=8), labels=0)


def test_bad_numbers_of_classes_are_refused():
    for use in ("generator/dcgan", "discriminator/dcgan"):
        with pytest.raises(BadParameter, match="num_classes -1 must not be negative"):
            gx.create(use, size=8, num_classes=-1)
    with pytest.raises(ValueError, match="class_names"):
        DCGANGenerator(size=8, num_classes=3, class_names=("a", "b"))
    with pytest.raises(ValueError, match="class_names"):
        DCGANGenerator(size=8, class_names=("a", "b"))


def test_weights_of_an_unconditional_model_do_not_fit_a_conditional_one(tmp_path):
    plain, conditional = DCGANDiscriminator(size=8), DCGANDiscriminator(size=8, num_classes=2)
    with pytest.raises(RuntimeError, match="embedding"):
        conditional.load_state_dict(plain.state_dict())
    saving.stamp(conditional, "discriminator/dcgan", {"size": 8})  # a recipe that is not its own
    with pytest.raises(StorageError, match="do not fit the architecture"):
        gx.load_model(gx.save_model(conditional, tmp_path / "model"))


def test_neither_has_batch_statistics_or_dropout(generator, discriminator):
    forbidden = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
    assert not any(isinstance(m, forbidden) for model in (generator, discriminator) for m in model.modules())


# -- training -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_after_a_short_training_class_i_is_drawn_as_class_i():
    """On digits, by a classifier that was trained on the real ones: chance is 0.1."""
    digits, runtime = gx.create("dataset/digits", size=16), Runtime(device="cpu", seed=0)
    judge = gx.create("trainer/classifier").fit(digits, runtime).classifier
    trainer = gx.create("trainer/gan", generator=Spec("generator/dcgan", {"num_classes": 10}), steps=300, ema=0.98)
    generator = trainer.fit(digits, runtime).generator
    labels = torch.arange(200) % 10
    with torch.no_grad():
        found = judge(generator.sample(200, seed=1, labels=labels).images).argmax(1)
        assert (found == labels).float().mean() > 0.8
        threes = judge(generator.given(labels=3).sample(50, seed=2).images).argmax(1)
        assert (threes == 3).float().mean() > 0.8
