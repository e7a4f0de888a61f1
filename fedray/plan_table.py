"""A plan as a table on the terminal."""

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from fedray.terminal import size


def _sent_differently(p: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Transfers of other sizes, and what clients keep."""
    for direction in ("downlink", "uplink"):
        if (n := p[f"payload_bytes_{direction}"]) != p["payload_bytes"]:
            yield f"at most, {direction}", f"{n:,} B", size(n)
    if n := p["client_state_bytes"]:
        yield "a client keeps", f"{n:,} B", size(n)
    if changes := p.get("changes_sent"):
        yield (
            "changes of the base sent down",
            f"{changes['stacked']:,} as adapters",
            f"{changes['whole']:,} whole",
        )


def show_plan(p: dict[str, Any]) -> None:
    """A table; a sweep's has one a variant."""
    if "variants" in p:
        for variant in p["variants"].values():
            show_plan(variant)
        return
    table = Table(
        title=f"plan of {p['name']}: nothing is trained",
        title_justify="left",
        show_header=False,
        box=None,
        pad_edge=False,
    )
    table.add_column(style="dim", overflow="fold")
    table.add_column(justify="right", overflow="fold")
    table.add_column(style="dim", overflow="fold")
    for row in _plan_rows(p):
        table.add_row(*row)
    Console().print(table, highlight=False)
    if cuts := p.get("cuts"):
        _show_cuts(cuts, p["cut"])
    for note in p.get("notes", ()):
        Console().print(f"note: {note}", highlight=False, markup=False)


def _plan_rows(p: dict[str, Any]) -> list[tuple[str, str, str]]:
    """What is said of a plan: a name, and two columns of values."""
    named = f"{p['rounds']} rounds" + (", with the generator's" if "generator" in p else "")
    return [
        *_actor_rows(p),
        *_size_rows(p),
        *_tuned_first(p),
        ("", "", ""),
        ("", "a round", named),
        *_cost_rows(p),
    ]


def _actor_rows(p: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Who runs it."""
    actors = p["actors"]
    clients = (
        ", ".join(f"{n} at {site}" for site, n in actors.get("sites", {}).items())
        or f"{actors['client']} client"
    )
    if actors["executor"] == "ray":
        yield "actors on this machine", clients, "1 server, 1 evaluator"
    else:
        yield "actors on this machine", "none", "all in one process"
    gpus = f"{p['gpus_per_actor']:g} GPU" if p["gpus_per_actor"] else "no GPU"
    yield "each client actor holds", f"{p['cpus_per_actor']:g} CPU", gpus
    yield "memory of a client actor", size(p["memory_bytes"]["client"]), "activations on top"


def _size_rows(p: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """How large what travels is, and how much work it takes."""
    yield "parameters", f"{p['parameters']:,}", ""
    yield "that train and travel", f"{p['trainable_parameters'] - p['home_parameters']:,}", ""
    if p["home_parameters"]:
        yield "that train and stay at home", f"{p['home_parameters']:,}", ""
    yield "a transfer", f"{p['payload_bytes']:,} B", size(p["payload_bytes"])
    yield from _sent_differently(p)
    for name, n in p["export_files"].items():
        yield f"as {name}", f"{n:,} B", size(n)
    yield "work a sample", size(p["flops_per_sample"], "FLOP"), "forward and backward"
    if p["encode_flops_per_sample"]:
        yield "to encode a sample", size(p["encode_flops_per_sample"], "FLOP"), "once"
    if p["preparation_flops"]:
        yield "to prepare a client", size(p["preparation_flops"], "FLOP"), "once"
    if p["pictures"]:
        yield "work a picture", size(p["flops_per_picture"], "FLOP"), f"{p['pictures']:,} are painted"


def _cost_rows(p: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """What a round costs, and all of them."""
    each = p["per_round"]
    total = p["total"]
    yield "transfers", f"{each['transfers']:g}", f"{total['transfers']:,}"
    for key in total:
        if key.startswith("bytes_"):
            yield key.removeprefix("bytes_"), size(each.get(key, 0)), size(total[key])
    if "symbols" in total:
        yield "symbols", f"{each['symbols']:,}", f"{total['symbols']:,}"
    for key, name, unit in (("sim_time_s", "simulated time", "s"), ("energy_j", "energy", "J")):
        yield name, size(each[key], unit), size(total[key], unit)
    money = ("paid", "paid"), ("social_cost", "the winners' true costs"), ("misreport_gain", "by misreports")
    for key, name in money:
        if key in total:
            yield name, f"{each[key]:.4g}", f"{total[key]:.4g}"


def _tuned_first(p: dict[str, Any]) -> list[tuple[str, str, str]]:
    """What the fine-tuning of a generator before the first round costs, where there is one."""
    if "generator" not in p:
        return []
    total = p["generator"]["total"]
    nbytes = sum(total[f"bytes_{direction}"] for direction in ("uplink", "downlink", "sidelink"))
    spent = f"{size(total['sim_time_s'], 's')}, {size(total['energy_j'], 'J')}"
    return [("the generator, tuned first", size(nbytes), spent)]


def _show_cuts(cuts: list[dict[str, Any]], chosen: str) -> None:
    """What each cut costs, the chosen one marked."""
    title = "\nits cuts: FLOP a sample, what the client holds, what crosses for a batch, the first round"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for i, name in enumerate(("cut", "client", "server", "holds", "crosses", "time", "energy")):
        table.add_column(name, justify="right" if i else "left", no_wrap=bool(i), overflow="fold")
    for cut in cuts:
        name = cut["cut"] + (f" .. {cut['tail']}" if cut["tail"] else "")
        first = cut["first_round"]
        flops = [size(cut["flops_per_sample"][side], "") for side in ("client", "server")]
        crosses = size(sum(cut["bytes_per_batch"].values()))
        if symbols := sum(cut.get("symbols_per_batch", {}).values()):
            crosses += f", {symbols:,} symbols"
        row = (
            name,
            *flops,
            size(cut["part_bytes"]),
            crosses,
            size(first["sim_time_s"], "s"),
            size(first["energy_j"], "J"),
        )
        table.add_row(*row, style="bold" if name == chosen else None)
    Console().print(table, highlight=False)
