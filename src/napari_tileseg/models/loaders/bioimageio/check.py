"""The test tensors of a BioImage.IO package, run through the network: what came out, and what should have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_tileseg.engine_free import placeholder
