"""`vitlab VERB ...`: imports the verb's module, and turns errors of the user into one line and an exit code."""

import importlib
import os
import sys
import time
import traceback
from collections.abc import Sequence
from importlib.metadata import version

import typer

from vitlab.errors import Interrupted, RankLost, TrainingFailed, UserError, unknown_name

SECONDS_TO_PRINT = 15.0
# OpenMP's threads spin while they wait for each other: libgomp's default of milliseconds stalls them once another
# program wants a core, and threads that never spin take up to twice as long on a quiet machine.
SPINS = "3000"
VERBS = {
    "demo": "the paper's complete workflow in small, on bundled images",
    "pretrain": "train a model from scratch by a recipe",
    "finetune": "train a model further on your images",
    "evaluate": "accuracy of a model on labelled images",
    "fewshot": "accuracy of frozen features with a few images per class",
    "vtab": "accuracy on the 19 tasks of VTAB-1k",
    "predict": "predict the classes of images",
    "inspect": "inspect a model: filters, position embeddings, attention",
    "report": "write a run's results, curves and pictures to one HTML page",
    "serve": "serve an inspector page and a prediction API",
    "convert": "convert a model for timm, transformers, Flax, torchvision or ONNX",
    "cost": "parameters, FLOPs, memory, time and price of a training run, without running it",
    "bench": "throughput and largest batch size of inference on this machine",
    "models": "list the models of the paper",
    "recipes": "list the built-in recipes, or print one as TOML",
    "study": "run a grid of recipes: the paper's ablations, learning rates, seeds",
    "data": "inspect and pack data sets",
    "dedup": "find near-duplicates of test images among training images",
}
OVERVIEW = """vitlab: the whole life of a Vision Transformer

Usage: vitlab VERB [ARGUMENTS]        vitlab VERB --help explains a verb

{verbs}

Start with `vitlab demo`. An error is one line on stderr; --debug adds the traceback.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code: 0 done, 2 error of the user, 3 training failed, 130 and 143 interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if not words or words[0] in ("--help", "-h", "help"):
        sys.stdout.write(OVERVIEW.format(verbs="\n".join(f"  {verb:<10} {what}" for verb, what in VERBS.items())))
        return 0
    if words[0] == "--version":
        print(version("vitlab"))
        return 0
    try:
        command = typer.main.get_command(_app(words[0]))
        done = command.main(words[1:], prog_name=f"vitlab {words[0]}", standalone_mode=False)
        if callable(done):  # a verb that is a dataclass of its options, such as `pretrain`
            done()
    except (UserError, TrainingFailed, Interrupted, RankLost, typer.TyperException) as error:
        if debug:
            traceback.print_exc()
        _print_error(error)
        return 2 if isinstance(error, typer.TyperException) else error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        _print_error("interrupted")
        return 130
    except BrokenPipeError:
        # The reader of our output has ended, as with `vitlab models | head`.
        sys.stderr.close()
        return 0
    return done if isinstance(done, int) else 0


def _app(verb: str) -> typer.Typer:
    if verb not in VERBS:
        raise unknown_name("verb", verb, VERBS, listing="`vitlab --help` lists them")
    limit_spinning()
    app: typer.Typer = importlib.import_module(f"vitlab.cli.{verb}").app
    return app


def limit_spinning() -> None:
    """Let OpenMP's threads spin briefly, unless the user's environment says otherwise; torch reads it on import."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def _print_error(error: object) -> None:
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return  # torchrun started several processes with the same arguments: the first one prints
    text = error.format_message() if isinstance(error, typer.TyperException) else str(error)
    print("vitlab: " + " ".join(text.split()), file=sys.stderr)


def entry() -> None:
    """The console script."""
    code = main()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # Python's cleanup at exit may wait for processes of the group that have already ended.
        sys.stdout.flush()
        sys.stderr.flush()
        if code in (2, 3) and os.environ.get("LOCAL_RANK", "0") != "0":
            # torchrun ends all processes as soon as one fails; the first process needs time to print the reason.
            time.sleep(SECONDS_TO_PRINT)
        os._exit(code)
    sys.exit(code)
