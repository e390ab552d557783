"""Agreement: with scipy's rank correlation and a literal intersection, ends, ties, and another explainer."""

import pytest
import scipy.stats
import torch
from genxai_metrics.agreement import agreement
from genxai_metrics.ranks import midranks, pearson

import genxai_core as gx
from genxai_core.errors import BadParameter

QUIET = gx.Runtime(device="cpu", quiet=True)


def test_a_map_agrees_with_itself_and_not_with_its_negative():
    maps = gx.draws.normal(0, range(5), (6, 6))
    torch.testing.assert_close(agreement(maps, maps), torch.ones(5, 2).double())
    assert agreement(maps, 3 * maps + 1)[:, 0].tolist() == pytest.approx([1] * 5)
    opposite = agreement(maps, -maps)
    assert opposite[:, 0].tolist() == pytest.approx([-1] * 5)
    assert opposite[:, 1].tolist() == [0] * 5
    torch.testing.assert_close(agreement(maps, -maps, absolute=True), torch.ones(5, 2).double())


@pytest.mark.parametrize("digits", [0, 3])
def test_rank_correlation_is_scipys_with_ties_and_without(digits):
    a, b = (gx.draws.normal(s, range(6), (5, 7)).round(decimals=digits) for s in (1, 2))
    found = agreement(a, b)[:, 0]
    for i in range(6):
        assert float(found[i]) == pytest.approx(scipy.stats.spearmanr(a[i].flatten(), b[i].flatten()).statistic)
        assert midranks(a.flatten(1))[i].tolist() == scipy.stats.rankdata(a[i].flatten()).tolist()


def test_the_intersection_is_the_literal_one():
    a, b = (gx.draws.normal(s, range(6), (10, 10)) for s in (1, 2))
    found = agreement(a, b, top=0.2)[:, 1]
    for i in range(6):
        tops = [set(m[i].flatten().argsort(descending=True)[:20].tolist()) for m in (a, b)]
        assert float(found[i]) == len(tops[0] & tops[1]) / 20
    many = (gx.draws.normal(s, range(500), (10, 10)) for s in (3, 4))
    assert float(agreement(*many, top=0.2)[:, 1].mean()) == pytest.approx(0.2, abs=0.02)


def test_constant_maps_agree_by_chance_and_nan_never():
    some, flat = gx.draws.normal(0, range(3), (6, 6)), torch.full((3, 6, 6), 0.1)
    assert agreement(some, flat, top=0.25).tolist() == [[0, 0.25]] * 3
    assert agreement(flat, flat, top=0.25).tolist() == [[0, 1]] * 3
    assert torch.isfinite(agreement(some.double() * 1e-200, some.double() * 1e200)).all()
    tiny = some.double() * 1e-200
    assert pearson(tiny.flatten(1), tiny.flatten(1)).tolist() == pytest.approx([1] * 3)


def test_it_explains_the_same_images_and_targets_by_the_other_explainer(oracles):
    model, images = oracles.Curved(3).eval(), oracles.images_of(5, 3)
    targets = torch.tensor([2, 0, 1, 1, 2])
    one, other = (gx.create(f"explainer/{n}") for n in ("saliency", "input-x-gradient"))
    made, compared = (e.explain(model, images, target=targets) for e in (one, other))
    expected = agreement(made.maps.sum(1), compared.maps.sum(1), 0.2).mean(0)
    metric = gx.create("metric/agreement", explainer=gx.Spec("explainer/input-x-gradient"), top=0.2)
    for batch_size in (1, 2, 64):
        runtime = QUIET.with_(batch_size=batch_size)
        found = metric.measure(model=model, explanation=made, runtime=runtime)
        assert found["rank_correlation"] == pytest.approx(float(expected[0]), abs=1e-6)
        assert found["top_intersection"] == pytest.approx(float(expected[1]), abs=1e-6)
    itself = gx.create("metric/agreement", explainer=one).measure(model=model, explanation=made, runtime=QUIET)
    assert itself["rank_correlation"] == pytest.approx(1)
    assert itself["top_intersection"] == 1


@pytest.mark.parametrize("top", [0.0, 1.1])
def test_a_share_is_a_share(top):
    with pytest.raises(BadParameter, match="must be a share of the pixels"):
        gx.create("metric/agreement", explainer=gx.Spec("explainer/saliency"), top=top)
