"""Options: defaults, refusals, a trip through JSON."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_tileseg.errors import OptionsError
from napari_tileseg.job import Job, SegmentOptions


@given(
    window=st.none() | st.tuples(st.integers(1, 512), st.integers(1, 512)),
    overlap=st.none() | st.floats(0, 0.99),
    threshold=st.floats(0, 1),
    tta=st.sampled_from([False, True, "flips", "rotations"]),
)
def test_a_job_survives_json(window: tuple[int, int] | None, overlap: float | None, threshold: float, tta: Any) -> None:
    job = Job(model="nuclei-2d", options=SegmentOptions(window=window, overlap=overlap, threshold=threshold, tta=tta), axes="YX")
    assert Job.model_validate_json(job.model_dump_json()) == job


def test_every_option_has_a_title_and_a_description() -> None:
    for name, field in SegmentOptions.model_fields.items():
        assert field.title, name
        assert field.description, name


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param({"overlap": 1.0}, r"overlap = 1\.0", id="overlap of a whole window"),
        pytest.param({"window": (0, 32)}, "window", id="window of nothing"),
        pytest.param({"window": (8, 8, 8, 8)}, "two or three", id="four axes"),
        pytest.param({"device": "gpu"}, "device", id="unknown device"),
        pytest.param({"overlaps": 0.5}, "overlaps", id="misspelt option"),
        pytest.param({"threshold": float("nan")}, "threshold", id="NaN"),
    ],
)
def test_bad_options_get_one_sentence_that_names_them(values: dict[str, object], message: str) -> None:
    with pytest.raises(OptionsError, match=message) as caught:
        SegmentOptions.parse(**values)
    assert "\n" not in str(caught.value)
