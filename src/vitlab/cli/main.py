"""`vitlab VERB ...`: finds the verb's page, and turns mistakes into one line and an exit code."""

import importlib
import os
import sys
import time
import traceback
from collections.abc import Sequence
from importlib.metadata import version

import typer

from vitlab.errors import Interrupted, RankLost, TrainingFailed, UserError, unknown_name

SECONDS_TO_TELL = 15.0
# Threads that wait for each other by spinning for milliseconds stall once anything else wants a core; threads that
# never spin take up to twice as long on a quiet machine. OpenMP reads this when torch is imported.
SPINS = "3000"
VERBS = {
    "demo": "the paper's whole journey in small, on bundled images",
    "pretrain": "train a model from scratch by a recipe",
    "finetune": "train a model further on your images",
    "evaluate": "accuracy of a model on labelled images",
    "fewshot": "accuracy of frozen features with a few images a class",
    "vtab": "accuracy on the 19 tasks of VTAB-1k",
    "predict": "name what is on images",
    "inspect": "look inside a model: filters, positions, attention",
    "report": "one page with a run's numbers, curves and pictures",
    "serve": "a page to look inside a model, and a prediction API",
    "convert": "write a model for timm, transformers, Flax, torchvision or ONNX",
    "cost": "parameters, FLOPs, memory, time and price, without running anything",
    "bench": "speed and memory of inference on this machine",
    "models": "the models of the paper by name",
    "recipes": "the named recipes, and one of them as TOML",
    "study": "a grid of runs: the paper's ablations, learning rates, seeds",
    "data": "what is in a data set",
    "dedup": "find test images among training images",
}
OVERVIEW = """vitlab: the whole life of a Vision Transformer

Usage: vitlab VERB [ARGUMENTS]        vitlab VERB --help tells more

{verbs}

Start with `vitlab demo`. A mistake is told in one line; --debug shows where it came from.
"""


def overview() -> str:
    """What `vitlab --help` prints."""
    return OVERVIEW.format(verbs="\n".join(f"  {verb:<10} {what}" for verb, what in VERBS.items()))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code: 0 done, 2 user's mistake, 3 training failed, 130 and 143 interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if not words or words[0] in ("--help", "-h", "help"):
        sys.stdout.write(overview())
        return 0
    try:
        return _run(words[0], words[1:])
    except (UserError, TrainingFailed, Interrupted, RankLost, typer.TyperException) as error:
        if debug:
            traceback.print_exc()
        _complain(error)
        return 2 if isinstance(error, typer.TyperException) else error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        _complain("interrupted")
        return 130
    except BrokenPipeError:
        # The reader of our output went away, as `vitlab models | head` does; there is nobody left to tell.
        sys.stderr.close()
        return 0


def _run(verb: str, words: list[str]) -> int:
    if verb == "--version":
        print(version("vitlab"))
        return 0
    if verb not in VERBS:
        raise unknown_name("verb", verb, VERBS, listing="`vitlab --help` lists them")
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    app = importlib.import_module(f"vitlab.cli.{verb}").app
    code = typer.main.get_command(app).main(words, prog_name=f"vitlab {verb}", standalone_mode=False)
    return code if isinstance(code, int) else 0


def _complain(message: object) -> None:
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return  # torchrun started several processes with the same words: one of them tells
    text = message.format_message() if isinstance(message, typer.TyperException) else str(message)
    print("vitlab: " + " ".join(text.split()), file=sys.stderr)


def entry() -> None:
    """The console script."""
    code = main()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # Not by way of Python's tidying up, in which a group of processes may wait for one that is gone.
        sys.stdout.flush()
        sys.stderr.flush()
        if code in (2, 3) and os.environ.get("LOCAL_RANK", "0") != "0":
            # torchrun ends all processes as soon as one has failed: the one that tells why must not be cut short.
            time.sleep(SECONDS_TO_TELL)
        os._exit(code)
    sys.exit(code)
