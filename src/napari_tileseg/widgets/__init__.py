"""The napari widgets: thin shells around the headless core; the only room that imports napari or Qt."""
