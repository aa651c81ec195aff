"""The command line: ``jaxsal demo | explain | compare | explore | models | methods``.

Exit codes: 0 fine; 2 bad usage or bad input, with one line on standard error and nothing written; 1 anything else.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from jaxsal._cache import by_default
from jaxsal._commands.errors import BadInput
from jaxsal._config import config

# Those of jaxsal.paths, which takes long to import for a line of help.
SCORES = ("retaining", "dissipating", "contrastive", "straddle")
PRESETS = ("default", "thesis")
BASES = ("patches", "superpixels", "sift")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message} (see {self.prog} --help)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="jaxsal", description="Why did the classifier say that? Heatmaps of any image classifier.")
    parser.add_argument("--debug", action="store_true", help="show where an error came from")
    parser.add_argument("--version", action="store_true", help="print the version")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)

    demo = commands.add_parser("demo", help="explain generated scenes with the embedded network")
    demo.add_argument(
        "--out", default="jaxsal-demo", metavar="DIR", help="for figures and index.html; default: %(default)s"
    )
    demo.add_argument("--seed", type=_seed, default=0, metavar="N", help="which scenes")

    explain = commands.add_parser("explain", help="heatmaps of photographs, as pictures and arrays")
    explain.add_argument("images", nargs="+", metavar="IMAGE", help="image files, or .npy arrays [h w 3] in [0, 1]")
    explain.add_argument("--method", nargs="+", action="extend", metavar="M", help="names (default: grad_cam)")
    explain.add_argument("--full-resolution", action="store_true", help="heatmaps at the size of the image file")

    compare = commands.add_parser("compare", help="every method on one image, in one figure")
    compare.add_argument("image", metavar="IMAGE", help="image file, or .npy array [h w 3] in [0, 1]")
    compare.add_argument("--methods", nargs="+", default=["all"], metavar="M", help="names, or all (default)")

    explore = commands.add_parser("explore", help="optimised ablation paths of one image, as a page to walk along them")
    explore.add_argument("image", metavar="IMAGE", help="image file, or .npy array [h w 3] in [0, 1]")
    explore.add_argument(
        "--target", nargs="+", action="extend", metavar="CLASS", help="numbers or names; default: the top class"
    )
    explore.add_argument("--score", nargs="+", default=["retaining"], choices=SCORES, help="default: retaining")
    explore.add_argument("--preset", default="default", choices=PRESETS, help="default: %(default)s")
    explore.add_argument("--masks", type=_count, default=14, metavar="N", help="times along a path; default: 14")
    explore.add_argument("--iterations", type=_count, metavar="N", help="at most; default: the preset's")
    explore.add_argument("--out", default="explorer.html", metavar="FILE", help="default: %(default)s")

    for command in (explain, compare, explore):
        command.add_argument("--model", metavar="NAME", help="architecture; jaxsal models lists them")
        command.add_argument("--weights", metavar="FILE", help="safetensors, npz or PyTorch file, or hub id")
        command.add_argument("--size", type=_size, metavar="N", help="classify at N x N pixels; default: the model's")
        command.add_argument(
            "--basis", choices=BASES, help="what methods that intervene switch off; default: their own"
        )
    for command in (explain, compare):
        command.add_argument("--target", metavar="CLASS", help="number or name; default: the top class")
        command.add_argument("--layer", metavar="L", help="layer of methods that read one")
        command.add_argument("--colormap", metavar="C", help="of maps without sign: matplotlib's, such as jet")
        command.add_argument("--out", default="jaxsal-out", metavar="DIR", help="default: %(default)s")

    commands.add_parser("models", help="list the architectures")
    commands.add_parser("methods", help="list the methods")
    for command in commands.choices.values():
        # Suppressed where absent, so that it does not undo the option given before the command.
        command.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


def _seed(text: str) -> int:
    if not text.isdigit() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected an integer from 0 to {2**32 - 1}")
    return int(text)


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a positive number")
    return int(text)


def _size(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a positive number of pixels")
    return int(text)


def _prepare(options: argparse.Namespace) -> Callable[[], None]:
    """Check everything that was given; the result does the work."""
    if options.version:
        from importlib.metadata import version

        return lambda: print(version("jaxsal"))
    if options.command is None:
        raise BadInput(
            "no command: got nothing, expected demo, explain, compare, explore, models or methods (see jaxsal --help)"
        )
    from jaxsal._commands import compare, demo, explain, explore, listing

    commands = {
        "demo": demo.prepare,
        "explain": explain.prepare,
        "compare": compare.prepare,
        "explore": explore.prepare,
        "models": listing.models,
        "methods": listing.methods,
    }
    return commands[options.command](options)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
      argv: arguments; those of the process by default.

    Returns:
      The exit code: 0, 2 for bad usage or bad input, 1 for anything else.
    """
    by_default()
    with config(check_values=True):
        return _main(argv)


def _main(argv: Sequence[str] | None) -> int:
    debug = "--debug" in (sys.argv[1:] if argv is None else argv)
    try:
        options = _parser().parse_args(argv)
        try:
            run = _prepare(options)
        except ConnectionError:  # the network's fault
            raise
        except (ValueError, TypeError, OSError) as error:
            raise BadInput(str(error)) from error
        run()
        sys.stdout.flush()
    except SystemExit as done:  # --help
        return int(done.code or 0)
    except BadInput as error:
        return _fail(error, 2, debug)
    except BrokenPipeError:  # the reader of our output left: a null device takes what Python still writes at its exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt as error:
        return _fail(error, 1, debug)
    except Exception as error:  # the boundary of the program: every other failure is one line too
        return _fail(error, 1, debug)
    return 0


def _fail(error: BaseException, code: int, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exception(error)
    text = " ".join(str(error).split()) or type(error).__name__
    if code == 1 and not isinstance(error, KeyboardInterrupt | ConnectionError):
        text = f"{type(error).__name__}: {text} (--debug shows where)"
    print(f"jaxsal: {text}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
