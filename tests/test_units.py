"""Inside a model: units recorded and edited, against a slow literal version."""

import copy
import re
from pathlib import Path

import pytest
import torch
from torch import nn
from unit_models import Net, Says, before_relu, places

from genxai_core import units
from genxai_core.errors import GenxaiWarning, InputError
from genxai_core.results.unit_edits import UnitEdits

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "units.md"


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net().double().eval()


@pytest.fixture
def z():
    return torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def hooks(model):
    return sum(len(module._forward_hooks) for module in model.modules())


# -- layers -----------------------------------------------------------------------------------------------------


def test_layers_are_submodules_by_name_without_those_that_compute_weights(net):
    names = ["flat", "body", "body.0", "body.1", "body.2", "twice", "act", "head"]
    assert list(units.named_layers(net)) == names


def test_an_unknown_layer_is_refused_with_the_nearest_one(net):
    said = r"layer 'bodi\.0': Net has no such layer; did you mean 'body\.0'\? \(it has: flat, body, body\.0"
    for enter in (
        lambda: units.record(net, ["flat", "bodi.0"]),
        lambda: units.edit(net, "bodi.0", 0),
        lambda: units.applied(net, UnitEdits.ablate({"flat": [1], "bodi.0": [1]})),
        lambda: units.threshold(net, "bodi.0", 0.9),
        lambda: units.tally(net, {"bodi.0": torch.zeros(6)}),
    ):
        with pytest.raises(InputError, match=said), enter():
            pass
        assert hooks(net) == 0
    with pytest.raises(InputError, match=r"\(it has: no layers\)"), units.record(nn.Linear(1, 1), "x"):
        pass


# -- record -----------------------------------------------------------------------------------------------------


def test_activations_are_recorded_before_what_follows_in_place(net, z):
    wanted = before_relu(net, z)
    assert (wanted < 0).any()
    plain = net(z)
    for detach in (False, True):
        with units.record(net, ["body.0", "flat"], detach=detach) as seen:
            assert torch.equal(net(z), plain)
        assert torch.equal(seen["body.0"], wanted)
        assert torch.equal(seen["flat"], net.flat(z))
        assert seen["flat"].requires_grad is not detach
    assert hooks(net) == 0


def test_gradients_with_respect_to_an_activation(net, z):
    with units.record(net, "body.0") as seen:
        out = net(z)[:, 0].sum()
    (gradient,) = torch.autograd.grad(out, seen["body.0"])
    step = torch.zeros_like(seen["body.0"])
    step[2, 3, 1, 1] = 1e-6
    with torch.no_grad(), units.edit(net, "body.0", 3, factor=1.0, value=1e-6, where=step[:, 3] != 0):
        moved = net(z)[:, 0].sum() - out
    assert float(gradient[2, 3, 1, 1]) == pytest.approx(float(moved / 1e-6), abs=1e-6)


def test_the_latest_forward_and_the_last_call_count(net, z):
    with units.record(net, "twice") as seen:
        net(z)
        net(z[:2])
    x = net.body(net.flat(z[:2]).reshape(-1, 5, 4, 4))
    assert torch.equal(seen["twice"], net.twice(net.act(net.twice(x))))


def test_what_is_not_recorded_says_so(net, z):
    with units.record(net, ["flat", "twice"]) as seen:
        with pytest.raises(InputError, match="'flat' is not recorded, or did not run; recorded so far: none"):
            seen["flat"]
        net.flat(z)
    with pytest.raises(InputError, match="recorded so far: flat"):
        seen["twice"]


def test_recorded_is_what_the_layer_passes_on_whatever_was_entered_first(net, z):
    with units.record(net, "body.0") as outer, units.edit(net, "body.0", 1), units.record(net, "body.0") as inner:
        net(z)
    for seen in (outer, inner):
        assert not seen["body.0"][:, 1].any()
        assert seen["body.0"][:, 0].any()


def test_hooks_are_gone_after_an_exception(net, z):
    edits, level = UnitEdits.ablate({"body.0": [1]}), {"flat": torch.zeros(80)}
    for enter in (
        lambda: units.record(net, ["body.0", "flat"]),
        lambda: units.edit(net, "body.0", 0),
        lambda: units.applied(net, edits),
        lambda: units.threshold(net, ["flat"], 0.5),
        lambda: units.tally(net, level),
    ):
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), enter():
            net(z[:, :2])
        assert hooks(net) == 0


class Odd(nn.Module):
    def __init__(self, result):
        super().__init__()
        self.layer = nn.Identity()
        self.layer.forward = lambda x: result

    def forward(self, x):
        return self.layer(x)


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ((torch.zeros(2, 3), None), "layer 'layer' returns a tuple, not a tensor; name a layer inside it"),
        (torch.zeros(2, 3, 4), r"layer 'layer' returns torch\.float32 \[2, 3, 4\], not floating-point"),
        (torch.zeros(2, 3, dtype=torch.long), r"layer 'layer' returns torch\.int64 \[2, 3\]"),
    ],
)
def test_layers_without_units_are_refused(result, said):
    model = Odd(result)
    for enter in (
        lambda: units.record(model, "layer"),
        lambda: units.edit(model, "layer", 0),
        lambda: units.threshold(model, "layer", 0.5),
        lambda: units.tally(model, {"layer": torch.zeros(3)}),
    ):
        with pytest.raises(InputError, match=said), enter():
            model(torch.zeros(1))
        assert hooks(model) == 0


# -- edit -------------------------------------------------------------------------------------------------------


def literal_edit(a, chosen, factor, value, where):
    """Cell by cell."""
    a = a.numpy().copy()
    for n in range(a.shape[0]):
        for e, unit in enumerate(chosen):
            for y in range(a.shape[2]):
                for x in range(a.shape[3]):
                    if where is None or bool(where[n][y][x]):
                        a[n, unit, y, x] = factor[e] * a[n, unit, y, x] + value[e]
    return torch.from_numpy(a)


@pytest.mark.parametrize("where", [None, places(4, 4), places(7, 4, 4)], ids=["everywhere", "map", "maps"])
@pytest.mark.parametrize(("factor", "value"), [(0.0, None), (0.0, 1.5), (0.25, -2.0), ([0.0, 0.5, 2.0], [1.0, 0, 3])])
def test_an_edit_is_its_formula_in_each_cell(net, z, where, factor, value):
    a = before_relu(net, z)
    each = [factor] * 3 if isinstance(factor, float) else factor
    added = [0.0] * 3 if value is None else [value] * 3 if isinstance(value, float) else value
    maps = where if where is None or where.ndim == 3 else where.expand(7, 4, 4)
    wanted = literal_edit(a, [4, 0, 2], each, added, maps)
    given = [torch.tensor(v) if isinstance(v, list) else v for v in (factor, value)]
    edit = units.edit(net, "body.0", [4, 0, 2], factor=given[0], value=given[1], where=where)
    with edit, units.record(net, "body.0") as seen:
        out = net(z)
    assert torch.equal(seen["body.0"], wanted)
    x = net.body[2](torch.relu(wanted))
    assert torch.equal(out, torch.tanh(net.head(net.act(net.twice(net.act(net.twice(x)))))))


def test_an_edit_is_gone_after_the_block_and_parameters_never_change(net, z):
    state, plain = copy.deepcopy(net.state_dict()), net(z)
    with units.edit(net, "flat", torch.tensor([1, 7])), units.edit(net, "twice", 2, value=3):
        assert not torch.equal(net(z), plain)
    assert torch.equal(net(z), plain)
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    assert hooks(net) == 0


def test_a_flat_layer_is_edited(net, z):
    a = net.flat(z)
    edit = units.edit(net, "flat", [79, 0], factor=torch.tensor([0.5, 0.0]), value=torch.tensor([0.0, 2.0]))
    with edit, units.record(net, "flat") as seen:
        net(z)
    a[:, 79] = a[:, 79] * 0.5
    a[:, 0] = 2
    assert torch.equal(seen["flat"], a)


def test_factor_and_value_are_learnt_through(net, z):
    alpha = torch.rand(3, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).requires_grad_()
    k = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64, requires_grad=True)
    net.requires_grad_(False)
    where = places(7, 4, 4)

    def out(alpha, k):
        with units.edit(net, "body.0", [0, 3, 5], factor=1 - alpha, value=alpha * k, where=where):
            return net(z).square().sum()

    assert torch.autograd.gradcheck(out, (alpha, k), eps=1e-6, atol=1e-6)
    out(alpha, k).backward()
    assert alpha.grad.abs().max() > 0


def test_gradients_reach_what_is_before_an_edit_but_not_through_an_ablated_unit(net, z):
    with units.edit(net, "body.0", [0, 1, 2, 3, 4]):
        net(z).sum().backward()
    gradient = net.body[0].weight.grad
    assert not gradient[:5].any()
    assert gradient[5].any()


def test_a_layer_that_is_called_twice_is_edited_twice(net, z):
    with units.edit(net, "twice", 1, factor=0.0, value=5.0):
        out = net(z)
    x = net.body(net.flat(z).reshape(-1, 5, 4, 4))
    for _ in range(2):
        x = net.twice(x).clone()
        x[:, 1] = 5
        x = net.act(x)
    assert torch.equal(out, torch.tanh(net.head(x)))


def test_nested_edits_compose_in_the_order_of_entry(net, z):
    a = before_relu(net, z)
    with units.record(net, "body.0") as seen:
        with units.edit(net, "body.0", 1, factor=2.0), units.edit(net, "body.0", [0, 1], value=3.0, factor=1.0):
            net(z)
        assert torch.equal(seen["body.0"][:, 1], 2 * a[:, 1] + 3)
        with units.edit(net, "body.0", [0, 1], value=3.0, factor=1.0), units.edit(net, "body.0", 1, factor=2.0):
            net(z)
        assert torch.equal(seen["body.0"][:, 1], 2 * (a[:, 1] + 3))
        assert torch.equal(seen["body.0"][:, 0], a[:, 0] + 3)
        net(z)
        assert torch.equal(seen["body.0"], a)


def test_edits_end_in_any_order(net, z):
    first, second = units.edit(net, "body.0", 0), units.edit(net, "body.0", 1)
    first.__enter__()
    second.__enter__()
    net(z)
    first.__exit__(None, None, None)
    with units.record(net, "body.0") as seen:
        net(z)
    assert seen["body.0"][:, 0].any()
    assert not seen["body.0"][:, 1].any()
    second.__exit__(None, None, None)
    assert hooks(net) == 0


def test_a_caught_exception_in_the_forward_leaves_no_edit(net, z):
    plain = net(z)
    with pytest.warns(GenxaiWarning, match="did not run"), units.edit(net, "body.0", 0), pytest.raises(RuntimeError):
        net(z[:, :2])
    assert torch.equal(net(z), plain)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_edit_keeps_the_precision_of_the_model(z, dtype):
    net, seen_types = Net().to(dtype).eval(), []
    net.twice.register_forward_pre_hook(lambda module, inputs: seen_types.append(inputs[0].dtype))
    alpha = torch.tensor([0.5, 1.0], dtype=torch.float64)
    with units.edit(net, "body.0", [0, 1], factor=alpha, value=alpha):
        assert net(z.to(dtype)).dtype == dtype
    assert set(seen_types) == {dtype}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"units": [1, 6]}, "'body.0' has 6 units; unit 6 is none of them"),
        ({"units": [1, 1]}, "channel numbers, each once"),
        ({"units": [-1]}, "channel numbers, each once"),
        ({"units": 1.0}, "channel numbers, each once"),
        ({"units": torch.tensor([True, False])}, "channel numbers, each once"),
        ({"units": [1, 2], "factor": torch.zeros(3)}, r"factor is \[3\] for 2 units"),
        ({"units": [1, 2], "value": torch.zeros(1, 2)}, r"value is \[1, 2\] for 2 units"),
        ({"units": [1, 2], "factor": [0.5, 1.0]}, "factor is a list; give a number or a tensor"),
        ({"units": 1, "where": torch.ones(4, 4)}, r"where must be bool \[h, w\] or \[N, h, w\], not torch\.float32"),
        ({"units": 1, "where": [[True]]}, "not list"),
        ({"units": 1, "where": places(8, 8)}, r"returns \[7, 6, 4, 4\]; places to edit are given for \[8, 8\] cells"),
        ({"units": 1, "where": places(3, 4, 4)}, r"\[4, 4\] cells of 3 samples"),
    ],
)
def test_what_cannot_be_edited_is_refused(net, z, arguments, said):
    with pytest.raises(InputError, match=said), units.edit(net, "body.0", **arguments):
        net(z)
    assert hooks(net) == 0


def test_what_came_into_a_layer_is_not_written_to():
    model, x = Says(), torch.full((1, 2, 2, 2), -1.0)
    with units.edit(model, "layer", 1, value=3.0), units.record(model, "layer"):
        assert model(x).unique().tolist() == [0, 3]
    assert x.unique().tolist() == [-1]


def test_no_unit_is_no_edit(net, z):
    plain = net(z)
    with units.edit(net, "body.0", []), units.applied(net, UnitEdits.ablate({})):
        assert torch.equal(net(z), plain)


# -- applied ----------------------------------------------------------------------------------------------------


def test_edits_are_applied_one_after_the_other(net, z):
    """In two layers, and one unit of them three times, so that the order matters."""
    edits = UnitEdits(
        ("body.0", "twice", "body.0", "body.0", "body.0"),
        torch.tensor([1, 0, 1, 2, 1]),
        torch.tensor([2.0, 0.5, 1.0, 0.0, -1.0]),
        torch.tensor([0.0, 1.0, 3.0, 4.0, 0.5]),
    )
    with units.applied(net, edits):
        out = net(z)
    with (
        units.edit(net, "body.0", 1, factor=2.0),
        units.edit(net, "twice", 0, factor=0.5, value=1.0),
        units.edit(net, "body.0", 1, factor=1.0, value=3.0),
        units.edit(net, "body.0", 2, factor=0.0, value=4.0),
        units.edit(net, "body.0", 1, factor=-1.0, value=0.5),
    ):
        assert torch.equal(net(z), out)
    assert not torch.equal(net(z), out)


def test_every_edit_has_its_own_places(net, z):
    where = places(2, 4, 4)
    edits = UnitEdits(("body.0",) * 2, torch.tensor([5, 1]), torch.zeros(2), locations=where)
    with units.applied(net, edits), units.record(net, "body.0") as seen:
        net(z)
    wanted = before_relu(net, z)
    for unit, here in zip((5, 1), where):
        wanted = literal_edit(wanted, [unit], [0.0], [0.0], here.expand(7, 4, 4))
    assert torch.equal(seen["body.0"], wanted)


def test_places_that_are_all_true_fit_every_resolution(net, z):
    joined = UnitEdits.concat(
        [
            UnitEdits(("body.0",), torch.tensor([2]), torch.zeros(1), locations=places(1, 4, 4)),
            UnitEdits.ablate({"twice": [0], "flat": [3]}),
        ]
    )
    with units.applied(net, joined):
        out = net(z)
    with (
        units.edit(net, "body.0", 2, where=places(1, 4, 4)[0]),
        units.edit(net, "twice", 0),
        units.edit(net, "flat", 3),
    ):
        assert torch.equal(net(z), out)


def test_factors_and_values_of_edits_are_learnt_through(net, z):
    factors, values = (torch.rand(2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    net.requires_grad_(False)

    def out(factors, values):
        with units.applied(net, UnitEdits(("flat", "body.0"), torch.tensor([3, 1]), factors, values)):
            return net(z).square().sum()

    assert torch.autograd.gradcheck(out, (factors, values), eps=1e-6, atol=1e-6)


def test_edits_under_a_condition_need_a_judge(net):
    edits = UnitEdits.ablate({"flat": [1]}, condition={"target": 0, "above": 0.5})
    with pytest.raises(InputError, match="generator/edited"), units.applied(net, edits):
        pass


# -- the page ---------------------------------------------------------------------------------------------------


def test_the_reference_pages_example_runs(capsys):
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    exec(compile(code, PAGE.name, "exec"), {})
    assert "torch.Size([5, 2, 8, 8])" in capsys.readouterr().out
