"""Where edits end: other threads, copies of a model, recomputations, programs made of a model, values without end."""

import copy
import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from edited_models import Bright, Paints, literal
from torch import nn
from torch.utils.checkpoint import checkpoint
from unit_models import Net, Says, places

from genxai_core import units
from genxai_core.edited import edited
from genxai_core.errors import GenxaiWarning, InputError
from genxai_core.results import UnitEdits


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net().double().eval()


@pytest.fixture
def z():
    return torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def hooks(model):
    return sum(len(module._forward_hooks) for module in model.modules())


# -- threads ----------------------------------------------------------------------------------------------------


def together(*calls):
    """Run each in a thread of its own, and return what they returned."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


class Meets(Paints):
    """Its edited layer waits until all threads are in it, so that their edits are entered at the same time."""

    meeting = None

    def _units(self, latents):
        if self.meeting is not None:
            self.meeting.wait(timeout=60)
        return super()._units(latents)


def test_edits_of_one_base_in_several_threads_do_not_meet():
    base = Meets().eval()
    models = [base, *(edited(base, UnitEdits.ablate({"units": [unit]})) for unit in range(3))]
    z = base.sample_latents(4, 0)
    wanted = [literal(base, z, off) for off in ((), (0,), (1,), (2,))]
    base.meeting = threading.Barrier(len(models))
    for found, image in zip(together(*(lambda m=m: m(z) for m in models)), wanted):
        assert torch.equal(found, image)
    assert hooks(base) == 0


@pytest.fixture
def interrupted():
    """Threads take turns in the middle of everything."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("interrupted")
def test_one_edited_generator_makes_the_same_images_in_many_threads():
    base = Paints().eval()
    made = edited(base, UnitEdits(("units",), torch.tensor([0]), torch.tensor([2.0])))  # twice is not once
    z = base.sample_latents(8, 0)
    wanted = made(z)
    assert not torch.equal(wanted, base(z))
    found = together(*(lambda: [torch.equal(made(z), wanted) for _ in range(100)] for _ in range(4)))
    assert sum(sum(right) for right in found) == 400
    assert hooks(base) == 0


def test_a_judge_in_training_is_asked_in_eval_mode_by_every_thread():
    base, judge = Paints().eval(), Bright()
    made = edited(base, UnitEdits.ablate({"units": [0, 2]}, condition={"target": 0, "above": 0.5}), judge)
    z = base.sample_latents(8, 0)
    wanted = made(z)
    found = together(*(lambda: [torch.equal(made(z), wanted) for _ in range(50)] for _ in range(4)))
    assert sum(sum(right) for right in found) == 200
    assert judge.training
    assert judge.norm.num_batches_tracked == 0


def test_a_block_sees_its_own_thread_only(net, z):
    plain = net(z)
    with units.edit(net, "body.0", 0), units.record(net, "flat", detach=True) as seen:
        inside = net(z[:2])
        (outside,) = together(lambda: net(z))
    assert torch.equal(outside, plain)
    assert not torch.equal(inside, plain[:2])
    assert len(seen["flat"]) == 2


def replica_of(module):
    """What DataParallel runs in another thread."""
    made = module._replicate_for_data_parallel()
    made._modules = {name: replica_of(part) for name, part in module._modules.items()}
    made._parameters = dict(module._parameters)
    return made


def test_replicas_are_refused(net, z):
    net = net.body  # without parametrizations
    x = torch.zeros(2, 5, 4, 4, dtype=torch.float64)
    replica = replica_of(net)
    with units.edit(net, "0", 0), units.record(net, "0") as seen:
        net(x)
        first = seen["0"]
        with pytest.raises(InputError, match="layer '0': replicas of DataParallel cannot be edited"):
            together(lambda: replica(x))
    with units.record(net, "0") as nothing:
        together(lambda: replica(x))
    assert not nothing
    assert seen["0"] is first


# -- recomputation ----------------------------------------------------------------------------------------------


class Saves(Paints):
    """Computes its layer again in the backward pass."""

    reentrant = False

    def _units(self, latents):
        return checkpoint(super()._units, latents, use_reentrant=self.reentrant)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning")
def test_gradients_of_an_edited_generator_are_not_those_of_a_recomputed_unedited_one():
    base = Saves().eval()
    base.reentrant = True
    made = edited(base, UnitEdits.ablate({"units": [0, 2]}))
    z = base.sample_latents(3, 0)
    assert torch.equal(made.sample(3, 0).images, literal(base, z))
    assert torch.equal(made(z), literal(base, z)), "no gradient is asked for"
    with pytest.raises(InputError, match="layer 'units' runs under reentrant gradient checkpointing"):
        made(z.requires_grad_())
    base.reentrant = False
    images = made(z)
    with pytest.raises(RuntimeError, match="A different number of tensors was saved"):  # torch's own check
        images.sum().backward()


@pytest.mark.parametrize("reentrant", [True, False])
def test_inside_a_block_a_recomputed_layer_is_edited_again(reentrant):
    base = Saves().eval()
    base.reentrant = reentrant
    z = base.sample_latents(3, 0).requires_grad_()
    (wanted,) = torch.autograd.grad(literal(base, z).sum(), z)
    with units.edit(base, "units", [0, 2]):
        base(z).sum().backward()
    assert torch.allclose(z.grad, wanted, atol=1e-6)
    with units.edit(base, "units", [0, 2]):
        images = base(z)
        with pytest.raises(InputError, match="again in the backward pass of another thread"):
            together(lambda: images.sum().backward())


# -- what runs without its layers -------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_what_is_compiled_or_traced_is_refused(net):
    body = net.body
    traced = torch.jit.trace(body, torch.zeros(1, 5, 4, 4, dtype=torch.float64))
    whole = torch.compile(body, backend="eager")
    in_place = copy.deepcopy(body)
    in_place.compile(backend="eager")
    for model, layer in (
        (traced, "0"),
        (whole, "0"),
        (whole, "_orig_mod.0"),
        (in_place, "0"),
        (nn.ModuleDict({"a": nn.Sequential(whole)}), "a.0._orig_mod.0"),
    ):
        for enter in (units.edit(model, layer, 0), units.record(model, layer)):
            with pytest.raises(InputError, match=r"is compiled, scripted or traced: .* the original module"), enter:
                pass
    beside = nn.Sequential(nn.Linear(2, 2), nn.ModuleDict({"c": whole}))
    with units.record(beside, "0") as seen:
        beside[0](torch.zeros(1, 2))
    assert seen["0"].shape == (1, 2)


def test_an_edit_of_a_layer_that_does_not_run_is_told(net, z):
    said = "layer 'flat' did not run here, so its edit did nothing"
    with pytest.warns(GenxaiWarning, match=said), units.edit(net, "flat", 0):
        net.body(torch.zeros(1, 5, 4, 4, dtype=torch.float64))
    with pytest.warns(GenxaiWarning, match=said) as told, units.applied(net, UnitEdits.ablate({"flat": [0]})):
        pass
    assert told[0].filename == __file__


# -- copies -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))], ids=["copy", "pickle"])
def test_a_copy_made_inside_a_block_is_not_edited(copied):
    body = nn.Sequential(nn.Conv2d(5, 6, 3), nn.ReLU())
    x = torch.rand(2, 5, 4, 4)
    plain = body(x)
    with units.edit(body, "0", [0, 1]):
        twin = copied(body)
        assert torch.equal(twin(x), plain)
        assert not body(x)[:, :2].any()
    assert torch.equal(twin(x), plain)
    with units.edit(twin, "0", [0, 1]):
        assert not twin(x)[:, :2].any()
        assert torch.equal(body(x), plain)
    assert torch.equal(twin(x), plain)
    assert hooks(twin) == hooks(body) == 0


def test_a_copy_made_inside_a_block_is_not_recorded(net, z):
    with units.record(net, "flat") as seen:
        twin = copy.deepcopy(net)
        net(z[:2])
        twin(z)
    assert len(seen["flat"]) == 2


# -- values -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [0.0, torch.zeros(2), torch.tensor([0, 0])], ids=["number", "tensor", "integers"])
def test_an_ablated_unit_is_zero_whatever_it_held(factor):
    model, x = Says(), torch.tensor([[float("inf"), float("nan"), -float("inf"), 2.0]]).reshape(1, 4, 1, 1)
    with units.edit(model, "layer", [0, 1], factor=factor), units.record(model, "layer") as seen:
        model(x)
    assert seen["layer"].flatten().tolist() == [0, 0, -float("inf"), 2]
    with units.edit(model, "layer", [0, 1], factor=factor, value=3.0), units.record(model, "layer") as seen:
        model(x)
    assert seen["layer"].flatten().tolist() == [3, 3, -float("inf"), 2]
    with units.applied(model, UnitEdits.ablate({"layer": [1, 2]})), units.record(model, "layer") as seen:
        model(x)
    assert seen["layer"].flatten().tolist() == [float("inf"), 0, 0, 2]


def test_a_learnt_factor_has_its_gradient_at_zero():
    model, x = Says(), torch.tensor([[5.0, 7.0]]).reshape(1, 2, 1, 1)
    factor = torch.zeros(2, requires_grad=True)
    with units.edit(model, "layer", [0, 1], factor=factor, value=1.0):
        model(x).sum().backward()
    assert factor.grad.tolist() == [5, 7]


@pytest.mark.parametrize("name", ["factor", "value"])
@pytest.mark.parametrize("given", [float("inf"), torch.tensor([0.0, float("nan")])], ids=["number", "tensor"])
def test_numbers_that_are_not_finite_are_refused(net, name, given):
    with pytest.raises(InputError, match=f"layer 'flat': {name} is not finite"):
        units.edit(net, "flat", [0, 1], **{name: given}).__enter__()


def test_a_flat_layer_has_one_cell(net, z):
    a = net.flat(z)
    for where in (torch.tensor([[True]]), places(7, 1, 1)):
        with units.edit(net, "flat", [3, 0], where=where), units.record(net, "flat") as seen:
            net(z)
        wanted = a.clone()
        for n in range(7):
            if where.expand(7, 1, 1)[n]:
                wanted[n, [3, 0]] = 0
        assert torch.equal(seen["flat"], wanted)
    said = r"returns \[7, 80\]; .* \[2, 1\] cells"
    with pytest.raises(InputError, match=said), units.edit(net, "flat", 0, where=places(2, 1)):
        net(z)
    places_of_each = torch.tensor([[[True]], [[False]]])
    edits = UnitEdits(("flat",) * 2, torch.tensor([1, 2]), torch.zeros(2), locations=places_of_each)
    with units.applied(net, edits), units.record(net, "flat") as seen:
        net(z)
    assert not seen["flat"][:, 1].any()
    assert torch.equal(seen["flat"][:, 2], a[:, 2])
