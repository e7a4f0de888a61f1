"""CITATION.bib: what to cite for exactly the methods a scenario uses."""

from importlib.resources import files

from fedray.scenario.scenario import Scenario
from fedray.scenario.topology import Split

RULES = {
    "fedprox": "li2020federated", "scaffold": "karimireddy2020scaffold", "fedavgm": "hsu2019measuring",
    "fedadam": "reddi2021adaptive", "fedyogi": "reddi2021adaptive", "ffa_lora": "sun2024improving",
    "hetlora": "cho2024heterogeneous", "fedex_lora": "singhal2024fedex", "flora": "wang2024flora",
}  # fmt: skip
OBJECTIVES = {
    "masked_language": "devlin2019bert", "causal_language": "radford2019language",
    "classification": "dosovitskiy2021image", "masked_image": "xie2022simmim",
}  # fmt: skip


def bibtex(scenario: Scenario) -> str:
    network = scenario.network
    links = (network.uplink, network.downlink, network.sidelink)
    used = {
        "huang2023federated": True,  # the topologies are its Fig. 2
        "mcmahan2017communication": True,
        "chen2023exploring": scenario.topology.kind == "parallel" and scenario.model.kind not in ("classifier", "transformer"),
        "qiang2024aigc": scenario.augmentation is not None,
        "allmendinger2024collafuse": getattr(scenario.model, "server_from", None) is not None,
        "ho2020denoising": scenario.model.kind == "diffusion",
        RULES.get(scenario.aggregation.kind, ""): True,
        "stich2018sparsified": any(getattr(t, "error_feedback", False) for t in scenario.aggregation.transforms),
        "alistarh2017qsgd": any(t.kind == "quantise" for t in scenario.aggregation.transforms),
        "hoydis2022sionna": any(link.kind == "3gpp" or getattr(link, "rate", "") == "nr_mcs" for link in links),
        "3gpp38901": any(link.kind == "3gpp" for link in links),
        "3gpp37885": network.sidelink.kind == "sidelink" and network.sidelink.model != "d2d",
        "3gpp36843": network.sidelink.kind == "sidelink" and network.sidelink.model == "d2d",
        "gudmundson1991correlation": any(link.kind == "log_distance" for link in links),
        "netravali2015mahimahi": any(link.kind == "trace" for link in links),
        "nishio2019client": scenario.population.selection == "fedcs",
        "krizhevsky2009learning": scenario.data.kind.startswith("cifar"),
        "liu2015deep": scenario.data.kind == "celeba",
        OBJECTIVES.get(getattr(scenario.model, "objective", ""), ""): True,
        "sennrich2016neural": getattr(getattr(scenario.data, "tokenizer", None), "kind", "") == "bpe",
        "hu2022lora": scenario.tuning.kind == "lora",
        "rombach2022high": scenario.model.kind == "text_to_image" or scenario.augmentation is not None,
        "hang2023efficient": getattr(scenario.model, "min_snr_gamma", None) is not None,
        "xiao2017fashion": scenario.data.kind.startswith("fashion_mnist") or "shipped:ink" in getattr(scenario.data, "path", ""),
    }
    if isinstance(split := scenario.topology, Split):
        defence = split.defence.kind if split.defence else ""
        used |= {
            "thapa2022splitfed": split.variant != "vanilla",
            "gupta2018distributed": split.variant == "vanilla",
            "vepakomma2018split": split.tail is not None,
            "titcombe2021practical": defence == "noise",
            "vepakomma2020nopeek": defence == "distance_correlation",
            "szekely2007measuring": defence == "distance_correlation" or scenario.evaluation.leakage is not None,
            "he2019model": scenario.evaluation.leakage is not None,
            "tian2022fedbert": getattr(scenario.model, "objective", "") == "masked_language",
            "alistarh2017qsgd": any(t.kind == "quantise" for t in split.compression),
        }
    entries = files("fedray.runs").joinpath("citations.bib").read_text(encoding="utf-8").strip().split("\n\n")
    return "\n\n".join(entry for entry in entries if used.get(entry.split("{", 1)[1].split(",", 1)[0])) + "\n"
