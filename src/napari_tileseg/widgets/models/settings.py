"""The fold with the settings of downloads: cache, mirror, proxy; what is written there is kept at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QDoubleSpinBox, QFileDialog, QSpinBox, QVBoxLayout, QWidget

from napari_tileseg.widgets.late import soon
from napari_tileseg.widgets.parts import Browse, Edit, Fields, Fold, MessageBox, PathEdit, Tick
from napari_tileseg.widgets.parts.fields import tame
from napari_tileseg.widgets.states import Message

__all__ = ["SettingsFold", "renewed", "settings_words"]

_PAUSE = 600
"""Milliseconds without another key before a field is read."""


class SettingsFold(Fold):
    """Where downloads go, and how the network is reached.

    Signals
    -------
    edited
        Values by their names, to be kept.
    """

    edited = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        content = QWidget()
        content.setObjectName("plain")
        super().__init__("Settings", content, parent)
        self.cache = PathEdit("Cache", "Folder for downloads; the system's if empty.")
        self.browse = Browse("Choose the folder for downloads", (("Folder...", self._ask_folder),))
        self.mirror = Edit("Mirror", "Instead of a server: https://github.com=https://mirror.example/github")
        self.mirror.setPlaceholderText("none")
        self.proxy = Edit("Proxy", "http://host:port; the system's if empty.")
        self.proxy.setPlaceholderText("the system's")
        self.offline = Tick("Offline", "Never use the network.")
        self.retries = QSpinBox()
        self.retries.setRange(0, 100)
        self.timeout = QDoubleSpinBox()
        self.timeout.setRange(1, 3600)
        self.timeout.setDecimals(0)
        self.timeout.setSuffix(" s")
        for spin, name in ((self.retries, "Retries"), (self.timeout, "Timeout")):
            tame(spin, name)
        self.retries.setToolTip("How often to try again when a server fails.")
        self.timeout.setToolTip("How long to wait for a server that says nothing.")
        self.problem = MessageBox("Problem with the settings")
        fields = self.fields = Fields(indent=8)
        fields.add("Cache", self.cache, self.browse)
        fields.add("Mirror", self.mirror)
        fields.add("Proxy", self.proxy)
        fields.add("Retries", self.retries)
        fields.add("Timeout", self.timeout)
        fields.add_wide(self.offline)
        layout = QVBoxLayout(content)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(fields)
        layout.addWidget(self.problem)
        self._later = soon(self, _PAUSE, self._tell)
        for edit in (self.cache, self.mirror, self.proxy):
            edit.textEdited.connect(lambda _: self._later.start())
        for spin in (self.retries, self.timeout):
            spin.valueChanged.connect(lambda _: self._later.start())
        self.offline.toggled.connect(lambda _: self._later.start())

    def take(self, settings: Any) -> None:
        """Show the user's settings; None hides the fold."""
        self.setVisible(settings is not None)
        if settings is None:
            return
        blocked = [(field, field.blockSignals(True)) for field in (self.retries, self.timeout, self.offline)]
        self.cache.setText(str(settings.cache or ""))
        self.mirror.setText(settings.mirror)
        self.proxy.setText(settings.proxy)
        self.retries.setValue(settings.retries)
        self.timeout.setValue(settings.timeout)
        self.offline.setChecked(settings.offline)
        for field, was in blocked:
            field.blockSignals(was)
        self.say(settings_words(settings))

    def complain(self, sentence: str) -> None:
        """Say why a setting is not kept; an empty sentence takes that away."""
        self.problem.show_message(Message("error", sentence) if sentence else None)

    def values(self) -> dict[str, Any]:
        """Return what the fields hold."""
        folder = str(self.cache.text()).strip()
        return {
            "cache": Path(folder).expanduser() if folder else None,
            "mirror": self.mirror.text().strip(),
            "proxy": self.proxy.text().strip(),
            "offline": self.offline.isChecked(),
            "retries": self.retries.value(),
            "timeout": self.timeout.value(),
        }

    def set_colors(self, theme: str, color: str) -> None:
        """Take arrows and icons from another theme; `color` is its icon colour."""
        self.set_theme(theme)
        self.problem.set_theme(theme, color)

    def widgets_in_order(self) -> list[QWidget]:
        """Return the fields from top to bottom, as Tab takes them."""
        return [self.header, self.cache, self.browse, self.mirror, self.proxy, self.retries, self.timeout, self.offline]

    def _ask_folder(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "Folder for downloads", self.cache.text())
        if chosen:
            self.cache.write(chosen)

    def _tell(self) -> None:
        self.edited.emit(self.values())


def settings_words(settings: Any) -> str:
    """Say what is set: ``"proxy http://host:3128, offline"``."""
    words = [f"cache {Path(settings.cache).name}"] if settings.cache else []
    words += ["mirror"] if settings.mirror else []
    words += ["proxy"] if settings.proxy else []
    words += ["offline"] if settings.offline else []
    return ", ".join(words) or "cache, mirror, proxy"


def renewed(settings: Any, values: dict[str, Any]) -> Any:
    """Return settings with other values.

    Raises
    ------
    OptionsError
        One sentence about the first value that is not accepted.
    """
    known = {name: value for name, value in values.items() if name in type(settings).model_fields}
    return type(settings).parse({**settings.model_dump(), **known})
