"""The table of docs/extending.md: which files a kind that ships with fedray is written in."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from safetensors.torch import load_file

from fedray.scenario import plugins
from fedray.scenario.kinds import BASES
from tests.helpers import garments, quickstart, rows

ROOT = Path(__file__).parent.parent
ROW = re.compile(r"^\| (\w+) \| `(.+/)` \| `(.+\.py)` \| `(\w+)` in `(.+\.py)`(, with an import)? \|$", re.M)
TABLE = {row[0]: row[1:] for row in ROW.findall((ROOT / "docs" / "extending.md").read_text())}
# Kinds that are always a user's own, of one place in a split, named within another kind, made of more than
# their section, or that stand in place of another.
NOT_IN_TABLE = {
    *("evaluation", "callback", "defence", "relay_defence", "privacy", "incentive"),
    *("environment", "serving_rule", "algorithm", "codec_channel", "cache_policy", "weighting", "amount"),
    *("allocation", "mode", "staleness", "optimizer", "augment", "features"),
}

# By kind: its base section, and its implementation, a class New.
KINDS = {
    "learner": (
        "ModelSection",
        """
        from types import SimpleNamespace
        import torch
        from torch.nn.functional import cross_entropy
        from fedray.learners.learner import Learner

        class New(Learner):
            def __init__(self, section, context):
                super().__init__(section, context)
                self.linear = torch.nn.Linear(self.size**2, len(context.dataset.label_names), bias=False)
                torch.nn.init.zeros_(self.linear.weight)
                self.parts = {"linear": self.linear}

            def draw(self, shard, indices, generator):
                i = torch.from_numpy(indices)
                return SimpleNamespace(images=shard.images[i] / 255, labels=shard.labels[i])

            def loss(self, batch):
                return cross_entropy(self.linear(batch.images.flatten(1)), batch.labels)
        """,
    ),
    "tuning": (
        "TuningSection",
        """
        from fedray.tuning.tuning import Tuning

        class New(Tuning):
            def select(self, learner):
                return {f"linear.{name}": p for name, p in learner.linear.named_parameters()}
        """,
    ),
    "personal": (
        "PersonalSection",
        """
        from fedray.personal.personal import Personal

        class New(Personal):
            def local_update(self, model):
                for batch in model.batches:
                    model.step(batch)
                return {}
        """,
    ),
    "rule": (
        "AggregationSection",
        """
        from fedray.aggregation.accumulators import Gathered
        from fedray.aggregation.rule import Rule

        class New(Rule):
            accumulator = Gathered

            def combine(self, result):
                return 10 * result.values.amax(0).double()
        """,
    ),
    "hook": (
        "TransformSection",
        """
        from fedray.transport.hooks import Hook

        class New(Hook):
            def on_client(self, update, context):
                return 0 * update + context.client
        """,
    ),
    "attack": (
        "AttackSection",
        """
        from fedray.adversary.attack import Attack

        class New(Attack):
            def on_client(self, update, context):
                return update - 1
        """,
    ),
    "topology": (
        "TopologySection",
        """
        from fedray.schedule import SERVER_ID, Schedule
        from fedray.steps import Aggregate, Send, Train
        from fedray.topologies.topology import Topology

        class New(Topology):
            def schedule(self, context):
                steps, ups = [], tuple(f"up-{k}" for k in context.clients)
                for k in context.clients:
                    steps.append(Send(f"new-{k}", SERVER_ID, k, "downlink"))
                    steps.append(Train(f"train-{k}", k, (f"new-{k}",)))
                    steps.append(Send(f"up-{k}", k, SERVER_ID, "uplink", (f"train-{k}",)))
                return Schedule(context.round_number, (*steps, Aggregate("aggregate", ups)))
        """,
    ),
    "selection": (
        "SelectionSection",
        """
        from fedray.planning.selection import Selection

        class New(Selection):
            def choose(self, context):
                return context.available[-context.count :]
        """,
    ),
    "source": (
        "DataSection",
        """
        import numpy as np
        from fedray.data.samples import Array, DatasetInfo
        from fedray.data.source import Source

        class New(Source):
            info = DatasetInfo(1, 4, ["dark", "light"])

            def open(self, split):
                labels = np.arange(50) % 2
                images = np.tile(200 * labels[:, None, None, None], (1, 1, 4, 4)).astype(np.uint8)
                return Array(lambda: images, labels, self.info.label_names)
        """,
    ),
    "partition": (
        "PartitionSection",
        """
        import numpy as np
        from fedray.data.partition import Partition

        class New(Partition):
            def deal(self, samples, clients, rng):
                return np.array_split(np.arange(3 * clients), clients)
        """,
    ),
    "link": (
        "LinkSection",
        """
        import numpy as np
        from fedray.network.links import Link, TransferCosts

        class New(Link):
            def rates_bps(self, start, sender, receiver):
                return np.full(len(sender), 8.0)

            def transfers(self, start, requests):
                time_s = requests.nbytes / 1.0
                return TransferCosts(time_s, 0 * time_s, np.zeros(len(time_s), bool))
        """,
    ),
    "device": (
        "DeviceSection",
        """
        from fedray.network.devices import Device

        class New(Device):
            def time_s(self, flops, frequency_hz=None):
                return 7.0

            def energy_j(self, flops, frequency_hz=None):
                return 0.5
        """,
    ),
}
SECTION = """
class New{room}({base}):
    \"\"\"A new kind.\"\"\"

    kind: Literal["new"] = Field(description="new: it is new.")

    implementation: ClassVar[str] = "{module}:New"
"""
NEW = {"kind": "new"}


def changes(kind):
    """Of a scenario of garments, to one with the new kind."""
    return {
        "learner": {"model": NEW, "tuning": {"kind": "partial", "patterns": ["linear.*"]}},
        "tuning": {"tuning": NEW},
        "personal": {"personal": NEW},
        "rule": {"aggregation": NEW},
        "hook": {"aggregation": {"kind": "fedavg", "transforms": [NEW]}},
        "attack": {"adversary": {"clients": [1], "attack": NEW}},
        "topology": {"topology": NEW},
        "selection": {"population": {"clients": 5, "per_round": 2, "selection": "new"}},
        "source": {"data": NEW | {"partition": {"kind": "iid"}}},
        "partition": {"data": {"kind": "fashion_mnist_mini", "partition": NEW}},
        "link": {"network": quickstart()["network"] | {"uplink": NEW}},
        "device": {"network": quickstart()["network"] | {"device": NEW}},
    }[kind]


def copy_of_package(folder):
    """The package as it is, each file a link until it is written to."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "fedray", folder / "fedray", copy_function=os.symlink, ignore=ignored)


def rewrite(file, text):
    file.unlink(missing_ok=True)  # never through a link, into the package itself
    file.write_text(text, encoding="utf-8")


def add(kind, folder):
    """Adds the kind to a copy of the package: a new file, a section, and a line in a union."""
    room, section_file, union, union_file, imported = TABLE[kind]
    base, implementation = KINDS[kind]
    new = folder / room / f"new_{kind}.py"
    assert not new.exists()
    rewrite(new, textwrap.dedent(implementation).lstrip())
    name = f"New{kind.capitalize()}"
    module = f"{room.replace('/', '.')}new_{kind}"
    section = SECTION.format(room=kind.capitalize(), base=base, module=module)
    text = (folder / section_file).read_text(encoding="utf-8")
    if imported:
        rewrite(folder / section_file, f"{text}\n{section}")
        text = (folder / union_file).read_text(encoding="utf-8")
        source = section_file.removesuffix(".py").replace("/", ".")
        section = f"from {source} import {name}\n"
    else:
        assert section_file == union_file
    line = re.compile(rf"^{union} = (Annotated\[)?\s*", re.M)
    assert line.search(text), f"{union_file} has no {union}"
    text = line.sub(lambda found: f"{section}\n\n{found[0]}{name} | ", text)
    rewrite(folder / union_file, text)


def fedray(folder, *arguments):
    command = [sys.executable, "-m", "fedray", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_table_has_every_kind_and_names_files_that_are_there():
    assert set(TABLE) == set(BASES) - NOT_IN_TABLE == set(KINDS)
    for room, section_file, _, union_file, _ in TABLE.values():
        assert (ROOT / room).is_dir()
        assert (ROOT / section_file).is_file()
        assert (ROOT / union_file).is_file()


def test_the_table_of_ones_own_kinds_names_each_base_class_once():
    import fedray

    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    named = dict(re.findall(r"^\| (\w+) \| `fedray\.(\w+)` \|", page, re.M))
    assert named == {room: base.partition(":")[2] for room, base in BASES.items()}
    assert all(hasattr(fedray, name) for name in named.values())


def test_the_entry_points_that_the_page_shows_are_of_the_group_that_is_read():
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```toml\n(.*?)^```$", page, re.M | re.S)
    assert list(tomllib.loads(shown)["project"]["entry-points"]) == [plugins.GROUP]


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_added_in_the_files_that_the_table_names(kind, tmp_path):
    copy_of_package(tmp_path)
    add(kind, tmp_path)
    file = garments(tmp_path, changes(kind))
    assert fedray(tmp_path, "check", file) == f"{file}: garments OK\n"


def test_new_kinds_of_every_row_train_together(tmp_path):
    copy_of_package(tmp_path)
    every = {"training.rounds": 1}
    for kind in KINDS:
        add(kind, tmp_path)
        every |= changes(kind)
    every["aggregation"] = NEW | {"transforms": [NEW]}
    every["data"] = NEW | {"partition": NEW}
    every["network"] = quickstart()["network"] | {"uplink": NEW, "device": NEW}
    every["tuning"] = NEW
    fedray(tmp_path, "run", garments(tmp_path, every), "--out", "run", "--quiet")
    run = tmp_path / "run"
    clients = rows(run / "clients.jsonl")
    assert [row["client"] for row in clients] == [3, 4]  # the selection's
    weights = load_file(run / "model" / "model.safetensors")["weight"]
    assert weights.shape == (2, 16)  # the learner's, for the source's labels and images
    assert bool((weights == 40).all())  # 0, and 10 times the largest update, which is 4 by the hook
    assert json.loads((run / "partition.json").read_text())["counts"] == [[2, 1], [1, 2]] * 2 + [[2, 1]]
    steps = {row["id"]: row for row in rows(run / "timeline.jsonl")}
    assert list(steps)[:3] == ["new-3", "train-3", "up-3"]  # the topology's
    assert steps["train-3"]["t1_s"] - steps["train-3"]["t0_s"] == pytest.approx(7.0)  # the device's
    took_s = steps["up-3"]["t1_s"] - steps["up-3"]["t0_s"]
    assert took_s == pytest.approx(4 * weights.numel())  # the link's, a byte a second
    resolved = YAML(typ="safe").load((run / "scenario.resolved.yaml").read_text())
    assert resolved["tuning"]["kind"] == "new"
