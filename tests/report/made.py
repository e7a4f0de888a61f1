"""Run folders with a known story, made without training."""

import json

from PIL import Image

from fedray.scenario import load
from tests import helpers

PROMPT = "a <b>bag</b>"
SHA256 = "ab" * 32


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def made_up(folder, losses, sidelink=1000, every=0, **changes):
    """A run's folder with a known story: each round sends `sidelink` bytes, takes 2 s and 3 J."""
    folder.mkdir(parents=True)
    changes = {
        "name": folder.name,
        "population": {"clients": 5},
        "training.rounds": len(losses),
        "evaluation.prompts": [PROMPT],
        **changes,
    }
    file = helpers.write(folder / "scenario.yaml", changes)
    (folder / "scenario.resolved.yaml").write_text(load(file).resolved())
    metrics, events = [], []
    for t, loss in enumerate(losses, 1):
        row = {"round": t, "loss": loss, "clients": 2, "samples": 2, "bytes_uplink": 0, "bytes_downlink": 0}
        row |= {
            "bytes_sidelink": sidelink * t,
            "sim_time_s": 2.0 * t,
            "energy_j": 3.0 * t,
            "wall_time_s": 0.5 * t,
        }
        metrics.append(
            row | ({"eval_recognised": t / 10, "eval_images": 40.0} if every and t % every == 0 else {})
        )
        for event, peer, nbytes, t0, t1, joules in (
            ("train", None, 0, 0.0, 0.5, 1.0),
            ("send", "client-1", sidelink, 0.5, 2.0, 2.0),
        ):
            start = 2.0 * (t - 1)
            step = {
                "round": t,
                "id": f"{event}-{t}",
                "after": [],
                "event": event,
                "node": "client-0",
                "peer": peer,
            }
            step |= {
                "direction": "sidelink" if peer else None,
                "flops": 1.0,
                "bytes": nbytes,
                "t0_s": start + t0,
                "t1_s": start + t1,
            }
            events.append(step | {"energy_j": joules, "outcome": "done", "messages": 1})
    (folder / "metrics.jsonl").write_text(jsonl(metrics))
    (folder / "timeline.jsonl").write_text(jsonl(events))
    return folder


def with_everything(folder, **changes):
    """A run's folder in which every file lies that a run may leave, each with something in it."""
    made_up(folder, [0.5, 0.4], every=1, **changes)
    tensors = {"smashed": [{"names": ["x"], "shape": [8, 4, 4], "dtype": "float32"}]}
    documents = {
        "result.json": {
            "status": "done",
            "rounds": 2,
            "weights_sha256": SHA256,
            "final": {"round": 2},
            "baseline": None,
            "artifacts": [],
        },
        "error.json": {"error": "DataFailure", "message": "client 3 in round 2: no", "next": "mend it"},
        "env.json": {
            "python": "3.11.7",
            "platform": "Linux",
            "cpus": 2,
            "packages": {"fedray": "0.1.0", "ray": None},
        },
        "baseline.json": {"eval_recognised": 0.05, "eval_images": 40.0, "eval_recognised_floor": 0.01},
        "partition.json": {
            "labels": ["bag", "coat"],
            "counts": [[3, 1], [0, 4], [0, 0]],
            "emd": [0.5, 1.0, None],
        },
        "augmentation.json": {
            "clients": [{"client": 0, "samples": 4, "learning_error": 0.5, "gradient_gap": 0.1}],
            "pictures": {
                "images": 8,
                "learning_error": 0.4,
                "gradient_gap": 0.2,
                "recognised": 0.75,
                "classifier_fid": 3.0,
            },
            "emd_before": [0.5],
            "emd_after": [0.2],
        },
        "split.json": {
            "cut": "down",
            "tail": None,
            "inputs": ["labels"],
            "skips": [],
            "trainable": {"client": 1, "server": 2},
            "flops": {"front": 1.0, "server_forward_backward": 3.0, "back": 2.0},
            "crossings": tensors,
            "bytes": {"smashed": 512, "gradients": 512},
        },
        "checkpoints/round-0002/state.json": {
            "round": 2,
            "saved": {"weights_sha256": SHA256, "files": {}},
            "ledger": {
                "transfers": 2,
                "bytes_uplink": 0,
                "bytes_downlink": 0,
                "bytes_sidelink": 2000,
                "sim_time_s": 4.0,
                "energy_j": 6.0,
            },
            "wall_time_s": 1.0,
            "failures": 0,
            "metrics_lines": 2,
            "timeline_lines": 4,
        },
    }
    for name, content in documents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content, indent=1))
    (folder / "CITATION.bib").write_text("@article{one,\n title = {One}\n}\n")
    (folder / "samples").mkdir()
    sheets = ("round-0001.png", "round-0002.png", "attack-0002.png", "reconstructions-0002.png")
    for name in ("pictures.png", *sheets):
        Image.new("RGB", (34, 34), "teal").save(folder / "samples" / name)
    (folder / "samples" / "round-0002.txt").write_text("To be\n")
    return folder
