"""Units of length under all their names."""

from __future__ import annotations

import pytest

from napari_tileseg.units import canonical_unit, micrometers, unit_symbol


@pytest.mark.parametrize("name", ["um", "µm", "μm", "micron", "microns", "Micrometer", " µm ", "\\u00b5m", "micrometre"])
def test_a_micrometre_by_any_name(name: str) -> None:
    assert canonical_unit(name) == "micrometer"
    assert micrometers(name) == 1


def test_millimetres_and_metres_are_not_confused() -> None:
    assert micrometers("mm") == 1000
    assert micrometers("m") == 1_000_000


def test_what_is_no_length_has_none() -> None:
    assert canonical_unit(None) == canonical_unit("px") == "pixel"
    assert micrometers("pixel") is None
    assert micrometers("second") is None
    assert unit_symbol("pixels") == "px"
    assert unit_symbol("micron") == "µm"
