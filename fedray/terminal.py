"""How a run and a plan look: live on a terminal, one plain line a round elsewhere. What came from a file is
printed with its control characters visible."""

import sys
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, TextIO, cast

import rich.live
from rich.console import Console
from rich.file_proxy import FileProxy
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.spinner import Spinner

from fedray.callbacks import Callback, ClientReport, RoundReport, RunStart
from fedray.errors import printable


class Quiet(Callback):
    """Nothing but notes that a person must see, on standard error."""

    def __init__(self) -> None:
        # the real ones: during a run, what others print goes to run.log
        self.out = sys.stdout
        self.err = sys.stderr

    def variants(self, rounds: dict[str, int]) -> None: ...

    def variant_round(self, variant: str, metrics: dict[str, Any]) -> None: ...

    def variant_ended(self, variant: str, status: str) -> None: ...

    def on_note(self, text: str) -> None:
        print(printable(text, "\n"), file=self.err, flush=True)

    def close(self) -> None: ...


class Lines(Quiet):
    """For logs and pipes."""

    def on_start(self, start: RunStart) -> None:
        self.on_note(start.executor)

    def on_client(self, report: ClientReport) -> None:
        if report.failure is not None:
            self.on_note(
                f"round {report.round_number}: client {report.client} failed while {report.stage}:"
                f" {report.failure}"
            )

    def on_round(self, report: RoundReport) -> None:
        self.on_note(round_line(report.metrics, report.rounds))

    def variants(self, rounds: dict[str, int]) -> None:
        self.rounds = rounds
        self.on_note(f"{len(rounds)} variants: {', '.join(rounds)}")

    def variant_round(self, variant: str, metrics: dict[str, Any]) -> None:
        self.on_note(f"{variant}: {round_line(metrics, self.rounds[variant])}")

    def variant_ended(self, variant: str, status: str) -> None:
        self.on_note(f"{variant}: {status}")

    def on_note(self, text: str) -> None:
        print(printable(text, "\n"), file=self.out, flush=True)


class Live(Quiet):
    """A bar over the rounds with the latest client, and the evaluated rounds as lines above it."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        # what the caller's own callbacks print stands above the bar, as its other lines do
        self.out, self.err = (cast(TextIO, FileProxy(console, file)) for file in (self.out, self.err))
        self.console = console
        self.status = rich.live.Live(
            Spinner("dots", "starting actors and loading the model ...", style="status.spinner"),
            transient=True,
            **self._shared(),
        )
        self.status.start()
        self.bar: Any = None
        self.clients = 0  # of this round that have ended

    def on_start(self, start: RunStart) -> None:
        self.status.stop()
        self.console.print(printable(start.executor), style="dim", markup=False)
        self.bar = Progress(SpinnerColumn(), TextColumn("round"), *_progress(), **self._shared())
        self.task = self.bar.add_task(
            "[dim]evaluating the base model[/dim]", total=start.rounds, completed=start.done
        )
        self.bar.start()

    def on_client(self, report: ClientReport) -> None:
        if report.failure is not None:
            text = (
                f"client {report.client} failed in round {report.round_number} while {report.stage}:"
                f" {report.failure}"
            )
            self.bar.console.print(printable(text), style="red", markup=False)
        self.clients = self.clients % report.clients + 1
        self.bar.update(
            self.task,
            description=(
                f"[dim]client {report.client}, {self.clients} of {report.clients}[/dim]"
                f" loss {report.loss:.4f}"
            ),
        )

    def on_round(self, report: RoundReport) -> None:
        self.bar.advance(self.task)
        if any(k.startswith("eval_") for k in report.metrics) or report.round_number == report.rounds:
            self.bar.console.print(round_line(report.metrics, report.rounds), highlight=False)

    def variants(self, rounds: dict[str, int]) -> None:
        self.status.stop()
        self.bar = Progress(TextColumn("{task.fields[variant]}"), *_progress(), **self._shared())
        self.tasks = {
            name: self.bar.add_task("[dim]waiting[/dim]", total=n, variant=printable(name))
            for name, n in rounds.items()
        }
        self.bar.start()

    def variant_round(self, variant: str, metrics: dict[str, Any]) -> None:
        loss = "" if metrics["loss"] is None else f"loss {metrics['loss']:.4f}"
        self.bar.update(self.tasks[variant], completed=metrics["round"], description=loss)

    def variant_ended(self, variant: str, status: str) -> None:
        self.bar.stop_task(self.tasks[variant])
        self.bar.update(self.tasks[variant], description="done" if status == "done" else "[red]failed[/red]")
        if status != "done":
            self.on_note(f"{variant} {status}")

    def on_note(self, text: str) -> None:
        (self.bar.console if self.bar else self.console).print(
            printable(text, "\n"), style="yellow", markup=False
        )

    def close(self) -> None:
        self.status.stop()
        if self.bar:
            self.bar.stop()

    def _shared(self) -> dict[str, Any]:
        """Of all that is shown. Standard output and error stay as they are: they lead to run.log."""
        return {"console": self.console, "redirect_stdout": False, "redirect_stderr": False}


def _progress() -> tuple[ProgressColumn, ...]:
    return BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeElapsedColumn()


def progress(quiet: bool = False) -> Quiet:
    """What shows a run's progress: live on a terminal and in a notebook with ipywidgets, lines elsewhere."""
    if quiet:
        return Quiet()
    notebook = Console().is_jupyter
    console = Console() if notebook else Console(file=sys.stdout)
    if notebook and find_spec("ipywidgets") is None:  # by which Rich shows what changes there
        return Lines()
    return Live(console) if notebook or console.is_terminal else Lines()


def round_line(m: Mapping[str, Any], rounds: int) -> str:
    losses = (
        f"{key.replace('_', ' ')} {m[key]:.4f}"
        for key in ("loss", "augmented_loss")
        if m.get(key) is not None
    )
    loss = next(losses, "no client trained")
    sent = m["bytes_uplink"] + m["bytes_downlink"] + m["bytes_sidelink"]
    shown = {
        "eval_accuracy": "accuracy",
        "eval_perplexity": "perplexity",
        "eval_exact_match": "exact answers",
        "eval_negative_elbo": "negative ELBO",
        "eval_classifier_fid": "classifier-FID",
        "eval_feature_distance": "feature distance",
        "eval_recognised": "recognised",
        "eval_plain_recognised": "plain photos recognised",
    }
    parts = [f"{name} {m[key]:.3g}" for key, name in shown.items() if key in m]
    clients = f"{m['clients']} clients" + (f", {m['pictures']} pictures" if m.get("pictures") else "")
    line = f"round {m['round']:>{len(str(rounds))}}/{rounds}  {loss}  {clients}  {size(sent)} on air"
    line += f"  {m['sim_time_s']:.1f} s simulated  {size(m['energy_j'], 'J')}"
    return line + ("  | " + ", ".join(parts) if parts else "")


PREFIXES = {-3: "n", -2: "µ", -1: "m", 0: "", 1: "k", 2: "M", 3: "G", 4: "T", 5: "P", 6: "E"}
COUNTED = ("", "B", "bit/s", "FLOP")  # there is no thousandth of one


def size(value: float, unit: str = "B") -> str:
    """Four figures with the SI prefix that leaves the least before the point: 9.44 MB, 1.2 kJ, 247 ns."""
    for exponent in range(-3, 7):
        scaled = float(f"{value / 1000.0**exponent:.4g}")
        if abs(scaled) < 1000 and (exponent >= 0 or (value and unit not in COUNTED)):
            return f"{scaled:.4g} {PREFIXES[exponent]}{unit}"
    return f"{scaled:.4g} {PREFIXES[6]}{unit}"
