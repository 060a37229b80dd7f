"""How well networks learn from real images, each with the same split, crops and number of steps.

From the root of the repository::

    python benchmarks/networks.py DATA -o OUT [--only glands,hippocampus,nuclei] [--networks "V-Net,U-Net"]

DATA holds the data sets ``ebhi_colon_glands``, ``hippocampus_mri`` and ``dsb2018_nuclei``, each with ``train`` and ``val``. Rows that are
finished lie in OUT; the same call goes on from there.
"""

from __future__ import annotations

from typing import Any

from learning import Trial, ask, learn, table

UNET = {"features": [16, 32, 64, 128, 256], "norm": True}
UNET_3D = {"features": [16, 32, 64, 128], "norm": True, "spatial_dims": 3}

GLANDS: dict[str, Any] = {"window": (96, 96), "batch": 8, "task": "classes", "augmentation": {"stain": 1.0}}
HIPPOCAMPUS: dict[str, Any] = {
    "window": (16, 32, 16),
    "batch": 4,
    "task": "classes",
    "classes": ("background", "anterior", "posterior"),
    "spacing": (2.0, 2.0, 2.0),  # half of the volumes' own along each axis; labels are brought back and scored at 1 mm
    "spacing_unit": "millimeter",
}
NUCLEI: dict[str, Any] = {"window": (192, 192), "batch": 4, "task": "instances"}

SETS: dict[str, tuple[str, dict[str, Any], dict[str, tuple[str, dict[str, Any]]]]] = {
    "glands": (
        "ebhi_colon_glands",
        {"config": GLANDS, "steps": 250, "half": True, "epochs": 5},
        {
            "V-Net, 2D": ("vnet2d", {}),
            "U-Net 2015, padded": ("unet2015_same", UNET),
            "UNet of MONAI": ("monai.UNet", {"channels": [32, 64, 128, 256], "num_res_units": 2}),
            "residual U-Net (default)": ("residual_unet", {}),
            "BRAU-Net++": ("brau_net_pp", {"width": 32}),
        },
    ),
    "hippocampus": (
        "hippocampus_mri",
        {"config": HIPPOCAMPUS, "steps": 200, "metrics": ("dice", "hd95")},
        {
            "U-Net, 3D": ("unet2015_same", UNET_3D),
            "SegResNet of MONAI": ("monai.SegResNet", {"init_filters": 16}),
            "V-Net of the paper, 3D": ("vnet_paper", {}),
        },
    ),
    "nuclei": (
        "dsb2018_nuclei",
        {"config": NUCLEI, "steps": 200, "metrics": ("ap50", "ap75", "ap", "pq"), "pattern": "[bf]*", "instances": True},
        {
            "residual U-Net (default)": ("residual_unet", {}),
            "U-Net 2015, padded": ("unet2015_same", UNET),
        },
    ),
}
"""Data set, what its trials share, and the networks."""


def main() -> None:
    arguments = ask(
        __doc__.partition("\n")[0],
        "networks",
        only=f"of {', '.join(SETS)}, divided by commas; all by default",
        networks="titles that begin so, divided by commas; all by default",
    )
    if arguments is None:
        return
    for name in arguments.only.split(",") if arguments.only else SETS:
        folder, shared, networks = SETS[name]
        rows = []
        for title, (network, given) in networks.items():
            if not title.startswith(tuple(arguments.networks.split(","))):
                continue
            config = {**shared["config"], "network": network, "arguments": given}
            rows.append(learn(Trial(title, folder, **{**shared, "config": config}), arguments.data, arguments.out))
            print(table(rows[-1:], list(rows[-1]["scores"])), flush=True)
        print(f"\n{folder}\n\n{table(rows, list(dict.fromkeys(key for row in rows for key in row['scores'])))}\n", flush=True)


if __name__ == "__main__":
    main()
