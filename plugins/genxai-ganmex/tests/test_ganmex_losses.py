"""The terms of both trainings are the formulas, written out image by image."""

from __future__ import annotations

import math

import pytest
import torch
from ganmex_nets import Bright, OneLogit, blobs
from genxai_ganmex.judging import Frozen, OwnHead, moved, two_columns, two_names

from genxai_core import Runtime, Samples, Spec, create, draws
from genxai_core.guard import guard

GENERATOR = Spec("generator/stargan", {"width": 8, "blocks": 0})
DISCRIMINATOR = Spec("discriminator/stargan", {"width": 8})
BRIEF = {"generator": GENERATOR, "discriminator": DISCRIMINATOR, "steps": 1, "batch": 6, "holdout": 0.0}
STILL = {"discriminator_lr": 1e-12}
"""The discriminator's step comes before the generator's terms; so small a step changes none of their digits."""
SEED = 3


def data():
    images, labels = blobs()
    return Samples(images, labels=labels, value_range=(0.0, 1.0), class_names=("dark", "bright"))


def first(samples, K=2):
    """Return the models as they are built, and the first batch: images in (-1, 1), labels, targets, numbers."""
    with guard():
        Runtime(seed=SEED).seed_global()
        G = GENERATOR.build(size=16, channels=1, num_classes=K)
        D = DISCRIMINATOR.build(size=16, channels=1, num_classes=K)
    order = [int(i) for i in draws.permutation(SEED, 0, len(samples), stream="holdout")]
    rows = [order[i] for i in draws.batch_indices(SEED, 0, 6, len(samples))]
    images = torch.stack([samples.images[row] * 2 - 1 for row in rows])
    targets = [int(draws.integers(SEED, [i], K, "targets")) for i in range(6)]
    return G.requires_grad_(False), D.requires_grad_(False), images, [int(samples.labels[row]) for row in rows], targets


def terms(trainer, **params):
    trained = create(f"trainer/{trainer}", **BRIEF, **STILL, **params).fit(data(), Runtime(device="cpu", seed=SEED))
    return {name: series[0] for name, series in trained.history.items()}


def translated(G, image, target):
    with torch.no_grad():
        return G(image[None], torch.tensor([target]))[0]


def mean_change(a, b):
    return float(sum(abs(float(p) - float(q)) for p, q in zip(a.flatten(), b.flatten()))) / a.numel()


def slope(function, image):
    image = image.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(image), image)
    return math.sqrt(float(gradient.square().sum()))


def softplus(v):
    return math.log1p(math.exp(-abs(v))) + max(v, 0.0)


def cross_entropy(logits, target):
    values = [float(v) for v in logits]
    return math.log(sum(math.exp(v) for v in values)) - values[target]


def test_ganmex_with_all_its_terms():
    """Non-saturating, matched, with r1, a cycle and a moved, noisy copy."""
    S = Bright().eval().requires_grad_(False)
    found = terms("ganmex", classifier=S, lambda_cls=2.0, lambda_sim=3.0, lambda_rec=4.0, r1=0.5, shift=2, noise=0.1)
    G, D, x, _, t = first(data())
    seen = [int(S(image[None] / 2 + 0.5).argmax()) for image in x]

    def source(image, label):
        s, c = D.heads(image[None])
        return s[0, 0] + c[0, label]

    made = [translated(G, image, target) for image, target in zip(x, t)]
    copies = [moved(made[i][None], 2, 0.1, SEED, range(i, i + 1), (-1.0, 1.0))[0] for i in range(6)]
    on_fake = [float(source(made[i], t[i])) for i in range(6)]
    on_real = [float(source(x[i], seen[i])) for i in range(6)]
    classes = [
        (cross_entropy(S(a[None] / 2 + 0.5)[0], k) + cross_entropy(S(b[None] / 2 + 0.5)[0], k)) / 2
        for a, b, k in zip(made, copies, t)
    ]
    back = [translated(G, made[i], seen[i]) for i in range(6)]
    slopes = [slope(lambda image, k=seen[i]: source(image, k), x[i]) for i in range(6)]
    expected = {
        "step": 0.0,
        "d_loss": sum(softplus(-v) for v in on_real) / 6 + sum(softplus(v) for v in on_fake) / 6,
        "r1": 0.5 * sum(v**2 for v in slopes) / 6 / 2,
        "g_loss": sum(softplus(-v) for v in on_fake) / 6,
        "g_class": 2.0 * sum(classes) / 6,
        "g_similarity": 3.0 * sum(mean_change(x[i], made[i]) for i in range(6)) / 6,
        "g_cycle": 4.0 * sum(mean_change(x[i], back[i]) for i in range(6)) / 6,
    }
    assert found == pytest.approx(expected, rel=2e-4, abs=1e-6)


@pytest.mark.parametrize("preset", ["lecture", "paper"])
def test_ganmex_of_the_lecture_and_of_the_paper(preset):
    S = Bright().eval().requires_grad_(False)
    found = terms("ganmex", classifier=S, preset=preset)
    _, _, x, _, t = first(data())
    with guard():  # these presets build the discriminator without a class head
        Runtime(seed=SEED).seed_global()
        G = GENERATOR.build(size=16, channels=1, num_classes=2)
        D = DISCRIMINATOR.build(size=16, channels=1, num_classes=0).requires_grad_(False)
    made = [translated(G, image, target) for image, target in zip(x, t)]
    on_fake, on_real = ([float(D(image[None])) for image in images] for images in (made, x))
    change = sum(mean_change(x[i], made[i]) for i in range(6)) / 6
    classes = sum(cross_entropy(S(made[i][None] / 2 + 0.5)[0], t[i]) for i in range(6)) / 6
    if preset == "lecture":
        expected = {
            "d_loss": sum(softplus(-v) for v in on_real) / 6 + sum(softplus(v) for v in on_fake) / 6,
            "g_loss": sum(math.log(1 - 1 / (1 + math.exp(-v))) for v in on_fake) / 6,
            "g_class": classes,
            "g_similarity": 10.0 * change,
        }
    else:
        mix = [float(draws.uniform(SEED, [i], (1,), "interpolation")) for i in range(6)]
        between = [mix[i] * x[i] + (1 - mix[i]) * made[i] for i in range(6)]
        slopes = [slope(lambda image: D(image[None])[0, 0], image) for image in between]
        expected = {
            "d_loss": sum(on_fake) / 6 - sum(on_real) / 6,
            "gradient_penalty": 10 * sum((v - 1) ** 2 for v in slopes) / 6,
            "g_loss": -sum(on_fake) / 6,
            "g_class": 1000 * classes,
            "g_similarity": 100 * change,
        }
    assert found == pytest.approx({"step": 0.0, **expected}, rel=2e-4, abs=1e-6)


def test_stargan_learns_classes_by_its_own_head():
    found = terms("stargan", lambda_cls=2.0, lambda_rec=4.0, r1=0.0)
    G, D, x, c, t = first(data())
    made = [translated(G, image, target) for image, target in zip(x, t)]
    heads = [[part[0] for part in D.heads(image[None])] for image in (*x, *made)]
    back = [translated(G, made[i], c[i]) for i in range(6)]
    expected = {
        "step": 0.0,
        "d_loss": sum(softplus(-float(s)) for s, _ in heads[:6]) / 6
        + sum(softplus(float(s)) for s, _ in heads[6:]) / 6,
        "d_class": 2.0 * sum(cross_entropy(k, label) for (_, k), label in zip(heads[:6], c)) / 6,
        "g_loss": sum(softplus(-float(s)) for s, _ in heads[6:]) / 6,
        "g_class": 2.0 * sum(cross_entropy(k, target) for (_, k), target in zip(heads[6:], t)) / 6,
        "g_similarity": 0.0,
        "g_cycle": 4.0 * sum(mean_change(x[i], back[i]) for i in range(6)) / 6,
    }
    assert found == pytest.approx(expected, rel=2e-4, abs=1e-6)


def test_a_copy_is_the_image_moved_with_its_border_repeated():
    images = torch.rand(3, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    found = moved(images, 2, 0.0, 7, range(10, 13), (0.0, 1.0))
    for i in range(3):
        dy, dx = (int(draws.integers(7, [10 + i], 5, f"shift of {axis}")) - 2 for axis in ("rows", "columns"))
        for y in range(5):
            for x in range(5):
                assert torch.equal(found[i, :, y, x], images[i, :, min(4, max(0, y + dy)), min(4, max(0, x + dx))])
    assert torch.equal(
        moved(images[1:], 2, 0.3, 7, range(11, 13), (0.0, 1.0)), moved(images, 2, 0.3, 7, range(10, 13), (0.0, 1.0))[1:]
    )
    spread = (moved(images, 0, 0.1, 7, range(10, 13), (-1.0, 1.0)) - images).std()
    assert 0.15 < float(spread) < 0.25  # a tenth of a range of width 2


def test_one_logit_is_two_classes():
    images = Samples(blobs()[0][:4] * 2 - 1, value_range=(-1.0, 1.0)).images
    one, two = Frozen(OneLogit().eval()), Frozen(Bright().eval())
    assert one.class_names == ("not bright", "bright") == two_names(("bright",))
    assert two_columns(torch.tensor([[3.0]])).tolist() == [[0.0, 3.0]]
    with torch.no_grad():
        assert torch.allclose(one.classes_of(images).softmax(1), two.classes_of(images).softmax(1), atol=1e-6)


def test_labels_of_stargan_are_those_of_the_data_and_of_ganmex_what_the_classifier_sees():
    images, labels = blobs(4)
    wrong = Samples(images, labels=1 - labels, value_range=(0.0, 1.0))
    assert OwnHead(("dark", "bright")).labels(wrong, images).tolist() == (1 - labels).tolist()
    assert Frozen(Bright().eval()).labels(wrong, images * 2 - 1).tolist() == labels.tolist()
