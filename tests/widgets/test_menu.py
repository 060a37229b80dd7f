"""napari as a user starts it, with its plugins: the entry of the menu opens the dock."""

from __future__ import annotations

import subprocess
import sys
from textwrap import dedent

SCRIPT = dedent("""
    import napari
    import numpy as np
    from napari.settings import get_settings
    from qtpy.QtTest import QTest

    get_settings().application.save_window_geometry = False
    get_settings().application.confirm_close_window = False
    viewer = napari.Viewer(show_welcome_screen=False)
    viewer.add_image(np.zeros((8, 9, 10, 4), np.float32), name="four", rgb=False)
    menu = next(entry.menu() for entry in viewer.window.layers_menu.actions() if entry.text() == "Segment")
    menu.aboutToShow.emit()
    next(entry for entry in menu.actions() if "TileSeg" in entry.text()).trigger()
    QTest.qWait(500)
    print("docks:", *viewer.window.dock_widgets)

    from napari_tileseg.widgets.segment import dock_of

    dock = dock_of(viewer)
    print("images:", dock.image.name)
    viewer.close()
""")


def test_the_menu_opens_the_dock() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    assert "docks: Segment (TileSeg)" in done.stdout
    assert "images: four" in done.stdout
