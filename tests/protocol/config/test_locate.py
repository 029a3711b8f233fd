from __future__ import annotations

import tomllib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.protocol.config.tomls import Text, texts
from tz_protocol.config.locate import dotted, key_lines


def paths(value, prefix=()):
    """Yield the path of everything below *value*."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, child in items:
        path = (*prefix, key)
        yield path
        if isinstance(child, (dict, list)):
            yield from paths(child, path)


@given(written=texts())
@example(written=Text({"a": {"b": {"c": 1}}}, lambda count: count - 1))
def test_key_lines_agrees_with_tomllib(written):
    lines = key_lines(written.text)
    assert set(lines) == set(paths(tomllib.loads(written.text)))
    assert {path: lines[path] for path in written.places} == written.places


@given(text=st.text())
@example(text="a = [[[")
@example(text='"\\q" = 1')
@example(text="[a")
@example(text="a = {b = 1")
@example(text="= 1")
def test_key_lines_any_text_is_taken(text):
    lines = key_lines(text)
    assert all(1 <= line <= text.count("\n") + 1 for line in lines.values())


def test_key_lines_deep_nesting_keeps_what_was_found():
    lines = key_lines("a = 1\nb = " + "[" * 100_000)
    assert lines["a",] == 1


@pytest.mark.parametrize(
    ("text", "path", "line"),
    [
        ("\n[a.b.c]\n[a.b]\n[a]\n", ("a",), 4),
        ("\n[a.b.c]\n[a.b]\n", ("a",), 3),
        ("\n[a.b.c]\nd = 1\n", ("a", "b"), 2),
        ("[a]\nb.c = 1\nb.d = 1\n", ("a", "b"), 2),
        ("[[a]]\n[[a]]\nb = 1", ("a", 1, "b"), 3),
        ("[[a]]\n[[a]]\nb = 1", ("a",), 1),
        ("[[a]]\n[[a.b]]\n[[a.b]]\n[a.b.c]\n", ("a", 0, "b", 1, "c"), 4),
        ("a = [1,\n{b = 2},\n]", ("a", 1, "b"), 2),
        ('a = """\n\n"""\nb = 1', ("b",), 4),
        ("a = 1979-05-27 07:32:00.5\nb = 1.5\nc = 1", ("c",), 3),
        ('"a\\u0062" = 1', ("ab",), 1),
    ],
)
def test_key_lines_examples(text, path, line):
    tomllib.loads(text)
    assert key_lines(text)[path] == line


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), ""),
        (("a", "b"), "a.b"),
        (("a", 0, "b", 12), "a[0].b[12]"),
        (("models", "gpt-4.1"), 'models."gpt-4.1"'),
        (("openai::x",), '"openai::x"'),
        (("",), '""'),
        (('a"b\\c',), '"a\\"b\\\\c"'),
        (("ä\n\x1b",), '"ä\\u000a\\u001b"'),
    ],
    ids=str,
)
def test_dotted_writes_toml(path, text):
    assert dotted(path) == text


@given(path=st.lists(st.text(), min_size=1))
def test_dotted_can_be_read_back(path):
    text = dotted(tuple(path))
    assert text.isprintable()
    # only characters beyond the first plane need more digits than TOML's short escape
    if all(char.isprintable() or ord(char) < 0x10000 for char in "".join(path)):
        tree = tomllib.loads(f"[{text}]")
        for key in path:
            tree = tree[key]
