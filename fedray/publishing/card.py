"""A run's model card: Markdown under YAML, as the Hugging Face hub reads it. Whatever comes from the run's
files is text there, whatever it holds."""

import html
import io
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined
from ruamel.yaml import YAML

from fedray.errors import printable
from fedray.publishing.facts import Facts, named, sent
from fedray.publishing.settings import settings
from fedray.report import numbers
from fedray.report.replicates import cell
from fedray.report.shown import is_main
from fedray.runs.replicates import Estimate
from fedray.terminal import size

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

# What Markdown may take for more than itself: in a line, and where one begins.
MARKDOWN = re.compile(r"([\\`*_{}\[\]#!|~$@]|:(?=//)|(?<=www)\.)")
BEGINNING = re.compile(r"^(\s*\d+(?=[.)]\s)|\s*(?=[-+=]))(.)")
LIBRARIES = {  # by a file that it reads
    "model_index.json": "diffusers",
    "adapter_config.json": "peft",
    "diffusion_pytorch_model.safetensors": "diffusers",
    "tokenizer_config.json": "transformers",
}
CLASSES = {  # of transformers, by the hub's name of a task
    "text-generation": "AutoModelForCausalLM",
    "fill-mask": "AutoModelForMaskedLM",
    "image-classification": "AutoModelForImageClassification",
}
ADAPTER = "pytorch_lora_weights.safetensors"


def card(run: Facts, repo: str, license_name: str, names: Sequence[str]) -> str:
    """The text of README.md.

    Args:
        run: what may be known of it.
        repo: owner/name.
        license_name: of the weights, as the hub calls it.
        names: of the files beside it, relative to the repository.
    """
    jinja = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    jinja.filters |= {"md": markdown, "size": size, "fenced": fenced}
    text = (files("fedray.publishing") / "card.md").read_text(encoding="utf-8")
    scenario = run.scenario
    body = jinja.from_string(text).render(
        run=run,
        scenario=scenario,
        repo=repo,
        license=license_name,
        snippet=snippet(repo, names, scenario.model.hub_task),
        settings=_as_yaml(settings(scenario)),
        clients=_clients(scenario),
        metrics=[_row(run.final, *row) for row in run.metrics],
        over_seeds=_means(run.over_seeds),
        sent=sent(run.final),
        versions=", ".join(f"{name} {number}" for name, number in run.packages.items() if number),
    )
    return f"---\n{_data(run, license_name, names).to_yaml()}\n---\n\n{body}"


def _data(run: Facts, license_name: str, names: Sequence[str]) -> "ModelCardData":
    """The card's metadata."""
    from huggingface_hub import EvalResult, ModelCardData

    scenario = run.scenario
    task = scenario.model.hub_task
    tags = ["federated-learning", "fedray", _tag(scenario.topology.kind), _tag(scenario.aggregation.kind)]
    tags += [_tag(scenario.tuning.kind)] if scenario.tuning.has_adapters else []
    tags += ["differential-privacy"] if scenario.privacy is not None else []
    results = [
        EvalResult(
            task_type=task or "other",
            dataset_type=_tag(scenario.data.kind),
            dataset_name=f"{scenario.data.kind}, over {scenario.population.clients} clients",
            metric_type=key.removeprefix("eval_"),
            metric_name=named(key),
            metric_value=value,
        )
        for key, _, value in run.metrics
    ]
    return ModelCardData(
        license=license_name,
        base_model=run.hub_base,
        library_name=library(names) or "fedray",
        pipeline_tag=task,
        tags=tags,
        model_name=scenario.name if results else None,
        eval_results=results or None,
    )


def library(names: Sequence[str]) -> str | None:
    """The library that opens a folder with these files; None where it is safetensors alone."""
    return next((library for file, library in LIBRARIES.items() if file in names), None)


def snippet(repo: str, names: Sequence[str], task: str | None) -> str:
    """Lines of Python that open the model.

    Args:
        repo: owner/name.
        names: of its files.
        task: as the hub calls it; None: it has no name.
    """
    if "model_index.json" in names:
        name = "DiffusionPipeline"
        return f'from diffusers import {name}\n\npipeline = {name}.from_pretrained("{repo}")'
    if ADAPTER in names:
        return f'pipeline.load_lora_weights("{repo}")  # on the base model\'s pipeline'
    if "adapter_config.json" in names:
        return f'from peft import AutoPeftModel\n\nmodel = AutoPeftModel.from_pretrained("{repo}")'
    if library(names) == "transformers":
        name = CLASSES.get(task or "", "AutoModel")
        return f'from transformers import {name}\n\nmodel = {name}.from_pretrained("{repo}")'
    weights = next((name for name in names if name.endswith(".safetensors")), "model.safetensors")
    return (
        "from huggingface_hub import hf_hub_download\nfrom safetensors.torch import load_file\n\n"
        f'weights = load_file(hf_hub_download("{repo}", {weights!r}))'
    )


def _clients(scenario: Any) -> str:
    population = scenario.population
    each = population.clients_per_round
    taking_part = "all of them in every round" if each == population.clients else f"{each} in a round"
    return f"{population.clients}, {taking_part}"


def _row(final: Mapping[str, Any], key: str, before: float | None, value: float) -> dict[str, str]:
    return {
        "name": named(key),
        "before": numbers.plain(key, before),
        "after": numbers.plain(key, value),
        "sure": numbers.sureness(key, final),
        "meaning": numbers.MEANINGS.get(key, ""),
    }


def _means(over_seeds: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The variant's means over its seeds, where it has some."""
    if over_seeds is None:
        return None
    known = {key: Estimate.of_json(one) for key, one in over_seeds["metrics"].items() if is_main(key)}
    return {
        "seeds": ", ".join(map(str, over_seeds["seeds"])),
        "rows": [(named(key), cell(key, one)) for key, one in known.items()],
    }


def markdown(text: object) -> str:
    """Text that Markdown and HTML show as it is, in one line."""
    line = MARKDOWN.sub(r"\\\1", html.escape(printable(text), quote=False))
    return BEGINNING.sub(r"\1\\\2", line)


def fenced(text: str, language: str = "") -> str:
    """Lines as a block of code, which nothing in them can end."""
    fence = "`" * (max((len(run) for run in re.findall("`+", text)), default=2) + 1)
    fence = max(fence, "```", key=len)
    return f"{fence}{language}\n{printable(text, keep=chr(10))}\n{fence}"


def _tag(kind: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", kind.lower()).strip("-")


def _as_yaml(tree: Mapping[str, Any]) -> str:
    out = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump(tree, out)
    return out.getvalue().rstrip()
