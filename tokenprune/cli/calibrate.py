"""`tokenprune calibrate`: a recipe's numbers, measured on real samples."""

from __future__ import annotations

from pathlib import Path

import typer

from ..errors import InputError
from .app import app, console

calibrate = typer.Typer(no_args_is_help=True, help="Find a recipe's numbers on real samples.")
app.add_typer(calibrate, name="calibrate")


@calibrate.command()
def ecl(
    model: str = typer.Argument("tiny-llava", help="Embedded model, local folder or Hugging Face id."),
    suite: str = typer.Option("scenes", "--suite", help="A suite's name, a JSONL or a folder."),
    samples: int = typer.Option(
        32, "--samples", min=2, help="Pictures to measure on; 32 or more make a result."
    ),
    states: str = typer.Option("queries", "--states", help="queries or keys."),
    out: Path = typer.Option(None, "--out", help="Folder; default configs/recipes/MODEL."),
    device: str = typer.Option("cpu", "--device", help="cpu, cuda, cuda:1, ..."),
    dtype: str = typer.Option("auto", "--dtype", help="auto, float32, bfloat16 or float16."),
) -> None:
    """Measure the entropy of every layer, find the entropy collapse layer, write plot and recipe.

    The recipe is what `patch_model(model, recipe="entropyprune.yaml")` takes.
    """
    from ..calibrate import entropy_curve, plot_curve
    from ..chat import check_model, load_chat
    from ..eval.suite import BUILT_IN, load_suite
    from .progress import hush, progress

    check_model(model, device, dtype)
    # What is evaluated on later is not calibrated on.
    asked = load_suite({"name": suite, "split": "train", "n": 3 * samples} if suite in BUILT_IN else suite)
    hush()
    with progress("loading") as tick:
        tick(0, 1, model)
        chat = load_chat(model, device=device, dtype=dtype)
    with progress("measuring") as tick:
        curve = entropy_curve(chat, asked, samples, states, tick=tick)
    folder = out or Path("configs/recipes") / chat.name.replace("/", "--")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = [curve.recipe().save(folder / "entropyprune.yaml"), folder / "entropyprune.png"]
        plot_curve(curve, written[1])
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror})") from error
    screen = console()
    screen.print(f"entropy of visual {states}, nats, over {curve.samples} samples of {curve.suite}")
    for layer, (value, error) in enumerate(zip(curve.mean, curve.stderr)):
        mark = "  <- collapses; prune before layer " + str(curve.layer) if layer == curve.layer - 1 else ""
        screen.print(f"  layer {layer:2d}  {value:.3f} ± {error:.3f}{mark}", markup=False)
    for path in written:
        screen.print(f"wrote {path}", style="dim", markup=False, soft_wrap=True)
