"""The parts of the report: pictures, summaries, the sketch of the steps, texts."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib as mpl
import pytest
import torch
from matplotlib.font_manager import get_font
from matplotlib.ft2font import LoadFlags
from report_runs import attribution, images, report, write_run

from genxai_core import plots
from genxai_core.explanation import GenericExplanation
from genxai_core.interfaces import Dataset
from genxai_core.report import (
    figures_of,
    graph,
    steps,
    summary_of,
    text,
)
from genxai_core.samples import Samples
from genxai_core.trained import Trained

# -- parts ------------------------------------------------------------------------------------------------------


class Ramp(Dataset):
    value_range = (0.0, 1.0)
    image_shape = (1, 8, 8)

    def __len__(self):
        return 100

    def _samples(self, rows):
        return Samples(images(100)[rows], value_range=self.value_range)


@pytest.mark.parametrize(
    ("result", "names"),
    [
        (Samples(images(), value_range=(0.0, 1.0)), ["images"]),
        (Ramp(), ["images"]),
        (Trained({}, {"loss": [1.0, 2.0]}), ["history"]),
        (Trained({}), []),
        (attribution(), ["explanation"]),
        (torch.nn.Linear(1, 1), []),
        ({"kid": 0.1}, []),
        (None, []),
    ],
)
def test_standard_pictures(result, names):
    found = figures_of(result)
    assert list(found) == names
    assert all(plots.png(figure).startswith(b"\x89PNG") for figure in found.values())


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (Samples(images(1), value_range=(0.0, 1.0)), "1 image of 1×8×8"),
        (Ramp(), "100 images of 1×8×8"),
        (
            Trained({"generator": torch.nn.Linear(2, 2), "critic": torch.nn.Linear(2, 1)}, {}, {"steps": 600}),
            "generator, critic; 600 steps",
        ),
        (Trained({"classifier": torch.nn.Linear(2, 2)}), "classifier"),
        (attribution(), "4 maps"),
        (GenericExplanation("vanished", {"a": 1}), "vanished"),
        ({"kid": 0.03512, "kid_se": 0.00841}, "kid 0.03512, kid_se 0.00841"),
        ({f"v{i}": i for i in range(8)}, "v0 0, v1 1, v2 2, v3 3, v4 4, v5 5, and 2 more"),
        (torch.nn.Linear(99, 200), "Linear, 20,000 parameters"),
        ({"text": "a\nb" * 200}, "text " + ("a b" * 200)[:195] + "… (405 more characters)"),
        (3, "int"),
    ],
)
def test_a_result_is_summed_up_in_one_line(result, said):
    assert summary_of(result) == said


def test_the_sketch_follows_references_and_leaves_out_what_they_imply():
    told = {
        "a": {"use": "dataset/a"},
        "b": {
            "use": "trainer/b",
            "call": {"data": "$a"},
            "with": {"text": "$$a", "n": {"use": "x/y", "with": {"m": "$a.b"}}},
        },
        "c": {"use": "explainer/c", "call": {"model": "$b.discriminator", "inputs": ["$a[:16]"]}},
        "d": {"use": "metric/d", "call": {"x": "$nowhere", "y": "$later"}},
    }
    assert graph.parents(told["c"]) == ["b", "a"]
    assert graph.parents(told["b"]) == ["a"]
    drawn = graph.sketch(told)
    columns = {node.name: node.x for node in drawn.nodes}
    assert columns["a"] == columns["d"] == 0 < columns["b"] < columns["c"]
    assert len(drawn.paths) == 2  # a to c is implied by a to b to c
    assert len({(n.x, n.y) for n in drawn.nodes}) == 4
    assert all(0 <= n.x <= drawn.width - n.wide and 0 <= n.y <= drawn.height - graph.HIGH for n in drawn.nodes)


def test_no_arrow_of_the_sketch_runs_under_a_box():
    told = {
        "data": {},
        "judge": {"call": {"x": "$data"}},
        "gan": {"call": {"x": "$data"}},
        "fakes": {"call": {"x": "$gan.generator"}},
        "floor": {"call": {"x": "$judge"}},
        "kid": {"call": {"x": "$fakes"}, "with": {"judge": "$judge.classifier"}},
        "more": {"call": {"x": "$kid", "y": "$judge"}},
        "last": {"call": {"x": "$kid"}, "with": {"judge": "$floor"}},
    }
    drawn = graph.sketch(told)
    assert len(drawn.paths) == 9
    crossed = 0
    for path in drawn.paths:
        x, y, lanes = 0.0, 0.0, []
        for command, numbers in re.findall(r"([MCH])([\d.,\s-]*)", path):
            values = [float(v) for v in re.split(r"[,\s]+", numbers.strip())]
            if command == "H":
                lanes.append((x, values[0], y))
                x = values[0]
            else:
                x, y = values[-2:]
        for begin, end, height in lanes:
            crossed += 1
            for node in drawn.nodes:
                apart = end <= node.x or begin >= node.x + node.wide
                assert apart or not node.y - 5 < height < node.y + graph.HIGH + 5
    assert crossed == 2  # from judge to kid, and from floor to last, over a column each


def drawn_width(text, size, face="DejaVuSans-Bold.ttf"):
    font = get_font(f"{mpl.get_data_path()}/fonts/ttf/{face}")
    font.set_size(size, 72)
    font.set_text(text, 0.0, flags=LoadFlags.NO_HINTING)
    return font.get_width_height()[0] / 64


ASCII = "".join(map(chr, range(33, 127)))


@pytest.mark.parametrize("character", ASCII)
def test_no_letter_is_wider_than_estimated(character):
    repeated = character * 50
    real = drawn_width(repeated, graph.NAME)
    assert real <= graph.width(repeated, graph.NAME) <= 2.5 * real


def test_long_names_fit_their_boxes_and_keep_both_ends():
    names = ["saliency-of-generated", "integrated-gradients-of-real", "m" * 63, "short", "W_" * 25]
    drawn = graph.sketch({name: {"use": "explainer/integrated-gradients-of-everything"} for name in names})
    for node, name in zip(drawn.nodes, names):
        room = node.wide - 2 * graph.MARGIN
        assert drawn_width(node.label, graph.NAME) <= room
        assert drawn_width(node.sort, graph.KIND, "DejaVuSans.ttf") <= room
        assert node.name == name
        front, dots, back = node.label.partition("…")
        assert name.startswith(front)
        assert name.endswith(back)
        assert dots or front == name
    assert [n.label for n in drawn.nodes][:2] == names[:2]
    assert drawn.nodes[2].label.count("m") >= 12
    narrow = graph.sketch({"a": {"use": "x/y"}, "b": {"use": "x/y"}})
    assert {n.wide for n in narrow.nodes} == {graph.NARROWEST}


def test_the_whole_name_is_a_box_s_title(tmp_path, plugins):
    plugins()
    name = "a-very-long-name-of-a-step-" + "x" * 40
    run = write_run(tmp_path / "r", {(name, "metric/kid"): {"kid": 1.0}, ("b", "metric/kid"): {"kid": 1.0}})
    page = report(run)
    assert f"<title>{name}: metric/kid, done</title>" in page
    assert re.search(r'class="name".*?>a-very-long.*?…x+</text>', page)


def test_a_sketch_of_steps_in_a_cycle_or_of_too_many_is_no_trouble():
    assert len(graph.sketch({"a": {"call": {"x": "$b"}}, "b": {"call": {"x": "$a"}}}).paths) == 1
    assert graph.sketch({f"s{i}": {} for i in range(graph.MOST + 1)}) is None
    assert graph.sketch({"only": {}}) is None


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "–"),
        (True, "yes"),
        (3, "3"),
        (0.123456, "0.1235"),
        (float("nan"), "nan"),
        ([1, 2.0], "1, 2"),
        ({"use": "a/b"}, "a/b"),
        ({"use": "a/b", "with": {"n": 1}}, "a/b(n=1)"),
        (torch.zeros(2, 3), "tensor [2, 3]"),
        ("x" * 4001, "x" * 4000 + "… (1 more characters)"),
    ],
)
def test_values_are_told_shortly(value, said):
    assert text.short(value) == said


@pytest.mark.parametrize(
    ("paper", "link", "target"),
    [
        ("Radford et al., ICLR 2016, arXiv:1511.06434", "arXiv:1511.06434", "https://arxiv.org/abs/1511.06434"),
        ("arXiv:1511.06434v2; b", "arXiv:1511.06434v2", "https://arxiv.org/abs/1511.06434v2"),
        ("arXiv:cs/0112017.", "arXiv:cs/0112017", "https://arxiv.org/abs/cs/0112017"),
        (
            "TIP 2021, doi:10.1109/TIP.2021.3089943.",
            "doi:10.1109/TIP.2021.3089943",
            "https://doi.org/10.1109/TIP.2021.3089943",
        ),
        ("(10.1109/a(b)c)", "10.1109/a(b)c", "https://doi.org/10.1109/a(b)c"),
        ("https://doi.org/10.1109/x", "https://doi.org/10.1109/x", "https://doi.org/10.1109/x"),
    ],
)
def test_the_number_of_a_paper_is_its_link(paper, link, target):
    pieces = text.linked(paper)
    assert [(p.text, p.target) for p in pieces if p.target] == [(link, target)]
    assert "".join(p.text for p in pieces) == paper


def test_nothing_else_becomes_a_link():
    pieces = text.linked("A 2020, arXiv:2001.09734; javascript:alert(1) http://x.y https://a.b/c?d=1). end")
    assert [p.target for p in pieces if p.target] == ["https://arxiv.org/abs/2001.09734", "https://a.b/c?d=1"]
    assert (
        "".join(p.text for p in pieces)
        == "A 2020, arXiv:2001.09734; javascript:alert(1) http://x.y https://a.b/c?d=1). end"
    )


def test_long_tables_say_what_they_leave_out():
    table = text.tabulate([{"i": i} for i in range(20)])
    assert len(table.rows) == text.ROWS
    assert table.left_out == 20 - text.ROWS


def test_a_metric_that_cannot_be_had_has_no_arrows(plugins):
    plugins()
    assert steps.directions("metric/kid") == {"kid": "↓", "coverage": "↑"}
    assert steps.directions("metric/absent") == {}


def test_a_sortable_table_has_its_rows_by_each_column_of_numbers_the_largest_first():
    rows = [
        {"unit": i, "name": f"n{i}", "iou": v, "same": 1} for i, v in enumerate((0.2, None, 0.9, float("nan"), 0.5, -1))
    ]
    table = text.tabulate(rows, sortable=True)
    assert [head for head, _ in table.orders] == ["unit", "iou"]  # neither texts nor what does not vary
    by_unit, by_iou = ([cells[0].text for cells in ordered] for _, ordered in table.orders)
    assert by_unit == ["5", "4", "3", "2", "1", "0"]
    assert by_iou == ["2", "4", "0", "5", "1", "3"]  # what is missing or no number comes last
    assert [cells[0].text for cells in table.rows] == ["0", "1", "2", "3", "4", "5"]


def test_orders_are_of_all_rows_not_of_those_that_are_shown():
    table = text.tabulate([{"i": i} for i in range(20)], limit=3, sortable=True)
    assert [[cells[0].text for cells in ordered] for _, ordered in table.orders] == [["19", "18", "17"]]


def test_short_tables_and_those_of_metrics_are_not_sortable():
    assert not text.tabulate([{"i": i} for i in range(text.WORTH_SORTING - 1)], sortable=True).orders
    assert not text.tabulate([{"i": i} for i in range(20)]).orders


def test_the_style_sheet_shows_any_order_that_a_table_can_have():
    style = (Path(text.__file__).parent / "report.css").read_text()
    rows = [{str(k): i * k for k in range(1, 30)} for i in range(8)]
    orders = text.tabulate(rows, sortable=True).orders
    assert len(orders) == text.MOST_ORDERS
    for i in range(1, len(orders) + 2):
        assert f".sortable > input:nth-of-type({i}):checked ~ .scroll:nth-of-type({i})" in style
