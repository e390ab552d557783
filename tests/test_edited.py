"""A generator with edited units: what it makes, what it offers, and that its base stays as it was."""

import copy
import pickle

import edited_models
import pytest
import torch
from edited_models import Bright, Everything, Paints, literal, sigmoid_above
from torch import nn

import genxai_core as gx
from genxai_core import Samples, builtin, models, registry, units
from genxai_core.edited import edited
from genxai_core.errors import BadParameter, InputError
from genxai_core.models import CanSample, Denoises, HasDensity, HasEncoder, HasLatents
from genxai_core.plugins import PluginHost
from genxai_core.registry import Registry
from genxai_core.results import UnitEdits

CUT = UnitEdits.ablate({"units": [0, 2]})


@pytest.fixture(autouse=True)
def registered():
    """The core's components and those of the test's own plugin."""
    with registry.using(Registry(PluginHost(builtin=[builtin, edited_models], entry_points=[]))):
        yield


@pytest.fixture
def base():
    return gx.create("generator/paints").eval()


# -- what it makes ----------------------------------------------------------------------------------------------


def test_images_are_made_with_the_edits_and_the_base_is_left_alone(base):
    state = copy.deepcopy(base.state_dict())
    made = gx.create("generator/edited", base=base, edits=CUT)
    z = made.sample_latents(6, seed=3)
    plain = base(z)
    assert torch.equal(z, base.sample_latents(6, seed=3))
    assert torch.equal(made(z), literal(base, z))
    assert not torch.equal(made(z), plain)
    assert torch.equal(base(z), plain)
    drawn = made.sample(6, seed=3)
    assert torch.equal(drawn.images, literal(base, z))
    assert torch.equal(drawn.latents, z)
    assert torch.equal(drawn.masks, drawn.images > 0)
    assert torch.allclose(made.sample(2, seed=3, start=4).images, drawn.images[4:], atol=1e-6)
    assert all(torch.equal(value, state[name]) for name, value in base.state_dict().items())
    assert not any(module._forward_hooks for module in made.modules())


def test_no_edit_is_the_base(base):
    made = edited(base, UnitEdits.ablate({}))
    assert torch.equal(made(base.sample_latents(3, 0)), base(base.sample_latents(3, 0)))


def test_edits_of_one_unit_come_in_their_order(base):
    edits = UnitEdits(("units",) * 2, torch.tensor([0, 0]), torch.tensor([2.0, 1.0]), torch.tensor([0.0, 1.0]))
    z = base.sample_latents(4, 0)
    with units.edit(base, "units", 0, factor=2.0, value=1.0):
        wanted = base(z)
    assert torch.equal(edited(base, edits)(z), wanted)


def test_gradients_flow_to_the_latents(base):
    made = edited(base.double(), CUT)
    z = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(made, z)


def test_what_is_recorded_of_an_edited_generator_is_edited(base):
    made = edited(base, CUT)
    with units.record(made, "base.units") as seen:
        made(made.sample_latents(4, 0))
    assert not seen["base.units"][:, [0, 2]].any()
    assert seen["base.units"][:, [1, 3]].all()


def test_edits_of_an_edited_generator_come_after_its_own(base):
    """First a + 1, then doubled, however it is put on top."""
    one = UnitEdits(("units",), torch.tensor([0]), torch.ones(1), torch.ones(1))
    double = UnitEdits(("base.units",), torch.tensor([0]), torch.full((1,), 2.0))
    z = base.sample_latents(4, 0)
    x = base.units(base.first(z).reshape(-1, 2, 3, 3)).clone()
    x[:, 0] = 2 * (x[:, 0] + 1)
    wanted = torch.tanh(2 * base.last(torch.relu(x)))
    inner = edited(base, one)
    assert torch.equal(edited(inner, double)(z), wanted)
    with units.applied(inner, double):
        assert torch.equal(inner(z), wanted)


# -- under a condition ------------------------------------------------------------------------------------------


def conditional(base, judge, above=0.5, target=0):
    return edited(base, UnitEdits.ablate({"units": [0, 2]}, condition={"target": target, "above": above}), judge)


def test_only_images_that_the_judge_chooses_are_edited(base):
    judge = Bright().eval()
    made = conditional(base, judge, above=0.4)
    z = base.sample_latents(32, 0)
    plain, cut = base(z), literal(base, z)
    chosen = sigmoid_above(judge, plain, 0.4)
    assert 4 < int(chosen.sum()) < 28
    for i in range(32):
        assert torch.equal(made(z)[i], cut[i] if chosen[i] else plain[i])
    drawn = made.sample(32, 0)
    assert torch.equal(drawn.images, made(z))
    assert torch.equal(drawn.latents, z)
    assert torch.equal(drawn.masks, drawn.images > 0)


def test_a_judge_of_several_classes_is_read_by_its_softmax(base):
    judge = Bright(3).eval()
    z = base.sample_latents(32, 0)
    chosen = judge(base(z)).softmax(1)[:, 2] > 0.35
    assert 4 < int(chosen.sum()) < 28
    made = conditional(base, judge, above=0.35, target=2)
    assert torch.equal(made(z), torch.where(chosen[:, None, None, None], literal(base, z), base(z)))


def test_an_image_does_not_depend_on_its_batch_nor_on_the_mode_of_the_judge(base):
    judge = Bright()
    made = conditional(base, judge).train()
    assert judge.training
    z = base.sample_latents(16, 1)
    whole = made(z)
    for i in range(16):
        assert torch.allclose(made(z[i : i + 1]), whole[i : i + 1], atol=1e-6)
    assert torch.allclose(made.sample(3, 1, start=5).images, whole[5:8], atol=1e-6)
    assert judge.training
    assert judge.norm.num_batches_tracked == 0


def test_gradients_flow_through_the_version_that_is_taken(base):
    judge = Bright().eval()
    made = conditional(base, judge)
    z = base.sample_latents(16, 0).requires_grad_()
    (gradient,) = torch.autograd.grad(made(z).sum(), z)
    (plain,) = torch.autograd.grad(base(z).sum(), z)
    (cut,) = torch.autograd.grad(literal(base, z).sum(), z)
    chosen = sigmoid_above(judge, base(z), 0.5)
    assert chosen.any()
    assert not chosen.all()
    assert torch.allclose(gradient, torch.where(chosen[:, None], cut, plain), atol=1e-6)
    assert judge.scale.grad is None


def test_the_judge_sees_its_own_range(base):
    judge = Bright().eval()
    judge.value_range = (0.0, 1.0)
    z = base.sample_latents(32, 0)
    chosen = sigmoid_above(judge, base(z) / 2 + 0.5, 0.995)
    assert 4 < int(chosen.sum()) < 28
    made = conditional(base, judge, above=0.995)
    assert torch.equal(made(z), torch.where(chosen[:, None, None, None], literal(base, z), base(z)))


# -- what it offers ---------------------------------------------------------------------------------------------


CAPABILITIES = [
    c for c in vars(models).values() if getattr(c, "_is_protocol", False) and c.__module__ == models.__name__
]
DROPPED = {HasDensity}


def offered(model):
    """As ``isinstance`` finds capabilities from Python 3.12 on, without ``__getattr__``, and as it does here."""
    import inspect

    found = set()
    for capability in CAPABILITIES:
        members = [*models.methods(capability), *getattr(capability, "__annotations__", {})]
        missing = object()
        static = all(inspect.getattr_static(model, name, missing) is not missing for name in members)
        assert isinstance(model, capability) is static
        if static:
            found.add(capability)
    return found


def test_every_capability_of_the_base_is_offered_but_density():
    made = edited(Everything(), CUT)
    assert offered(Everything()) == set(CAPABILITIES)
    assert offered(made) == set(CAPABILITIES) - DROPPED
    assert offered(copy.deepcopy(made)) == offered(made)
    assert offered(pickle.loads(pickle.dumps(made))) == offered(made)
    assert made.num_classes == 4
    assert made.image_shape == (1, 6, 6)
    assert made.latent_shape == (3,)
    assert made.value_range == (-1.0, 1.0)


def test_what_the_base_lacks_is_not_offered(base):
    assert offered(edited(base, CUT)) == {CanSample, HasLatents}
    with pytest.raises(gx.models.MissingCapability, match="HasEncoder, which Edited does not have"):
        models.require(edited(base, CUT), HasEncoder, by="a test")

    class OnlySamples(Paints):
        sample_latents = property()

        def sample(self, n, seed, labels=None, start=0):
            z = gx.draws.normal(seed, range(start, start + n), (3,))
            return Samples(self(z), labels=labels, value_range=self.value_range)

        def __getattribute__(self, name):
            if name in ("latent_shape", "sample_latents"):
                raise AttributeError(name)
            return super().__getattribute__(name)

    made = edited(OnlySamples(), CUT)
    assert not isinstance(made, HasLatents)
    assert isinstance(made, CanSample)
    assert made.sample(3, 0, labels=torch.tensor([2, 0, 1])).labels.tolist() == [2, 0, 1]


def test_what_makes_images_is_edited_and_what_reads_them_is_not():
    base = Everything().eval()
    made = edited(base, CUT)
    images, step = torch.rand(3, 1, 6, 6), torch.tensor([0, 1, 2])
    z = images[:, 0, 0, :3] + step[:, None]
    assert torch.equal(made.translate(images, step), literal(base, z))
    assert torch.equal(made.predict(images, step), literal(base, z))
    for name in ("encode", "features", "embed_images"):
        assert torch.equal(getattr(made, name)(images), getattr(base, name)(images))


def test_under_a_condition_translations_are_judged_and_noise_is_not_predicted():
    base, judge = Everything().eval(), Bright().eval()
    made = conditional(base, judge)
    assert offered(made) == set(CAPABILITIES) - DROPPED - {Denoises}
    images, step = torch.rand(32, 1, 6, 6), torch.arange(32) % 4
    plain = base.translate(images, step)
    chosen = sigmoid_above(judge, plain, 0.5)
    assert 0 < int(chosen.sum()) < 32
    cut = literal(base, images[:, 0, 0, :3] + step[:, None])
    assert torch.equal(made.translate(images, step), torch.where(chosen[:, None, None, None], cut, plain))


def test_a_part_that_is_called_features_is_no_second_part():
    base = Paints()
    base.features = nn.Conv2d(1, 2, 1)
    made = edited(base, CUT)
    assert isinstance(made, models.HasFeatures)
    assert {name.partition(".")[0] for name in made.state_dict()} == {"base"}


class ByClass(Paints):
    """One layer per class; the class must be given."""

    num_classes = 2

    def __init__(self):
        super().__init__()
        self.heads = nn.ModuleList(nn.Conv2d(1, 3, 1) for _ in range(2))

    def forward(self, latents, labels):
        maps = super().forward(latents)
        return torch.stack([self.heads[int(k)](image[None])[0] for image, k in zip(maps, labels)])

    def sample(self, n, seed, labels=None, start=0):
        if labels is None:
            raise InputError("give labels")
        latents = self.sample_latents(n, seed, start)
        return Samples(self(latents, labels), latents=latents, labels=labels, value_range=self.value_range)


def test_a_conditional_generator_is_edited_in_the_layers_of_any_class():
    base = ByClass().eval()
    made = edited(base, UnitEdits.ablate({"heads.1": [2]}))
    labels = torch.tensor([0, 1, 1])
    assert isinstance(made, models.Conditional)
    wanted = base.sample(3, 0, labels).images.clone()
    wanted[1:, 2] = 0
    assert torch.equal(made.sample(3, 0, labels).images, wanted)
    assert torch.equal(made(base.sample_latents(3, 0), labels=labels), wanted)
    with pytest.raises(ValueError, match="has 3 units; unit 3 is none of them"):
        edited(base, UnitEdits.ablate({"heads.0": [3]}))


def test_a_copy_edits_itself(base):
    made = edited(base, CUT)
    twin = copy.deepcopy(made)
    with torch.no_grad():
        twin.base.last[1].bias += 1
    z = base.sample_latents(3, 0)
    assert torch.equal(twin.sample(3, 0).images, literal(twin.base, z))
    assert torch.equal(made.sample(3, 0).images, literal(base, z))


def test_an_adapted_module_is_edited():
    torch.manual_seed(0)
    body = nn.Sequential(nn.ConvTranspose2d(2, 3, 4), nn.ReLU(inplace=True), nn.Conv2d(3, 1, 1), nn.Tanh())
    base = gx.adapt.generator(body, latent_shape=(2, 1, 1)).eval()
    made = edited(base, UnitEdits.ablate({"module.0": [0, 1, 2]}))
    assert torch.equal(made.sample(2, 0).images[0], made.sample(2, 0).images[1])
    assert not torch.equal(base.sample(2, 0).images[0], base.sample(2, 0).images[1])


# -- what cannot be built ---------------------------------------------------------------------------------------


LOCATED = UnitEdits(("units",), torch.tensor([1]), torch.zeros(1), locations=torch.eye(6, dtype=torch.bool)[None])
WHERE = {"target": 0, "above": 0.5}


@pytest.mark.parametrize(
    ("edits", "judge", "said"),
    [
        (UnitEdits.ablate({"unit": [0]}), None, "layer 'unit': Paints has no such layer; did you mean 'units'"),
        (UnitEdits.ablate({"units": [4]}), None, "layer 'units' has 4 units; unit 4 is none of them"),
        (UnitEdits.ablate({"unused": [0]}), None, "layer 'unused' takes no part when Paints makes an image"),
        (LOCATED, None, r"places to edit are given for \[6, 6\] cells"),
        (UnitEdits.ablate({"units": [0]}, condition=WHERE), None, "under the condition .* so give a judge"),
        (UnitEdits.ablate({"units": [0]}), Bright(), "under no condition, so a judge would not be asked"),
        (
            UnitEdits.ablate({"units": [0]}, condition={"target": 3, "above": 0.5}),
            Bright(3),
            "about class 3; the judge's classes are 0…2",
        ),
    ],
)
def test_what_does_not_fit_is_refused_at_once(base, edits, judge, said):
    before = torch.random.get_rng_state()
    with pytest.raises(BadParameter, match=said) as caught:
        gx.create("generator/edited", base=base, edits=edits, judge=judge)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=said):
        edited(base, edits, judge)
    assert torch.equal(before, torch.random.get_rng_state())
    assert not any(module._forward_hooks for module in base.modules())


def test_other_types_are_refused(base):
    for wrong in ({"base": nn.Linear(1, 1)}, {"edits": {"units": [0]}}, {"judge": base}):
        with pytest.raises(BadParameter, match="does not fit"):
            gx.create("generator/edited", **({"base": base, "edits": CUT} | wrong))
    with pytest.raises(InputError, match="base is a Linear, not a Generator"):
        edited(nn.Linear(1, 1), CUT)
    with pytest.raises(InputError, match="edits are a dict, not UnitEdits"):
        edited(base, {"units": [0]})
    with pytest.raises(InputError, match="judge is a Linear, not a Discriminator"):
        conditional(base, nn.Linear(1, 1))


def test_judges_that_do_not_fit(base):
    judge = Bright()
    judge.image_shape = (3, 6, 6)
    with pytest.raises(ValueError, match=r"the judge takes images \(3, 6, 6\), the base makes \(1, 6, 6\)"):
        conditional(base, judge)
    liar = Bright(1)
    liar.class_names = ("a", "b")
    for model in (base, Everything()):  # an image of a latent, and of a noise
        before = torch.random.get_rng_state()
        said = r"the judge returns \[1, 1\], not logits \[N, K\] with a class 1 \(a single logit is class 0\)"
        with pytest.raises(ValueError, match=said):
            conditional(model, liar, target=1)
        assert torch.equal(before, torch.random.get_rng_state())
    assert liar.norm.num_batches_tracked == 0


def test_a_base_that_can_only_translate_is_checked_when_it_does():
    class Translator(models.Generator):
        value_range = (-1.0, 1.0)

        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(1, 2, 1)

        def translate(self, images, target):
            return self.layer(images)

    made = edited(Translator(), UnitEdits.ablate({"layer": [1]}))
    assert not made.translate(torch.rand(2, 1, 3, 3), torch.zeros(2))[:, 1].any()
    with pytest.raises(InputError, match="unit 2 is none of them"):
        edited(Translator(), UnitEdits.ablate({"layer": [2]})).translate(torch.rand(2, 1, 3, 3), torch.zeros(2))
