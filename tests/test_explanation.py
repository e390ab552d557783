"""Results: saved and loaded exactly, joined and indexed, also a third party's and one of an unknown type."""

import dataclasses
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from genxai_core import Attribution, Component, Explanation, Samples, storage
from genxai_core.errors import ExplainerError, InputError, StorageError
from genxai_core.explanation import GenericExplanation
from genxai_core.plugins import Plugin, PluginHost
from genxai_core.registry import Registry, using

# -- a third party's type: these fifteen lines are all that it takes ---------------------------------------------------


@dataclass(frozen=True, eq=False)
class Ranking(Explanation):
    """Units by their effect, and a text per sample."""

    type_name: ClassVar[str] = "ranking"
    per_sample: ClassVar[tuple[str, ...]] = ("order", "texts", "extra")

    order: torch.Tensor
    texts: tuple[str, ...]
    extra: list[float] | None = None
    layers: Mapping[str, Any] = field(default_factory=dict)

    def table(self):
        return [{"first": int(row[0]), "text": text} for row, text in zip(self.order, self.texts)]


@pytest.fixture
def installed(monkeypatch):
    """A registry in which the third party's type is installed."""
    module = ModuleType("genxai_ranking")
    module.Ranking = Ranking
    monkeypatch.setitem(sys.modules, "genxai_ranking", module)
    host = PluginHost(entry_points=[])
    component = Component("explanation", "ranking", "genxai_ranking:Ranking", "s")
    host.plugins.append(Plugin("third-party", "1", (component,)))
    with using(Registry(host)):
        yield


@pytest.fixture
def bare():
    with using(Registry(PluginHost(entry_points=[]))):
        yield


def ranking():
    return Ranking(
        order=torch.tensor([[2, 0, 1], [1, 2, 0]]),
        texts=("a", "b"),
        extra=[0.5, float("nan")],
        layers={"z": (torch.ones(2), {"x": [None, True, float("inf")]}), "a": torch.empty(0)},
        provenance={"explainer": {"use": "explainer/rank", "with": {"k": 3}}, "seed": 0},
    )


def attribution(n=3, **changes):
    at = torch.arange(float(n))
    fields = {
        "maps": at[:, None, None] + torch.linspace(-1, 1, 20).reshape(1, 4, 5),
        "target": torch.arange(n) % 2,
        "logits": at - 1,
        "baseline": torch.zeros(n, 3, 4, 5),
        "delta": at / 7,
        "images": at[:, None, None, None].expand(n, 3, 4, 5) / 10,
        "value_range": (0.0, 1.0),
        "notes": {"layer": "features.3", "steps": 64, "nested": {"b": 1, "a": (2,)}},
        "provenance": {"explainer": "Mine", "seed": 3},
    }
    return Attribution(**{**fields, **changes})


def equal(a, b):
    """Whether two values are the same, tensors bit for bit, dicts in order."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(equal, a, b))
    return (a == b and type(a) is type(b)) or (a != a and b != b)


def same(a, b):
    names = [f.name for f in dataclasses.fields(a)]
    return type(a) is type(b) and all(equal(getattr(a, n), getattr(b, n)) for n in names)


# -- saving ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"target": 1, "logits": None, "baseline": None, "delta": None, "images": None},
        {"maps": torch.rand(3, 2, 4, 5)},
    ],
)
def test_an_attribution_comes_back_exactly(tmp_path, changes):
    saved = attribution(**changes)
    assert saved.save(tmp_path / "out") == tmp_path / "out"
    assert same(saved, Explanation.load(tmp_path / "out"))
    assert same(saved, Attribution.load(str(tmp_path / "out")))
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"arrays.safetensors", "explanation.json", "hashes.json"}


def test_a_third_partys_type_comes_back_exactly(tmp_path, installed):
    ranking().save(tmp_path / "out")
    found = Explanation.load(tmp_path / "out")
    assert type(found) is Ranking
    assert same(ranking(), found)


def files(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_an_unknown_type_becomes_generic_and_saves_back_identically(tmp_path, bare):
    ranking().save(tmp_path / "out")
    found = Explanation.load(tmp_path / "out")
    assert type(found) is GenericExplanation
    assert found.original_type == "ranking"
    assert found.values["texts"] == ("a", "b")
    assert torch.equal(found.values["order"], ranking().order)
    found.save(tmp_path / "again")
    assert files(tmp_path / "again") == files(tmp_path / "out")
    assert found.table() == []
    assert found.plot() is None
    assert "GenericExplanation" in found._repr_html_()


def test_generic_and_back_to_the_real_type_when_the_plugin_is_there(tmp_path, bare, request):
    ranking().save(tmp_path / "out")
    Explanation.load(tmp_path / "out").save(tmp_path / "again")
    request.getfixturevalue("installed")
    assert same(ranking(), Explanation.load(tmp_path / "again"))


def test_the_same_result_is_the_same_bytes(tmp_path):
    attribution().save(tmp_path / "a")
    attribution().save(tmp_path / "b")
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_saving_again_replaces_and_failing_keeps(tmp_path):
    attribution(3).save(tmp_path / "out")
    attribution(2).save(tmp_path / "out")
    assert len(Explanation.load(tmp_path / "out")) == 2
    with pytest.raises(StorageError, match=r"notes\.bad: a object cannot be saved"):
        attribution(notes={"bad": object()}).save(tmp_path / "out")
    assert len(Explanation.load(tmp_path / "out")) == 2


def test_a_type_without_a_name_is_not_saved(tmp_path):
    @dataclass(frozen=True, eq=False)
    class Nameless(Explanation):
        x: int = 1

    with pytest.raises(StorageError, match="Nameless has no type_name"):
        Nameless().save(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def rewrite(folder, change):
    """Change a saved folder as a stranger would, hashes included."""
    head = json.loads((folder / "explanation.json").read_text())
    head = change(head)
    (folder / "explanation.json").write_text(head if isinstance(head, str) else json.dumps(head))
    storage.write_json(folder / "hashes.json", storage.hashes(folder))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda h: {**h, "format": 2}, "format 2; this genxai reads 1: update genxai-core"),
        (lambda h: {k: v for k, v in h.items() if k != "format"}, "format None"),
        (lambda h: {**h, "type": "model/x"}, "'model/x' is not an explanation"),
        (lambda h: {k: v for k, v in h.items() if k != "type"}, "is not an explanation"),
        (lambda h: {k: v for k, v in h.items() if k != "fields"}, "has no fields"),
        (lambda h: {**h, "fields": [1]}, "has no fields"),
        (lambda h: {**h, "fields": {**h["fields"], "colour": 1}}, "another version of explanation/attribution"),
        (lambda h: {**h, "fields": {"target": 1}}, "another version of explanation/attribution"),
        (lambda h: {**h, "fields": {**h["fields"], "maps": {"$tensor": "gone"}}}, "tensor 'gone' is missing"),
        (lambda h: [h], "damaged"),
        (lambda h: "null", "damaged"),
        (lambda h: "{", "damaged JSON"),
    ],
)
def test_what_a_stranger_changed_is_a_storage_error(tmp_path, change, said):
    attribution().save(tmp_path / "out")
    rewrite(tmp_path / "out", change)
    with pytest.raises(StorageError, match=said) as caught:
        Explanation.load(tmp_path / "out")
    assert len(str(caught.value).splitlines()) == 1


def test_damage_is_found(tmp_path):
    attribution().save(tmp_path / "out")
    path = tmp_path / "out" / "arrays.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(StorageError, match=r"arrays\.safetensors: changed"):
        Explanation.load(tmp_path / "out")
    with pytest.raises(StorageError, match="not a complete genxai directory"):
        Explanation.load(tmp_path / "nowhere")


# -- indexing and joining --------------------------------------------------------------------------------------------


def test_indexing_takes_the_samples_and_keeps_the_rest():
    whole = attribution(4)
    part = whole[[3, 1]]
    assert torch.equal(part.maps, whole.maps[[3, 1]])
    assert part.target.tolist() == [1, 1]
    assert part.logits.tolist() == [2.0, 0.0]
    assert torch.equal(part.images, whole.images[[3, 1]])
    assert (part.notes, part.value_range, part.provenance) == (whole.notes, whole.value_range, whole.provenance)
    assert len(whole[-1]) == 1
    assert len(whole[1:3]) == 2
    assert len(whole[[]]) == 0
    with pytest.raises(InputError, match="out of range"):
        whole[4]


def test_joining_undoes_indexing_also_for_a_third_partys_lists():
    whole = attribution(4)
    assert same(whole, Attribution.concat([whole[:1], whole[1:3], whole[3]]))
    r = ranking()
    assert same(r, Ranking.concat([r[0], r[1]]))
    assert r[1].texts == ("b",)
    assert isinstance(r[0].extra, list)
    assert Ranking.concat([r, dataclasses.replace(r, extra=None)]).extra is None


def test_a_loop_goes_through_the_samples():
    assert [one.target.tolist() for one in attribution(3)] == [[0], [1], [0]]
    assert same(attribution(3), Attribution.concat(list(attribution(3))))
    assert [one.texts for one in ranking()] == [("a",), ("b",)]
    assert list(attribution(3)[:0]) == []
    samples = Samples(torch.zeros(3, 1, 2, 2), labels=torch.arange(3), value_range=(0, 1))
    assert [(type(one), one.labels.tolist()) for one in samples] == [(Samples, [i]) for i in range(3)]


def test_results_of_other_types_do_not_join():
    with pytest.raises(ExplainerError, match="Attribution: results of other types cannot be joined: Attribution, Rank"):
        Attribution.concat([attribution(), ranking()])
    with pytest.raises(ExplainerError, match="Attribution: results of other types cannot be joined: Ranking"):
        Attribution.concat([ranking()])
    assert len(Attribution.concat([attribution(3), attribution(2)])) == 5


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {"a": 1}),
        ({"a": 1}, {"b": 1}),
        ({"a": [1, 2]}, {"a": [1, 3]}),
        ({"a": (1, 2)}, {"a": [1, 2, 3]}),
        ({"a": torch.zeros(2)}, {"a": torch.zeros(3)}),
        ({"a": torch.zeros(2)}, {"a": torch.tensor([0.0, math.nan])}),
        ({"a": torch.zeros(2)}, {"a": None}),
        ({"a": None}, {"a": np.zeros(2)}),
        ({"a": math.nan}, {"a": 1.0}),
    ],
)
def test_what_is_not_per_sample_must_agree_to_be_joined(one, other):
    r = ranking()
    with pytest.raises(ExplainerError, match="differ in their layers cannot be joined"):
        Ranking.concat([dataclasses.replace(r, layers=one), dataclasses.replace(r, layers=other)])
    for layers in (one, other):
        again = {key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in layers.items()}
        assert len(Ranking.concat([dataclasses.replace(r, layers=x) for x in (layers, again)])) == 4


def test_of_notes_and_provenance_the_firsts_are_kept_and_a_list_is_as_good_as_a_tuple():
    one, other = attribution(2), attribution(2)
    other = dataclasses.replace(other, notes={"layer": "else"}, provenance={"seed": 9}, value_range=[*one.value_range])
    joined = Attribution.concat([one, other])
    assert (joined.notes, joined.provenance, len(joined)) == (one.notes, one.provenance, 4)
    with pytest.raises(ExplainerError, match="differ in their value_range"):
        Attribution.concat([one, dataclasses.replace(one, value_range=(0.0, 9.0))])


def test_samples_of_several_shapes_are_refused_in_one_line():
    one = Attribution(torch.zeros(2, 3, 4))
    with pytest.raises(ExplainerError, match=r"their maps is \[3, 4\] on cpu and \[3, 3, 4\] on cpu") as raised:
        Attribution.concat([one, Attribution(torch.zeros(0, 3, 3, 4))])
    assert "\n" not in str(raised.value)


def test_what_has_no_samples_counts_as_one_and_does_not_join():
    @dataclass(frozen=True, eq=False)
    class One(Explanation):
        value: float = 0.0

    assert len(One()) == 1
    assert One.concat([One(2.0)]).value == 2.0
    with pytest.raises(ExplainerError, match="One declares no per_sample fields"):
        One.concat([One(), One()])
    with pytest.raises(ExplainerError, match="no results"):
        One.concat([])


# -- attribution -----------------------------------------------------------------------------------------------------


def test_one_target_stands_for_all():
    assert attribution(target=2).target.tolist() == [2, 2, 2]
    assert attribution(target=2).target.dtype == torch.int64


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"maps": torch.zeros(4, 5)}, r"must be \[N, H, W\] or \[N, C, H, W\], not \[4, 5\]"),
        ({"maps": torch.zeros(3, 1, 1, 4, 5)}, "must be"),
        ({"target": torch.zeros(2)}, "target has 2 rows for 3 maps"),
        ({"logits": torch.zeros(1)}, "logits has 1 rows for 3 maps"),
        ({"images": torch.zeros(4, 3, 4, 5)}, "images has 4 rows for 3 maps"),
    ],
)
def test_what_does_not_fit_is_refused(changes, said):
    with pytest.raises(ExplainerError, match=said):
        attribution(**changes)


def test_it_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        attribution().maps = None


def test_the_table_is_what_the_maps_say():
    maps = torch.tensor([[[3.0, -1.0]], [[0.0, 0.0]], [[-2.0, -2.0]]])
    result = Attribution(maps, target=1, logits=torch.tensor([0.5, -0.5, 0.0]), delta=torch.tensor([0.0, 1.0, 2.0]))
    assert result.table() == [
        {"sample": 0, "target": 1, "logit": 0.5, "sum": 2.0, "max_abs": 3.0, "positive_share": 0.75, "delta": 0.0},
        {"sample": 1, "target": 1, "logit": -0.5, "sum": 0.0, "max_abs": 0.0, "positive_share": 0.0, "delta": 1.0},
        {"sample": 2, "target": 1, "logit": 0.0, "sum": -4.0, "max_abs": 2.0, "positive_share": 0.0, "delta": 2.0},
    ]
    frame = pytest.importorskip("pandas") and result.to_dataframe()
    assert frame["positive_share"].tolist() == [0.75, 0.0, 0.0]


def test_a_notebook_shows_the_picture_and_not_a_thousand_numbers():
    page = attribution()._repr_html_()
    assert "data:image/png;base64," in page
    assert "Attribution, 3 samples" in page
    assert "tensor(" not in page
