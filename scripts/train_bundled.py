"""Train the bundled models again: ``python scripts/train_bundled.py DATA_DIR -o OUT [nuclei-2d|hippocampus-3d]``."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch

from napari_tileseg.engine.decoders import find_decoder
from napari_tileseg.models.nets import build_network
from napari_tileseg.models.package import build_module, load_weights, read_spec, write_package
from napari_tileseg.training.data import list_pairs, prepare_image, read_array, read_examples
from napari_tileseg.training.fit import Finished, Step, fit
from napari_tileseg.training.predict import whole_image_scores
from napari_tileseg.training.recipes import RECIPES, Recipe
from napari_tileseg.training.sampling import Sampler
from napari_tileseg.training.tune import tune_decoder


def main() -> None:
    """Train what was asked for, model after model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder that holds the data sets")
    parser.add_argument("models", nargs="*", help=f"which of {', '.join(RECIPES)}; all if none is named")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder for packages and checkpoints")
    parser.add_argument("--steps", type=int, help="instead of the recipe's number")
    parser.add_argument("--minutes", type=float, help="anneal by the clock where this ends before the steps do")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--weights", type=Path, help="start from this package, with the recipe's gentle augmentation")
    parser.add_argument("--rate", type=float, help="highest learning rate instead of the recipe's")
    parser.add_argument("--seed", type=int, help="seed instead of the recipe's")
    parser.add_argument("--crop", type=int, help="side of the crops instead of the recipe's")
    parser.add_argument("--batch", type=int, help="crops per step instead of the recipe's")
    parser.add_argument("--shares", type=json.loads, help='shares of the groups of images instead of the recipe\'s, as JSON: {"u2os": 0.1}')
    parser.add_argument("--average", type=float, help="how much of the moving average of the weights stays in a step")
    parser.add_argument("--threads", type=int, help="threads of torch inside each operation")
    parser.add_argument("--workers", type=int, default=1, help="parts of a batch learnt at once; with --threads 1 on a busy CPU")
    arguments = parser.parse_intermixed_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    for name in arguments.models or RECIPES:
        train(name, arguments)


def train(name: str, arguments: argparse.Namespace) -> None:
    """Train one model and write its package to ``OUT/name``."""
    recipe = RECIPES[name]
    options = replace(
        recipe.fit,
        steps=arguments.steps or recipe.fit.steps,
        time_limit=arguments.minutes * 60 if arguments.minutes else None,
        workers=arguments.workers,
        learning_rate=arguments.rate or recipe.fit.learning_rate,
        seed=recipe.fit.seed if arguments.seed is None else arguments.seed,
        average=arguments.average or recipe.fit.average,
    )
    recipe = replace(recipe, batch=arguments.batch or recipe.batch, shares=arguments.shares or recipe.shares)
    if arguments.weights:
        recipe = replace(recipe, augmentation=replace(recipe.augmentation, **recipe.gentle))
    if arguments.crop:
        size = (arguments.crop,) * recipe.spec.spatial_ndim
        recipe = replace(recipe, augmentation=replace(recipe.augmentation, size=size))
    torch.manual_seed(options.seed)
    spec = recipe.spec
    pairs = [pair for folder in recipe.folders for pair in list_pairs(arguments.data / folder, "train")]
    examples = read_examples(pairs, spec, make_maps=recipe.make_maps)
    sampler = Sampler(
        examples,
        recipe.augmentation,
        channels=len(spec.channels),
        batch=recipe.batch,
        shares=recipe.shares,
        centred=recipe.centred,
        by_size=recipe.by_size,
        seed=options.seed,
    )
    network = build_network(spec.architecture, **spec.arguments)
    if arguments.weights:
        network.load_state_dict(load_weights(arguments.weights, read_spec(arguments.weights)))
    checkpoint = arguments.out / f"{name}.checkpoint.pt"
    for event in fit(network, recipe.loss(), sampler.batch, options, checkpoint=checkpoint, resume=arguments.resume):
        if isinstance(event, Step):
            print(f"{name} {event.step}/{event.steps} loss {event.loss:.4f} {event.seconds:.0f} s", flush=True)
        elif isinstance(event, Finished):
            print(f"{name} finished after {event.step} steps, {event.seconds:.0f} s", flush=True)
            facts = recipe.facts(options=options, steps=event.step, seconds=event.seconds)
            spec = write_package(arguments.out / name, spec.model_copy(update={"training": facts}), event.state, half=True)
            if spec.output == "instances" and not event.cancelled:
                tune(arguments.out / name, recipe, arguments.data)


def tune(package: Path, recipe: Recipe, data: Path) -> None:
    """Choose the decoder's parameters on the val part of the first data set and write them into the package."""
    spec, module = build_module(package)
    samples = []
    for pair in list_pairs(data / recipe.folders[0], "val"):
        samples.append((whole_image_scores(module, spec, prepare_image(read_array(pair.image), spec)), read_array(pair.label)))
    parameters, score = tune_decoder(find_decoder(spec.decoder), samples, spec.decoder_parameters, recipe.decoder_choices or {})
    print(f"{spec.name} decoder {parameters}: AP {score:.4f} on {len(samples)} val images", flush=True)
    write_package(package, spec.model_copy(update={"decoder_parameters": parameters}), module.state_dict(), half=True)


if __name__ == "__main__":
    main()
