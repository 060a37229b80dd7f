"""``python -m napari_tileseg.cli`` is the command ``tileseg``, also where no script of that name is on the path."""

from __future__ import annotations

from napari_tileseg.cli import main

if __name__ == "__main__":
    main()
