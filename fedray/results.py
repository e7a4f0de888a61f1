"""What a run has to show from Python: tables, figures, samples, its report; and going on with it."""

import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from fedray.calls import execute, python_words, refuse_no_callbacks
from fedray.scenario import Loaded

if TYPE_CHECKING:
    import pyarrow

    from fedray.callbacks import Callback
    from fedray.notebook import Svg
    from fedray.runs.folder import RunFolder
    from fedray.runs.remote import Remote

PathLike = str | os.PathLike[str]


class Run:
    """A run folder, and what it has to show: `metrics`, `clients` and `timeline` as Arrow tables, `figures`
    as SVG. It shows itself in a notebook.

    An Arrow table becomes Python's own rows by `.to_pylist()`, a data frame by `.to_pandas()` or
    `polars.from_arrow(...)` where pandas or polars is installed.

    Args:
        path: the run folder.
        remote: where else it is, of a run that was opened by a URI.
    """

    def __init__(self, path: PathLike, remote: "Remote | None" = None) -> None:
        self.path = Path(path)
        self.remote = remote

    def __repr__(self) -> str:
        return f"<fedray.Run {self.path}>"

    def _repr_html_(self) -> str:
        from fedray.notebook import run_html

        return run_html(self.path)

    @property
    def scenario(self) -> Loaded:
        """What was run, with every default."""
        from fedray.runs import reader

        return reader.scenario(self.path)

    @property
    def metrics(self) -> "pyarrow.Table":
        """A row a round; columns as in metrics.jsonl (bytes, seconds and joules are cumulative). A sweep's
        rows, here and in the other tables, begin with their `variant`."""
        return self._table("metrics.jsonl")

    @property
    def clients(self) -> "pyarrow.Table":
        """A row a client and round: its samples, steps, loss, bytes, seconds, joules and outcome."""
        return self._table("clients.jsonl")

    @property
    def client_tests(self) -> "pyarrow.Table":
        """A row a client and evaluated round, of a run with `evaluation.clients`: the client's test samples,
        and what its own model makes of them, such as `accuracy` and `loss`."""
        return self._table("client_tests.jsonl")

    @property
    def timeline(self) -> "pyarrow.Table":
        """A row a step of a round's schedule, with its simulated start and end, bytes and energy."""
        return self._table("timeline.jsonl")

    @property
    def result(self) -> dict[str, Any] | None:
        """result.json's object; None while there is none."""
        result: dict[str, Any] | None = self._folder().read("result.json")
        return result

    @property
    def variants(self) -> dict[str, "Run"]:
        """The runs of a sweep, by name; none of a single run."""
        sweep = self.scenario.scenario.sweep
        return {name: Run(self.path / name) for name in (sweep.variants if sweep else {})}

    @property
    def summary(self) -> dict[str, Any]:
        """What a sweep's runs say of each variant, by its name, once they have ended: its `runs`, `seeds`,
        how many are `done`, and of every metric of the last round its `n`, `mean`, `std` (sample standard
        deviation) and `ci95` (the mean's 95 % confidence interval by Student's t); both None for one run.
        Empty for a single run."""
        return dict((self.result or {}).get("summary") or {})

    @property
    def figures(self) -> "dict[str, Svg]":
        """The report's pictures by name, as SVG: each metric against rounds, the first round's timeline, and
        what else the run has. A sweep's are those of `compare`."""
        from fedray.notebook import figures

        return figures(self.path)

    @python_words()
    def generate(
        self,
        prompt: str | Sequence[str] = (),
        num: int = 1,
        seed: int = 0,
        guidance: float | None = None,
        steps: int | None = None,
        negative: str | None = None,
        condition: PathLike | None = None,
    ) -> list[Any]:
        """What the run's model makes of prompts: PIL images, or texts.

        Args:
            prompt: one, or several; none for a model whose images come from noise alone.
            num: images or texts a prompt.
            seed: of a prompt's first image; the others count up.
            guidance: how much an image follows its prompt; None: as the run's own samples.
            steps: of the sampler, or tokens of a text; None: as the run's own samples.
            negative: what not to show; None: as the run's own samples.
            condition: the file of a picture that images follow, of a run with a ControlNet; None: the run's
                own examples.

        Raises:
            ScenarioError: for a model that generates nothing, or a run without a checkpoint.
        """
        from PIL import Image

        from fedray.generate import generate

        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        picture = None if condition is None else Path(condition)
        with TemporaryDirectory(prefix="fedray-") as folder:
            rows = generate(
                self.path,
                prompts,
                Path(folder),
                num,
                seed,
                guidance,
                steps,
                negative,
                condition=picture,
            )
            if "text" in rows[0]:
                return [row["text"] for row in rows]
            images = []
            for row in rows:
                with Image.open(row["file"]) as image:
                    image.load()
                images.append(image)
            return images

    @python_words()
    def report(
        self,
        out: PathLike | None = None,
        network: PathLike | None = None,
        beside: Sequence["Run"] = (),
        tables: PathLike | None = None,
    ) -> Path:
        """Writes the report, one HTML page, and gives its file.

        Args:
            out: the file to write; None: report.html in the run folder.
            network: a scenario's file, on whose network the run is costed a second time; None: only on its
                own.
            beside: runs to compare it with, on the same page.
            tables: a folder, for table.csv and table.tex of the runs, those that differ in their seeds alone
                as means; None: none.

        Raises:
            ScenarioError: for files that are not a run's, or a page that cannot be written.
        """
        from fedray.report.page import write

        folders = [self.path, *(run.path for run in beside)]
        if tables is not None:
            from fedray.report import tables as written

            written.write(folders, Path(tables))
        return write(folders, Path(out) if out else None, Path(network) if network else None)

    @python_words()
    def verify(self, round_number: int | None = None, client: int | None = None) -> dict[str, Any]:
        """Checks the run's ledger: the object that `fedray verify --json` prints. Its `problems` are empty
        where all is as it was signed.

        Args:
            round_number: with `client`, of an update whose inclusion proof is given.
            client: by number.

        Raises:
            ScenarioError: for a run without a ledger, or an update that is not in it.
        """
        from fedray.verification import verify

        return verify(self.path, round_number, client)

    @python_words()
    def publish(
        self,
        repo: str,
        dry_run: PathLike | None = None,
        license_name: str = "unknown",
        private: bool = False,
    ) -> dict[str, Any]:
        """Brings the finished run's model and its card to the Hugging Face hub, and nothing of the clients'
        data: the object that `fedray publish --json` prints.

        Args:
            repo: owner/name on the hub.
            dry_run: a new or an empty folder, into which everything is written instead; None: it is uploaded.
            license_name: of the weights, as the hub calls it, such as apache-2.0.
            private: whether a new repository is seen by its owner alone.

        Raises:
            ScenarioError: for a run that is not done, a wrong name, or a folder that holds something.
            NotPublished: where the hub does not take it.
        """
        from fedray.publishing.publish import publish

        return publish(self.path, repo, Path(dry_run) if dry_run else None, license_name, private)

    @python_words()
    def resume(
        self,
        rounds: int | None = None,
        callbacks: Sequence["Callback"] = (),
        progress: bool = True,
        accept_changed_code: bool = False,
    ) -> "Run":
        """Goes on from the newest whole checkpoint; nothing happens where the run is done.

        Args:
            rounds: up to which it goes on, of a sweep every run; None: as its scenario says.
            callbacks: called as the run goes on.
            progress: show it here.
            accept_changed_code: go on, too, where the code of your own kinds is other than before.

        Raises:
            ScenarioError: where scenario, data or your own kinds' code are others than before.
            RunFailed: where it fails again.
        """
        from fedray import execution

        refuse_no_callbacks(callbacks)
        folder, loaded, result = execution.reopen(self.path, rounds, accept_changed_code)
        folder.remote = self.remote
        if result is None:
            execute(folder, loaded, callbacks, progress, resume=True)
        return self

    def _table(self, name: str) -> "pyarrow.Table":
        """A file of lines; of a sweep, those of its variants one after another."""
        import pyarrow

        variants = self.variants
        if not variants:
            return self._folder().table(name)
        tables = []
        for variant, run in variants.items():
            if run.path.is_dir():
                table = run._table(name)
                tables.append(table.add_column(0, "variant", [[variant] * table.num_rows]))
        return pyarrow.concat_tables(tables, promote_options="permissive")

    def _folder(self) -> "RunFolder":
        from fedray.runs.folder import RunFolder

        return RunFolder.reopen(self.path)
