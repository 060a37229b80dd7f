"""How one network learns thin vessels with each loss, all with the same crops, seed, rate and number of steps.

From the root of the repository::

    python benchmarks/losses.py DATA -o OUT [--only dice,focal]

DATA holds ``chase_retina_vessels`` with ``train`` and ``val``. Rows that are finished lie in OUT; the same call goes on from there.
"""

from __future__ import annotations

from typing import Any

from learning import Trial, ask, learn, table

from napari_tileseg.training.losses import LOSSES

SAME = {"bce": "ce", "bce_dice": "ce_dice", "lovasz_sigmoid": "lovasz_softmax"}
"""Names that mean the same where two classes exclude each other."""

DISTANCES = {"boundary": 0.01, "hausdorff": 0.01, "log_hausdorff": 0.1}
"""Losses that are made to be added to another one, and how much of them is."""

PARTNER = "ce_dice"

VARIANTS: dict[str, dict[str, Any]] = {
    "focal, alpha 0.75": {"loss": "focal", "loss_arguments": {"alpha": 0.75}},
    "focal, rate 0.003": {"loss": "focal", "learning_rate": 0.003},
    "hausdorff+ce_dice, weight 0.001": {"loss": "hausdorff", "loss_arguments": {"partner": PARTNER, "weight": 0.001}},
    "ce, 200 steps more": {"loss": "ce", "start": "ce"},
    "lovasz_hinge, 200 steps after ce": {"loss": "lovasz_hinge", "start": "ce"},
    "lovasz_hinge, rate 0.003": {"loss": "lovasz_hinge", "learning_rate": 0.003},
}
"""Losses that are behind the others with what is the same for all, and what they want instead; start: the loss that comes before."""

DATA = "chase_retina_vessels"
STEPS = 200

CONFIG: dict[str, Any] = {
    "network": "unet2015_same",
    "arguments": {"features": [8, 16, 32, 64], "norm": True},
    "window": (128, 128),
    "batch": 4,
    "task": "classes",
}


def trials() -> dict[str, dict[str, Any]]:
    """Return what is told of a loss, by its title in the table."""
    found: dict[str, dict[str, Any]] = {name: {"loss": name} for name in LOSSES if name not in SAME}
    for name, weight in DISTANCES.items():
        found[f"{name}+{PARTNER}"] = {"loss": name, "loss_arguments": {"partner": PARTNER, "weight": weight}}
    return found | VARIANTS


def main() -> None:
    arguments = ask(__doc__.partition("\n")[0], "losses", only="titles that begin so, several divided by commas; all by default")
    if arguments is None:
        return
    rows = []
    for title, config in trials().items():
        if not title.startswith(tuple(arguments.only.split(","))):
            continue
        config = {**CONFIG, **config}
        if "start" in config:
            before = Trial(config["start"], DATA, STEPS, {})
            config = {key: value for key, value in config.items() if key not in ("network", "arguments")}
            config["start"] = str(arguments.out / "models" / before.name)
        trial = Trial(title, DATA, STEPS, config, half=True)
        rows.append(learn(trial, arguments.data, arguments.out))
        print(table(rows[-1:], list(rows[-1]["scores"])), flush=True)
    rows.sort(key=lambda row: -row["scores"]["iou foreground"])
    print(f"\n{table(rows, list(rows[0]['scores']))}")


if __name__ == "__main__":
    main()
