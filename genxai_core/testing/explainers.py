"""The conformance class of explainers."""

from __future__ import annotations

from .explainer_results import ResultChecks
from .explainer_safety import SafetyChecks
from .explainer_truth import TruthChecks


class ExplainerTests(ResultChecks, TruthChecks, SafetyChecks):
    """Hold an explainer to its contract: ``class TestOcclude(ExplainerTests): component = "explainer/occlude"``.

    By default the model is the tiny one that fits ``explains``, and the inputs are five that fit ``accepts``. Override
    `model` and `inputs` for an explainer that needs others.

    Attributes
    ----------
    target_index
        The class to explain; None where the model has a single logit.
    sign
        ``signed``: positive speaks for the target, negative against it. ``positive``: the method shows only what speaks
        for it (rectified ones, such as Guided Backprop). ``unsigned``: it has no sign by definition. The last two need
        `sign_reason`.
    sign_reason
        Why, in words.
    inside
        The least share of a map's energy (its squares) that must lie in the only patch that moves the logit. Besides,
        no place a pixel off may hold more than that patch, by more than 5% of the energy.
    monte_carlo
        For a stochastic explainer whose noise is drawn per batch: by how much one at a time may differ from the batch,
        as a share of the largest magnitude. 0 asks for equality within ``rtol`` and ``atol``.
    cuda_tolerance
        Allowed difference of CUDA from the CPU, as a share of the largest magnitude.
    """
