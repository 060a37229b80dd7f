"""The Models dock fits, says its name to screen readers, follows the theme, and stays quick with thousands of models."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from models_desk import ModelsDesk, model
from napari.settings import get_settings
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QAbstractSpinBox, QApplication, QComboBox, QLabel, QLineEdit, QPushButton, QWidget

from napari_tileseg.errors import OptionsError
from napari_tileseg.widgets.dialogs import TextDialog
from napari_tileseg.widgets.keys import named
from napari_tileseg.widgets.models.rows import COLUMNS, local_row
from napari_tileseg.widgets.models.table import ModelTable, ModelView
from napari_tileseg.widgets.style import icon_color

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from models_desk import Commands


class Settings:
    """Stands for the user's settings."""

    model_fields = dict.fromkeys(("cache", "mirror", "proxy", "offline", "retries", "timeout"))

    def __init__(self, **values: Any) -> None:
        self.values = {"cache": None, "mirror": "", "proxy": "", "offline": False, "retries": 5, "timeout": 30.0, **values}
        vars(self).update(self.values)

    def model_dump(self) -> dict[str, Any]:
        return self.values

    @classmethod
    def parse(cls, values: dict[str, Any]) -> Settings:
        if values["proxy"].startswith("ftp"):
            raise OptionsError("proxy is not accepted: it begins with http://.")
        return cls(**values)


MODELS = (
    model("nuclei-2d", title="Nuclei 2D", place="built in", description="Nuclei of all kinds in microscopy. " * 6),
    model(
        "a-model-with-a-name-that-is-much-longer-than-a-dock-is-wide",
        trust="needed",
        kind="BioImage.IO",
        citation="Somebody et al. " * 20,
        classes=["background", *(f"class number {number}" for number in range(40))],
        channels=["nuclei", "membrane", "actin"],
        unknown=["classes", "window", "spacing"],
    ),
)


@pytest.fixture
def full(models: Callable[..., ModelsDesk], commands: Commands) -> Callable[..., ModelsDesk]:
    """Return a function that shows a dock with everything in it."""

    def make(**more: Any) -> ModelsDesk:
        commands.say("models list", *MODELS)
        here = models(show=True, read_settings=Settings, **more)
        here.dock.resize(300, 700)
        here.until(lambda: here.titles and here.dock.settings_scroller.isVisible())
        return here

    return make


def visible(dock: QWidget, kind: type) -> list[Any]:
    return [widget for widget in dock.findChildren(kind) if widget.isVisible()]


def check_fits(here: ModelsDesk) -> None:
    dock = here.dock
    here.qtbot.wait(50)
    assert dock.width() <= 300
    for label in visible(dock, QLabel):
        if label.text():
            needed = label.heightForWidth(label.width()) if label.wordWrap() else label.sizeHint().height()
            assert label.height() >= needed, f"{label.text()!r} is cut off below"
            if not label.wordWrap():
                assert label.width() >= label.sizeHint().width(), f"{label.text()!r} is cut off at the side"
    for field in [*visible(dock, QLineEdit), *visible(dock, QComboBox), *visible(dock, QAbstractSpinBox)]:
        assert field.height() >= field.fontMetrics().height(), field.accessibleName()
    right = dock.mapToGlobal(dock.rect().topRight()).x()
    for widget in visible(dock, QWidget):
        if not widget.isWindow() and not dock.models.isAncestorOf(widget):
            assert widget.mapToGlobal(widget.rect().topRight()).x() <= right, f"{widget} sticks out"


@pytest.mark.parametrize("points", [9, 12])
@pytest.mark.parametrize("theme", ["dark", "light"])
def test_nothing_is_clipped(full: Callable[..., ModelsDesk], commands: Commands, tmp_path: Path, theme: str, points: int) -> None:
    here = full()
    here.viewer.theme = theme
    get_settings().appearance.font_size = points
    for row in here.dock.models.shown:
        here.choose(row.ref)
        check_fits(here)
    here.dock.settings.open()
    check_fits(here)
    commands.say(
        "models show", model("net", unknown=["axes", "channels", "classes", "output", "window", "normalization", "spacing", "licence"])
    )
    here.session.bring([str(tmp_path / "net.onnx")])
    here.until(lambda: here.session.question is not None)
    check_fits(here)
    here.dock.resize(300, 440)
    here.qtbot.wait(50)
    assert here.dock.rect().contains(here.dock.button.geometry()), "the button stays while the rest scrolls"
    assert here.dock.models.height() >= 60, "some models are always seen"


def test_every_field_has_a_name_and_its_place(full: Callable[..., ModelsDesk]) -> None:
    here = full()
    dock = here.dock
    dock.settings.open()
    inside_spins = {edit for spin in visible(dock, QAbstractSpinBox) for edit in spin.findChildren(QLineEdit)}
    for field in [*visible(dock, QComboBox), *visible(dock, QLineEdit), *visible(dock, QAbstractSpinBox), *visible(dock, QPushButton)]:
        assert field in inside_spins or field.accessibleName(), field
    names = [widget.accessibleName() for widget in (dock.search, dock.shown, dock.models, dock.card, dock.progress, dock.message)]
    assert names == ["Search", "Show", "Models", "Card", "Progress", "Message"]
    index = dock.models.model().index(1, 0)
    assert "needs trust" in index.data(Qt.ItemDataRole.AccessibleTextRole)
    order = [dock.search, dock.shown, dock.models, dock.button, *dock.settings.widgets_in_order()]
    found: list[Any] = [dock.search]
    for _ in range(len(order) - 1):
        following = found[-1].nextInFocusChain()
        while not (following in order and following.isVisible() and following.isEnabled()):
            following = following.nextInFocusChain()
        found.append(following)
    assert found == order, [widget.accessibleName() for widget in found]


def test_keys_in_the_dock(full: Callable[..., ModelsDesk], commands: Commands) -> None:
    here = full()
    dock = here.dock
    dock.activateWindow()
    dock.models.setFocus()
    here.until(lambda: QApplication.focusWidget() is dock.models)
    here.qtbot.wait(100)  # the window system has its own pace
    assert not dock._cancel_key.isEnabled(), "Esc is napari's while nothing goes on"
    here.qtbot.keyClick(dock.models, Qt.Key.Key_F, Qt.KeyboardModifier.ControlModifier)
    here.until(lambda: QApplication.focusWidget() is dock.search)
    here.qtbot.keyClicks(dock.search, "longer")
    assert len(here.titles) == 1
    commands.say("models verify", 60)
    here.qtbot.keyClick(dock.search, Qt.Key.Key_Return, Qt.KeyboardModifier.ControlModifier)
    here.until(lambda: here.session.work.kind == "finding")
    here.qtbot.wait(300)
    here.qtbot.keyClick(dock.search, Qt.Key.Key_Escape)
    here.until(lambda: here.text == "Cancelled. Nothing was changed.")
    dock.deeds.show_keys()
    dialog = dock.findChild(TextDialog)
    assert named("Ctrl+F") in dialog.view.toPlainText()
    dialog.close()


def test_the_dock_follows_the_theme(full: Callable[..., ModelsDesk]) -> None:
    here = full(window=True)  # napari brings its icons
    table = here.dock.table
    for theme in ("light", "dark"):
        here.viewer.theme = theme
        icon = table.data(table.index(1, 0), Qt.ItemDataRole.DecorationRole)
        image = icon.pixmap(14, 14).toImage()
        inked = {image.pixelColor(x, y).name() for x in range(14) for y in range(14) if image.pixelColor(x, y).alpha() == 255}
        assert inked == {icon_color(theme)}
        assert table.data(table.index(1, 0), Qt.ItemDataRole.ForegroundRole) is None, "text is never coloured"
    get_settings().appearance.font_size = 14
    assert "15pt" in here.dock.styleSheet()


def test_a_wide_dock_shows_all_columns_and_a_narrow_one_the_first(full: Callable[..., ModelsDesk]) -> None:
    here = full()
    view = here.dock.models

    def columns() -> list[str]:
        return [name for number, name in enumerate(COLUMNS) if not view.isColumnHidden(number)]

    here.qtbot.wait(50)
    assert columns()[:3] == ["Model", "Task", "Source"]
    assert "Licence" not in columns()
    here.dock.resize(1100, 700)
    here.qtbot.wait(50)
    assert columns() == list(COLUMNS)
    assert view.columnWidth(0) > 100


def test_settings_are_kept_and_refused_where_they_stand(full: Callable[..., ModelsDesk]) -> None:
    kept: list[Settings] = []
    here = full(write_settings=kept.append)
    fold = here.dock.settings
    assert fold.header.text() == "Settings: cache, mirror, proxy"
    fold.open()
    fold.proxy.setText("ftp://x")
    fold.proxy.textEdited.emit("ftp://x")
    here.until(lambda: fold.problem.shown is not None)
    assert fold.problem.shown.text == "proxy is not accepted: it begins with http://."
    assert not kept
    fold.proxy.setText("http://proxy:3128")
    fold.offline.setChecked(True)
    here.until(lambda: kept and fold.problem.shown is None)
    assert (kept[-1].values["proxy"], kept[-1].values["offline"], kept[-1].values["retries"]) == ("http://proxy:3128", True, 5)
    fold.open(False)
    assert fold.header.text() == "Settings: proxy, offline"


def test_without_settings_there_is_no_fold(models: Callable[..., ModelsDesk]) -> None:
    here = models(show=True)
    here.until(lambda: not here.dock.settings_scroller.isVisible())


def test_thousands_of_models(qtbot: Any) -> None:
    table = ModelTable()
    view = ModelView(table)
    qtbot.addWidget(view)
    view.resize(300, 400)
    view.show()
    rows = [local_row(model(f"model-{number:05d}", description=f"about {number}")) for number in range(5000)]
    began = time.perf_counter()
    table.fill(rows)
    view.choose("model-04321")
    view.search("about 4321")
    assert time.perf_counter() - began < 2.0, "it takes a tenth of that where nobody else works"
    assert [row.ref for row in view.shown] == ["model-04321"]
    assert view.row is not None
    assert view.row.ref == "model-04321"
    view.search("")
    assert len(view.shown) == 5000
