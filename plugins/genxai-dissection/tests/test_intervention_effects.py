"""Average causal effects equal their closed form, and a slow, literal version of the paper's equations."""

import planted_painter
import pytest
import torch
from genxai_dissection.paired import FIRST, box, interval
from planted_painter import CAUSES, CONCEPTS, DECOYS, LEVEL, Channels, Painter, Quadrants
from torch import nn

import genxai_core as gx
from genxai_core import Generator, Runtime, Samples, Segmenter, draws
from genxai_core.errors import GenxaiError, InputError
from genxai_core.testing import LinearGenerator

RUNTIME = Runtime(device="cpu", quiet=True, batch_size=7)


def effects(model, segmenter, **given):
    return gx.create("explainer/unit-effects", segmenter=segmenter, **given).explain(model, runtime=RUNTIME)


def intervention(model, segmenter, concept, **given):
    explainer = gx.create("explainer/unit-intervention", segmenter=segmenter, concept=concept, **given)
    return explainer.explain(model, runtime=RUNTIME)


# -- closed forms -------------------------------------------------------------------------------------------------


def test_the_planted_units_have_the_effects_that_were_constructed():
    model, n = Painter(), 24
    found = effects(model, Channels(), layers=("units",), samples=n, mean_samples=16)
    present = (model.sample_latents(n, 0, start=FIRST + 16)[:, :3] > 0).double().mean(0)
    wanted = torch.zeros(8, 3).double()
    wanted[0, 0] = 1  # off: gone; in, everywhere: all of the picture
    wanted[[1, 2], 1] = 1 - present[1] / 4  # off: the other one draws it still
    # a half has k = 0.45, too little to draw: in or off, its half is missing
    assert torch.allclose(found.scores["units"], wanted, atol=1e-12)
    assert found.measure == "ace"
    assert found.concepts == CONCEPTS

    drop = effects(model, Channels(), layers=("units",), samples=n, mean_samples=16, insert=False)
    wanted = torch.zeros(8, 3).double()
    wanted[0, 0], wanted[[3, 4], 2] = present[0] / 4, present[2] / 8
    assert torch.allclose(drop.scores["units"], wanted, atol=1e-12)
    assert drop.measure == "drop"

    causes = [(unit, c) for c, units in enumerate(CAUSES) for unit in units]
    both = torch.maximum(found.scores["units"], drop.scores["units"])
    assert min(float(both[unit, c]) for unit, c in causes) > 0.05
    assert not both[[*DECOYS, 7]].any()


def test_at_the_concepts_places_and_in_one_cell():
    model, n = Painter(), 24
    z = model.sample_latents(n, 0, start=FIRST + 16)
    found = effects(model, Channels(), layers=("units",), samples=n, mean_samples=16, locations="concept")
    wanted = torch.zeros(8, 3).double()
    wanted[0, 0] = 1  # at its places: there when it is in, gone when it is off
    assert torch.allclose(found.scores["units"], wanted, atol=1e-12)

    found = effects(model, Channels(), layers=("units",), samples=n, mean_samples=16, locations="cell")
    cell = draws.integers(0, range(FIRST + 16, FIRST + 16 + n), 16, stream="intervened cell")
    row, column = cell // 4, cell % 4
    other = ((row < 2) & (column >= 2) & (z[:, 1] > 0)).double()  # the cell shows "twice" by the other unit
    wanted = torch.zeros(8, 3).double()
    wanted[0, 0], wanted[[1, 2], 1] = 1, 1 - other.mean()
    assert torch.allclose(found.scores["units"], wanted, atol=1e-12)


def test_the_linear_generator_by_hand():
    """Unit k paints quadrant k, bright where z_k > ½: each effect follows from the latents alone."""
    model, n = LinearGenerator(), 40
    found = intervention(model, Quadrants(), "q0", layer="layers", units=(0,), samples=n, mean_samples=30, draws=0)
    z = model.sample_latents(30, 0, start=FIRST)[:, 0]
    k = float(z[z > 0.5].mean())
    assert float(found.means[0]) == pytest.approx(k, abs=1e-6)
    z = model.sample_latents(n, 0, start=FIRST + 130)
    bright = (z > 0.5).double() / 4
    put = (z + k > 0.5).double() / 4
    put[:, 0] = 0.25 if k > 0.5 else 0.0
    off = bright.clone()
    off[:, 0] = 0
    assert torch.allclose(found.shares, torch.stack([bright.mean(0), off.mean(0), put.mean(0)]), atol=1e-12)
    assert torch.allclose(found.effects, (put - off).mean(0), atol=1e-12)
    half = 1.96 * (put - off).std(0) / n**0.5
    assert torch.allclose(found.effect_intervals[:, 1] - found.effects, half, atol=1e-12)
    assert float(half[1]) > 0


@pytest.mark.parametrize("amount", [0.25, 0.75])
def test_a_part_of_the_units(amount):
    model, n = LinearGenerator(), 40
    how = {"layer": "layers", "units": (0,), "samples": n, "mean_samples": 30, "draws": 0, "amount": amount}
    found = intervention(model, Quadrants(), "q0", **how, act="insert")
    k = float(found.means[0])
    z = model.sample_latents(n, 0, start=FIRST + 130)[:, 0]
    kept = (1 - amount) * z
    wanted = torch.stack([z > 0.5, kept > 0.5, kept + amount * k > 0.5]).double().mean(1) / 4
    assert torch.allclose(found.shares[:, 0], wanted, atol=1e-12)
    assert float(found.factors) == pytest.approx(1 - amount)
    assert float(found.values) == pytest.approx(amount * k)


# -- the equations, literally ----------------------------------------------------------------------------------------


ASKED = []


class Small(Generator):
    """Latents ``[N, 3]`` to images ``[N, 2, 8, 12]``: units overlap, and a convolution mixes their cells."""

    value_range = (-1.0, 1.0)
    latent_shape = (3,)

    def __init__(self):
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(3, 5 * 2 * 3), nn.Unflatten(1, (5, 2, 3)), nn.ReLU())
        self.paint = nn.Sequential(nn.Upsample(scale_factor=4), nn.Conv2d(5, 2, 3, padding=1), nn.Tanh())
        for i, p in enumerate(self.parameters()):
            p.data = 0.7 * draws.normal(5, [i], p.shape, stream="weights")[0].reshape(p.shape)

    def forward(self, z):
        return self.paint(self.layer(z))

    def sample_latents(self, n, seed, start=0):
        return draws.normal(seed, range(start, start + n), (3,))

    @torch.no_grad()
    def sample(self, n, seed, labels=None, start=0):
        ASKED.extend(range(start, start + n))
        z = self.sample_latents(n, seed, start)
        images = self(z)
        masks = torch.ones(n, 2, 8, 12, dtype=torch.bool)  # what it says of itself is wrong
        return Samples(images, z, masks=masks, value_range=self.value_range, concepts=("up", "down"))


class Signs(Segmenter):
    """Masks ``[N, 2, H, W]``: ``up`` where the first channel is positive, ``down`` where both are low."""

    concepts = ("up", "down")

    def _segment(self, samples):
        x = samples.images
        return torch.stack([x[:, 0] > 0, (x < 0.2).all(1)], 1)


def paint(model, z, units=(), places=None, factor=1.0, value=None):
    """Make one image ``[2, 8, 12]``, edited cell by cell."""
    with torch.no_grad():
        r = model.layer(z[None]).clone()
        for e, unit in enumerate(units):
            for y in range(2):
                for x in range(3):
                    if places is None or (y, x) in places:
                        r[0, unit, y, x] = factor * r[0, unit, y, x] + (0.0 if value is None else value[e])
        return model.paint(r)[0]


def shows(image, y, x):
    return [float(image[0, y, x] > 0), float(image[0, y, x] < 0.2 and image[1, y, x] < 0.2)]


def share(image, places):
    """Share of the pixels at places that show each concept, counted one by one."""
    pixels = [(y, x) for y in range(8) for x in range(12) if places is None or (y // 4, x // 4) in places]
    counted = [shows(image, y, x) for y, x in pixels]
    return [sum(c) / len(pixels) for c in zip(*counted)]


def literal_k(model, units, concept, n):
    """Σ r m / Σ m over pixels: the activation of the cell in which each pixel of the concept lies."""
    total, count = [0.0] * len(units), 0
    for z in model.sample_latents(n, 0, start=FIRST):
        image, r = paint(model, z), model.layer(z[None])[0].detach().double()
        for y in range(8):
            for x in range(12):
                if shows(image, y, x)[concept]:
                    total = [t + float(r[u, y // 4, x // 4]) for t, u in zip(total, units)]
                    count += 1
    return [t / count for t in total]


def literal_places(model, z, index, locations):
    every = [(y, x) for y in range(2) for x in range(3)]
    if locations == "cell":
        at = int(draws.integers(0, [index], 6, stream="intervened cell"))
        return [every[at]]
    if locations == "concept":
        image = paint(model, z)
        return [p for p in every if share(image, [p])[0] >= 0.5]
    if locations == "all":
        return None
    top, left, bottom, right = locations
    return [(y, x) for y, x in every if top <= (y + 0.5) / 2 < bottom and left <= (x + 0.5) / 3 < right]


@pytest.mark.parametrize("locations", ["all", "cell", "concept", (0, 0.2, 0.5, 1)])
@pytest.mark.parametrize("amount", [1.0, 0.5])
def test_effects_equal_the_paper_read_literally(locations, amount):
    """Equations 3 and 4, pixel by pixel: each effect is read where its own edit was."""
    model, n, units = Small().eval(), 12, (3, 0)
    how = {"units": units, "layer": "layer", "samples": n, "mean_samples": 9, "draws": 0, "alpha_samples": 4}
    found = intervention(model, Signs(), "up", **how, locations=locations, amount=amount, examples=0)
    k = literal_k(model, units, 0, 9)
    assert found.means[list(units)].tolist() == pytest.approx(k, abs=1e-6)

    rows = []
    for i, z in enumerate(model.sample_latents(n, 0, start=FIRST + 13)):
        places = literal_places(model, z, FIRST + 13 + i, locations)
        if places == []:
            continue
        value = [amount * float(v) for v in found.means[list(units)]]
        images = [paint(model, z)]
        images += [paint(model, z, units, places, 1 - amount, v) for v in (None, value)]
        rows.append([share(image, places) for image in images])
    shares = torch.tensor(rows, dtype=torch.float64)
    assert len(shares) > 2
    assert found.notes["samples"] == f"{len(shares)} of {n}"
    assert torch.allclose(found.shares, shares.mean(0), atol=1e-9)
    d = shares[:, 2] - shares[:, 1]
    assert torch.allclose(found.effects, d.mean(0), atol=1e-9)
    for c in range(2):
        mean = sum(d[:, c].tolist()) / len(d)
        s = (sum((v - mean) ** 2 for v in d[:, c].tolist()) / (len(d) - 1)) ** 0.5
        ends = [mean - 1.96 * s / len(d) ** 0.5, mean + 1.96 * s / len(d) ** 0.5]
        assert found.effect_intervals[c].tolist() == pytest.approx(ends, abs=1e-9)


@pytest.mark.parametrize("locations", ["all", "cell", "concept"])
def test_each_unit_alone_equals_the_set_of_one(locations):
    model = Small().eval()
    of_each = effects(model, Signs(), layers=("layer",), samples=8, mean_samples=9, locations=locations)
    how = {"layer": "layer", "samples": 8, "mean_samples": 9, "draws": 0, "locations": locations, "examples": 0}
    for c, concept in enumerate(("up", "down")):
        for unit in (0, 3):
            # the set's own samples begin after those of alpha: leave as many out of k's here
            explainer = gx.create(
                "explainer/unit-intervention", segmenter=Signs(), concept=concept, units=(unit,), alpha_samples=2, **how
            )
            explainer.alpha_samples = 0
            found = explainer.explain(model, runtime=RUNTIME)
            assert float(of_each.scores["layer"][unit, c]) == pytest.approx(float(found.effects[c]), abs=1e-9)
            ends = of_each.intervals["layer"][unit, c].tolist()
            assert ends == pytest.approx(found.effect_intervals[c].tolist(), abs=1e-9)


def test_k_alpha_and_effects_take_other_samples():
    model = Small().eval()
    how = {"units": (0, 1), "layer": "layer", "samples": 5, "mean_samples": 4, "draws": 0, "examples": 0}
    ASKED.clear()
    intervention(model, Signs(), "up", **how, alpha_samples=3)
    asked = sorted(set(ASKED))
    assert asked == [*range(FIRST, FIRST + 4), *range(FIRST + 7, FIRST + 12)]


def test_batches_change_nothing():
    model = Small().eval()
    explainer = gx.create("explainer/unit-effects", segmenter=Signs(), layers=("layer",), samples=9, mean_samples=9)
    one, other = (explainer.explain(model, runtime=Runtime(quiet=True, batch_size=b)) for b in (2, 64))
    assert torch.allclose(one.scores["layer"], other.scores["layer"], atol=1e-9)


class Dimmed(Painter):
    """The level of everything is that of unit 0 of a flat layer, the other five of which nothing reads."""

    def __init__(self):
        super().__init__()
        self.flat = nn.Linear(4, 6)
        self.flat.weight.data = draws.normal(1, range(6), (4,), stream="flat")
        self.flat.bias.data = torch.full((6,), 0.4)

    def activations(self, z):
        return self.flat(z)[:, :1, None, None].expand(-1, 8, 4, 4)


def test_a_flat_layer_has_one_cell():
    model, n = Dimmed().requires_grad_(False), 16
    found = effects(model, Channels(), layers=("flat",), samples=n, mean_samples=30, concepts=("whole",))
    level = model.flat(model.sample_latents(30, 0, start=FIRST))[:, 0]
    k = float(level[level > 0.5].mean())
    assert k > 0.5
    assert found.scores["flat"].tolist() == [[1.0], *[[0.0]] * 5]  # put in: all of each picture; off: nothing


# -- small parts ------------------------------------------------------------------------------------------------------


def test_a_box_holds_the_cells_whose_centres_it_holds():
    assert box((0, 0, 0.5, 1), (4, 2)).tolist() == [[True, True], [True, True], [False, False], [False, False]]
    assert box((0.4, 0.7, 0.9, 1), (4, 2)).tolist() == [[False, False], [False, False], [False, True], [False, True]]
    with pytest.raises(InputError, match="no cell of a layer of 2×2 has its centre in the box"):
        box((0, 0, 0.1, 0.1), (2, 2))


def test_intervals_cover_the_mean_19_times_in_20():
    drawn = draws.normal(3, range(400), (50,), stream="coverage").double() + 0.3
    covered = [low <= 0.3 <= high for low, high in (interval(row)[1].tolist() for row in drawn)]
    assert 0.91 <= sum(covered) / len(covered) <= 0.98


# -- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"samples": 1}, "samples 1 must be at least 2"),
        ({"mean_samples": 0}, "mean_samples 0 at least 1"),
        ({"layers": ("units", "units")}, "name at least one, each once"),
        ({"concepts": ()}, "name at least one, each once"),
        ({"segmenter": 3}, "does not fit"),
    ],
)
def test_bad_parameters_are_told(given, said):
    with pytest.raises(GenxaiError, match=said):
        gx.create("explainer/unit-effects", **{"segmenter": Channels(), **given})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"layers": ("nowhere",)}, "layer 'nowhere': Painter has no such layer"),
        ({"concepts": ("hair",)}, "there is no concept 'hair'; the segmenter knows whole, twice, halves"),
        (
            {"layers": ("units",), "locations": "concept", "samples": 2},
            "samples show 'whole' in a cell of layer 'units'",
        ),
    ],
)
def test_what_does_not_fit_the_model_is_told(given, said):
    with pytest.raises(InputError, match=said):
        effects(Painter(), Channels(), **{"samples": 4, "mean_samples": 8, **given})


def test_a_concept_that_is_never_seen_is_left_out_or_refused():
    class Never(Channels):
        concepts = (*CONCEPTS, "unicorn")

        def forward(self, images):
            return torch.cat([super().forward(images), torch.full_like(images[:, :1], -1)], 1)

    found = effects(Painter(), Never(), layers=("units",), samples=2, mean_samples=12)
    assert found.concepts == CONCEPTS
    assert found.notes["never seen"] == "unicorn"
    with pytest.raises(InputError, match="none of 12 samples shows 'unicorn'"):
        effects(Painter(), Never(), layers=("units",), samples=2, mean_samples=12, concepts=("unicorn",))


def test_k_of_a_planted_half_is_half_its_level():
    found = intervention(Painter(), Channels(), "halves", layer="units", units=(3, 4), samples=4, draws=0)
    assert found.means[[3, 4]].tolist() == pytest.approx([LEVEL / 2, LEVEL / 2], abs=1e-6)
    assert planted_painter.CAUSES[2] == (3, 4)


@pytest.mark.slow
def test_on_the_bench_no_decoy_is_taken_for_a_cause():
    """Halves have no effect alone, redundant pairs no drop; whoever scores draws."""
    few = {"samples": 4, "mean_samples": 16}
    specs = [gx.Spec("explainer/unit-effects", {**few, "insert": insert}) for insert in (True, False)]
    board = gx.create("explainer/bench", contestants=specs, tasks=("planted-units",), seeds=2).explain(runtime=RUNTIME)
    assert board.failures == {}
    rows = zip(board.contestant, board.measure, board.value.tolist())
    found = [(measure, value) for name, measure, value in rows if name.startswith("explainer/unit-effects")]
    assert [value for measure, value in found if measure == "precision"] == [1.0] * 4
    assert [value for measure, value in found if measure == "recall"] == pytest.approx([2 / 3] * 4)
