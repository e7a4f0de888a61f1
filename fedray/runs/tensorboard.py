"""`runtime.report_to: [tensorboard]`: metrics and sample grids under `tensorboard/` in the run folder."""

import shutil
from typing import Any

from PIL import Image

from fedray.runs.folder import RunFolder


class TensorBoard:
    """Writes TensorBoard's own event files, without torch. What metrics.jsonl holds already is written again,
    so that a resumed run has one curve."""

    def __init__(self, run: RunFolder) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self.run, folder = run, run.path / "tensorboard"
        shutil.rmtree(folder, ignore_errors=True)
        self.writer = EventFileWriter(str(folder))
        for metrics in run.rows():
            self.round(metrics)

    def round(self, metrics: dict[str, Any]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [
            Summary.Value(tag=k, simple_value=v) for k, v in metrics.items() if k != "round" and v is not None
        ]
        grid = self.run.path / "samples" / f"round-{metrics['round']:04d}.png"
        if grid.exists():
            with Image.open(grid) as image:
                width, height = image.size
            picture = Summary.Image(
                height=height, width=width, colorspace=3, encoded_image_string=grid.read_bytes()
            )
            values.append(Summary.Value(tag="samples", image=picture))
        self.writer.add_event(Event(step=metrics["round"], summary=Summary(value=values)))
        self.writer.flush()
