from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tz_protocol.dialects.thinking import ThinkSplitter


def split(*pieces):
    splitter = ThinkSplitter()
    found = [splitter.split(piece) for piece in pieces]
    found.append(splitter.rest())
    return "".join(one for one, _ in found), "".join(other for _, other in found)


CASES = [
    ("", "", ""),
    ("a", "", "a"),
    ("<think>a</think>b", "a", "b"),
    ("\n<think>\na\n</think>\n\nb\n", "a\n", "b\n"),
    ("<think></think>b", "", "b"),
    ("<think>\n\n</think>\n\nb", "", "b"),
    ("<think>a", "a", ""),
    ("<think>a</thi", "a</thi", ""),
    ("<thin", "", "<thin"),
    ("<thinking>a", "", "<thinking>a"),
    (" \n", "", " \n"),
    ("a <think>b</think>", "", "a <think>b</think>"),
    ("<think>a</think>b<think>c</think>", "a", "b<think>c</think>"),
    ("<think>a<think>b</think>c", "a<think>b", "c"),
    ("<think>a</think>", "a", ""),
    ("<think></think></think>", "", "</think>"),
]


@pytest.mark.parametrize(("text", "thought", "said"), CASES)
def test_thought_is_what_stands_in_a_block_at_the_beginning(text, thought, said):
    assert split(text) == (thought, said)
    assert split(*text) == (thought, said)


@given(
    st.lists(
        st.sampled_from(["<think>", "</think>", " ", "\n", "a", "<", "th", "ink>", "/"])
    ),
    st.lists(st.integers(0, 40)),
)
def test_thought_does_not_depend_on_cuts(words, cuts):
    text = "".join(words)
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[a:b] for a, b in itertools.pairwise(edges)]
    thought, said = split(*pieces)
    assert (thought, said) == split(text)
    whole = thought + said
    assert whole in text or len(whole) < len(text)


def test_splitter_is_over_when_only_content_can_follow():
    splitter = ThinkSplitter()
    steps = [
        (splitter.split(text), splitter.is_over)
        for text in ("<think>a</think>\n", "b", " <think>")
    ]
    assert steps == [
        (("a", ""), False),
        (("", "b"), True),
        (("", " <think>"), True),
    ]
