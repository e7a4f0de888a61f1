"""`model: language_model`: a causal language model that is fine-tuned on conversations."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from fedray.scenario.base import MOST, FilePath, Refused
from fedray.scenario.model_section import Generates, ModelSection

# Papers of base models, by what the names of their repositories on the hub contain.
BASE_CITES = {
    "smollm2": "allal2025smollm",
    "qwen2.5": "qwen2024report",
    "llama-3": "grattafiori2024llama",
    "llama-2": "touvron2023llama",
    "mistral-7b": "jiang2023mistral",
}


class LanguageModel(ModelSection):
    """A causal language model of the transformers library that learns what the assistant says in
    conversations. It has one part, network."""

    kind: Literal["language_model"] = Field(
        description="language_model: fine-tune a causal language model (Llama, Qwen, Mistral, GPT-2 and "
        "others of transformers)."
    )
    base: FilePath = Field(
        description="The model to begin with: one that ships with fedray, a folder as `save_pretrained` "
        "writes it, or owner/name on the Hugging Face hub."
    )
    chat_template: FilePath | None = Field(
        default=None,
        description="A file with a chat template in Jinja, which makes one text of a conversation: "
        "shipped:alpaca.jinja, shipped:chatml.jinja, or one relative to the scenario's file. None: that of "
        "the base's tokenizer.",
    )
    max_length: Annotated[int, Field(ge=2, le=MOST)] = Field(
        default=512,
        description="Tokens of a conversation, at most: longer ones are cut at their end. Work and bytes are "
        "planned as of samples with so many tokens.",
    )
    packing: bool = Field(
        default=False,
        description="Whether the samples of a batch stand in one row without padding, each with positions "
        "and attention of its own, which saves work where lengths differ. The loss is that of the padded "
        "batch.",
    )

    implementation: ClassVar[str] = "fedray.learners.language_model:LanguageModel"
    stage_names: ClassVar[str | None] = "fedray.learners.language_bases:stage_names"
    base_source: ClassVar[str | None] = "fedray.learners.language_bases:base_source"
    verify_files: ClassVar[str | None] = "fedray.learners.language_bases:verify_base"
    tunable_parts: ClassVar[tuple[str, ...] | None] = ("network",)
    built_for_data: ClassVar[bool] = False
    generates: ClassVar[Generates | None] = "texts"
    hub_task: ClassVar[str | None] = "text-generation"
    takes_prompts: ClassVar[bool] = True
    of_conversations: ClassVar[bool] = True
    takes_adapters: ClassVar[bool] = True
    adapter_targets: ClassVar[tuple[str, ...] | None] = ("attention", "all-linear")
    has_frozen_base: ClassVar[bool] = True
    reads_sites: ClassVar[bool] = True

    def cited(self) -> Iterator[str]:
        yield from super().cited()
        yield from (paper for name, paper in BASE_CITES.items() if name in self.base.lower())
        if self.packing:
            yield "krell2021efficient"

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        yield from super().conflicts(scenario)
        if self.packing and scenario.topology.splits_model:
            expected = "false: what crosses a cut has its samples one by one"
            yield Refused(".packing", f"true with topology.kind {scenario.topology.kind}", expected)
