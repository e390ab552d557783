"""A plugin of one file: a small task, explainers that answer it well, badly and rudely, and a trainer."""

import torch
from genxai_bench import maps
from genxai_bench.task import Measure, Problem, Task

from genxai_core import (
    Attribution,
    Component,
    Discriminator,
    Explainer,
    Samples,
    Trained,
    Trainer,
    draws,
    hookimpl,
)


class Spot(Discriminator):
    """The sum of one square: logits [N, 1]."""

    image_shape = (1, 12, 12)

    def __init__(self, region):
        super().__init__()
        self.register_buffer("region", region.float())

    def forward(self, images):
        return (images * self.region).sum((1, 2, 3))[:, None]


class SpotTask(Task):
    """Noise, with a bright square where the model does not look."""

    name = "spot"
    says = "one square decides; the map's energy lies in it"
    measures = (
        Measure("energy", "share of the map in the square, 0 to 1", 1.0, chance=16 / 144, near=0.05),
        Measure("miss", "share outside", 0.0, higher_is_better=False),
    )

    def __init__(self, n=4):
        self.n = n

    def problem(self, seed):
        y, x = draws.integers(seed, range(2), 8, stream="spot").tolist()
        region = torch.zeros(12, 12, dtype=torch.bool)
        region[y : y + 4, x : x + 4] = True
        images = 0.2 * draws.normal(seed, range(self.n), (1, 12, 12), stream="spot-images").clamp(-2, 2)
        images[:, :, (y + 6) % 12, :] = 1.0
        inputs = Samples(images, value_range=(-1.0, 1.0))
        truth = {"region": region.expand(self.n, 12, 12)}
        return Problem(Spot(region).eval(), inputs, 0, truth, {"gain": 2.0}, seed)

    def oracle(self, problem):
        return maps.attribution(problem.truth["region"].float(), problem.inputs, 0)

    def random(self, problem):
        return maps.noise(problem.inputs, 0, problem.seed)

    def heuristic(self, problem):
        return maps.edges(problem.inputs, 0)

    def constant(self, problem):
        return maps.constant(problem.inputs, 0)

    def score(self, problem, answer):
        share = float(maps.energy(maps.plane(answer, problem.inputs), problem.truth["region"]).mean())
        return {"energy": share, "miss": 1 - share}


class TrainSpot(SpotTask):
    """Judges a trainer by the bias of the discriminator that it trains."""

    name = "train-spot"
    subject = "trainer"
    returns = ""
    measures = (Measure("bias", "the bias", 1.0, chance=0.0, near=0.2),)

    def oracle(self, problem):
        return _biased(1.0)

    def random(self, problem):
        return _biased(0.1 * float(draws.normal(problem.seed, [0], (), stream="bias")))

    def heuristic(self, problem):
        return _biased(0.5)

    def constant(self, problem):
        return _biased(0.0)

    def score(self, problem, answer):
        return {"bias": float(answer.bias)}


class Biased(Discriminator):
    """One number."""

    def __init__(self, bias: float = 0.0):
        super().__init__()
        self.bias = torch.nn.Parameter(torch.tensor(bias))

    def forward(self, images):
        return self.bias.expand(len(images), 1)


def _biased(bias):
    return Biased(bias).eval()


class BiasTrainer(Trainer):
    """Learns the number of images, or raises."""

    produces = {"discriminator": "discriminator"}

    def __init__(self, scale: float = 0.1):
        self.scale = scale

    def _fit(self, data, runtime):
        return Trained({"discriminator": _biased(self.scale * len(data))})


class Gradient(Explainer):
    """The gradient; its sign is the square."""

    explains, accepts, returns = "discriminator", "images", Attribution

    def __init__(self, gain: float = 1.0, noise: float = 0.0):
        self.gain, self.noise = gain, noise

    def _explain(self, model, images, target):
        images = images.requires_grad_()
        (found,) = torch.autograd.grad(model(images)[:, target].sum(), images)
        found = self.gain * found[:, 0] + self.noise * torch.randn_like(found[:, 0])
        return Attribution(found, target, notes={"gain": self.gain})


class Blind(Gradient):
    """Answers with one everywhere."""

    def _explain(self, model, images, target):
        return Attribution(torch.ones_like(images[:, 0]), target)


class Rude(Gradient):
    """Raises for images that it does not like: those of seed 1."""

    def _explain(self, model, images, target):
        if torch.equal(images, SpotTask().problem(1).inputs.images):
            raise RuntimeError("I do not\nlike these")
        return super()._explain(model, images, target)


class Needy(Gradient):
    """Needs what no task fills in."""

    def __init__(self, friend: str):
        super().__init__()
        self.friend = friend


class Featured(Gradient):
    """Explains what has features."""

    explains = "HasFeatures"


class Latent(Gradient):
    """Takes latents."""

    accepts = "latents"


@hookimpl
def genxai_components():
    rows = {"gradient": Gradient, "blind": Blind, "rude": Rude, "needy": Needy, "featured": Featured, "latent": Latent}
    found = [Component("explainer", f"spot-{n}", f"entrants:{c.__name__}", c.__doc__) for n, c in rows.items()]
    return [*found, Component("trainer", "spot-bias", "entrants:BiasTrainer", "learns a number")]
