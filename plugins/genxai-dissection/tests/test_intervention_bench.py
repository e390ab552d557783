"""On the bench's planted units, of which it is known what draws what: all causes, no decoy, and the redundant pairs."""

import pytest

import genxai_core as gx
from genxai_core import Runtime

RUNTIME = Runtime(device="cpu", quiet=True)


@pytest.mark.slow
def test_on_the_bench_all_causes_are_found_and_no_decoy():
    """The task's own cut, its default cover: decoys have a larger IoU than halves."""
    spec = gx.Spec("explainer/unit-effects", {"samples": 4, "mean_samples": 16, "k": "peak"})
    board = gx.create("explainer/bench", contestants=[spec], tasks=("planted-units",), seeds=2).explain(runtime=RUNTIME)
    assert board.failures == {}
    rows = zip(board.contestant, board.measure, board.value.tolist())
    found = [(measure, value) for name, measure, value in rows if name.startswith("explainer/unit-effects")]
    for wanted in ("precision", "recall", "causal-rank"):
        assert [value for measure, value in found if measure == wanted] == [1.0, 1.0]


def planted(seed):
    """An instance of the task, reached through what the registry resolves, as another distribution's code is."""
    bench = gx.resolve("explainer/bench")
    module = __import__(bench.__module__.rpartition(".")[0] + ".tasks", fromlist=["TASKS"])
    return module.task("planted-units").problem(seed)


@pytest.mark.parametrize("seed", [0, 1])
def test_redundant_pairs_are_found_by_joint_ablation_among_all_that_draw(seed):
    """In each layer the units of a pair stand in for each other, and no other two of those that draw or decoys do."""
    problem = planted(seed)
    segmenter, concepts = problem.decided["segmenter"], problem.decided["concepts"]
    for layer, ((one, other, concept),) in problem.truth["pairs"].items():
        units = [unit for unit, role in enumerate(problem.truth["roles"][layer]) if role.kind != "noise"]
        assert {one, other} < set(units)
        how = {"concept": concepts[concept], "layer": layer, "units": tuple(units), "pairs": True, "draws": 0}
        how |= {"segmenter": segmenter, "samples": 4, "mean_samples": 8, "examples": 0}
        found = gx.create("explainer/unit-intervention", **how).explain(problem.model, runtime=RUNTIME)
        assert [set(pair) for pair in found.redundant()] == [{one, other}]
        assert found.drops[0, :2].tolist() == [0, 0]
        assert float(found.drops[0, 2]) == pytest.approx(float(found.shares[0, concept]))
