"""Trained models of nnU-Net v2: a results folder at any level, or the zip that nnU-Net exports."""

__all__: list[str] = []
