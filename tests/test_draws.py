"""Draws are addressed by (seed, index): batch, order and process do not matter."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from genxai_core import draws

ROWS = [
    lambda seed, at: draws.normal(seed, at, (3, 2)),
    lambda seed, at: draws.uniform(seed, at, (5,)),
    lambda seed, at: draws.integers(seed, at, 1000),
]


@pytest.mark.parametrize("draw", ROWS, ids=["normal", "uniform", "integers"])
def test_a_row_depends_on_seed_and_index_only(draw):
    whole = draw(7, range(20))
    assert torch.equal(torch.cat([draw(7, range(7)), draw(7, range(7, 20))]), whole)
    assert torch.equal(draw(7, [19, 3, 3]), whole[[19, 3, 3]])
    assert torch.equal(draw(7, [np.int64(4)]), whole[4:5])
    assert len(draw(7, [])) == 0
    assert not torch.equal(draw(8, range(20)), whole)
    assert len({tuple(row.reshape(-1).tolist()) for row in whole}) == 20, "no two rows are alike"


@pytest.mark.parametrize("shape", [(3,), (1,), (), (2, 5)])
def test_rows_are_those_of_a_generator_of_their_own(shape):
    indices = [5, 2, 2**40, 5]  # an odd number of 32-bit draws leaves half a word behind, which the next must not get
    for drawn, literal in (
        (draws.normal(-3, indices, shape), lambda g: g.standard_normal(shape, dtype=np.float32)),
        (draws.uniform(-3, indices, shape, "latents"), lambda g: g.random(shape, dtype=np.float32)),
    ):
        for row, i in zip(drawn, indices, strict=True):
            assert np.array_equal(row.numpy(), literal(draws.generator(-3, i, "latents")))


def test_the_order_of_an_epoch_can_be_changed_by_whoever_asked_for_it():
    before = draws.batch_indices(0, 0, 8, 8)
    draws.permutation(0, 0, 8)[:] = 0
    assert draws.batch_indices(0, 0, 8, 8) == before


def test_global_generators_neither_matter_nor_move():
    torch.manual_seed(0)
    np.random.seed(0)
    before = draws.normal(1, [0], (4,))
    state = torch.get_rng_state(), np.random.get_state()[1].tolist()
    torch.rand(3)
    np.random.rand(3)
    assert torch.equal(draws.normal(1, [0], (4,)), before)
    torch.manual_seed(0)
    np.random.seed(0)
    draws.integers(1, [0], 5)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert np.random.get_state()[1].tolist() == state[1]


def test_another_process_draws_the_same():
    code = "from genxai_core import draws; print(draws.normal(3, [5], (2,)).tolist(), draws.batch_indices(3, 9, 4, 7))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert out == f"{draws.normal(3, [5], (2,)).tolist()} {draws.batch_indices(3, 9, 4, 7)}"


def test_seeds_of_any_size_and_sign_and_far_indices():
    values = {float(draws.normal(seed, [0], ())) for seed in (0, 1, -1, 2**31, 2**63, 2**64 - 2)}
    assert len(values) == 6
    assert torch.equal(draws.normal(2**64 + 5, [0], (2,)), draws.normal(5, [0], (2,)))
    assert not torch.equal(draws.normal(0, [2**63], (2,)), draws.normal(0, [0], (2,)))
    with pytest.raises(ValueError, match="index -1 is negative"):
        draws.normal(0, [-1], (2,))


def test_streams_never_share_numbers():
    a = draws.generator(0, 0, "latents").random(1000)
    b = draws.generator(0, 0, "order").random(1000)
    assert not np.isin(a, b).any()


def test_indices_have_their_own_counter_range():
    long = draws.generator(0, 0, "x").random(200_000)
    assert not np.isin(draws.generator(0, 1, "x").random(1000), long).any()


def test_shapes_types_and_ranges():
    assert draws.normal(0, range(2), (1, 3, 4)).shape == (2, 1, 3, 4)
    assert draws.normal(0, range(2), ()).shape == (2,)
    assert draws.normal(0, [], (3,)).shape == (0, 3)
    assert draws.uniform(0, [], (3,)).shape == (0, 3)
    assert draws.normal(0, [0], (2,)).dtype == draws.uniform(0, [0], (2,)).dtype == torch.float32
    assert draws.integers(0, range(5), 3).dtype == torch.int64
    u = draws.uniform(0, range(2000), (2,))
    assert float(u.min()) >= 0
    assert float(u.max()) < 1
    assert set(draws.integers(0, range(300), 3).tolist()) == {0, 1, 2}


def test_the_distributions_are_what_they_say():
    n = draws.normal(0, range(4000), (5,)).double()
    assert abs(float(n.mean())) < 4 / 20000**0.5
    assert abs(float(n.var()) - 1) < 4 * (2 / 20000) ** 0.5
    u = draws.uniform(0, range(4000), (5,)).double()
    assert abs(float(u.mean()) - 0.5) < 4 * (1 / 12 / 20000) ** 0.5
    neighbours = torch.corrcoef(torch.stack([n[:-1, 0], n[1:, 0]]))[0, 1]
    assert abs(float(neighbours)) < 4 / 4000**0.5


@pytest.mark.parametrize(("batch", "n"), [(4, 12), (5, 12), (7, 7), (1, 3), (20, 6), (3, 1), (13, 5)])
def test_every_item_is_visited_once_in_every_epoch(batch, n):
    epochs = 4
    steps = -(-epochs * n // batch)
    order = [i for step in range(steps) for i in draws.batch_indices(0, step, batch, n)]
    assert all(len(draws.batch_indices(0, step, batch, n)) == batch for step in range(steps))
    for epoch in range(epochs):
        assert sorted(order[epoch * n : (epoch + 1) * n]) == list(range(n))
        assert order[epoch * n : (epoch + 1) * n] == draws.permutation(0, epoch, n).tolist()
    if n > 5:
        assert order[:n] != order[n : 2 * n], "epochs are shuffled anew"


def test_a_batch_depends_on_seed_and_step_only():
    late = draws.batch_indices(3, 1000, 16, 50)
    assert late == draws.batch_indices(3, 1000, 16, 50)
    assert late != draws.batch_indices(4, 1000, 16, 50)
    assert all(type(i) is int for i in late)


def test_threads_that_draw_side_by_side_do_not_disturb_each_other():
    alone = draws.normal(7, range(400), (5,), "threads")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: draws.normal(7, range(i, i + 50), (5,), "threads"), [0, 50, 100, 150] * 10))
    for i, rows in zip([0, 50, 100, 150] * 10, found):
        assert torch.equal(rows, alone[i : i + 50])


def test_other_seeds_and_streams_in_between_change_nothing():
    first = draws.uniform(1, [3, 4], (2,), "a")
    draws.normal(1, [9], (2,), "b")
    draws.uniform(2, [3], (2,), "a")
    assert torch.equal(draws.uniform(1, [3, 4], (2,), "a"), first)
