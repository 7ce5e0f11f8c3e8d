"""`tokenprune calibrate`: a recipe's numbers, measured on real samples."""

from __future__ import annotations

from pathlib import Path

import typer

from ..errors import InputError
from .app import app, console, warn

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
    from ..calibrate import calibration_suite, entropy_curve, plot_curve
    from ..chat import check_model, load_chat
    from .progress import hush, progress

    check_model(model, device, dtype)
    asked = calibration_suite(suite, samples)  # what is evaluated on later is not calibrated on
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


@calibrate.command()
def focal(
    model: str = typer.Argument(..., help="Embedded model, local folder or Hugging Face id."),
    suite: str = typer.Option("documents", "--suite", help="A suite's name, a JSONL or a folder."),
    samples: int = typer.Option(12, "--samples", min=1, help="Pictures to measure on."),
    keep: str = typer.Option(
        "0.05", "--keep", help="Visual keys the other layers read: 0.05, 5% or a count."
    ),
    k_min: int = typer.Option(32, "--k-min", min=1, help="They read at least as many."),
    count: int = typer.Option(
        3, "--focal", min=1, help="Focal layers of the recipe; the curve has every count."
    ),
    objective: str = typer.Option(
        "kl", "--objective", help="kl: distance to the dense model; loss: of the answers."
    ),
    answers: str = typer.Option(
        None, "--answers", help="own: the model's, needs no labels (default of kl); reference: the suite's."
    ),
    search: str = typer.Option(
        "removal", "--search", help="removal, or addition: fewer evaluations for a few of many layers."
    ),
    max_run: int = typer.Option(None, "--max-run", min=1, help="Most layers in a row without a focal one."),
    steps: int = typer.Option(48, "--steps", min=1, help="Decode steps per sample, at most."),
    batch: int = typer.Option(4, "--batch", min=1, help="Samples at a time."),
    out: Path = typer.Option(None, "--out", help="Folder; default configs/recipes/MODEL."),
    device: str = typer.Option("cpu", "--device", help="cpu, cuda, cuda:1, ..."),
    dtype: str = typer.Option("auto", "--dtype", help="auto, float32, bfloat16 or float16."),
) -> None:
    """Find the focal layers of `fixation` by what the decode steps lose, write plot and recipe.

    The recipe is what `patch_model(model, recipe="fixation.yaml")` takes.
    """
    from ..calibrate import calibration_suite, focal_search, plot_search
    from ..chat import check_model, load_chat
    from ..compare.settings import parse_keeps
    from ..hooks.parts import find_parts
    from ..methods.fixation import Fixation
    from .progress import hush, progress

    check_model(model, device, dtype)
    if len(keeps := parse_keeps(keep)) != 1:
        raise InputError(f"keep={keep}: one share or count")
    method = Fixation(keep=keeps[0], k_min=k_min, focal=count)
    asked = calibration_suite(suite, samples)
    hush()
    with progress("loading") as tick:
        tick(0, 1, model)
        chat = load_chat(model, device=device, dtype=dtype)
    method.focal_layers(find_parts(chat.model).num_layers)  # a count that cannot be is said before the search
    with progress("searching") as tick:
        most = count if search == "addition" else None
        found = focal_search(
            chat, asked, samples, keep=method.keep, k_min=k_min, objective=objective, answers=answers, search=search,
            most=most, max_run=max_run, steps=steps, batch=batch, tick=tick,
        )  # fmt: skip
    folder = out or Path("configs/recipes") / chat.name.replace("/", "--")
    if count not in found.curve:
        warn(f"--max-run {max_run} ends the search at {min(found.curve)} focal layers: the recipe has these")
        count = min(found.curve)
    recipe = found.to_recipe(count)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = [recipe.save(folder / "fixation.yaml"), folder / "fixation.png"]
        plot_search(found, count, written[1])
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror})") from error
    screen = console()
    what = "KL to the dense model" if objective == "kl" else "loss of the answers"
    screen.print(
        f"{what}, nats a token, over {found.tokens} tokens of {found.samples} samples of {found.suite}; "
        f"{found.evaluations} sets of layers tried",
        soft_wrap=True,
    )
    for m, value in found.curve.items():
        layers = ", ".join(map(str, found.layers(m)))
        mark = "  <- in the recipe" if m == count else ""
        screen.print(
            f"  {m:2d} focal  {value:.4g}  spread evenly {found.spread[m]:.4g}  {layers}{mark}",
            markup=False, soft_wrap=True,
        )  # fmt: skip
    for path in written:
        screen.print(f"wrote {path}", style="dim", markup=False, soft_wrap=True)
