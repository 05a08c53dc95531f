"""The command `cbbt`: check and download data, carry out one run, report on a batch, serve a model.

Each command calls one function of the package. Slow imports are made in the command
that needs them, so `cbbt --help` answers at once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

from cbbt.box.address import GRANTS

# What the package raises for wrong values, types, files and numbers, besides its own exceptions.
EXPECTED = (ValueError, TypeError, OSError, FloatingPointError)


class Commands(TyperGroup):
    """Commands whose expected errors end in one line on stderr and exit status 1; a bug keeps its traceback."""

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except Exception as error:
            if not isinstance(error, EXPECTED) and not type(error).__module__.startswith("cbbt."):
                raise
            typer.echo(f"cbbt: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(1) from error


app = typer.Typer(cls=Commands, no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

DATA_ROOT = typer.Option(help="Folder of the benchmarks, in CoOp's layout.")
MODELS = '"mini", "photo" or an open_clip architecture such as RN50'
Backbone = Annotated[str, typer.Option(help=f"{MODELS}, or a served model's address.")]
Served = Annotated[str, typer.Option("--backbone", help=f"{MODELS}.")]
Pretrained = Annotated[str, typer.Option(help='An open_clip tag or a weights file; "default": the backbone\'s default weights.')]
Device = Annotated[str | None, typer.Option(help="cpu or cuda; default: a GPU if there is one.")]


@app.callback()
def start() -> None:
    """Black-box tuning of vision-language models: the CBBT reproduction kit."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # for consoles that cannot print a character of a table


@app.command()
def check_data(
    data_root: Annotated[Path, DATA_ROOT],
    names: Annotated[list[str] | None, typer.Argument(help="Benchmarks; all eleven by default.")] = None,
    verify_images: Annotated[bool, typer.Option("--verify-images", help="Open and decode every image.")] = False,
) -> None:
    """Report which benchmarks are complete on disk, and what the others lack; exit with 1 unless all are complete."""
    from cbbt.data.check import check_data

    rows = list(check_data(data_root, names or None, verify_images=verify_images, progress=sys.stderr.isatty()).itertuples())
    for row in rows:
        typer.echo(f"{row.dataset:15} {row.state:11} {row.present:,} of {row.expected:,} images")
        missing = f"missing: {', '.join(row.missing)}" if row.missing else ""
        broken = f"{row.broken_count} broken: {', '.join(row.broken)}" if row.broken else ""
        for line in filter(None, (missing, broken, row.note, row.todo)):
            typer.echo(f"    {line}")
    if any(row.state != "ready" for row in rows):
        raise typer.Exit(1)


@app.command()
def download(
    names: Annotated[list[str], typer.Argument(help="Benchmarks, such as eurosat.")], data_root: Annotated[Path, DATA_ROOT]
) -> None:
    """Download what benchmarks lack: images, and CoOp's split file."""
    from cbbt.data.download import download_data

    for name in names:
        typer.echo(download_data(name, data_root, progress=sys.stderr.isatty()))


@app.command()
def run(
    dataset: Annotated[str, typer.Argument(help="An embedded task, a benchmark, or a folder of class folders.")],
    method: Annotated[str, typer.Option(help="A key of docs/methods.md.")] = "cbbt",
    backbone: Backbone = "mini",
    pretrained: Pretrained = "default",
    shots: Annotated[int, typer.Option(help="Training images per class.")] = 16,
    seed: Annotated[int, typer.Option(help="Seed of the shots and of every other draw.")] = 1,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any other setting; may be repeated.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of runs for the record; a finished run is read back.")] = None,
    data_root: Annotated[Path | None, DATA_ROOT] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps image features between runs.")] = None,
    device: Device = None,
    workers: Annotated[int, typer.Option(help="Processes that decode images.")] = 0,
) -> None:
    """Carry out one run; print its scores in percent, its queries and its seconds."""
    values = dict(_key_and_value(text) for text in settings or ())

    from cbbt.runs.config import method_configs
    from cbbt.runs.experiment import run

    common = {"dataset": dataset, "backbone": backbone, "pretrained": pretrained, "shots": shots}
    (config,) = method_configs([method], [seed], values, common)
    places = {"out": out, "root": data_root, "cache": cache, "device": device, "workers": workers}
    record = run(config, **places, progress=sys.stderr.isatty())
    lines = {name: f"{score:.2f}" for name, score in record["scores"].items()}
    lines |= {name: f"{count:,}" for name, count in record["queries"].items()}
    lines["seconds"] = f"{record['seconds']['total']:.1f}"
    typer.echo(record["run_id"])
    for name, value in lines.items():
        typer.echo(f"{name:34} {value:>12}")


@app.command()
def report(grid: Annotated[Path, typer.Argument(help="A grid file, such as configs/default.yaml.")]) -> None:
    """Report what failed in a batch, or print its accuracy tables and the paths of its figures."""
    from cbbt.runs.grid import Grid
    from cbbt.runs.report import report

    report(Grid.from_file(grid))


@app.command()
def serve(
    backbone: Served = "mini",
    pretrained: Pretrained = "default",
    device: Device = None,
    host: Annotated[str, typer.Option(help="Address to listen on; needs --keys unless only local.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 for a free one.", min=0, max=65535)] = 8000,
    grant: Annotated[str, typer.Option(help="What the server answers, comma-separated.")] = ",".join(GRANTS),
    keys: Annotated[Path | None, typer.Option(help="YAML file of API keys and budgets (docs/remote.md).")] = None,
    ledger: Annotated[Path, typer.Option(help="SQLite file of the query counts.")] = Path("ledger.sqlite"),
    megabytes: Annotated[int, typer.Option(help="Largest request and largest answer, in MB.", min=1)] = 256,
    waiting: Annotated[int, typer.Option(help="Requests that may wait; further clients are told to retry.", min=1)] = 64,
    seconds: Annotated[float, typer.Option(help="Timeout for a silent client, in seconds.", min=0.1)] = 30.0,
    join: Annotated[int, typer.Option(help="Most rows joined into one product; 0: none, and bit-exact answers.", min=0)] = 0,
) -> None:
    """Serve a model over HTTP, with keys, budgets and a ledger."""
    from cbbt.box.server.doors import Limits
    from cbbt.box.server.serve import serve

    limits = Limits(megabytes, waiting, seconds, join)
    grants = [word.strip() for word in grant.split(",") if word.strip()]
    places = {"device": device, "host": host, "port": port, "keys": keys, "ledger": ledger}
    serve(backbone, pretrained, grants=grants, limits=limits, **places)


def _key_and_value(text: str) -> tuple[str, str]:
    """The two sides of "key=value". Raises a usage error for other text, or for a key that has its own option."""
    key, sign, value = text.partition("=")
    if not sign:
        raise typer.BadParameter(f"{text!r} is not of the form key=value", param_hint="--set")
    if key in ("method", "seed"):
        raise typer.BadParameter(f"{key} has its own option, --{key}", param_hint="--set")
    return key, value
