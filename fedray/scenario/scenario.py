"""The scenario as a whole, and which sections do not go together."""

from collections.abc import Iterator
from itertools import pairwise

from fedray.scenario.aggregation import Aggregation, FedAvg, Quantise
from fedray.scenario.augmentation import Augmentation, Fixed, HeldOut, fillable
from fedray.scenario.base import Name, Refused, Section
from fedray.scenario.data import Data, ImageFolder, Text
from fedray.scenario.evaluation import Evaluation
from fedray.scenario.model import Diffusion, Model, Transformer
from fedray.scenario.network import BLOCK_HZ, DIRECTIONS, FixedLink, Network, RadioLink, TraceLink
from fedray.scenario.population import Population
from fedray.scenario.runtime import Runtime
from fedray.scenario.sweep import Sweep
from fedray.scenario.topology import DistanceCorrelation, Parallel, Relay, Split, Topology
from fedray.scenario.training import Training
from fedray.scenario.tuning import Lora, Payload, Tuning

MOST_HELD = 100_000_000  # samples that clients draw with replacement, whose numbers are an array


class Scenario(Section):
    name: Name
    description: str = ""
    seed: int = 0
    topology: Topology
    population: Population
    data: Data
    model: Model
    tuning: Tuning
    training: Training
    aggregation: Aggregation = FedAvg()
    augmentation: Augmentation | None = None
    network: Network
    evaluation: Evaluation = Evaluation()
    runtime: Runtime = Runtime()
    sweep: Sweep | None = None

    @property
    def payload(self) -> Payload:
        """The numbers' format on the air."""
        return self.tuning.payload or self.training.precision

    @property
    def adds_to_master(self) -> bool:
        """Whether what hosts add up depends on the server's own fp32 numbers: where those on the air have
        less precision, and products are added up, or clients leave numbers out."""
        left_out = isinstance(self.tuning, Lora) and self.tuning.ranks
        return self.payload != "fp32" and bool(self.aggregation.multiplies or left_out)

    @property
    def sites(self) -> dict[str, list[int]]:
        """Clients by the site whose images they are; empty where images may be opened anywhere."""
        data = self.data
        return {s: data.clients_at(s) for s in data.sites or {}} if isinstance(data, ImageFolder) else {}

    @property
    def split(self) -> Split:
        """The topology of one that is known to be a split."""
        assert isinstance(self.topology, Split)
        return self.topology

    @property
    def has_evaluation(self) -> bool:
        """Whether there is anything to evaluate."""
        return self.evaluates_model or self.evaluation.leakage is not None

    @property
    def evaluates_model(self) -> bool:
        """Whether what the model makes is looked at."""
        if self.model.kind in ("classifier", "transformer"):
            return not isinstance(self.data, ImageFolder)
        return self.model.kind == "diffusion" or bool(
            self.evaluation.prompts or self.evaluation.reference or self.evaluation.quality
        )

    def combinations(self) -> Iterator[Refused]:
        """Every pair of answers that does not go together."""
        clients, a_round = self.population.clients, self.population.a_round
        if a_round > clients:
            yield Refused("population.per_round", a_round, f"at most population.clients, {clients}")
        each = getattr(self.data.partition, "samples", None) or 0
        if clients * each > MOST_HELD:
            expected = f"at most {MOST_HELD // clients} for {clients} clients, {MOST_HELD:,} samples in all"
            yield Refused("data.partition.samples", each, expected)
        yield from self._topology()
        yield from self._learning()
        if (self.training.local_steps is None) == (self.training.local_epochs is None):
            got = "neither" if self.training.local_steps is None else "both"
            yield Refused("training", f"{got} of local_steps and local_epochs", "one of them")
        yield from self.network.refused(clients)
        yield from self._network()
        yield from self._sites()
        if self.augmentation is not None:
            yield from self._augmentation(self.augmentation)
        if self.evaluation.leakage is not None and (self.topology.kind != "split" or self.sites):
            got = "one beside data.sites" if self.sites else f"one for a {self.topology.kind}"
            yield Refused("evaluation.leakage", got, "topology.kind split, over data that may be looked at")
        if isinstance(self.tuning, Lora) and self.tuning.dropout and self.training.gradient_checkpointing:
            expected = "0 with training.gradient_checkpointing: recomputing would draw it again"
            yield Refused("tuning.dropout", self.tuning.dropout, expected)
        if (
            self.evaluation.reference is not None
            and self.model.resolution not in (None, 32)
            and self.model.kind == "text_to_image"
        ):
            got = f"{self.evaluation.reference.judge} at {self.model.resolution} pixels"
            yield Refused(
                "evaluation.reference.judge", got, "model.resolution 32, which judges are trained on"
            )

    def _topology(self) -> Iterator[Refused]:
        a_round, topology, rule = self.population.a_round, self.topology, self.aggregation
        if isinstance(topology, Relay):
            if topology.chains > a_round:
                yield Refused(
                    "topology.chains", topology.chains, f"at most the clients of a round, {a_round}"
                )
            sidelink = self.network.sidelink
            if (
                topology.order != "random"
                and isinstance(sidelink, FixedLink)
                and not isinstance(sidelink.rate_bps, list)
            ):
                yield Refused(
                    "network.sidelink.rate_bps", "one rate for all", f"a table of rates for {topology.order}"
                )
            if topology.order != "random" and isinstance(sidelink, TraceLink):
                yield Refused(
                    "network.sidelink.kind",
                    "trace",
                    f"a link with a rate for each pair, for {topology.order}",
                )
            if topology.groups == "nearest" and self.network.cell is None:
                yield Refused("topology.groups", "nearest", "network.cell, which says where devices are")
            if rule.kind == "scaffold":
                yield Refused(
                    "aggregation.kind",
                    "scaffold",
                    "topology.kind parallel: its control variates correct turns from one model",
                )
            if rule.transforms:
                got = ", ".join(t.kind for t in rule.transforms)
                yield Refused(
                    "aggregation.transforms",
                    got,
                    "none in a relay: what is handed on is the model, not an update",
                )
        elif isinstance(topology, Split):
            yield from self._split(topology)
        elif topology.reduce == "allreduce" and any(t.kind != "clip" for t in rule.transforms):
            got = ", ".join(t.kind for t in rule.transforms)
            yield Refused(
                "aggregation.transforms",
                got,
                "clip alone with topology.reduce allreduce: a ring adds plain numbers",
            )

    def _split(self, topology: Split) -> Iterator[Refused]:
        rule, training = self.aggregation, self.training
        if rule.kind not in ("fedavg", "fedavgm", "fedadam", "fedyogi"):
            expected = "fedavg, fedavgm, fedadam or fedyogi: no client has the whole model"
            yield Refused("aggregation.kind", f"{rule.kind} in a split", expected)
        if rule.transforms:
            got = ", ".join(t.kind for t in rule.transforms)
            yield Refused(
                "aggregation.transforms",
                got,
                "none in a split: topology.compression is for what crosses the cut",
            )
        if isinstance(self.tuning, Lora) and self.tuning.ranks:
            yield Refused("tuning.ranks", "some in a split", "one rank for all")
        if training.precision == "fp16":
            yield Refused(
                "training.precision",
                "fp16 in a split",
                "fp32 or bf16: neither side sees whether the other's gradients overflow",
            )
        if training.gradient_checkpointing:
            expected = "false in a split: clients share a network, whose weights may be others' then"
            yield Refused("training.gradient_checkpointing", True, expected)
        kinds = [c.kind for c in topology.compression]
        if kinds not in ([], ["top_k"], ["quantise"], ["top_k", "quantise"]):
            yield Refused("topology.compression", ", ".join(kinds), "top_k, quantise, or both in this order")
        for i, compression in enumerate(topology.compression):
            # top_k's is its default, and has nothing to do here
            if compression.error_feedback and isinstance(compression, Quantise):
                yield Refused(
                    f"topology.compression.{i}.error_feedback", True, "false: the next batch is another one"
                )
        if isinstance(topology.defence, DistanceCorrelation) and (
            topology.micro_batches > 1 or training.batch_size < 4
        ):
            got = f"{topology.micro_batches} micro-batches of a batch of {training.batch_size}"
            yield Refused("topology.defence", got, "whole batches of at least 4, whose distances it compares")
        if (
            isinstance(topology.defence, DistanceCorrelation)
            and getattr(self.model, "server_from", None) is not None
        ):
            yield Refused(
                "topology.defence",
                "distance_correlation beside model.server_from",
                "noise: what is sent depends on no weight",
            )
        if topology.micro_batches > training.batch_size:
            yield Refused(
                "topology.micro_batches",
                topology.micro_batches,
                f"at most training.batch_size, {training.batch_size}",
            )
        normed = (
            self.model.kind == "classifier"
            and self.model.network == "resnet18"
            and self.model.norm == "batch"
        )
        if normed and topology.micro_batches > 1:
            yield Refused(
                "topology.micro_batches",
                topology.micro_batches,
                "1, or model.norm group: a batch is normalised as a whole",
            )
        if (
            topology.tail is None
            and not topology.may_send
            and getattr(self.model, "server_from", None) is None
        ):
            expected = (
                "a tail, which keeps labels and loss at home, or may_send with what the server's loss needs,"
                " such as [labels]"
            )
            yield Refused("topology.may_send", "nothing, without a tail", expected)
        if topology.variant == "vanilla" and self.runtime.failures.data == "drop":
            yield Refused(
                "runtime.failures.data", "drop for vanilla", "abort: who fails has nothing to hand on"
            )
        if self.sites and "auto" in (topology.cut, topology.tail):
            yield Refused(
                "topology.cut",
                "auto beside data.sites",
                "a stage's name: what a site holds is not known beforehand",
            )
        if self.population.selection == "fedcs":
            yield Refused(
                "population.selection",
                "fedcs in a split",
                "another: how long a turn takes depends on who else is served",
            )

    def _network(self) -> Iterator[Refused]:
        """What the network decides about learning, and where it cannot."""
        network, population, topology = self.network, self.population, self.topology
        if population.over_select and population.asked > population.clients:
            expected = f"at most {population.clients - population.a_round}, the clients that per_round leaves"
            yield Refused("population.over_select", population.over_select, expected)
        closes = {
            "network.deadline_s": network.deadline_s is not None,
            "population.over_select": population.over_select > 0,
            "network.device.dropout": any(d.dropout for d in network.devices),
            "outage_db or harq": network.loses,
        }
        for key, asked in closes.items():
            if not asked:
                continue
            if isinstance(topology, Parallel) and topology.reduce == "allreduce":
                yield Refused("topology.reduce", f"allreduce with {key}", "server: a ring adds what all have")
            if self.augmentation is not None:
                yield Refused("augmentation", f"one with {key}", "none: its rounds wait for everybody")
            if isinstance(topology, Relay) and key in ("network.deadline_s", "population.over_select"):
                yield Refused(key, "one for a relay", "none: nobody is waited for but who has the model")
            if isinstance(topology, Split) and topology.variant == "vanilla":
                yield Refused(
                    "topology.variant",
                    f"vanilla with {key}",
                    "splitfed_v1 or splitfed_v2: a chain breaks with its first link",
                )
        if network.save_energy and not isinstance(topology, Parallel):
            expected = "topology.kind parallel: it plans one turn and one uplink a client"
            yield Refused("network.save_energy", f"true for a {topology.kind}", expected)
        for direction in DIRECTIONS:
            how = getattr(getattr(network, direction), "allocation", "equal")
            if how == "broadcast" and isinstance(topology, Split):
                yield Refused(
                    f"network.{direction}.allocation",
                    "broadcast in a split",
                    "equal: gradients are each client's own",
                )
            if how not in ("equal", "broadcast") and not (
                isinstance(topology, Parallel) and topology.reduce == "server"
            ):
                yield Refused(
                    f"network.{direction}.allocation",
                    f"{how} for a {topology.kind}",
                    "equal: nobody shares a band then",
                )
        if isinstance(network.uplink, RadioLink) and network.uplink.allocation == "blocks":
            blocks = int(network.uplink.bandwidth_hz // BLOCK_HZ)
            if blocks < population.asked:
                yield Refused(
                    "network.uplink.allocation",
                    f"blocks, of which there are {blocks}",
                    "at least one a client of a round",
                )
        if population.selection == "fedcs" and network.deadline_s is None:
            yield Refused(
                "population.selection", "fedcs", "network.deadline_s, before which clients shall finish"
            )
        if population.selection == "proportional_fair":
            yield from self._proportionally_fair()
        if population.selection in ("fedcs", "proportional_fair") and self.augmentation is not None:
            yield Refused(
                "population.selection",
                population.selection,
                "random, round_robin or label_cover beside augmentation",
            )

    def _proportionally_fair(self) -> Iterator[Refused]:
        """Selection by how an uplink fades needs one that does, a client and round."""
        uplink, topology = self.network.uplink, self.topology
        if not isinstance(uplink, RadioLink):
            yield Refused(
                "population.selection",
                "proportional_fair",
                f"a radio uplink, which fades, instead of {uplink.kind}",
            )
        elif uplink.allocation == "blocks":
            expected = (
                "another beside network.uplink.allocation blocks, which fade each by itself and go to whom"
                " they serve best"
            )
            yield Refused("population.selection", "proportional_fair", expected)
        if not (isinstance(topology, Parallel) and topology.reduce == "server"):
            expected = (
                "another, or topology.kind parallel with reduce server, in which each client has one uplink"
            )
            yield Refused("population.selection", f"proportional_fair for a {topology.kind}", expected)

    def _learning(self) -> Iterator[Refused]:
        rule, optimizer = self.aggregation, self.training.optimizer
        order = [{"clip": 0, "top_k": 1, "random_k": 1, "quantise": 2}[t.kind] for t in rule.transforms]
        if any(a >= b for a, b in pairwise(order)):
            got = ", ".join(t.kind for t in rule.transforms)
            yield Refused(
                "aggregation.transforms",
                got,
                "at most one each of clip, top_k or random_k, quantise, in this order",
            )
        if rule.kind == "scaffold" and not (optimizer.kind == "sgd" and optimizer.momentum == 0):
            expected = (
                "sgd without momentum: SCAFFOLD reads the mean gradient off the way that plain steps went"
            )
            yield Refused("training.optimizer", f"{optimizer.kind} for scaffold", expected)
        network = self.network
        chosen = (
            self.population.a_round < self.population.clients
            or network.deadline_s is not None
            or network.loses
        )
        chosen = chosen or any(d.availability < 1 or d.dropout for d in network.devices)
        if rule.kind == "scaffold" and rule.weighting == "samples" and chosen:
            expected = (
                "uniform, or all clients in every round: weighted by who is there, control variates add up to"
                " nobody's gradient"
            )
            yield Refused("aggregation.weighting", "samples for scaffold", expected)
        if rule.kind in ("ffa_lora", "hetlora", "fedex_lora", "flora") and not isinstance(self.tuning, Lora):
            yield Refused(
                "aggregation.kind",
                f"{rule.kind} with tuning {self.tuning.kind}",
                "tuning.kind lora, or another rule",
            )
        if isinstance(self.tuning, Lora) and self.tuning.ranks:
            yield from self._ranks(self.tuning.ranks, self.tuning.rank)
        if rule.kind in ("hetlora", "fedex_lora", "flora") and self.topology.kind != "parallel":
            yield Refused(
                "aggregation.kind",
                rule.kind,
                "topology.kind parallel: a relay hands adapters on without averaging them",
            )
        if self.model.kind != "text_to_image":
            if self.tuning.kind != "full" and self.tuning.kind != "partial":
                yield Refused("tuning.kind", self.tuning.kind, f"full or partial for {self.model.kind}")
            if self.evaluation.prompts and not (isinstance(self.model, Transformer) and self.model.writes):
                yield Refused(
                    "evaluation.prompts",
                    f"some for a {self.model.kind}",
                    "text_to_image or a causal_language model, or none",
                )
            if self.evaluation.reference:
                yield Refused(
                    "evaluation.reference",
                    f"some for a {self.model.kind}",
                    "text_to_image as model.kind, or none",
                )
            if self.sites:
                yield Refused(
                    "data.sites",
                    f"sites for a {self.model.kind}",
                    "text_to_image: labels at one site are unknown elsewhere",
                )
        if self.model.kind in ("classifier", "transformer") and self.evaluation.quality:
            yield Refused(
                "evaluation.quality",
                f"some for a {self.model.kind}",
                "a model.kind that generates images, or none",
            )
        if self.model.kind == "diffusion":
            levels = len(self.model.channels)
            if (
                self.model.attention != Diffusion.model_fields["attention"].default
                and max(self.model.attention, default=0) >= levels
            ):
                yield Refused(
                    "model.attention",
                    self.model.attention,
                    f"levels below {levels}, the number of model.channels",
                )
            if self.model.beta_start > self.model.beta_end:
                yield Refused(
                    "model.beta_start",
                    self.model.beta_start,
                    f"at most model.beta_end, {self.model.beta_end:g}",
                )
        if (
            self.model.kind == "diffusion"
            and (cut := self.model.server_from) is not None
            and cut >= self.model.timesteps
        ):
            yield Refused("model.server_from", cut, f"a timestep before the last, {self.model.timesteps - 1}")
        if self.model.kind == "classifier" and self.training.gradient_checkpointing:
            yield Refused("training.gradient_checkpointing", True, "false for a classifier")
        if isinstance(self.model, Transformer):
            yield from self._transformer(self.model)
        elif isinstance(self.data, Text):
            yield Refused("model.kind", f"{self.model.kind} on text", "transformer, or data of images")

    def _transformer(self, model: Transformer) -> Iterator[Refused]:
        if model.of_text and not isinstance(self.data, Text):
            yield Refused(
                "model.objective",
                f"{model.objective} on {self.data.kind}",
                "classification or masked_image, or data.kind text",
            )
        if not model.of_text and isinstance(self.data, Text):
            yield Refused(
                "model.objective",
                f"{model.objective} on text",
                "masked_language or causal_language, or data of images",
            )
        if model.width % model.heads:
            yield Refused("model.heads", model.heads, f"a divisor of model.width, {model.width}")
        if model.masked is not None and model.objective in ("causal_language", "classification"):
            yield Refused("model.masked", model.masked, f"none for {model.objective}, which masks nothing")
        if model.resolution is not None and model.of_text:
            yield Refused(
                "model.resolution", model.resolution, "none for text; data.length is its samples' size"
            )

    def _ranks(self, ranks: list[int], rank: int) -> Iterator[Refused]:
        if max(ranks) > rank:
            yield Refused("tuning.ranks", max(ranks), f"at most tuning.rank, {rank}")
        if len(ranks) > self.population.clients:
            yield Refused(
                "tuning.ranks", f"{len(ranks)} ranks", f"at most one a client, {self.population.clients}"
            )
        if not (isinstance(self.topology, Parallel) and self.topology.reduce == "server"):
            yield Refused(
                "tuning.ranks",
                "some",
                "topology.kind parallel with reduce: server, where nobody adds or hands on others' ranks",
            )
        if self.aggregation.kind not in ("fedavg", "hetlora", "fedex_lora", "flora"):
            expected = (
                "aggregation.kind fedavg, hetlora, fedex_lora or flora: in others what a low rank leaves out"
                " would change"
            )
            yield Refused("tuning.ranks", f"some for {self.aggregation.kind}", expected)

    def _augmentation(self, section: Augmentation) -> Iterator[Refused]:
        weighting = section.weighting
        if self.model.kind != "classifier" or self.topology.kind != "parallel":
            got = f"one for {self.model.kind} over a {self.topology.kind}"
            yield Refused("augmentation", got, "model.kind classifier and topology.kind parallel")
        if (
            isinstance(weighting, Fixed)
            and not weighting.any_sum
            and abs(weighting.kappa_1 + weighting.kappa_2 - 1) > 1e-9
        ):
            got = f"kappa_1 {weighting.kappa_1:g} and kappa_2 {weighting.kappa_2:g}"
            yield Refused("augmentation.weighting", got, "weights that sum to 1, or any_sum: true")
        if section.at != "server" and (
            weighting != Augmentation.model_fields["weighting"].default or section.start == "own"
        ):
            yield Refused(
                "augmentation.at",
                f"{section.at} with weights of an augmented model",
                "server, where there is one",
            )
        if self.aggregation.kind == "scaffold":
            yield Refused(
                "augmentation",
                "one beside scaffold",
                "a rule without control variates: the augmented model has none",
            )
        if (
            self.topology.kind == "parallel"
            and self.topology.reduce == "allreduce"
            and section.at == "server"
        ):
            yield Refused(
                "topology.reduce", "allreduce with augmentation.at server", "server, which mixes two models"
            )
        if isinstance(weighting, HeldOut) and self.data.kind == "image_folder":
            yield Refused(
                "augmentation.weighting",
                "held_out for an image folder",
                "data with a test set, or fixed or linear",
            )
        texts = [
            t
            for some in (
                [section.templates] if isinstance(section.templates, list) else section.templates.values()
            )
            for t in some
        ]
        for text in texts:
            if not fillable(text):
                yield Refused(
                    "augmentation.templates",
                    repr(text),
                    "a prompt in which only {label} and {a} stand in braces",
                )

    def _sites(self) -> Iterator[Refused]:
        data = self.data
        if (
            isinstance(data, ImageFolder)
            and data.folders is not None
            and len(set(data.folders)) < len(data.folders)
        ):
            yield Refused("data.folders", ", ".join(data.folders), "each folder once")
        if not isinstance(data, ImageFolder) or data.sites is None:
            return
        for name, site in data.sites.items():
            if len(set(site.folders)) < len(site.folders):
                yield Refused(f"data.sites.{name}.folders", ", ".join(site.folders), "each folder once")
        if data.partition.kind != "folder":
            yield Refused(
                "data.partition", data.partition.kind, "folder, since data.sites names one folder a client"
            )
        if self.evaluation.quality:
            yield Refused("evaluation.quality", "some beside data.sites", "none: images at sites stay there")
        if self.population.selection == "label_cover":
            yield Refused(
                "population.selection",
                "label_cover beside data.sites",
                "random: a label at one site is unknown elsewhere",
            )
        if data.folders is not None:
            yield Refused("data.folders", "some beside data.sites", "none: each site names its own")
        if (folders := sum(len(site.folders) for site in data.sites.values())) != self.population.clients:
            got = f"{self.population.clients} for {folders} folders of data.sites"
            yield Refused("population.clients", got, f"{folders}, one a folder")
        if self.runtime.executor != "ray":
            yield Refused(
                "runtime.executor", self.runtime.executor, "ray, since data.sites pins clients to nodes"
            )
