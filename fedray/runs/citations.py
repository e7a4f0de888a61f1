"""CITATION.bib: what to cite for exactly the methods a scenario uses."""

from collections.abc import Iterator
from importlib.resources import files
from typing import Any

from fedray.scenario.base import Section
from fedray.scenario.data import Dirichlet
from fedray.scenario.model import Classifier
from fedray.scenario.scenario import Scenario
from fedray.scenario.topology import Split

NAMED = {  # a key and its value, in whatever section: the entries of citations.bib
    "kind": {
        "relay": "huang2023federated",
        "parallel": "huang2023federated",
        "split": "huang2023federated",
        "top_k": "aji2017sparse",
        "random_k": "konecny2016federated",
        "quantize": "alistarh2017qsgd",
        "noise": "titcombe2021practical",
        "distance_correlation": "vepakomma2020nopeek szekely2007measuring",
        "shards": "mcmahan2017communication",
        "quantity": "li2022federated",
        "cifar10": "krizhevsky2009learning",
        "cifar100": "krizhevsky2009learning",
        "celeba": "liu2015deep",
        "fashion_mnist": "xiao2017fashion",
        "fashion_mnist_mini": "xiao2017fashion",
        "bpe": "sennrich2016neural",
        "text_to_image": "rombach2022high",
        "diffusion": "ho2020denoising song2021denoising",
        "lora": "hu2022lora",
        "adamw": "loshchilov2019decoupled",
        "fedavg": "mcmahan2017communication",
        "fedprox": "li2020federated",
        "scaffold": "karimireddy2020scaffold",
        "fedavgm": "hsu2019measuring",
        "fedadam": "reddi2021adaptive",
        "fedyogi": "reddi2021adaptive",
        "ffa_lora": "sun2024improving",
        "hetlora": "cho2024heterogeneous",
        "fedex_lora": "singhal2024fedex",
        "flora": "wang2024flora",
        "3gpp": "hoydis2022sionna 3gpp38901",
        "log_distance": "gudmundson1991correlation",
        "trace": "netravali2015mahimahi",
        "cpu": "burd1996processor",
        "random_waypoint": "johnson1996dynamic",
    },
    "order": {"tour": "croes1958method"},
    "reduce": {"allreduce": "patarasuk2009bandwidth"},
    "variant": {
        "vanilla": "gupta2018distributed",
        "splitfed_v1": "thapa2022splitfed",
        "splitfed_v2": "thapa2022splitfed",
    },
    "selection": {
        "fedcs": "nishio2019client",
        "label_cover": "zhao2018federated",
        "round_robin": "yang2020scheduling",
        "proportional_fair": "yang2020scheduling",
    },
    "network": {"resnet18": "he2016deep"},
    "objective": {
        "masked_language": "devlin2019bert",
        "causal_language": "radford2019language",
        "classification": "dosovitskiy2021image",
        "masked_image": "xie2022simmim",
    },
    "precision": {"fp16": "micikevicius2018mixed"},
    "rate": {"shannon": "shannon1948mathematical", "truncated": "3gpp36942", "nr_mcs": "hoydis2022sionna"},
    "allocation": {"proportional_fair": "kelly1998rate", "blocks": "kuhn1955hungarian"},
    "model": {"urban": "3gpp37885", "highway": "3gpp37885", "d2d": "3gpp36843"},
    "executor": {"ray": "moritz2018ray"},
}


def bibtex(scenario: Scenario) -> str:
    """The entries of all that a scenario names, or uses without a name."""
    used = {key for keys in _named(scenario) for key in keys.split()}
    used |= {key for key, is_used in _unnamed(scenario).items() if is_used}
    entries = files("fedray.runs").joinpath("citations.bib").read_text(encoding="utf-8").strip().split("\n\n")
    return "\n\n".join(entry for entry in entries if entry.split("{", 1)[1].split(",", 1)[0] in used) + "\n"


def _named(value: Any) -> Iterator[str]:
    """What stands in NAMED for the keys of a section, and of those within it."""
    if isinstance(value, list | tuple):
        for one in value:
            yield from _named(one)
    if not isinstance(value, Section):
        return
    for name in type(value).model_fields:
        inner = getattr(value, name)
        if isinstance(inner, str):
            yield NAMED.get(name, {}).get(inner, "")
        yield from _named(inner)


def _unnamed(scenario: Scenario) -> dict[str, bool]:
    """What follows from numbers, switches, or several sections together."""
    topology, model, data, training = scenario.topology, scenario.model, scenario.data, scenario.training
    evaluation, augmentation = scenario.evaluation, scenario.augmentation
    partition = data.partition if isinstance(data.partition, Dirichlet) else None
    resnet = isinstance(model, Classifier) and model.network == "resnet18"
    images = model.kind not in ("classifier", "transformer")
    guided = model.kind == "text_to_image" or augmentation is not None
    bases = {getattr(model, "base", ""), augmentation.generator if augmentation else ""}
    used = {
        "huang2023federated": True,  # the topologies are its Fig. 2
        "mcmahan2017communication": True,
        "chen2023exploring": topology.kind == "parallel" and images,
        "qiang2024aigc": augmentation is not None,
        "rombach2022high": augmentation is not None,
        "ho2022classifier": guided,
        "song2021denoising": model.kind == "diffusion" or "tiny-sd" in bases,  # whose sampler it is
        "allmendinger2024collafuse": getattr(model, "server_from", None) is not None,
        "hang2023efficient": getattr(model, "min_snr_gamma", None) is not None,
        "wu2018group": resnet and getattr(model, "norm", "") == "group",
        "ioffe2015batch": resnet and getattr(model, "norm", "") == "batch",
        "stich2018sparsified": any(
            getattr(t, "error_feedback", False) for t in scenario.aggregation.transforms
        ),
        "yurochkin2019bayesian": partition is not None and partition.samples is None,
        "hsu2019measuring": partition is not None and partition.samples is not None,
        "xiao2017fashion": "shipped:ink" in getattr(data, "path", "") or "tiny-sd" in bases,
        "dwork2006calibrating": scenario.population.label_epsilon is not None,
        "chen2016training": training.gradient_checkpointing,
        "heusel2017gans": evaluation.quality is not None or evaluation.reference is not None,
        "binkowski2018demystifying": evaluation.quality is not None,
        "kynkaanniemi2019improved": evaluation.quality is not None,
        "szekely2007measuring": evaluation.leakage is not None,
        "he2019model": evaluation.leakage is not None,
    }
    if isinstance(topology, Split):
        used["vepakomma2018split"] = topology.tail is not None
        used["tian2022fedbert"] = getattr(model, "objective", "") == "masked_language"
        used["harlap2018pipedream"] = topology.micro_batches > 1
    return used
