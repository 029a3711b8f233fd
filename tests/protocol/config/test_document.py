from __future__ import annotations

import copy
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.config.tomls import Text, trees
from tz_protocol.config import document as module
from tz_protocol.config.document import DEPTH_LIMIT, merge_files
from tz_protocol.errors import ConfigError


def refused(*files: str) -> list[str]:
    """Return what is wrong with *files*, which are called a, b, c."""
    with pytest.raises(ConfigError) as info:
        merge_files(list(zip("abc", files, strict=False)))
    return [str(problem) for problem in info.value.problems]


@given(tree=trees(), cut=st.integers(0, 4))
def test_merge_files_of_halves_is_the_whole(tree, cut):
    items = list(tree.items())
    whole, *halves = (
        Text(dict(part), lambda count: 0).text
        for part in (items, items[:cut], items[cut:])
    )
    document = merge_files(list(zip("ab", halves, strict=True)))
    assert document.data == tomllib.loads(whole)


def is_bad(text: str) -> bool:
    try:
        tomllib.loads(text)
    except ValueError:
        return True
    return False


@given(parts=st.lists(st.text(), max_size=3))
def test_merge_files_any_text_is_read_or_refused(parts):
    files = [(str(index), text) for index, text in enumerate(parts)]
    try:
        data: dict | None = merge_files(files).data
    except ConfigError:
        data = None
    assert (data is None) is any(map(is_bad, parts))


def test_merge_files_none_is_empty_and_has_a_name():
    document = merge_files([])
    assert (document.data, document.config_id) == ({}, "default")
    assert str(document.problem(("a",), "wrong")) == "a: wrong"


def test_merge_files_tables_may_be_spread():
    document = merge_files(
        [
            ("a", "[gateway]\ndebug = true\n[models.x]\nn = 1"),
            ("b", "[models.y]\nn = 2\n[models.x.providers.p]\nn = 3"),
            ("c", "[models.x.providers.q]\nn = 4"),
        ]
    )
    assert document.data == {
        "gateway": {"debug": True},
        "models": {
            "x": {"n": 1, "providers": {"p": {"n": 3}, "q": {"n": 4}}},
            "y": {"n": 2},
        },
    }


def test_merge_files_key_that_two_set_names_both_places():
    files = ["[a]\n[a.b]\nx = 1\ny = 2", "[a.b]\ny = 2\nz = 1", "a.b.x = {}\nc = 1"]
    reason = "sets it too, and files merge, never override"
    assert refused(*files) == [
        f"b:2: a.b.y: set twice: a:4 {reason}",
        f"c:1: a.b.x: set twice: a:3 {reason}",
    ]


def test_merge_files_array_of_tables_is_a_value():
    assert refused("[[a]]\nx = 1", "\n[[a]]\ny = 1") == [
        "b:2: a: set twice: a:1 sets it too, and files merge, never override"
    ]


def test_merge_files_leaves_what_it_read():
    document = merge_files([("a", "[x]\na = 1"), ("b", "[x]\nb = 1")])
    before = copy.deepcopy(document.data)
    merge_files([*document.files, ("c", "[x]\nc = 1")])
    assert document.data == before


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a = 1\nb = = 2", "a:2: not valid TOML: Invalid value (column 5)"),
        ("a = 1\na = 2\n", "a:2: not valid TOML: Cannot overwrite a value (column 6)"),
        ("a = [\n", "a:2: not valid TOML: Unclosed array at the end of the file"),
    ],
)
def test_merge_files_bad_syntax_has_its_line(text, problem):
    (found,) = refused(text)
    # the reason is tomllib's and differs between versions of Python
    assert found.split(": ")[:2] == problem.split(": ")[:2]
    assert found.rpartition(" ")[2] == problem.rpartition(" ")[2]


def test_merge_files_number_without_end_is_refused():
    assert refused("a = 1\nb = " + "9" * 5_000) == [
        "a: not valid TOML: a number has thousands of digits"
    ]


def test_merge_files_every_bad_file_is_named():
    assert [text.partition(":")[0] for text in refused("=", "a = 1", "b")] == ["a", "c"]


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 100_000,
        "a = " + "[" * 70 + "]" * 70,
        ".".join("a" * 70) + " = 1",
        "[" + ".".join("a" * 70) + "]",
    ],
    ids=["open", "arrays", "dotted", "header"],
)
def test_merge_files_too_deep_is_refused(text):
    assert refused(text) == [
        f"a: tables and arrays are nested more than {DEPTH_LIMIT} levels deep"
    ]


def test_merge_files_deep_enough_is_taken():
    merge_files([("a", ".".join("a" * DEPTH_LIMIT) + " = 1")])


def test_merge_files_too_large_is_refused_before_it_is_read(monkeypatch):
    monkeypatch.setattr(module, "SIZE_LIMIT", 10)
    assert refused("a = 1", "= bad =") == [
        "b: the files are too large: more than 10 characters"
    ]


def test_document_place_is_the_nearest_that_is_named():
    document = merge_files(
        [("a", "[x]\ny = 1"), ("b", "\n[x.z]\nw = [1,\n2]"), ("c", "\n\n[v.u]")]
    )
    assert document.place(("x", "y")) == ("a", 2)
    assert document.place(("x", "z", "missing")) == ("b", 2)
    assert document.place(("x", "z", "w", 1)) == ("b", 4)
    assert document.place(("x", "missing")) == ("a", 1)
    assert document.place(("v",)) == ("c", 3)
    assert document.place(("missing",)) == ("", None)


def test_document_config_id_is_of_the_texts():
    first = merge_files([("a", "x = 1"), ("b", "y = 1")]).config_id
    assert merge_files([("c", "x = 1"), ("d", "y = 1")]).config_id == first
    assert merge_files([("a", "x = 1\ny = 1")]).config_id != first
    assert merge_files([("a", "x = 1#"), ("b", "y = 1")]).config_id != first
    assert len(first) == 12
