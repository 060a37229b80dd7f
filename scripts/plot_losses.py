"""Draw the losses for docs/losses.md: ``python scripts/plot_losses.py docs/images/losses.png``.

Each small plot shows one loss over how sure the network is, for a mask of 16 x 16 in an image of 64 x 64. Solid: the share p that every
pixel of the mask gets, while the rest gets none. Dashed: the share p that as many pixels beside the mask get by mistake, while the mask
itself is right.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from napari_tileseg.training.losses import LOSSES, get_loss

SKIPPED = {"bce", "bce_dice", "lovasz_sigmoid"}
"""Further names of what is drawn already."""

COLUMNS, WIDTH, HEIGHT, SCALE = 4, 300, 210, 2
INK, GREY, LINE = (30, 30, 30), (205, 205, 205), (31, 90, 180)
STEPS = 60


def curves(name: str) -> tuple[list[float], list[float], list[float]]:
    """Return p, the loss of a mask found with share p, and the loss of as much found beside it."""
    loss = get_loss(name)
    target = torch.zeros(1, 1, 64, 64)
    target[..., 8:24, 8:24] = 1
    beside = torch.zeros_like(target)
    beside[..., 40:56, 40:56] = 1
    shares = [(index + 0.5) / STEPS for index in range(STEPS)]
    missed, wrong = [], []
    for share in shares:
        missed.append(float(loss(torch.logit(target * share, eps=1e-3), target)))
        wrong.append(float(loss(torch.logit((target + beside * share).clamp(max=1), eps=1e-3), target)))
    return shares, missed, wrong


def draw(name: str, canvas: ImageDraw.ImageDraw, left: int, top: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> None:
    """Draw one loss with its axes."""
    shares, missed, wrong = curves(name)
    low, high = min(0.0, *missed, *wrong), max(*missed, *wrong)
    x0, y0, x1, y1 = left + 52 * SCALE, top + 30 * SCALE, left + (WIDTH - 14) * SCALE, top + (HEIGHT - 30) * SCALE

    def place(share: float, value: float) -> tuple[float, float]:
        return x0 + share * (x1 - x0), y1 - (value - low) / (high - low or 1) * (y1 - y0)

    for value in (low, (low + high) / 2, high):
        _, y = place(0, value)
        canvas.line([(x0, y), (x1, y)], fill=GREY, width=SCALE)
        canvas.text((x0 - 6 * SCALE, y), f"{value:.3g}", fill=INK, font=font, anchor="rm")
    for share in (0.0, 0.5, 1.0):
        canvas.text((place(share, low)[0], y1 + 5 * SCALE), f"{share:g}", fill=INK, font=font, anchor="mt")
    canvas.line([place(share, value) for share, value in zip(shares, missed, strict=True)], fill=LINE, width=3 * SCALE, joint="curve")
    points = [place(share, value) for share, value in zip(shares, wrong, strict=True)]
    for index in range(0, len(points) - 2, 4):
        canvas.line(points[index : index + 3], fill=INK, width=2 * SCALE)
    canvas.text(((x0 + x1) / 2, top + 16 * SCALE), name, fill=INK, font=font, anchor="mm")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    output = parser.parse_args().output
    names = [name for name in LOSSES if name not in SKIPPED]
    rows = math.ceil(len(names) / COLUMNS)
    picture = Image.new("RGB", (COLUMNS * WIDTH * SCALE, (rows * HEIGHT + 34) * SCALE), "white")
    canvas = ImageDraw.Draw(picture)
    font = ImageFont.load_default(13 * SCALE)
    for number, name in enumerate(names):
        draw(name, canvas, number % COLUMNS * WIDTH * SCALE, number // COLUMNS * HEIGHT * SCALE, font)
    middle = (rows * HEIGHT + 16) * SCALE
    canvas.line([(20 * SCALE, middle), (60 * SCALE, middle)], fill=LINE, width=3 * SCALE)
    canvas.text((68 * SCALE, middle), "the mask is found with share p, nothing else", fill=INK, font=font, anchor="lm")
    for start in (460, 475, 490):
        canvas.line([(start * SCALE, middle), ((start + 9) * SCALE, middle)], fill=INK, width=2 * SCALE)
    canvas.text((508 * SCALE, middle), "the mask is right, as much beside it is found with share p", fill=INK, font=font, anchor="lm")
    picture.resize((picture.width // SCALE, picture.height // SCALE), Image.Resampling.LANCZOS).save(output, optimize=True)


if __name__ == "__main__":
    main()
