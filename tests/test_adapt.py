"""Adapters: every kind of head against its formula, and every wrong thing against its one clear line."""

from collections import OrderedDict, namedtuple

import pytest
import torch
from adapted_modules import N, Returns, close, image_batch, logits, plain
from torch import nn

from genxai_core import adapt, models
from genxai_core.errors import InputError
from genxai_core.explaining import _Source
from genxai_core.guard import guard
from genxai_core.saving import save_model

# -- what a shape decides -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        lambda x: x[:, 0],
        lambda x: x[:, :1],
        lambda x: x[:, :1, None, None],
        lambda x: x[:, :1, None, None].expand(-1, 1, 3, 4),
        lambda x: x[:, 0].squeeze(),
    ],
    ids=["[N]", "[N,1]", "[N,1,1,1]", "[N,1,h,w]", "squeezed"],
)
@pytest.mark.parametrize("n", [1, N])
def test_single_logits_of_every_shape(head, n):
    images = image_batch(n)
    out = logits(head, images)
    assert out.shape == (n, 1)
    close(out, plain(images)[:, :1])


def test_classes_are_kept_when_they_are_named():
    D = adapt.discriminator(Returns(lambda x: x), class_names=["cat", "dog"])
    close(D(image_batch()).detach(), plain(image_batch()))
    assert D.class_names == ("cat", "dog")
    close(logits(lambda x: x[:, :, None, None], class_names=["cat", "dog"]), plain(image_batch()))


def test_classes_without_names_are_refused_with_both_remedies():
    with pytest.raises(InputError, match=r"2 outputs per image.*class_names=.*real="):
        logits(lambda x: x)
    with pytest.raises(InputError, match="2 outputs per image, class_names has 3"):
        logits(lambda x: x, class_names=["a", "b", "c"])


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (lambda x: x.sum(), "5 images gave a tensor .*batch axis is lost"),
        (lambda x: x.flatten(), "batch axis is lost"),
        (lambda x: x[:, :, None], "none of .*output=lambda"),
        (lambda x: None, "a NoneType, not a tensor"),
        (lambda x: x.long(), "int64"),
        (lambda x: x / 0, "NaN or infinity"),
    ],
)
def test_outputs_that_are_no_logits_are_refused(head, message):
    with pytest.raises(InputError, match=message):
        logits(head)


# -- heads ----------------------------------------------------------------------------------------------------


def test_a_sigmoid_is_undone():
    close(logits(lambda x: torch.sigmoid(x[:, :1]), head="sigmoid"), plain(image_batch())[:, :1])


def test_a_saturated_sigmoid_is_clamped_at_the_stated_value():
    e = torch.finfo(torch.float32).eps
    high = logits(lambda x: torch.sigmoid(x[:, :1] * 0 + 100), head="sigmoid")
    low = logits(lambda x: torch.sigmoid(x[:, :1] * 0 - 100), head="sigmoid")
    limit = torch.log(torch.tensor((1 - e) / e))
    close(high, limit.expand(N, 1), 1e-3)
    close(low, -limit.expand(N, 1), 1e-3)


def test_a_softmax_becomes_log_probabilities():
    out = logits(lambda x: x.softmax(1), head="softmax", class_names=["a", "b"])
    close(out, plain(image_batch()).log_softmax(1))


def test_two_classes_become_the_difference_of_their_logits():
    x = plain(image_batch())
    close(logits(lambda x: x, real=1), (x[:, 1] - x[:, 0])[:, None])
    close(logits(lambda x: x, real=0), (x[:, 0] - x[:, 1])[:, None])
    close(logits(lambda x: x.softmax(1), head="softmax", real=1), (x[:, 1] - x[:, 0])[:, None])


def test_several_real_classes_become_their_log_odds():
    """K + 1 classes, the last of them fake (Salimans et al. 2016): log p(real) - log p(fake)."""
    x = plain(image_batch())
    three = torch.cat([x, x[:, :1] * 2], 1)
    p = three.softmax(1)
    expected = torch.log(p[:, :2].sum(1) / p[:, 2])
    close(logits(lambda x: torch.cat([x, x[:, :1] * 2], 1), real=(0, 1))[:, 0], expected)
    for wrong in [(0, 1, 2), 3, -1, ()]:
        with pytest.raises(InputError, match="does not split"):
            logits(lambda x: torch.cat([x, x[:, :1]], 1), real=wrong)


def patches(x):
    return x[:, :1, None, None] * torch.arange(1.0, 7.0).reshape(1, 1, 2, 3)


def test_patches_are_averaged_or_chosen():
    x = plain(image_batch())[:, :1]
    close(logits(patches), x * 3.5)
    close(logits(patches, patch=(1, 2)), x * 6)
    close(logits(lambda x: torch.sigmoid(patches(x)), head="sigmoid"), x * 3.5, 1e-3)  # logits are averaged
    with pytest.raises(InputError, match="2 x 3 patches"):
        logits(patches, patch=(2, 0))
    with pytest.raises(InputError, match="0 x 0 patches"):
        logits(lambda x: x[:, :1], patch=(0, 0))


def test_scales_are_averaged_only_when_said():
    x = plain(image_batch())[:, :1]

    def heads(x):
        return [patches(x), x[:, :1], x[:, 0] * 2]

    close(logits(heads, multiscale=True), x * (3.5 + 1 + 2) / 3)
    close(logits(heads, output=2), x * 2)
    with pytest.raises(InputError, match=r"list of 3.*output=.*multiscale=True"):
        logits(heads)
    with pytest.raises(InputError, match="not a list of heads"):
        logits(lambda x: x[:, :1], multiscale=True)
    with pytest.raises(InputError, match="different numbers of classes"):
        logits(lambda x: [x, x[:, :1]], multiscale=True)

    def nested(x):
        return [[x, patches(x)], [x, x[:, :1]]]  # features first, as pix2pixHD

    close(logits(nested, multiscale=True, output=lambda scales: [s[-1] for s in scales]), x * 4.5 / 2)
    with pytest.raises(InputError, match="picks the logits of each scale"):
        logits(nested, multiscale=True)


def test_outputs_are_chosen_by_position_key_attribute_or_function():
    x = plain(image_batch())[:, :1]
    Named = namedtuple("Named", "source classes")
    close(logits(lambda x: (x[:, :1], x), output=0), x)
    close(logits(lambda x: {"source": x[:, :1], "classes": x}, output="source"), x)
    close(logits(lambda x: OrderedDict(source=x[:, :1]), output="source"), x)
    close(logits(lambda x: Named(x[:, :1], x), output="source"), x)
    close(logits(lambda x: (x[:, :1], x), output=lambda out: -out[0]), -x)
    close(logits(lambda x: (x[:, :1], x), output=1, class_names=["a", "b"]), plain(image_batch()))
    for head, output in [(lambda x: (x,), 1), (lambda x: {"a": x}, "b"), (lambda x: x, 0), (lambda x: (x,), "a")]:
        with pytest.raises(InputError, match="output="):
            logits(head, output=output)


# -- probabilities are never taken for logits in silence ------------------------------------------------------


@pytest.mark.parametrize(("layer", "name"), [(nn.Sigmoid(), "sigmoid"), (nn.Softmax(dim=1), "softmax")])
def test_a_module_that_ends_in_a_probability_layer_needs_its_head_said(layer, name):
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 2), layer)
    with pytest.raises(InputError, match=f"ends in a {name}.*head='{name}'.*head='logit'"):
        adapt.discriminator(module, real=1)
    taken_as_it_is = adapt.discriminator(module, head="logit", class_names=["a", "b"])
    close(taken_as_it_is(image_batch()), module(image_batch()))


@pytest.mark.parametrize(
    "head",
    [lambda x: torch.sigmoid(x[:, :1]), lambda x: torch.sigmoid(x)[:, 0].view(-1, 1), lambda x: patches(x).sigmoid()],
)
def test_a_sigmoid_in_the_code_is_seen_in_the_graph(head):
    with pytest.raises(InputError, match="head='sigmoid'"):
        logits(head)
    assert logits(head, head="logit").min() > 0


def test_an_unused_sigmoid_further_inside_is_not_held_against_the_module():
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.Sigmoid(), nn.Linear(4, 1))
    close(adapt.discriminator(module)(image_batch()), module(image_batch()))


def test_heads_that_are_no_probabilities_are_refused():
    with pytest.raises(InputError, match="these look like logits"):
        logits(lambda x: x[:, :1] * 10, head="sigmoid")
    with pytest.raises(InputError, match="do not sum to one"):
        logits(lambda x: x.sigmoid(), head="softmax", real=1)
    with pytest.raises(InputError, match="do not sum to one"):  # a softmax over one logit is constant
        logits(lambda x: x[:, :1].softmax(1) * 0.5, head="softmax")
    with pytest.raises(InputError, match="do not sum to one"):
        logits(lambda x: x[:, :1].softmax(1), head="softmax")


# -- images ---------------------------------------------------------------------------------------------------


class Recorder(nn.Module):
    """Keeps what it was given."""

    def forward(self, images, *more):
        self.seen, self.more = images, more
        return images.flatten(1).sum(1)


def given_to_module(images, **how):
    recorder = Recorder()
    adapt.discriminator(recorder, **how)(images)
    return recorder.seen


def test_value_ranges_are_mapped():
    images = torch.tensor([-1.0, 0.0, 1.0, 0.5]).reshape(1, 1, 2, 2)
    assert given_to_module(images) is images
    assert given_to_module(images, module_range=(0, 255)).flatten().tolist() == [0, 127.5, 255, 191.25]
    unit = given_to_module(images, value_range=(-1, 3), module_range=(0, 1))
    assert unit.flatten().tolist() == [0, 0.25, 0.5, 0.375]
    assert adapt.discriminator(Recorder(), value_range=(0, 1)).value_range == (0.0, 1.0)


def test_normalisation_is_the_formula_of_torchvision():
    images = image_batch()
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    seen = given_to_module(images, module_range=(0, 1), normalize=(mean, std))
    for c in range(3):
        close(seen[:, c], ((images[:, c] + 1) / 2 - mean[c]) / std[c])
    one = given_to_module(images, module_range=(0, 1), normalize=([0.5], [0.5]))
    close(one, images)
    with pytest.raises(InputError, match="2 channels, the module is given 3"):
        given_to_module(images, module_range=(0, 1), normalize=((0, 0), (1, 1)))


def test_channels_are_converted_only_when_said():
    rgb, grey = image_batch(), image_batch(channels=1)
    seen = given_to_module(grey, module_channels=3)
    assert seen.shape == (N, 3, 2, 2)
    assert all(torch.equal(seen[:, c], grey[:, 0]) for c in range(3))
    luma = given_to_module(rgb, module_channels=1)
    close(luma[:, 0], 0.299 * rgb[:, 0] + 0.587 * rgb[:, 1] + 0.114 * rgb[:, 2])
    assert given_to_module(rgb, module_channels=3) is rgb
    white = given_to_module(torch.full((1, 3, 2, 2), 255.0), value_range=(0, 255), module_channels=1)
    close(white, torch.full((1, 1, 2, 2), 255.0))
    with pytest.raises(InputError, match="4 channels cannot become 3"):
        given_to_module(torch.zeros(1, 4, 2, 2), module_channels=3)
    with pytest.raises(InputError, match=r"\[N, C, H, W\]"):
        given_to_module(torch.zeros(3, 2, 2))


def test_the_image_shape_is_declared_so_that_explainers_check_it():
    D = adapt.discriminator(Returns(lambda x: x[:, :1]), image_shape=(3, 2, 2))

    class Any:
        accepts = "images"

    with pytest.raises(InputError, match=r"the model takes \(3, 2, 2\)"):
        _Source(Any(), D, torch.zeros(1, 1, 4, 4), "explainer/any").batch([0], torch.device("cpu"))


# -- a second argument ----------------------------------------------------------------------------------------


def labelled(x, labels):
    return x[torch.arange(len(x)), labels][:, None]


def test_a_label_is_fixed_for_all_or_given_for_each():
    module, images = Returns(labelled), image_batch()
    D = adapt.discriminator(module, extra="labels", value_range=(-1, 1), image_shape=(3, 2, 2))
    fixed = D.given(labels=1)
    assert isinstance(fixed, models.Discriminator)
    assert (fixed.image_shape, fixed.class_names) == (D.image_shape, D.class_names)
    close(fixed(images).detach(), plain(images)[:, 1:])
    each = torch.tensor([0, 1, 1, 0, 1])
    close(D.given(labels=each)(images).detach()[:, 0], plain(images)[torch.arange(N), each])
    with pytest.raises(InputError, match=r"5 labels for 2 images.*given\(labels=<number>\)"):
        D.given(labels=each)(images[:2])


def test_a_timestep_is_given_the_same_way_and_the_original_stays_unbound():
    module, images = Returns(lambda x, t: x[:, :1] * t[:, None]), image_batch()
    D = adapt.discriminator(module, extra="t")
    close(D.given(t=0.5)(images).detach(), plain(images)[:, :1] / 2)
    assert D.given(t=2).module is module
    with pytest.raises(InputError, match=r"use \.given\(t=…\)"):
        D(images)
    with pytest.raises(InputError, match=r"extra='t', so \.given takes t, not labels"):
        D.given(labels=1)
    with pytest.raises(InputError, match=r"\.given takes nothing"):
        adapt.discriminator(Returns(lambda x: x)).given(t=1)


# -- the adapter as a module ----------------------------------------------------------------------------------


def test_the_adapter_is_differentiable_and_names_its_layers():
    module = nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 4, 1), pool=nn.AdaptiveAvgPool2d(1), out=nn.Conv2d(4, 1, 1)))
    D = adapt.discriminator(module, module_range=(0, 1), normalize=([0.5], [0.25]))
    images = image_batch().requires_grad_()
    (gradient,) = torch.autograd.grad(D(images).sum(), images)
    twin = images.detach().clone().requires_grad_()
    (expected,) = torch.autograd.grad(module(((twin + 1) / 2 - 0.5) / 0.25).sum(), twin)
    close(gradient, expected)
    assert D.get_submodule("module.conv") is module.conv
    assert set(D.state_dict()) == {f"module.{k}" for k in module.state_dict()}
    assert [name for name, _ in D.named_children()] == ["module"]  # nothing that an explainer could take for a layer


def test_the_guard_covers_the_module_and_the_modes_are_as_found():
    module = nn.Sequential(nn.Conv2d(3, 1, 2), nn.BatchNorm2d(1)).train()
    D = adapt.discriminator(module)
    assert D.training
    before = {k: v.clone() for k, v in module.state_dict().items()}
    with guard(D):
        D(image_batch())
        assert not module.training
        D.train()
        D(image_batch())
    assert module.training
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert not adapt.discriminator(module.eval()).training


def test_an_adapted_model_says_how_it_can_be_saved(tmp_path):
    with pytest.raises(Exception, match="--plugin"):
        save_model(adapt.discriminator(Recorder()), tmp_path / "d")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [(lambda x: x, "not a function"), (nn.Linear, r"not the class Linear; write Linear\("), (None, "not a NoneType")],
)
def test_what_is_no_module_is_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        adapt.discriminator(wrong)
    with pytest.raises(InputError, match=message):
        adapt.generator(wrong, latent_shape=(2,))


@pytest.mark.parametrize(
    "how",
    [
        {"head": "probability"},
        {"patch": "max"},
        {"patch": (1,)},
        {"value_range": (1, -1)},
        {"value_range": 1},
        {"module_range": (0, 0)},
        {"module_channels": 2},
        {"normalize": ([0.5], [0.5])},
        {"normalize": ([0.5], [0.0]), "module_range": (0, 1)},
        {"normalize": ([0.5], [0.5, 0.5]), "module_range": (0, 1)},
        {"class_names": "real"},
        {"class_names": []},
        {"real": 1, "class_names": ["a", "b"]},
        {"real": 1, "head": "sigmoid"},
        {"extra": "noise"},
    ],
    ids=str,
)
def test_arguments_without_meaning_are_refused_by_name(how):
    with pytest.raises(ValueError, match="|".join(how)):
        adapt.discriminator(Recorder(), **how)
