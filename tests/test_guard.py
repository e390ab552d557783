"""The guard: whatever happens inside, models and global state are bit for bit what they were."""

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from genxai_core.guard import guard

X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


class Odd(nn.Module):
    """Tensors of every sort that a module can hold."""

    def __init__(self):
        super().__init__()
        self.zero_d = nn.Parameter(torch.tensor(-0.0))
        self.empty = nn.Parameter(torch.empty(0, 3))
        self.complex = nn.Parameter(torch.tensor([1 + 2j, complex("nan")]))
        self.strided = nn.Parameter(torch.arange(12.0).reshape(3, 4).t())
        self.short = nn.Parameter(torch.tensor([1.5, float("nan")], dtype=torch.bfloat16))
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
        self.tied = self.strided
        self.view = nn.Parameter(self.strided.data[0])
        self.register_buffer("counts", torch.tensor([3, -1]))
        self.register_buffer("mask", torch.tensor([True, False]))
        self.register_buffer("byte", torch.tensor([0, 255], dtype=torch.uint8))
        self.register_buffer("sparse", torch.eye(3).to_sparse())
        self.register_buffer("conjugate", torch.tensor([1 + 2j]).conj())
        self.register_buffer("hidden", torch.ones(1), persistent=False)
        self.register_buffer("absent", None)
        self.plain = torch.tensor([0.25])
        self.settings = {"a": 1}
        self.layers = [1, 2]


def build():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.LeakyReLU(0.2),
        nn.Dropout(0.5),
        parametrizations.spectral_norm(nn.Conv2d(4, 4, 3, padding=1)),
        nn.utils.spectral_norm(nn.Conv2d(4, 2, 3)),
        nn.Flatten(),
        nn.Linear(72, 1),
    )
    net.odd = Odd()
    net.seen = []
    net[0].register_forward_hook(lambda m, i, o: net.seen.append("forward"))
    net[2].register_full_backward_hook(lambda m, i, o: net.seen.append("backward"))
    net[0].weight.register_hook(lambda g: net.seen.append("gradient"))
    net[4].bias.register_post_accumulate_grad_hook(lambda p: net.seen.append("accumulated"))
    net.train()
    net[1].eval()
    net[0].bias.requires_grad_(False)
    body = nn.Sequential(*list(net)[:8])
    body(X).sum().backward()
    assert net[7].weight.grad is not None
    assert net[0].bias.grad is None
    return net


def trained(net):
    """The hooks that one training step calls."""
    net.seen.clear()
    nn.Sequential(*list(net)[:8])(X).sum().backward()
    return list(net.seen)


def bits(t):
    if t.layout != torch.strided:
        t = t.to_dense()
    raw = t.detach().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)
    return t.dtype, tuple(t.shape), raw.tolist()


def tensors(net):
    for path, module in net.named_modules():
        for name, t in (*module._parameters.items(), *module._buffers.items(), *vars(module).items()):
            if isinstance(t, torch.Tensor):
                yield f"{path}.{name}", t


def picture(net):
    """Everything about a model that must not change, by value and by identity."""
    seen = {}
    for path, module in net.named_modules(remove_duplicate=False):
        seen[path] = (id(module), type(module), sorted(vars(module)), sorted(vars(type(module))))
        for key, value in vars(module).items():
            if isinstance(value, dict):
                seen[path, key] = [(k, id(v)) for k, v in value.items()]
            elif isinstance(value, list | set | int | str | bool):
                seen[path, key] = copy.copy(value)
    for name, t in tensors(net):
        seen["tensor", name] = (id(t), bits(t), t.stride() if t.layout == torch.strided else None)
        seen["flags", name] = (t.requires_grad, t.is_leaf, None if t.grad_fn is None else id(t.grad_fn))
        if t.is_leaf:
            seen["grad", name] = None if t.grad is None else (id(t.grad), bits(t.grad))
        hooks = t._backward_hooks, t._post_accumulate_grad_hooks
        seen["hooks", name] = [None if h is None else list(h.items()) for h in hooks]
        seen["attributes", name] = dict(vars(t))
    return seen


def world():
    kind, keys, position, *rest = np.random.get_state()
    return (
        *(random.getstate(), kind, keys.tolist(), position, rest, torch.get_rng_state().tolist()),
        *(torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.are_deterministic_algorithms_enabled()),
        *(torch.is_deterministic_algorithms_warn_only_enabled(), torch.backends.cudnn.benchmark),
        *(torch.backends.cudnn.deterministic, torch.backends.cudnn.enabled),
    )


# -- what a library may do to a model --------------------------------------------------------------------------------


def train_forward(net):
    net.train().requires_grad_(True)
    nn.Sequential(*list(net)[:8])(X).sum().backward()


def write_values(net):
    with torch.no_grad():
        for _, t in tensors(net):
            if t.layout == torch.strided and t.numel():
                t.copy_(torch.ones_like(t))
        net.odd.sparse.mul_(2)
    net.odd.zero_d.data = torch.tensor(0.0)


def negate_zero(net):
    net.odd.zero_d.neg_()
    assert net.odd.zero_d == -0.0


def exchange_data(net):
    for p in net.parameters():
        p.data = torch.zeros(7)


def resize(net):
    net[7].weight.resize_(80, 1)


def replace_parameters(net):
    for module in list(net.modules()):
        for name in list(module._parameters):
            module._parameters[name] = None if name == "bias" else nn.Parameter(torch.zeros(1))
        module._buffers.clear()


def replace_modules(net):
    net[2] = nn.ReLU()
    del net[3]
    net.extra = nn.Linear(1, 1)
    net._modules = dict(net._modules)


def half(net):
    net.odd = nn.Identity()
    net.half()


def add_hooks(net):
    for module in net.modules():
        module.register_forward_hook(lambda *a: None)
        module.register_forward_pre_hook(lambda *a: None, with_kwargs=True)
        module.register_full_backward_hook(lambda *a: None)
        module.register_full_backward_pre_hook(lambda *a: None)
        module.register_state_dict_post_hook(lambda *a: None)
        module.register_load_state_dict_post_hook(lambda *a: None)
    for p in net.parameters():
        p.requires_grad_(True)
        p.register_hook(lambda g: g)
        p.register_post_accumulate_grad_hook(lambda p: None)


def remove_hooks(net):
    for module in net.modules():
        module._forward_hooks.clear()
        module._backward_hooks = {}
    net[0].weight._backward_hooks.clear()


def add_attributes(net):
    for module in net.modules():
        module.relevance = torch.zeros(3)
        module.forward = lambda *a: None
        del module.training
    net.odd.settings["b"] = 2
    net.odd.layers.append(3)
    net.odd.settings = None
    for p in net.parameters():
        p.score = 1


def parametrize_weight(net):
    parametrize.register_parametrization(net[7], "weight", nn.Tanh())
    parametrize.remove_parametrizations(net[4], "weight")
    nn.utils.remove_spectral_norm(net[5])


def gate_in_place(net):
    gate = torch.tensor(1.0, requires_grad=True)
    for p in net.parameters():
        if p.dtype == torch.float32 and p.numel():
            p.mul_(gate * 2)
            assert not p.is_leaf


def set_grads(net):
    for p in net.parameters():
        if p.grad is not None:
            p.grad.zero_()
        p.grad = torch.ones_like(p)


def flip_flags(net):
    net.eval()
    for i, module in enumerate(net.modules()):
        module.training = bool(i % 2)
    for p in net.parameters():
        p.requires_grad_(p.is_floating_point())


ACTS = [
    *(
        train_forward,
        write_values,
        negate_zero,
        exchange_data,
        resize,
        replace_parameters,
        replace_modules,
        half,
        add_hooks,
    ),
    *(remove_hooks, add_attributes, parametrize_weight, gate_in_place, set_grads, flip_flags),
]


def disturb_world():
    random.random()
    np.random.rand()
    torch.rand(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.deterministic = True
    torch.set_grad_enabled(False)


@pytest.mark.parametrize("ending", [None, ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("act", ACTS, ids=lambda a: a.__name__)
def test_everything_is_as_it_was(act, ending):
    net = build()
    calls = trained(net)
    before, around = picture(net), world()

    def inside():
        with guard(net):
            act(net)
            if act is not negate_zero:
                assert picture(net) != before, "or the act does nothing"
            disturb_world()
            if ending:
                raise ending

    if ending:
        with pytest.raises(ending):
            inside()
    else:
        inside()
    after = picture(net)
    assert {k for k in before if before[k] != after.get(k)} == set()
    assert before == after
    assert world() == around
    assert net.odd.view.data_ptr() == net.odd.strided.data_ptr() or act is resize, "what shared memory still does"
    assert trained(net) == calls, "and it still trains, through the same hooks"


def test_negative_zero_is_not_zero():
    net = build()
    with guard(net):
        net.odd.zero_d.neg_()
        assert bits(net.odd.zero_d)[2][-1] == 0
    assert bits(net.odd.zero_d)[2][-1] == 128


def test_inside_it_is_frozen_in_eval_mode_without_gradients():
    net = build()
    with torch.no_grad(), guard(net):
        assert not any(m.training for m in net.modules())
        assert not any(p.requires_grad or p.grad is not None for p in net.parameters())
        assert torch.is_grad_enabled()
    with guard(net, freeze=False):
        assert net.training
        assert net[7].weight.requires_grad


def test_inside_inference_mode_gradients_work_nevertheless():
    net = nn.Linear(2, 1)
    with torch.inference_mode():
        with guard(net):
            x = torch.ones(1, 2, requires_grad=True)
            (gradient,) = torch.autograd.grad(net(x).sum(), x)
        assert torch.is_inference_mode_enabled()
    assert torch.equal(gradient, net.weight.detach())


def test_unchanged_tensors_keep_their_version_so_that_an_older_graph_can_go_backward():
    net = build()
    body = nn.Sequential(*list(net)[:5], nn.Flatten(), nn.Linear(256, 1)).train()
    expected = copy.deepcopy(body)
    expected(X).pow(2).sum().backward()
    torch.manual_seed(3)
    loss = body(X).pow(2).sum()
    versions = [p._version for p in body.parameters()]
    for p in body.parameters():
        p.grad = None
    with guard(body):
        x = X.clone().requires_grad_()
        body(x).sum().backward()
    assert [p._version for p in body.parameters()] == versions
    loss.backward()
    grads = [p.grad for p in body.parameters() if p.requires_grad]
    assert all(g is not None and torch.isfinite(g).all() for g in grads)


def test_a_graph_from_before_gives_the_same_gradient_with_and_without_a_guard_in_between():
    def gradient(guarded):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))
        loss = net(torch.ones(2, 3)).pow(2).sum()
        if guarded:
            with guard(net):
                net(torch.ones(2, 3, requires_grad=True)).sum().backward()
        loss.backward()
        return [bits(p.grad) for p in net.parameters()]

    assert gradient(True) == gradient(False)


def test_several_models_that_share_a_part_and_nested_guards():
    shared = nn.Linear(2, 2)
    a, b = nn.Sequential(shared, nn.Linear(2, 1)), nn.Sequential(nn.Linear(2, 2), shared)
    before = picture(a), picture(b)
    with guard(a, b):
        with guard(shared):
            shared.weight.data.fill_(9)
        assert not (shared.weight == 9).any()
        shared.weight.data.fill_(8)
    assert (picture(a), picture(b)) == before


def test_without_models_it_restores_the_generators():
    around = world()
    with guard():
        disturb_world()
        assert world() != around
    assert world() == around


def test_one_failing_restoration_does_not_stop_the_others():
    class Stubborn(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("wide", torch.zeros(1).expand(4))

    net, stubborn, around = build(), Stubborn(), world()
    before = picture(net)

    def inside():
        with guard(stubborn, net):
            stubborn.wide.untyped_storage()[0] = 1
            train_forward(net)
            disturb_world()

    with pytest.raises(RuntimeError, match="single memory location"):
        inside()
    assert picture(net) == before
    assert world() == around
