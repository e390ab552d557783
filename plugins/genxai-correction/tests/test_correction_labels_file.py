"""Label files: what is written is read back, what a spreadsheet adds is read over, anything else names its line."""

from __future__ import annotations

import csv
import os

import pytest
from genxai_correction import labels_file

from genxai_core.errors import InputError


@pytest.fixture
def file(tmp_path):
    def written(content):
        path = tmp_path / "labels.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return written


def test_what_is_written_is_read_back_sorted(tmp_path):
    path = tmp_path / "labels.csv"
    labels_file.write(path, {9: "artifact", 0: "normal", 10: "normal"})
    assert path.read_text() == "index,label\n0,normal\n9,artifact\n10,normal\n"
    assert list(labels_file.read(path, 11).items()) == [(0, "normal"), (9, "artifact"), (10, "normal")]


@pytest.mark.parametrize("labels", [{0: "broken"}, {-1: "normal"}])
def test_what_could_not_be_read_back_is_not_written(tmp_path, labels):
    with pytest.raises(InputError, match="an index is 0 or more, a label normal or artifact"):
        labels_file.write(tmp_path / "labels.csv", labels)
    assert not (tmp_path / "labels.csv").exists()


@pytest.mark.parametrize(
    "content",
    [
        "\ufeffindex,label\r\n1,artifact\r\n0,normal\r\n",  # as a spreadsheet saves it
        "label,index\nartifact,1\nnormal,0\n",
        '"index","label"\n"1","artifact"\n"0","normal"',
        "\nindex, label\n\n1, artifact\n,\n0 ,normal\n\n",
    ],
)
def test_what_a_spreadsheet_adds_is_read_over(file, content):
    assert labels_file.read(file(content), 2) == {0: "normal", 1: "artifact"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("index,label\n0,normal\n1,broken\n", r"labels\.csv:3: label 'broken' is not normal or artifact"),
        ("index,label\n0,Artifact\n", r"labels\.csv:2: label 'Artifact' is not"),
        ("index,label\n0,\n", r"labels\.csv:2: label '' is not"),
        ("index,label\n3,normal\n", r"labels\.csv:2: index 3 is out of range for 3 images, 0 to 2"),
        ("index,label\n-1,normal\n", r"labels\.csv:2: index '-1' is not a whole number"),
        ("index,label\n1.0,normal\n", r"labels\.csv:2: index '1\.0' is not a whole number"),
        ("index,label\n1_0,normal\n", r"labels\.csv:2: index '1_0' is not a whole number"),
        ("index,label\n١,normal\n", r"labels\.csv:2: index '١' is not a whole number"),
        ("index,label\n" + "9" * 5000 + ",normal\n", r"labels\.csv:2: index '9+' is not a whole number"),
        (
            "index,label\n\n1,normal\n0,normal\n01,artifact\n",
            r"labels\.csv:5: index 1 was labelled in line 3 already; keep one of both",
        ),
        ("index,kind\n0,normal\n", r"labels\.csv:1: the columns are 'index', 'kind', not index,label"),
        ("index\n0\n", r"labels\.csv:1: the columns are 'index', not index,label"),
        ("index,label,label\n0,normal,normal\n", r"labels\.csv:1: the columns are"),
        ("index;label\n0;normal\n", r"labels\.csv:1: the columns are 'index;label', not .* with commas between"),
        ("0,normal\n1,artifact\n", r"labels\.csv:1: the columns are '0', 'normal', not"),
        ("index,label\n0\n", r"labels\.csv:2: 1 values for 2 columns"),
        ("index,label\n0,normal,1\n", r"labels\.csv:2: 3 values for 2 columns"),
        ('index,label\n0,"normal\n', r"labels\.csv:2: is not CSV"),
        ('index,label\n0,"nor"mal\n', r"labels\.csv:2: is not CSV"),
        (b"index,label\n0,norm\xe4l\n", r"labels\.csv:2: is not UTF-8 text"),
        (b"", r"labels\.csv: labels no image"),
        ("\ufeff\r\n", r"labels\.csv: labels no image"),
        ("index,label\n", r"labels\.csv: labels no image"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(file, content, said):
    with pytest.raises(InputError, match=f"^{said}") as told:
        labels_file.read(file(content), 3)
    assert "\n" not in str(told.value)


def test_a_cell_over_several_lines_does_not_shift_the_lines_after_it(file):
    with pytest.raises(InputError, match=r"^labels\.csv:4: label 'x'"):
        labels_file.read(file('index,label\n0,"\nnormal"\n1,x\n'), 3)


def test_a_file_that_is_not_there_or_no_file_is_told(tmp_path):
    with pytest.raises(InputError, match=r"missing\.csv: no such file"):
        labels_file.read(tmp_path / "missing.csv", 3)
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(InputError, match=r"pipe\.csv: no such file"):
        labels_file.read(tmp_path / "pipe.csv", 3)


def test_an_endless_file_is_not_read_to_its_end(file, monkeypatch):
    monkeypatch.setattr(labels_file, "MAX_BYTES", 20)
    with pytest.raises(InputError, match="larger than 20 bytes; it is not a file of labels"):
        labels_file.read(file("index,label\n0,normal\n"), 3)


def test_a_huge_cell_is_told(file):
    assert csv.field_size_limit() < 200_000
    with pytest.raises(InputError, match=r"^labels\.csv:\d: is not CSV: field larger"):
        labels_file.read(file("index,label\n0," + "a" * 200_000), 3)
