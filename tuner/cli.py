"""argv -> one call -> text and exit code. Decides nothing.

Results go to stdout, progress to stderr. Whatever is imported here costs every command, so each command
imports what it needs.
"""

from __future__ import annotations

import atexit
import errno
import gc
import json
import math
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuner import completing
from tuner.errors import StorageError, TunerError, UsageError
from tuner.guard import StoppedError, apart, stoppable

if TYPE_CHECKING:
    from tuner.grammar import Override

app = typer.Typer(
    name="tuner",
    help="Search hyperparameters and regularization together, and stop networks from overfitting.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

SpaceFile = Annotated[
    Path, typer.Argument(metavar="SPACE", help="A space file, for example search_spaces/digits.yaml.")
]
StudyName = Annotated[
    str,
    typer.Argument(
        metavar="STUDY", help="A study's name, or the path of its folder.", autocompletion=completing.studies
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "-S", metavar="KEY=VALUE", help="Put a value over the file's; repeatable.", autocompletion=completing.keys
    ),
]
Storage = Annotated[
    str | None,
    typer.Option(help="Storage URL; also OPTUNA_STORAGE. Default: sqlite, STUDIES_DIR/tuner.db.", show_default=False),
]
Studies = Annotated[Path, typer.Option(help="The folder that holds the studies.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress.")]
Out = Annotated[Path | None, typer.Option(help="Write to this file instead of stdout.")]
COLLECT_AFTER = 100_000  # new objects before the collector looks for cycles; Python's own 700 suits small programs
STUDIES = Path("studies")
OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)  # full, one's share of it used up, broken, read-only
LONGEST_LINE = 2000  # of an error: a cell of a table may hold a book
PLAINLY = (
    ("Input should be a valid integer, unable to parse string as an integer", "a whole number is needed"),
    ("Input should be a valid number, unable to parse string as a number", "a number is needed"),
    ("Value error, ", ""),
)
# typer brings click's exceptions from click or from a copy of its own, depending on its version
WrongLine: type[Exception] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


class Format(StrEnum):
    """How `tuner best` prints a configuration."""

    yaml = "yaml"
    json = "json"
    python = "python"


def _version(wanted: bool) -> None:
    if wanted:
        from tuner import __version__

        typer.echo(f"tuner {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error (anywhere on the line).")
    ] = False,
) -> None:
    """Search hyperparameters and regularization together, and stop networks from overfitting."""


def _overrides(settings: list[str] | None, options: dict[str, tuple[str, Any]]) -> list[Override]:
    """Return the values of `-S` and of options that stand for a key, as overrides that know their option."""
    from tuner.grammar import Override

    found = [Override.parse(text) for text in settings or []]
    for option, (name, value) in options.items():
        if value is not None:
            found.append(Override(name, json.dumps(value), option))
    return found


def _emit(text: str, out: Path | None = None, *, exact: bool = False) -> None:
    """Print a result, or write it to a file; what is to be `exact` reaches a pipe byte for byte, but no terminal."""
    from tuner.telling import clean

    if out is None:
        if not exact or sys.stdout.isatty():
            text = "\n".join(clean(line) for line in text.splitlines())
        typer.echo(text.rstrip("\n"), color=True)
        return
    from tuner.files import write

    text = text if text.endswith("\n") else text + "\n"
    try:
        if out.exists() and not out.is_file():  # a folder; /dev/null, a pipe
            out.write_text(text, encoding="utf-8")
        else:
            write(out.resolve(), text, mode=out.stat().st_mode & 0o666 if out.exists() else 0o666)
    except (OSError, StorageError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        raise UsageError(f"--out {out}: can't be written ({getattr(cause, 'strerror', None) or cause})") from None
    typer.echo(f"wrote {out}", err=True)


def _refuse_over(out: Path | None, data: str) -> None:
    """Refuse to write over the data that are read."""
    with suppress(OSError):
        if out is not None and out.exists() and out.samefile(Path(data).expanduser()):
            raise UsageError(f"--out {out}: holds the data themselves; choose another name")


def _document(document: Any) -> str:
    return json.dumps(_finite(document), indent=2, default=str, allow_nan=False)


def _finite(value: Any) -> Any:
    """Return a document in which null stands for what JSON has no word for: the score of a diverged trial."""
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@app.command()
def run(
    space: SpaceFile,
    trials: Annotated[int | None, typer.Option(help="Trials of the study in all.", show_default=False)] = None,
    timeout: Annotated[str | None, typer.Option(help="Time for this run: 90s, 10m, 2h.", show_default=False)] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Processes that train; with --listen also 0: only others do.", show_default=False),
    ] = None,
    trial_timeout: Annotated[
        str | None, typer.Option(help="The longest that one trial may train: 90s, 10m, 2h.", show_default=False)
    ] = None,
    trial_memory: Annotated[
        str | None, typer.Option(help="The most memory that one trial may hold: 500MB, 4GB.", show_default=False)
    ] = None,
    study_name: Annotated[str | None, typer.Option(help="Name of the study.", show_default=False)] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the search and of every trial.", show_default=False)] = None,
    no_confirm: Annotated[
        bool, typer.Option("--no-confirm", help="Don't train the best again on fresh splits and seeds.")
    ] = False,
    settings: Set = None,
    track: Annotated[
        list[str] | None, typer.Option(help="Tell mlflow, tensorboard or a module:attr of it.", show_default=False)
    ] = None,
    listen: Annotated[
        str | None, typer.Option(help="Let `tuner worker` join at HOST[:PORT], 0.0.0.0 for all.", show_default=False)
    ] = None,
    engine: Annotated[str, typer.Option(help="What the workers are: processes, or ray places them.")] = "processes",
    gpus_per_worker: Annotated[
        float, typer.Option(min=0, max=16, help="Share of a GPU that Ray gives each worker.")
    ] = 0.0,
    ray_address: Annotated[
        str | None, typer.Option(envvar="RAY_ADDRESS", help="A Ray cluster that is there.", show_default=False)
    ] = None,
    artifacts: Annotated[
        str | None, typer.Option(help="Copy what it leaves to a URL: s3://bucket, file:///mnt.", show_default=False)
    ] = None,
    storage: Storage = None,
    studies_dir: Studies = STUDIES,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Start a study, or resume it: the same command again goes on where it ended.

    Example: tuner run search_spaces/table.yaml -S data.source=my.csv -S data.target=y --trials 30
    """
    given = {
        "--trials": ("budget.trials", trials), "--timeout": ("budget.timeout", timeout),
        "--workers": ("budget.workers", workers or None), "--study-name": ("study", study_name),
        "--seed": ("seed", seed),
        "--trial-timeout": ("budget.trial_timeout", trial_timeout),
        "--trial-memory": ("budget.trial_memory", trial_memory),
        "--no-confirm": ("budget.confirm", False if no_confirm else None),
    }  # fmt: skip
    overrides = _overrides(settings, given)
    from tuner import showing
    from tuner.following import follow
    from tuner.grammar import read_space
    from tuner.placing import Place

    with stoppable(), apart():
        place = Place(listen, engine, gpus_per_worker, ray_address if engine == "ray" else None, workers != 0)
        study = follow(read_space(space, overrides), storage, studies_dir, track or (), place, artifacts, quiet)
    _emit(_document(study.document) if as_json else "\n".join(showing.study_text(study.document)))


@app.command()
def worker(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="A study's name.")],
    workers: Annotated[int, typer.Option(min=1, max=256, help="Processes that train.")] = 1,
    folder: Annotated[Path, typer.Option(help="Where the study's own code and backbones are looked for.")] = Path(),
    wait: Annotated[
        str, typer.Option(help="The longest to wait for a study that isn't being run: 90s, 10m, 2h.")
    ] = "10m",
    connect: Annotated[
        str | None, typer.Option(help="HOST:PORT to reach it at, if not where it says.", show_default=False)
    ] = None,
    storage: Storage = None,
    studies_dir: Studies = STUDIES,
    quiet: Quiet = False,
) -> None:
    """Train for a study that runs elsewhere, with `tuner run --listen`, until it is over. May come and go.

    Example: tuner worker digits --storage postgresql://user@host/studies --workers 4
    """
    from tuner.config import seconds_of
    from tuner.doors import host_and_port
    from tuner.joining import join
    from tuner.planning import storage_url
    from tuner.serving import keep_memory
    from tuner.terminal import say

    patience = seconds_of(wait, "--wait")
    place = None
    if connect is not None:
        place = host_and_port(connect)
        if place is None or not all(place):
            raise UsageError(f"--connect {connect!r}: is no HOST:PORT, such as 10.0.0.5:7400 or [::1]:7400")
    keep_memory()
    with stoppable(), apart():
        for said in join(study, storage_url(storage, studies_dir), workers, folder, patience, place):
            if not quiet:
                say(said)


@app.command()
def check(
    space: SpaceFile,
    trials: Annotated[int | None, typer.Option(help="As many trials in all.", show_default=False)] = None,
    timeout: Annotated[str | None, typer.Option(help="In this time: 90s, 10m, 2h.", show_default=False)] = None,
    workers: Annotated[int | None, typer.Option(help="With so many processes.", show_default=False)] = None,
    settings: Set = None,
    no_import: Annotated[bool, typer.Option("--no-import", help="Don't import code that the space names.")] = False,
    as_json: Json = False,
) -> None:
    """Check a space file and its data, and say what the study would do. Writes nothing.

    Example: tuner check search_spaces/digits.yaml
    """
    from tuner.checking import check_space

    given = {
        "--trials": ("budget.trials", trials), "--timeout": ("budget.timeout", timeout),
        "--workers": ("budget.workers", workers),
    }  # fmt: skip
    with apart():
        found = check_space(space, _overrides(settings, given), no_import)
    _emit(_document(found.document) if as_json else "\n".join(found.lines))


@app.command()
def init(
    data: Annotated[
        str | None,
        typer.Argument(metavar="DATA", help="A file, a folder of images, or sklearn:NAME.", show_default=False),
    ] = None,
    target: Annotated[str | None, typer.Option(help="The column to predict.", show_default=False)] = None,
    kind: Annotated[
        str | None,
        typer.Option(help="table, image, text or sequence.", show_default=False, autocompletion=completing.kinds),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The space file to write.")] = Path("space.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
    ready: Annotated[bool, typer.Option("--list", help="List the ready spaces instead.")] = False,
) -> None:
    """Look at data, say what they are, and write a space file for them, with ranges for their size.

    Example: tuner init my.csv --target y -o my_space.yaml
    """
    from tuner import starting
    from tuner.terminal import note, say, table

    if ready:
        _emit("\n".join(table(starting.ready())))
        return
    if not data:
        raise UsageError("DATA: name a file, a folder of images, or sklearn:NAME; --list shows the ready spaces")
    _refuse_over(out, data)
    if out.exists() and not force:
        raise UsageError(f"--out {out}: is there already; --force writes over it")
    with apart():
        begun = starting.start(data, out, target=target, kind=kind)
    say(*(line for said in begun.found for line in note(said, "- ")))
    _emit(begun.text, out)
    name = shlex.quote(str(out))
    say(f"next: tuner check {name}; tuner run {name}")


@app.command("list")
def list_command(storage: Storage = None, studies_dir: Studies = STUDIES, as_json: Json = False) -> None:
    """List the studies.

    Example: tuner list
    """
    from tuner import showing
    from tuner.study import list_studies

    documents = [study.document for study in list_studies(storage=storage, studies_dir=studies_dir)]
    _emit(_document(documents) if as_json else "\n".join(showing.list_text(documents)))


@app.command()
def show(
    study: StudyName,
    trial: Annotated[int | None, typer.Option(help="Tell the life of this trial.", show_default=False)] = None,
    storage: Storage = None,
    studies_dir: Studies = STUDIES,
    as_json: Json = False,
) -> None:
    """Show a study, or one of its trials.

    Example: tuner show digits --trial 3
    """
    from tuner import showing
    from tuner.study import open_study

    found = open_study(study, storage=storage, studies_dir=studies_dir)
    if trial is None:
        _emit(_document(found.document) if as_json else "\n".join(showing.study_text(found.document)))
        return
    record = found.trials.get(trial)
    if record is None:
        there = f"the trials 0 to {max(found.trials)}" if found.trials else "no trials yet"
        raise UsageError(f"--trial {trial}: study {found.name} has {there}")
    document = {"number": record.number, "state": record.state, **record.to_json()}
    _emit(_document(document) if as_json else "\n".join(showing.trial_text(record, found.record.data["task"])))


@app.command()
def report(study: StudyName, out: Out = None, storage: Storage = None, studies_dir: Studies = STUDIES) -> None:
    """Write a study's report, one HTML file that needs nothing else; by default into the study's folder.

    Example: tuner report digits --out digits.html
    """
    from tuner.files import write
    from tuner.html_report import REPORT
    from tuner.html_report import report as html
    from tuner.study import open_study

    found = open_study(study, storage=storage, studies_dir=studies_dir)
    if out is not None:
        _emit(html(found), out)
        return
    write(found.folder / REPORT, html(found))
    typer.echo(f"wrote {found.folder / REPORT}", err=True)


@app.command()
def rescore(
    study: StudyName,
    form: Annotated[
        str | None, typer.Option(help="Form of the score.", show_default=False, autocompletion=completing.forms)
    ] = None,
    gap_penalty: Annotated[float | None, typer.Option(help="Price of the gap.", show_default=False)] = None,
    noise: Annotated[float | None, typer.Option(help="Standard errors that are free.", show_default=False)] = None,
    tolerance: Annotated[float | None, typer.Option(help="Gap that is free.", show_default=False)] = None,
    metric: Annotated[str | None, typer.Option(help="What is scored.", show_default=False)] = None,
    storage: Storage = None,
    studies_dir: Studies = STUDIES,
    as_json: Json = False,
) -> None:
    """Show a study's trials under another score, and the front of validation and gap. Trains and writes nothing.

    Example: tuner rescore digits --gap-penalty 0.5
    """
    from dataclasses import asdict

    from tuner import terminal
    from tuner.fitting import noted_score, refuse_unknown_error
    from tuner.reporting import form_of, outcome_of, standings_of
    from tuner.rescoring import reconfirmed
    from tuner.rescoring import rescore as score_again
    from tuner.scoring import metric_of
    from tuner.study import open_study, space_of

    found = open_study(study, storage=storage, studies_dir=studies_dir)
    priced = any(value is not None for value in (gap_penalty, noise, tolerance))
    given = {
        "--form": ("score.form", form or ("penalty" if priced else None)),
        "--gap-penalty": ("score.gap_penalty", gap_penalty), "--noise": ("score.noise", noise),
        "--tolerance": ("score.tolerance", tolerance), "--metric": ("score.metric", metric),
    }  # fmt: skip
    overrides = _overrides(None, given)
    space = space_of(found, overrides)
    rule = space.config.score
    try:
        named = metric_of(rule, found.record.data["task"]) if metric else found.record.metric
    except ValueError as error:
        raise UsageError(str(error)) from None
    refuse_unknown_error(space, named)
    rows = score_again(found.trials, rule, named, form_of(found.record.identity))
    before, own = outcome_of(found.record, found.trials, found.repeats), found.record.data
    after = before and reconfirmed(found.trials, before, rule, named, (own["train"], own["val"]))
    if as_json:
        told = {"trials": [asdict(row) for row in rows], "confirmed": standings_of(after) if after else None}
        _emit(_document({"study": found.name, **rule.model_dump(), "metric": named, **told}))
        return
    noted = [line for text in noted_score(space).notes for line in terminal.note(text)]
    _emit("\n".join([*noted, *terminal.rescored_text(rows, rule, named, before, after)]))


@app.command()
def ablate(
    study: StudyName,
    trial: Annotated[int | None, typer.Option(help="Of this trial, not the best.", show_default=False)] = None,
    storage: Storage = None,
    studies_dir: Studies = STUDIES,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Switch each regularizer of a study's best configuration off in turn, and show what it brought.

    Example: tuner ablate digits
    """
    from tuner import terminal
    from tuner.ablating import ablate as run_ablation
    from tuner.confirmation import Repeat
    from tuner.planning import plan_of
    from tuner.study import open_study, space_of

    found = open_study(study, storage=storage, studies_dir=studies_dir)
    with stoppable(), apart(), terminal.warned(terminal.say):
        plan = plan_of(space_of(found), storage, found.folder.parent)
        ablating = run_ablation(plan, trial)
        try:
            while True:
                news = next(ablating)
                if isinstance(news, Repeat) and not quiet:
                    terminal.say(terminal.repeat_line(news, what="round"))
        except StopIteration as end:
            document = end.value
        finally:
            ablating.close()
    _emit(_document(document) if as_json else "\n".join(terminal.ablation_text(document)))


@app.command()
def replay(
    study: StudyName,
    trial: Annotated[int, typer.Option(help="The trial's number.")],
    storage: Storage = None,
    studies_dir: Studies = STUDIES,
    as_json: Json = False,
) -> None:
    """Train a trial again, and compare every figure and the weights, byte for byte, with what was stored.

    Example: tuner replay digits --trial 12
    """
    from tuner.planning import plan_of
    from tuner.replaying import replay as replay_trial
    from tuner.study import open_study, space_of

    found = open_study(study, storage=storage, studies_dir=studies_dir)
    with stoppable(), apart():
        replayed = replay_trial(found, plan_of(space_of(found), storage, found.folder.parent), trial)
    _emit(_document(replayed.to_json()) if as_json else "\n".join(replayed.sentences()))
    if not replayed.same:
        raise typer.Exit(1)


@app.command()
def best(
    study: StudyName,
    form: Annotated[Format, typer.Option("--format", help="How to print it.")] = Format.yaml,
    out: Out = None,
    studies_dir: Studies = STUDIES,
) -> None:
    """Print the best configuration: a space without ranges, to be run again or imported.

    Example: tuner best digits --format python --out best_config.py
    """
    from tuner.best import as_python, load_best, moved

    found = load_best(study, studies_dir)
    if form is Format.yaml:
        _emit(moved(found, out.parent if out else Path()), out, exact=True)
    elif form is Format.python:
        _emit(as_python(found), out, exact=True)
    else:
        _emit(_document(found.to_json()), out)


@app.command()
def export(
    study: StudyName,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the files go; made if it isn't there.")],
    onnx: Annotated[bool, typer.Option("--onnx", help="Write the network as ONNX, too.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Write over files that are there.")] = False,
    studies_dir: Studies = STUDIES,
) -> None:
    """Write a study's best model as files that need tuner no more: weights, a Python file, ONNX.

    Example: tuner export digits my_model --onnx
    """
    from tuner.best import load_best
    from tuner.exporting import export as write_files
    from tuner.terminal import say

    with apart():
        said = write_files(load_best(study, studies_dir), folder, onnx=onnx, force=force)
    say(*said)


@app.command()
def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A space file without ranges, such as best.yaml.")],
    settings: Set = None,
    out: Annotated[Path | None, typer.Option(help="Write the configuration and the model into this folder.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train one configuration, without a study. The test set stays closed.

    Example: tuner train studies/digits/best.yaml --out my_model
    """
    from tuner import showing
    from tuner.single import train_one
    from tuner.terminal import say

    with stoppable(), apart():
        record, task = train_one(config, _overrides(settings, {}), out, lambda text: None if quiet else say(text))
    document = {"number": record.number, "state": record.state, **record.to_json()}
    _emit(_document(document) if as_json else "\n".join(showing.trial_text(record, task)))


@app.command()
def predict(
    study: StudyName,
    data: Annotated[str, typer.Argument(metavar="DATA", help="A file like the one trained on; a target is ignored.")],
    out: Out = None,
    studies_dir: Studies = STUDIES,
) -> None:
    """Predict with a study's best model; prints CSV, with a probability for each class.

    Example: tuner predict digits new_rows.csv --out predictions.csv
    """
    from tuner.best import load_best
    from tuner.predicting import predictions

    _refuse_over(out, data)
    with apart():
        text = predictions(load_best(study, studies_dir), data)
    _emit(text, out, exact=True)


@app.command()
def repair(study: StudyName, storage: Storage = None, studies_dir: Studies = STUDIES) -> None:
    """Say what is wrong with a study's database, and write anew what its ledger proves. Keeps what was there.

    Example: tuner repair digits
    """
    from tuner.repairing import repair as mend

    _emit("\n".join(mend(study, storage=storage, studies_dir=studies_dir)))


@app.command()
def dashboard(
    study: Annotated[
        str | None, typer.Argument(metavar="[STUDY]", help="Open this study's page.", autocompletion=completing.studies)
    ] = None,
    port: Annotated[int, typer.Option(help="Port on this machine.")] = 8080,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Don't open a browser.")] = False,
    allow_writes: Annotated[
        bool, typer.Option("--allow-writes", help="Let the pages change and delete studies.")
    ] = False,
    storage: Storage = None,
    studies_dir: Studies = STUDIES,
) -> None:
    """Open the studies in optuna-dashboard, on this machine only.

    Example: tuner dashboard digits
    """
    from tuner.dashboard import serve
    from tuner.planning import storage_url
    from tuner.storage import open_storage

    rdb = open_storage(storage_url(storage, studies_dir), read_only=not allow_writes)
    serve(
        rdb, port=port, allow_writes=allow_writes, open_browser=not no_browser, study=study,
        ready=lambda url: typer.echo(f"{url} (Ctrl-C ends)", err=True),
    )  # fmt: skip


@app.command()
def schema() -> None:
    """Print the JSON Schema of a space file, for editors.

    Example: tuner schema > space.schema.json
    """
    from tuner.schema import json_schema

    _emit(_document(json_schema()))


def main(argv: list[str] | None = None) -> None:
    """Run the command line; every error ends as one line and an exit code."""
    if argv is None:  # this process is the command: what it reads, it keeps, and to look through it again costs time
        gc.set_threshold(COLLECT_AFTER)
        atexit.register(gc.freeze)  # nor need it be looked through when the process ends
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"] or ["--help"]
    try:
        code = app(words, prog_name="tuner", standalone_mode=False)
        if sys.stdout is not None:  # it is None where the command was started without one
            sys.stdout.flush()
    except StoppedError as stopped:
        if argv is None:  # it ends: Ctrl-C once more has nothing to stop
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        _complain("stopped; no trial that had ended is lost, and the same command goes on from there", debug)
        sys.exit(stopped.code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except TunerError as error:
        _complain(str(error), debug)
        sys.exit(error.exit_code)
    except WrongLine as error:
        _complain(_usage(error), debug)
        sys.exit(2)
    except typer.Abort:
        sys.exit(130)
    except Exception as error:
        sys.exit(_failed(error, debug))
    sys.exit(code if isinstance(code, int) else 0)


def _failed(error: Exception, debug: bool) -> int:
    """Tell of an error that nobody expected; return the exit code. A disk that fails is no fault of the program."""
    said = " ".join(str(error).split())[:300]
    if isinstance(error, OSError) and error.errno in OF_DISKS:
        _complain(f"{said}; mend that, and run the same command again", debug)
        return StorageError.exit_code
    _complain(f"tuner failed: {type(error).__name__}: {said} (a fault of the program; --debug shows where)", debug)
    return 1


def _usage(error: Any) -> str:
    """Return a wrong command line's fault in one line, with the command whose --help tells more."""
    command = error.ctx.command_path if getattr(error, "ctx", None) is not None else "tuner"
    said = " ".join(error.format_message().split()).removesuffix(".")
    for pydantics, ours in PLAINLY:
        said = said.replace(pydantics, ours)
    return f"{said} (see {command} --help)"


def _complain(text: str, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    for line in text.splitlines():
        shown = "".join(c if c.isprintable() else "?" for c in line[:LONGEST_LINE])
        print(f"tuner: {shown}", file=sys.stderr)


if __name__ == "__main__":
    main()
