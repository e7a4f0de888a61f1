"""What a report says of one run, in words: what was run, where, and its numbers at a glance."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedray.report import numbers, recorded
from fedray.report.recorded import SMOOTHING, Recorded
from fedray.runs import reader
from fedray.terminal import size

TILES = [
    "eval_feature_distance",
    "eval_accuracy",
    "eval_exact_match",
    "eval_perplexity",
    "eval_classifier_fid",
    "eval_recognised",
    "eval_reward",
]


def facts(run: Recorded, i: int) -> dict[str, Any]:
    """Of the i-th run of a page, for its template."""
    return {
        "name": run.name,
        "colour": f"var(--s{i % 8})",
        "status": run.status,
        "error": run.error,
        "description": run.scenario["description"],
        "grids": [(f"round {n}" if n else "before", png) for n, png in run.samples.grids],
        "all_grids": run.samples.of,
        "reconstructions": run.samples.reconstructions,
        "left_out": run.samples.left_out,
        "resolved": run.resolved,
        "again": shlex.join(["fedray", "run", str(run.path / reader.SCENARIO), "--out", f"{run.path}-again"]),
        "texts": [(f"round {n}" if n else "before", text) for n, text in run.samples.texts],
        "prompts": run.scenario["evaluation"]["prompts"],
        "shares": recorded.shares(run),
        "nodes": recorded.by_node(run),
        "what": _what(run),
        "where": _where(run),
        "tiles": _tiles(run),
    }


def _at_once(scenario: dict[str, Any]) -> str:
    """How many clients train at the same time."""
    if mode := scenario["topology"].get("mode"):
        if "per_tier" in mode:
            return f"{mode['per_tier']} of a tier, of {mode['tiers']} tiers"
        if "concurrency" in mode:
            return f"{mode['concurrency']} under way at a time, {mode.get('buffer', 1)} updates a server step"
        return f"as {mode['kind']} says"
    return f"{scenario['population']['per_round'] or scenario['population']['clients']} a round"


def _what(run: Recorded) -> dict[str, str]:
    """The scenario in words, a line a section."""
    scenario = run.scenario
    env = run.env
    population = scenario["population"]
    data = scenario["data"]
    network = scenario["network"]
    what = {
        "topology": _words(scenario["topology"]),
        "clients": f"{population['clients']}, {_at_once(scenario)}",
        "data": f"{data.get('path') or data['kind']}, dealt by {data['partition']['kind']}",
        "model": _model(scenario["model"]),
        "tuning": _tuning(scenario["tuning"]),
        "training": _training(scenario["training"]),
        "aggregation": _words(scenario["aggregation"]),
    }
    if scenario.get("adversary"):
        what["adversary"] = _adversary(scenario["adversary"], population["clients"])
    if any("rejected" in row for row in run.rows):
        what["models rejected by receivers"] = _rejected(run.rows)
    if scenario.get("incentive"):
        what["incentive"] = _incentive(scenario["incentive"], run.rows)
    if scenario.get("secure_aggregation"):
        what["secure aggregation"] = "keys from the seed: a simulation, open to anyone with the seed"
    if scenario.get("privacy"):
        what["privacy"] = _privacy(scenario["privacy"], run.privacy)
    if scenario.get("augmentation"):
        what["augmentation"] = _augmentation(scenario["augmentation"])
    what["network"] = ", ".join(f"{d} {_rate(network[d])}" for d in ("uplink", "downlink", "sidelink"))
    what["seed"] = str(scenario["seed"])
    if env.get("command"):
        what["command"] = env["command"]
    return what


def _model(section: dict[str, Any]) -> str:
    """Its kind with the network's name; of one without, all that it says."""
    network = section.get("base") or section.get("network")
    if section["kind"] == "diffusion":
        network = "unet"
    return f"{section['kind']}, {Path(network).name}" if network else _words(section)


def _tuning(section: dict[str, Any]) -> str:
    options = {k: v for k, v in section.items() if v not in (None, []) and k not in ("kind", "payload")}
    words = ", ".join(f"{k} {_plain(v)}" for k, v in options.items())
    return section["kind"] + (f" ({words})" if options else "")


def _training(section: dict[str, Any]) -> str:
    steps = section.get("local_steps")
    length = f"{steps} steps" if steps else f"{section['local_epochs']} epochs"
    optimizer = section["optimizer"]
    batch = str(section["batch_size"])
    if section.get("accumulate", 1) > 1:
        batch += f" x {section['accumulate']}"
    schedule = section.get("schedule")
    change = f" ({schedule['kind']} over {schedule['over']})" if schedule else ""
    return (
        f"{section['rounds']} rounds of {length}, batch {batch}, "
        f"{optimizer['kind']} at {optimizer['learning_rate']:g}{change}, {section['precision']}"
    )


def _adversary(section: dict[str, Any], clients: int) -> str:
    """Which clients attack, from when, and how."""
    named = section["clients"]
    attackers = f"{section['share']:.0%}" if named is None else "clients " + ", ".join(map(str, named))
    place = "" if section["place"] == "random" else f", {section['place']} in their chain"
    kinds = ", ".join(attack["kind"] for attack in section["attack"])
    return f"{attackers} of {clients}, from round {section['from_round']}{place}: {kinds}"


def _rejected(rows: Sequence[dict[str, Any]]) -> str:
    """How many of all models that were handed on, and whose."""
    rejected = sum(row.get("rejected", 0) for row in rows)
    attackers = sum(row.get("rejected_attackers", 0) for row in rows)
    handed_on = sum(row["clients"] for row in rows)
    return f"{rejected} of {handed_on}, {attackers} of them attackers'"


def _incentive(section: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    """The mechanism, what was paid, and what it cost the winners."""
    if not rows:
        return _words(section)
    last = rows[-1]
    rent = last["paid"] - last["social_cost"]
    words = f"{_words(section)}; paid {last['paid']:.4g}, true costs of the winners {last['social_cost']:.4g}"
    words += f", rent {rent:.4g}"
    if "misreport_gain" in last:
        words += f", gained by misreports {last['misreport_gain']:.4g}"
    return words


def _privacy(section: dict[str, Any], known: dict[str, Any] | None) -> str:
    """The mechanism, what it protects at which epsilon, and what its noise is worth.

    Args:
        section: of the scenario.
        known: privacy.json; None: the run is not done.
    """
    noise = (
        "noise from the system: no second run has the same bits"
        if section["noise"] == "secret"
        else "noise from the seed: a simulation, since who knows the seed can take the noise away"
    )
    if known is None:
        return f"{_words(section)}; {noise}"
    spent = "epsilon not known: no accountant (pip install 'fedray[privacy]')"
    if known["epsilon"] is not None:
        spent = f"epsilon {known['epsilon']:.4g} by RDP"
        if known["epsilon_pld"] is not None:
            spent += f", {known['epsilon_pld']:.4g} by PLD"
        spent += f", at delta {known['delta']:g}, neighbours: {known['neighbours']}"
    return (
        f"{known['kind']}, clipped to {known['clip_norm']:g}, noise multiplier"
        f" {known['noise_multiplier']:g}: {spent}. Protected: {known['unit']}; not covered: losses, counts of"
        f" samples, evaluations. {noise.capitalize()}."
    )


def _where(run: Recorded) -> dict[str, str]:
    """The machine and the libraries, and the weights that came of them."""
    versions = {"python": run.env.get("python"), **run.env.get("packages", {})}
    runtime = run.scenario["runtime"]
    threads = runtime["threads"]
    return {
        "machine": f"{run.env.get('platform', 'unknown')}, {run.env.get('cpus', '?')} cores",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items() if version),
        "executor": f"{runtime['executor']}, {threads} thread{'s' * (threads > 1)} an actor",
        "weights_sha256": run.weights_sha256 or "not done yet",
    }


def _augmentation(section: dict[str, Any]) -> str:
    weighed = f", {_words(section['weighting'])}" if section["at"] == "server" else ""
    pictures = f"{section['per_class']} pictures a label and round, at most {section['at_most']}"
    return f"at {section['at'].replace('_', ' ')} by {Path(section['generator']).name}: {pictures}{weighed}"


def _tiles(run: Recorded) -> list[tuple[str, str, str]]:
    """What is worth a glance: name, value, and a word beside it."""
    if not run.rows:
        return []
    last = run.rows[-1]
    smooth = [loss for _, loss in run.smooth_loss()]
    losses = smooth or [row["loss"] for row in run.rows if row["loss"] is not None]
    tiles = [("rounds", str(last["round"]), run.status)]
    if losses:
        detail = f"from {numbers.short(losses[0])}" + f", means of {SMOOTHING} rounds" * bool(smooth)
        tiles.append((numbers.name("loss"), numbers.short(losses[-1]), detail))
    for key in TILES:
        row = next((row for row in reversed(run.rows) if row.get(key) is not None), None)
        if row is not None:
            others = (("from", run.baseline.get(key)), ("floor", run.baseline.get(f"{key}_floor")))
            words = [f"{word} {numbers.plain(key, value)}" for word, value in others if value is not None]
            tiles.append(
                (
                    numbers.name(key),
                    numbers.plain(key, row[key]),
                    "; ".join(filter(None, (numbers.sureness(key, row), *words))),
                )
            )
    tiles.append(
        (
            "on air",
            size(recorded.metric_at(last, "bytes")),
            f"{sum(e['event'] == 'send' for e in run.events):,} transfers",
        )
    )
    tiles.append(
        ("simulated time", size(last["sim_time_s"], "s"), f"{last['wall_time_s']:.0f} s on the wall")
    )
    tiles.append(("energy", size(last["energy_j"], "J"), ""))
    if "paid" in last:
        tiles.append(("paid", f"{last['paid']:.4g}", f"true costs {last['social_cost']:.4g}"))
    return tiles


def _words(section: dict[str, Any]) -> str:
    return ", ".join(
        [
            section["kind"],
            *(f"{k} {_plain(v)}" for k, v in section.items() if k != "kind" and v not in (None, [])),
        ]
    )


def _plain(value: Any) -> str:
    if isinstance(value, list) and any(isinstance(v, dict) for v in value):
        return " then ".join(_words(v) for v in value)
    return (
        " ".join(map(str, value))
        if isinstance(value, list)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )


def _rate(link: dict[str, Any]) -> str:
    if link["kind"] != "fixed":
        return " ".join(str(link[key]) for key in ("kind", "model") if key in link)
    rate = link["rate_bps"]
    return "as its table says" if isinstance(rate, list) else size(rate, "bit/s")
