"""CITATION.bib names the work behind every method of a scenario, and nothing else."""

import re
from importlib.resources import files
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
from pydantic import BaseModel

from fedray import scenario as rooms
from fedray.checks import check
from fedray.runs.citations import bibtex
from fedray.scenario.base import Section
from fedray.scenario.scenario import Scenario
from tests.helpers import garments, tiny

BIB = files("fedray.runs").joinpath("citations.bib").read_text(encoding="utf-8")
ENTRIES = re.findall(r"^@\w+\{(\S+),", BIB, re.M)
OWN = {  # what needs no citation: ours, plain, or cited by what it stands in
    "kind": {
        "drawn",
        "per_class",
        *("folder", "column", "iid", "pooled", "dirichlet"),  # dirichlet: by whether it has samples
        *(
            "clip",
            "image_folder",
            "text",
            "instructions",
            "bytes",
            "classifier",
            "transformer",
            "full",
            "partial",
            "sgd",
        ),
        *("flip", "rotate", "color_jitter"),  # changes of images
        *("fixed", "linear", "held_out", "line_search"),  # augmentation, which cites
        # sidelink: by its model
        *("scale", "noise", "misreport"),  # attacks beside those that cite
        "validation",  # of a relay's receivers
        *("service", "edge", "listed", "zipf", "exponential", "curve"),  # who serves requests, and how
        *("awgn", "rayleigh"),  # channels of a codec, which cites
        *("lfu", "lru", "hits_per_byte"),  # of a cache
        *("constant", "polynomial", "hinge"),  # of staleness, in a mode that cites
        "step",  # a learning rate's, beside constant, linear and polynomial
        "ns2",  # a format of movement
        "garments",  # features of a judge of ours
        *("equal", "broadcast", "min_max"),  # shares of a band
        *("random", "round_robin", "most_free", "nearest_with_model", "greedy", "prophet"),  # plain rules
        *("level", "neighbours", "sidelink", "flops", "profile", "mix", "disc", "line", "places"),
    },
    "name": {"tiny_sd", "ddpm", "eat"},  # curves of quality, which say their sources
    "keep": {"hashes", "updates"},  # a ledger's, which cites
    "order": {"random", "best_sidelink"},
    "groups": {"random", "nearest"},
    "reduce": {"server"},
    "graph": {"ring", "directed_ring", "complete", "random_geometric"},
    "mixing": {"metropolis", "push_sum"},  # of gossip, which cites them
    "within": {"gossip", "relay"},  # of a hybrid, which cites
    "by": {"nearest_cell"},  # of edges, whose topology cites
    "choose": {"time", "energy"},
    "skips": {"send", "home"},
    "gradients": {"send"},
    "bits": {64, 32, 8, 4},
    "channels": {1, 3},  # of images
    "fit": {"crop", "pad", "bucket"},  # of images, which cites
    "fill": {"reflect"},  # of what is cropped
    "bound": {"median"},  # of norm_bound, which cites
    "selection": {"random"},
    "sampling": {"fixed", "poisson"},
    "noise": {"seed", "secret"},
    "network": {"cnn", "cnn_norm"},
    "norm": {"batch", "group", "none"},  # of a resnet18 or a gan alone
    "targets": {"attention", "kohya", "all-linear"},
    "payload": {"fp32", "fp16", "bf16"},
    "likelihood": {"bernoulli", "gaussian"},
    "precision": {"fp32", "bf16"},
    "base_precision": {"fp32", "bf16", "int8"},  # number formats
    "clip_norm": {"auto"},
    "weighting": {"samples", "uniform"},
    "value": {"samples", "equal"},
    "criterion": {"loss", "accuracy"},  # of a line search
    "at": {"server", "server_broadcast", "client"},
    "input": {"alpaca", "append", "alone", "ignore"},  # of instructions
    "over": {"rounds", "steps"},  # of a learning rate
    "first": {0, 1},
    "mode": {"auto", "min", "max"},  # of a metric that decides
    "labels": {"uniform", "lacking", "dirty", "clean"},
    "place": {"random", "first", "last"},
    "start": {"global", "own", "linear", "random"},  # of a codec, which cites
    "task": {"pixels"},
    "beside": {"jpeg", "webp", "linear", "bound", "prompt"},  # of a transmission, which cites
    "game": {"price", "prize"},  # of a kind that cites
    "fading": {"model", "none", "rayleigh", "rician"},
    "modulation": {"64qam", "256qam"},
    "model": {"umi", "uma", "rma", "inh"},  # of a kind that cites
    "executor": {"serial"},
    "actors": {"auto"},
    "gpus_per_actor": {"auto"},
    "data": {"abort", "drop"},
    "at_once": {"auto"},
    "report_to": {
        "aim",
        "clearml",
        "comet_ml",
        "dvclive",
        "mlflow",
        "swanlab",
        "tensorboard",
        "trackio",
        "wandb",
    },
    "measure": {"loss", "accuracy"},  # of contributions, whose section cites
    "source": {"test_set", "own"},  # of each client's own test
}


def literals(annotation, field, seen):
    """Every value that a scenario may name, with the key it stands under."""
    if get_origin(annotation) is Literal:
        yield from ((field, value) for value in get_args(annotation))
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if annotation not in seen:
            seen.add(annotation)
            for name, one in annotation.model_fields.items():
                yield from literals(one.annotation, name, seen)
    else:
        for inner in get_args(annotation):
            yield from literals(inner, field, seen)


VALUES = {  # of keys beside `kind`, whose section cites them
    "order": {"tour"},
    "reduce": {"allreduce"},
    "variant": {"vanilla", "splitfed_v1", "splitfed_v2"},
    "selection": {"fedcs", "label_cover", "round_robin", "proportional_fair"},
    "network": {"lenet", "resnet18"},
    "weighting": {"quality"},
    "rule": {"fedat", "tifl"},
    "contribution": {"leave_one_out", "shapley"},
    "view": {"activations", "neighbour", "server", "sum"},
    "objective": {"masked_language", "causal_language", "classification", "masked_image"},
    "loss": {"nonsaturating", "hinge"},
    "gradients": {"none"},
    "condition": {"edges"},
    "precision": {"fp16"},
    "base_precision": {"nf4"},
    "rate": {"shannon", "truncated", "nr_mcs"},
    "model": {"urban", "highway", "d2d"},
    "executor": {"ray"},
}


def sections(annotation, seen):
    """Every section that a scenario may have."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if annotation not in seen:
            seen.add(annotation)
            for one in annotation.model_fields.values():
                sections(one.annotation, seen)
    else:
        for inner in get_args(annotation):
            sections(inner, seen)
    return seen


def test_every_method_that_a_scenario_may_name_is_cited_or_needs_no_citation():
    named = set(literals(Scenario, "", set()))
    assert ("kind", "top_k") in named
    assert ("order", "tour") in named
    kinds = {
        ("kind", kind)
        for section in sections(Scenario, set())
        if "kind" in section.model_fields and (section.cites or section.cited is not Section.cited)
        for kind in get_args(section.model_fields["kind"].annotation)
    }
    cited = kinds | {(field, value) for field, values in VALUES.items() for value in values}
    own = {(field, value) for field, values in OWN.items() for value in values}
    assert not named - cited - own, (
        "a new method: its section says whose it is, or say here that it is nobody's"
    )
    assert not (cited | own) - named, "no scenario can name it"


def test_every_entry_is_cited_by_something_once_and_whole():
    sources = [file.read_text() for file in Path(rooms.__file__).parent.glob("*.py")]
    keys = {
        key for source in sources for key in re.findall(r'"([a-z0-9]+(?:19|20)\d\d[a-z]+|3gpp\d+)"', source)
    }
    assert len(ENTRIES) == len(set(ENTRIES))
    assert keys == set(ENTRIES)
    for entry in BIB.strip().split("\n\n"):
        assert entry.count("{") == entry.count("}"), entry
        assert "author" in entry, entry
        assert "title" in entry, entry


def cited(file):
    return set(re.findall(r"^@\w+\{(\S+),", bibtex(check(file).scenario), re.M))


TOP_K, RANDOM_K = ({"kind": kind, "fraction": 0.1, "error_feedback": False} for kind in ("top_k", "random_k"))
PAINTS = {"model": {"kind": "diffusion", "resolution": 16, "channels": [32, 32], "attention": [1]}}
RESNET = {"kind": "classifier", "network": "resnet18", "norm": "group"}
USES = {
    "top-k": ({"aggregation": {"kind": "fedavg", "transforms": [TOP_K]}}, {"aji2017sparse"}),
    "random-k": ({"aggregation": {"kind": "fedavg", "transforms": [RANDOM_K]}}, {"konecny2016federated"}),
    "top-k of what crosses a cut": (
        {
            "topology": {"kind": "split", "cut": "conv1", "tail": "loss", "compression": [TOP_K]},
            "runtime.failures": {"data": "abort"},
        },
        {"aji2017sparse", "thapa2022splitfed", "vepakomma2018split"},
    ),
    "Dirichlet over clients": ({}, {"yurochkin2019bayesian"}),
    "Dirichlet within clients": ({"data.partition.samples": 10}, {"hsu2019measuring"}),
    "quantity skew": ({"data.partition.kind": "quantity"}, {"li2022federated"}),
    "DDIM, FID, KID, precision and recall": (
        PAINTS | {"evaluation": {"quality": {"images": 16}}},
        {
            "song2021denoising",
            "heusel2017gans",
            "binkowski2018demystifying",
            "kynkaanniemi2019improved",
            "ho2020denoising",
        },
    ),
    "an update inverted": (
        {"model.network": "lenet", "evaluation": {"leakage": {"view": "sum"}}},
        {"geiping2020inverting", "zhao2020idlg", "wainakh2022user", "wang2004image", "zhu2019deep"},
    ),
    "membership by loss": (
        PAINTS | {"evaluation": {"leakage": {"view": "server"}}},
        {"yeom2018privacy", "carlini2022membership"},
    ),
    "a ring": ({"topology.reduce": "allreduce"}, {"patarasuk2009bandwidth"}),
    "GroupNorm": ({"model": RESNET}, {"wu2018group", "he2016deep"}),
    "AdamW": ({"training.optimizer": {"kind": "adamw", "learning_rate": 0.1}}, {"loshchilov2019decoupled"}),
    "Laplace noise on counts": (
        {"population": {"clients": 5, "label_epsilon": 1.0}},
        {"dwork2006calibrating"},
    ),
}


@pytest.mark.parametrize("what", USES)
def test_a_method_is_cited_where_it_is_used_and_nowhere_else(what, tmp_path):
    changes, keys = USES[what]
    plain = cited(garments(tmp_path, {"data.partition": {"kind": "iid"}}, "plain.yaml"))
    found = cited(garments(tmp_path, changes))
    assert keys <= found
    assert not keys & plain
    assert {"mcmahan2017communication", "huang2023federated"} <= plain & found


def test_a_tour_is_two_opts(tmp_path):
    table = [[1e6] * 5] * 5
    changes = {"topology.order": "tour", "network.sidelink": {"kind": "fixed", "rate_bps": table}}
    assert "croes1958method" in cited(tiny(tmp_path, changes))
    assert "croes1958method" not in cited(tiny(tmp_path))
