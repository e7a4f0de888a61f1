"""A callback of one's own: metrics as a CSV file, while the run goes on."""

import csv

from pydantic import Field

import fedray


class CsvFile(fedray.Callback):
    """Writes a row after each round. A run that is resumed begins with the rows of its earlier rounds."""

    class Section(fedray.Callback.Section):
        path: str = Field(default="metrics.csv", description="The file, relative to the run folder.")
        columns: list[str] = Field(
            default=["round", "loss", "sim_time_s"], description="Names of metrics, as in metrics.jsonl."
        )

    def on_start(self, start: fedray.RunStart) -> None:
        self.file = (start.run / self.section.path).open("w", newline="")
        self.table = csv.DictWriter(self.file, self.section.columns, extrasaction="ignore")
        self.table.writeheader()
        self.table.writerows(start.history)

    def on_round(self, report: fedray.RoundReport) -> None:
        self.table.writerow(report.metrics)
        self.file.flush()

    def on_end(self, end: fedray.RunEnd) -> None:
        self.file.close()
