"""What the Models dock says follows from the selected model and from what goes on, alone."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from models_desk import ENTRIES, model

from napari_tileseg.widgets.models.asking import ASKED, Question, answer_words, question_for
from napari_tileseg.widgets.models.card import card_rows, normalization_words
from napari_tileseg.widgets.models.chore import Ended
from napari_tileseg.widgets.models.rows import COLUMNS, Row, cell, glyph, hub_row, local_row, matches, size_words, tip
from napari_tileseg.widgets.models.states import Kind, Refusal, Work, ending, press, refused, view
from napari_tileseg.widgets.states import Action

OPEN = local_row(model("open", unknown=["classes", "licence"]))
HERE = local_row(model("cells", title="Cells"))
ROWS = (
    None,
    HERE,
    replace(HERE, trust="needed"),
    replace(HERE, trust="trusted"),
    replace(HERE, damaged=True),
    hub_row(ENTRIES[0]),
    hub_row(ENTRIES[1], {"hub:monai/cells": "cells"}),
)
KINDS = get_args(Kind)


@pytest.mark.parametrize(("row", "kind", "cancelling", "asking"), list(product(ROWS, KINDS, (False, True), (False, True))))
def test_the_button_says_what_it_does(row: Row | None, kind: Any, cancelling: bool, asking: bool) -> None:
    work = Work(kind, "cells", "Cells", cancelling=cancelling and bool(kind))
    shown, deed = view(row, work, asking=asking), press(row, work, asking=asking)
    assert shown.enabled == (deed != "nothing")
    words = {"use": "Use in Segment", "trust": "Trust...", "import": "Import", "cancel": "Cancel"}
    if deed in words:
        assert shown.button == words[deed]
    assert (shown.bar is not None) == work.active
    assert (deed == "cancel") <= work.active
    if work.active:
        assert not {Action.VERIFY, Action.GIVE_ON, Action.DELETE, Action.TRY} & {*shown.links, *shown.row_links}, "one thing at a time"
    if row is not None and not row.removable:
        assert Action.DELETE not in shown.links


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (ROWS[1], "Use in Segment"),
        (ROWS[2], "Trust..."),
        (ROWS[3], "Use in Segment"),
        (ROWS[5], "Download (96 MB)"),
        (ROWS[6], "Use in Segment"),
        (replace(hub_row(ENTRIES[1]), size=None), "Download"),
    ],
)
def test_the_button_by_row(row: Row, words: str) -> None:
    assert view(row, Work()).button == words


@pytest.mark.parametrize(
    ("work", "words", "share"),
    [
        (Work("downloading", "x", "x"), "Asking for x", None),
        (Work("downloading", "x", "x", 31_000_000, 96_000_000), "Downloading 31 of 96 MB", 31 / 96),
        (Work("downloading", "x", "x", 31_000_000), "Downloading 31 MB", None),
        (Work("downloading", "x", "x", 100_000_000, 96_000_000), "Downloading 100 of 96 MB", 1.0),
        (Work("importing", "x", "net.onnx", waiting=2), "Importing net.onnx, 2 more to come", None),
        (Work("finding", "x", "Cells"), "Finding out what Cells would run", None),
        (Work("checking", "x", "Cells", cancelling=True), "Tidying up", None),
    ],
)
def test_the_bar(work: Work, words: str, share: float | None) -> None:
    bar = view(HERE, work).bar
    assert bar is not None
    assert (bar.text, bar.share) == (words, share)


def test_a_row_has_words_for_every_column() -> None:
    row = local_row(model("cells", classes=["background", "a", "b"], output="softmax", kind="nnU-Net", trust="needed", axes="CZYX"))
    assert [cell(row, column) for column in COLUMNS] == ["cells", "classes", "needs trust", "3D", "needed", "5.0 MB", "CC0-1.0", "a, b"]
    assert glyph(row) == "warning"
    assert glyph(replace(row, trust="trusted")) == "check"
    assert glyph(hub_row(ENTRIES[0])) == ""
    assert "Source: needs trust" in tip(row)
    assert cell(local_row(model("x", kind="ONNX")), "Source") == "ONNX"
    assert local_row(model("x", output="sigmoid", classes=["one", "two"])).classes == ("one", "two")


@pytest.mark.parametrize(
    ("size", "words"),
    [(None, ""), (300, "1 kB"), (25_000, "25 kB"), (5_001_764, "5.0 MB"), (96_000_000, "96 MB"), (31_200_000_000, "31.2 GB")],
)
def test_sizes(size: int | None, words: str) -> None:
    assert size_words(size) == words


def test_search_finds_all_words_in_any_case() -> None:
    row = local_row(model("cells", title="Blood Cells", description="White and red.", kind="ONNX"))
    for words in ("", "blood", "RED onnx", "cc0 blood white", "objects"):
        assert matches(row, words), words
    for words in ("green", "blood green"):
        assert not matches(row, words), words


def test_a_stranger_s_words_are_made_harmless() -> None:
    row = local_row(model("x", title="a\x1b[31mb\u202e", licence="\x00MIT", citation="one\ntwo\x07", channels=["a\nb", "c"]))
    said = dict(card_rows(row))
    for text in (row.title, row.licence, *said.values()):
        assert text.isprintable(), text


@pytest.mark.parametrize(
    "rule",
    [
        *({"kind": kind} for kind in ("none", "zscore", "minmax", "steps", "channels")),
        {},
        {"kind": "range", "low": 0, "high": 255},
        {"kind": "percentile", "lower": 1, "upper": 99.8},
    ],
)
def test_every_normalisation_has_words(rule: dict[str, Any]) -> None:
    assert normalization_words(rule)


# Questions


def test_what_is_not_said_can_be_said_later() -> None:
    assert Action.SAY in view(OPEN, Work()).row_links
    assert Action.SAY not in view(HERE, Work()).row_links
    assert Action.SAY not in view(OPEN, Work("checking", "x", "x")).row_links
    asked = view(OPEN, Work(), asking=True, here=True)
    assert (asked.button, asked.links) == ("Remember", (Action.LATER,))
    for kind in ("importing", "downloading"):
        assert ending(Work(kind, "x", "x"), {"name": "net", "unknown": ["classes"]}).links == (Action.SAY,)  # type: ignore[arg-type]
        assert ending(Work(kind, "x", "x"), {"name": "net", "unknown": ["arguments"]}).links == ()  # type: ignore[arg-type]
    assert ending(Work("answering", "x", "x"), {"name": "net", "unknown": ["licence"]}).text == (
        "What was said of net is remembered. Still not said: licence."
    )


def test_only_what_is_not_said_is_asked() -> None:
    assert question_for("x", "x", model("x")) is None
    question = question_for("x", "x", model("x", unknown=["licence", "arguments", "classes"]))
    assert question is not None
    assert question.fields == ("classes", "licence"), "what nobody can be asked stays assumed"


def test_planes_and_volumes_do_not_share_a_window() -> None:
    question = Question("x", "x", ("axes", "window"), model("x"))
    assert answer_words(question, {"axes": "YX", "window": "64, 64"}) == ["--axes", "YX", "--window", "64, 64"]
    assert answer_words(question, {"axes": "ZYX", "window": "64, 64"}) == ["--axes", "ZYX"]
    assert answer_words(question, {"axes": "ZYX", "window": "32, 64, 64"}) == ["--axes", "ZYX", "--window", "32, 64, 64"]


@given(st.dictionaries(st.sampled_from(ASKED), st.text(max_size=20)))
def test_answers_become_pairs_of_words_and_nothing_empty(answers: dict[str, str]) -> None:
    words = answer_words(Question("x", "x", ASKED, model("x")), answers)
    assert len(words) % 2 == 0
    assert all(name.startswith("--") and name[2:] in answers for name in words[::2])
    assert all(words[1::2])


# Ends


def test_what_would_run_is_told_whatever_its_name() -> None:
    event = {
        "event": "error",
        "error": "TrustError",
        "message": "No.",
        "path": "C:\\m\\evil\x1b.pt",
        "what": "it names os.system",
        "findings": ["a"],
    }
    found = refused(event)
    assert found == Refusal("C:\\m\\evil\x1b.pt", "it names os.system", ("a",))
    assert found.name == "evil\\x1b.pt"
    assert found.sentence.isprintable()
    assert refused({"event": "error", "error": "ModelError", "message": "No."}) is None
    assert refused({"event": "error", "error": "TrustError", "message": "No."}) is None
    assert refused(None) is None


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind])
def test_every_end_has_a_sentence(kind: Any) -> None:
    message = ending(Work(kind, "cells", "Cells"), {})
    assert message.text.endswith(".")


def test_an_import_tells_what_is_still_open() -> None:
    work = Work("importing", "x", "x")
    reason = 'x.pt can run any program. Trust it only if you know its author: tileseg models trust "x.pt".'
    message = ending(work, {"name": "net", "unknown": ["classes"], "tests": [], "not_tested": reason})
    assert message.text == "net is here now. Assumed: classes. It needs trust before it can run."
    assert message.kind == "warning"
    passed = ending(work, {"name": "net", "tests": [{"name": "a", "passed": True}], "not_tested": ""})
    assert (passed.kind, passed.text) == ("done", "net is here now. Its test passed.")


@pytest.mark.parametrize(
    ("ended", "words"),
    [
        (Ended(({"event": "error", "error": "ModelError", "message": "No."},), 1), "No."),
        (
            Ended(({"event": "error", "error": "ModelError", "message": "Say its classes (--classes, one name each)."},), 1),
            "Say its classes.",
        ),
        (Ended((), -9), "ended by itself (signal 9)"),
        (Ended((), 1), "ended by itself (status 1)"),
        (Ended((), 2, told="Usage\nNo such command.\n"), "No such command."),
    ],
)
def test_an_end_without_success_is_a_sentence(ended: Ended, words: str) -> None:
    assert ended.error is not None
    assert words in ended.error["message"]
    assert Ended(({"event": "verified"},)).error is None
