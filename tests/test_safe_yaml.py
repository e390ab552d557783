"""The YAML reader against hostile and merely wrong files, with libyaml's parser and with the pure Python one."""

import math
import random

import pytest
import yaml

from genxai_core import safe_yaml
from genxai_core.errors import StorageError


@pytest.fixture(params=["libyaml", "python"], autouse=True)
def parser(request, monkeypatch):
    if request.param == "python":
        monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    elif not hasattr(yaml, "CSafeLoader"):
        pytest.skip("PyYAML was built without libyaml")
    return request.param


def value(text):
    return safe_yaml.parse(text, "f.yaml").value


def refusal(text):
    """The one line with which a file is refused."""
    with pytest.raises(StorageError) as caught:
        safe_yaml.parse(text, "f.yaml")
    message = str(caught.value)
    assert message.splitlines() == [message], "a refusal is one line"
    assert len(message) < 400, "a refusal fits on a screen, whatever the file holds"
    assert message.startswith("f.yaml:")
    assert caught.value.__suppress_context__ or caught.value.__context__ is None, "no traceback of the parser below it"
    return message


# -- scalars, as YAML 1.2's core schema has them ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2e-5", 2e-5),
        ("-1E+3", -1000.0),
        (".5", 0.5),
        ("3.", 3.0),
        ("+12", 12),
        ("-7", -7),
        ("0o17", 15),
        ("0xFf", 255),
        ("0777", 777),
        ("999999999999999999", 10**18 - 1),
        ("-999999999999999999", 1 - 10**18),
        ("0.1", 0.1),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("null", None),
        ("~", None),
        ("", None),
        ("true", True),
        ("FALSE", False),
        *[
            (text, text)
            for text in (
                *("on", "off", "yes", "no", "y", "n", "tRue", "nULL", "2026-02-30", "2026-01-01", "12:30:45"),
                *("1_000", "0b101", "1e", "e5", ".", "..", "0x", "0o8", "$gan.generator", "nan", "inf"),
            )
        ],
    ],
)
def test_scalars_resolve_as_yaml_1_2_says(text, expected):
    found = value(f"a: {text}")["a"]
    assert found == expected
    assert type(found) is type(expected)


def test_nan():
    assert math.isnan(value("a: .nan")["a"])


@pytest.mark.parametrize("text", ["'12'", '"true"', "! 12", "|\n  12", ">-\n  null"])
def test_quoted_scalars_are_strings(text):
    assert isinstance(value(f"a: {text}")["a"], str)


def test_an_empty_file_and_one_of_comments_are_none():
    assert value("") is None
    assert value(b"") is None
    assert value("# nothing\n") is None
    assert value("---\n...\n") is None


def test_a_byte_order_mark_is_skipped():
    assert value(b"\xef\xbb\xbfa: 1") == {"a": 1}


def test_places_name_the_line_and_the_path():
    document = safe_yaml.parse("steps:\n  cams:\n    with:\n      layr: 1\n      sizes: [1,\n        2]\n", "p.yaml")
    assert document.place("steps", "cams", "with", "layr") == "p.yaml:4: steps.cams.with.layr"
    assert document.place("steps", "cams", "with", "sizes", 1) == "p.yaml:6: steps.cams.with.sizes.1"
    assert document.place("steps", "cams", "with", "nowhere", "deeper") == "p.yaml:3: steps.cams.with.nowhere.deeper"
    assert document.place() == "p.yaml:1"


# -- refusals --------------------------------------------------------------------------------------------------------


def test_anchors_and_aliases_are_refused():
    assert refusal("a: 1\nb: &x [1]\nc: *x").startswith("f.yaml:2: anchor &x")
    assert refusal("a: *x").startswith("f.yaml:1: alias *x")
    assert "anchor &key" in refusal("&key a: 1")


def test_an_alias_bomb_is_refused_at_its_first_anchor():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    assert refusal("\n".join(lines)).startswith("f.yaml:1: anchor &a0")


def test_a_merge_key_is_a_plain_key_and_cannot_reach_an_anchor():
    assert value("a: {<<: {b: 1}}") == {"a": {"<<": {"b": 1}}}
    assert "not allowed" in refusal("base: &b {x: 1}\nderived:\n  <<: *b\n")


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/object/apply:os.system ['true']",
        "a: !!python/object:object {}",
        "a: !!str 12",
        "a: !mine {b: 1}",
        "!!map {a: 1}",
        "a: !<tag:yaml.org,2002:int> 3",
        "!!str a: 1",
    ],
)
def test_tags_are_refused(text):
    assert refusal(text).startswith("f.yaml:1: tag '")


@pytest.mark.parametrize("text", ["a: 1\nb: 2\na: 3", "b: 1\nc: {a: 1,\n 'a': 2}", "a: 1\n? 'b'\n: 2\n\"b\": 3"])
def test_duplicate_keys_are_refused_on_the_second_line(text):
    message = refusal(text)
    assert "appears twice" in message
    assert message.startswith(f"f.yaml:{text.count(chr(10)) + 1}:")


def test_a_duplicate_key_of_great_length_still_gives_a_short_message():
    key = "k" * 900
    assert "appears twice" in refusal(f"{key}: 1\n{key}: 2")


@pytest.mark.parametrize("key", ["1", "1.5", "null", "true", "~", "[a]", "{a: b}", "? [a, b]"])
def test_keys_are_strings(key):
    assert "is not a string" in refusal(f"x: 1\n{key}: 2")


def test_yaml_1_1_booleans_are_good_keys():
    assert value("on: 1\nno: 2") == {"on": 1, "no": 2}


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "{a: " * 25_000,
        "[" * 50_000 + "]" * 50_000,
        "- " * 50_000,
        "".join(" " * i + "a:\n" for i in range(440)),
        "? " * 50_000,
        "a: [" + "[" * 100_000,
    ],
    ids=["flow", "flow mapping", "closed flow", "block sequence", "block mapping", "complex keys", "in a mapping"],
)
def test_100_kb_of_nesting_is_refused(text):
    message = refusal(text)
    assert "nested deeper than 40 levels" in message


def test_forty_levels_are_allowed_and_one_more_is_not():
    assert value("[" * 40 + "]" * 40) is not None
    assert "nested deeper" in refusal("[" * 42 + "]" * 42)


def test_huge_integers_are_refused_whatever_their_sign():
    for digits in ("9" * 5000, "-" + "9" * 5000, "0x" + "f" * 5000, "1" + "0" * 18):
        assert "digits" in refusal(f"a: 1\nb: {digits}")
    assert refusal("a: 1\nb: " + "9" * 5000).startswith("f.yaml:2: an integer of 5000 digits")


def test_a_float_beyond_what_a_float_holds_is_refused_not_read_as_infinity():
    assert "too large" in refusal("a: 1e999")
    assert "too large" in refusal("a: -" + "9" * 400 + ".0")
    assert value("a: 1e-999") == {"a": 0.0}


def test_files_above_one_megabyte_are_refused():
    assert value("a: " + "x" * (safe_yaml.MAX_BYTES - 3)) is not None
    assert "above the limit" in refusal("a: " + "x" * safe_yaml.MAX_BYTES)
    assert "above the limit" in refusal(b" " * (safe_yaml.MAX_BYTES + 1))
    assert "above the limit" in refusal("a: " + "€" * (safe_yaml.MAX_BYTES // 2)), "bytes count, not characters"


def test_several_documents_are_refused():
    assert refusal("a: 1\n---\nb: 2").startswith("f.yaml:2: a second document")
    assert refusal("---\n---\n").startswith("f.yaml:2: a second document")
    assert refusal("a: 1\n...\n---\nb: 2").startswith("f.yaml:3: a second document")


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ("a: é".encode("utf-16"), 1),
        ("a: é".encode("utf-32"), 1),
        (b"a: 1\nb: \xff\xfe", 2),
        (b"a: 1\n\n\xc3\x28", 3),
        ("a: 1\nb: \ud800", 2),
    ],
)
def test_what_is_not_utf_8_is_refused_with_its_line(data, line):
    message = refusal(data)
    assert message.startswith(f"f.yaml:{line}: ")
    assert "UTF-8" in message


@pytest.mark.parametrize("character", ["\x00", "\x07", "\x1b", "\x7f", "\x80", "\uffff"])
def test_control_characters_are_refused_with_their_line(character):
    message = refusal(f"é: 1\nb: {character}x")
    assert message.startswith("f.yaml:2: ")
    assert f"U+{ord(character):04X}" in message
    assert character not in message, "a terminal must not see it"


@pytest.mark.parametrize(
    "text", ["a: [1,\nb: 2", "a: 1\n\tb: 2", "a: 'x", "a: b: c", "a: }", "@a", "%YAML 3.0\n---\na", "!t!x"]
)
def test_malformed_yaml_is_refused_on_a_line(text):
    message = refusal(text)
    assert "not valid YAML" in message or "not allowed" in message
    assert message.split(":")[1].isdigit()


def test_a_terminal_escape_in_a_quoted_string_does_not_reach_the_message():
    for text in ('"\\e[2J": 1\n"\\e[2J": 2', '? [ "\\e[2J" ]\n: 1'):
        assert "\x1b" not in refusal(text)


# -- fuzz ------------------------------------------------------------------------------------------------------------

PIECES = (
    *(
        "a",
        "b: ",
        ": ",
        "- ",
        "? ",
        "[",
        "]",
        "{",
        "}",
        ",",
        "&x ",
        "*x",
        "!!int ",
        "!t ",
        "|",
        ">",
        "'",
        '"',
        "#",
        "%",
    ),
    *("\n", "\n  ", "\n    ", "\t", "\r\n", "---\n", "...\n", "1", "1e9", "0x1", "null", "<<: ", "é", "\u2028", "\x85"),
    *("\ufeff", "\\", "\x00", "\U0001f600", "@", "`", "~", "- - - ", "%YAML 1.2\n"),
)


def outcome(data):
    """What a file gives: its value, or a refusal that keeps its promises."""
    try:
        return "value", repr(safe_yaml.parse(data, "f.yaml").value)
    except StorageError as error:
        message = str(error)
    assert len(message.splitlines()) == 1
    assert message.startswith("f.yaml:")
    return "refused", None


def test_random_bytes_only_ever_give_a_value_or_a_storage_error():
    rng = random.Random(0)
    seen = {outcome(rng.randbytes(rng.randrange(60)))[0] for _ in range(1500)}
    assert "refused" in seen


def test_random_yaml_like_text_only_ever_gives_a_value_or_a_storage_error():
    rng = random.Random(1)
    texts = ["".join(rng.choices(PIECES, k=rng.randrange(1, 14))) for _ in range(3000)]
    assert {outcome(text)[0] for text in texts} == {"value", "refused"}


@pytest.mark.parametrize("parser", ["libyaml"], indirect=True)
def test_both_parsers_read_random_values_alike(monkeypatch, parser):
    rng = random.Random(2)
    harmless = [p for p in PIECES if p not in ("\ufeff", "\x85", "\u2028", "\t", "|", ">", "%", "%YAML 1.2\n", "? ")]
    texts = ["".join(rng.choices(harmless, k=rng.randrange(1, 8))) for _ in range(2000)]
    fast = [outcome(text) for text in texts]
    monkeypatch.delattr(yaml, "CSafeLoader")
    slow = [outcome(text) for text in texts]
    both = [(a, b) for a, b in zip(fast, slow) if a[0] == b[0] == "value"]
    assert len(both) > 100
    assert all(a == b for a, b in both)


def test_generated_values_round_trip():
    rng = random.Random(3)

    def draw(depth):
        kind = rng.randrange(7 if depth < 4 else 5)
        if kind == 5:
            return [draw(depth + 1) for _ in range(rng.randrange(4))]
        if kind == 6:
            return {rng.choice(["a", "on", "1", "é ", "x: y", "#", "null", ""]): draw(depth + 1) for _ in range(3)}
        return rng.choice([None, True, 3, -1.5, "12", "x\ny", "no", "2026-02-30", " pad ", "{", "'", '"', "\u00e9"])

    for _ in range(200):
        tree = draw(0)
        text = yaml.safe_dump(tree, allow_unicode=True)
        assert value(text) == tree, text
