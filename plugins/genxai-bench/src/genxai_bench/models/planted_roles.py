"""What each unit of a planted generator does, drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from genxai_core import draws

Kind = Literal["cause", "decoy", "noise", "stamp", "shadow"]
Part = Literal["whole", "first", "second", "cover", "block", "strip-0", "strip-1", "strip-2"]


@dataclass(frozen=True)
class Role:
    """What one unit does.

    Parameters
    ----------
    kind
        ``cause`` draws its concept; ``decoy`` is active where the concept is and draws nothing; ``noise`` is active
        anywhere and draws nothing; ``stamp`` draws an artifact; ``shadow`` is active where the artifact is and draws
        nothing.
    concept
        Index of the concept; 0 where the kind has none.
    part
        Of the concept's object, or of the artifact's block, the part in which it is active.
    """

    kind: Kind
    concept: int = 0
    part: Part = "whole"


def draw_roles(
    seed: int, layer: int, *, units: int, concepts: int, redundant: int, split: int, decoys: int, extra: list[Role]
) -> list[Role]:
    """Return the role of each unit of a layer, in an order that the seed decides.

    Parameters
    ----------
    seed, layer
        Address of the draw.
    units, concepts
        How many there are.
    redundant
        How many concepts two units draw, each of them all of it.
    split
        How many concepts two units draw, each of them one half.
    decoys
        How many decoys, dealt to the concepts in turn.
    extra
        Further roles that the layer has.

    Raises
    ------
    ValueError
        If the units are too few for their roles, or the concepts for what is asked of them.
    """
    if min(redundant, split, decoys) < 0 or redundant + split > concepts:
        raise ValueError(
            f"redundant {redundant} and split {split} must not be negative nor together exceed the {concepts} concepts"
        )
    chance = draws.generator(seed, layer, "planted-roles")
    order = [int(c) for c in chance.permutation(concepts)]
    roles = [*extra]
    for rank, concept in enumerate(order):
        if rank < redundant:
            roles += [Role("cause", concept)] * 2
        elif rank < redundant + split:
            roles += [Role("cause", concept, "first"), Role("cause", concept, "second")]
        else:
            roles.append(Role("cause", concept))
    roles += [Role("decoy", order[-1 - i % concepts], "cover") for i in range(decoys)]
    if len(roles) > units:
        raise ValueError(f"units {units} are fewer than the {len(roles)} that draw or mislead; give at least as many")
    roles += [Role("noise")] * (units - len(roles))
    return [roles[int(i)] for i in chance.permutation(units)]
