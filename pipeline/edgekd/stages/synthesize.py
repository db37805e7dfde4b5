"""synthesize: images made from the teacher alone, or from a student that is given, to train and to calibrate with."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from edgekd.assembly import launch, networks
from edgekd.assembly.context import Context
from edgekd.assembly.outputs import Synthesized
from edgekd.assembly.stage import Node, Work
from edgekd.data.sources.synthetic import MADE
from edgekd.recipe import Recipe
from edgekd.recipe.base import need

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

SHEET_BYTES = 24_000  # of the contact sheet, which stands in run.json and in the report
SHEET_SIDE = 480  # pixels
SHEET_TILES = 10  # in a row


def contact_sheet(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> bytes:
    """Some of the images as one JPEG of at most SHEET_BYTES: a column a class, the first ten of them."""
    import numpy as np
    from PIL import Image

    columns = [np.flatnonzero(labels == label) for label in np.unique(labels)[:SHEET_TILES]]
    rows = min(5 if len(columns) > 4 else 3, *(len(column) for column in columns))
    tile = min(images.shape[2], SHEET_SIDE // len(columns))
    sheet = Image.new("L" if images.shape[1] == 1 else "RGB", (len(columns) * tile, rows * tile))
    for across, column in enumerate(columns):
        for down, index in enumerate(column[:rows]):
            pixels = images[index][0] if images.shape[1] == 1 else images[index].transpose(1, 2, 0)
            sheet.paste(Image.fromarray(pixels).resize((tile, tile)), (across * tile, down * tile))
    return next(
        data for quality in (85, 70, 50, 30, 10) if len(data := _jpeg(sheet, quality)) <= SHEET_BYTES or quality == 10
    )


def _jpeg(sheet: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    sheet.save(file, "JPEG", quality=quality)
    return file.getvalue()


class SynthesizeStage:
    """Images that are made from a trained network."""

    name = "synthesize"
    version = 2
    reused = True
    optional = False

    def packages(self, name: str) -> tuple[str, ...]:
        """Name what decides its result."""
        return ("torch", "numpy", "pillow")

    def nodes(self, recipe: Recipe) -> Iterator[Node]:
        """Yield one where the data is made: from the teacher, or from the student that is given."""
        if recipe.student and recipe.data.made:
            yield Node("synthesize", self, networks.teachers(recipe) or (networks.trained(recipe),), recipe)

    def work(self, recipe: Recipe) -> Work:
        """Compute with torch."""
        return Work.TORCH

    def config(self, recipe: Recipe, name: str) -> dict[str, Any]:
        """Return the settings of the images, the network that they come from, and the seed."""
        made = need(recipe.data.made, "data.synthetic")
        source = "teacher" if recipe.teacher else "student"
        return {"synthetic": made.model_dump(mode="json"), "seed": recipe.seed,
                **networks.model_config(recipe, source)}  # fmt: skip

    def run(self, context: Context) -> Synthesized:
        """Write ``images.npy`` (uint8 N×C×S×S), ``labels.npy`` (the wanted classes), ``sheet.jpg``."""
        import numpy as np
        import torch

        from edgekd.data import dataset
        from edgekd.distill import inversion

        recipe = context.recipe
        settings = need(recipe.data.made, "data.synthetic")
        launch.seed(recipe.seed, context.threads)
        images = dataset.load(recipe.data, context.progress, task=recipe.task)
        classes = len(images.classes)
        if recipe.teacher:
            network = networks.teacher(recipe.teacher, "teacher", context, images)
        else:
            network = networks.student(recipe, images.purpose, context.inputs["student"] / "weights.safetensors")
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        network = network.eval().to(device)
        layers = inversion.norms(network)
        labels = np.arange(settings.images) % classes
        batches = np.array_split(labels, -(-settings.images // settings.batch_size))
        generator = torch.Generator().manual_seed(recipe.seed)
        made, rule = [], images.preprocessing
        with context.progress.task("synthesize", settings.images * settings.steps) as task:
            for wanted in batches:
                target, size = torch.from_numpy(wanted), recipe.data.size
                made.append(inversion.invert(network, target, size, rule, settings, generator, task.advance))
        pixels = np.concatenate(made)
        x = rule.arrays(pixels)
        with torch.inference_mode():
            parts = np.array_split(x, len(batches))
            found = np.concatenate([network(torch.from_numpy(part).to(device)).argmax(1).cpu().numpy() for part in parts])
        right = float((found == labels).mean())
        source = "teacher" if recipe.teacher else "student"
        context.progress.say(
            f"  {len(pixels):,} images from {len(layers)} batch norms of the {source}, which finds the wanted class in "
            f"{100 * right:.1f} % of them"
        )
        np.save(context.out / MADE, pixels)
        np.save(context.out / "labels.npy", labels)
        (context.out / "sheet.jpg").write_bytes(contact_sheet(pixels, labels))
        return Synthesized(len(pixels), len(layers), right)
