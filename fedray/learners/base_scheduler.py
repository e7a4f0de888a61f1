"""The noise schedule in a base model's folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedray.learners.base_files import Refuse

# Samplers of the noise that Stable Diffusion 1, 2 and XL are trained with: betas over discrete timesteps.
# Flow matching and EDM's are not.
SAMPLERS = (
    "DDPM DDPMParallel DDIM DDIMParallel PNDM LMSDiscrete EulerDiscrete EulerAncestralDiscrete HeunDiscrete"
    " KDPM2Discrete KDPM2AncestralDiscrete DPMSolverMultistep DPMSolverSinglestep DPMSolverSDE DEISMultistep"
    " UniPCMultistep SASolver LCM TCD"
)
PREDICTIONS = ("epsilon", "v_prediction")
FLOW_SAMPLERS = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")
BETAS = ("linear", "scaled_linear", "squaredcos_cap_v2")
MOST_STEPS = 100_000  # of noise


def verify_scheduler(file: Path, config: Mapping[str, Any], refuse: Refuse) -> None:
    """That it adds noise over discrete timesteps, as the base was trained with."""
    name = str(config.get("_class_name"))
    known = SAMPLERS.split()
    if name.removesuffix("Scheduler") not in known or config.get("use_flow_sigmas"):
        flow = (
            "flow matching"
            if config.get("use_flow_sigmas") or name.startswith("Flow")
            else "not what it is trained with"
        )
        raise refuse(
            f"_class_name {name!r:.60} in {file} ({flow})",
            f"one of {', '.join(f'{n}Scheduler' for n in known[:6])}, ...",
        )
    if (kind := config.get("prediction_type", "epsilon")) not in PREDICTIONS:
        raise refuse(f"prediction_type {kind!r:.40} in {file}", " or ".join(PREDICTIONS))
    if str(variance := config.get("variance_type")).startswith("learned"):
        raise refuse(
            f"variance_type {variance!r:.40} in {file}",
            "a fixed one: a variance that the U-Net predicts is not trained",
        )
    if config.get("rescale_betas_zero_snr") and kind == "epsilon":  # Lin et al. 2024 (2305.08891), sec. 3.2
        raise refuse(
            f"rescale_betas_zero_snr and epsilon in {file}",
            "v_prediction, where the last step is noise alone",
        )
    _verify_betas(file, config, refuse)


def verify_flow_scheduler(file: Path, config: Mapping[str, Any], refuse: Refuse) -> None:
    """That noise is mixed in by flow matching, as the base was trained with."""
    name = config.get("_class_name")
    if name not in FLOW_SAMPLERS:
        raise refuse(f"_class_name {name!r:.60} in {file}", " or ".join(FLOW_SAMPLERS))
    steps = config.get("num_train_timesteps", 1000)
    if isinstance(steps, bool) or not isinstance(steps, int) or not 0 < steps <= MOST_STEPS:
        raise refuse(
            f"num_train_timesteps {steps!r:.40} in {file}", f"a whole number from 1 to {MOST_STEPS:,}"
        )
    if not _between(shift := config.get("shift", 1.0), 0, float("inf")):
        raise refuse(f"shift {shift!r:.40} in {file}", "a number above 0")
    if config.get("invert_sigmas"):
        raise refuse(f"invert_sigmas in {file}", "sigmas that fall from noise to image")


def _verify_betas(file: Path, config: Mapping[str, Any], refuse: Refuse) -> None:
    """What is not written would be a default, and samplers differ in theirs."""
    steps = config.get("num_train_timesteps", 1000)
    trained = config.get("trained_betas")
    if isinstance(steps, bool) or not isinstance(steps, int) or not 0 < steps <= MOST_STEPS:
        raise refuse(
            f"num_train_timesteps {steps!r:.40} in {file}", f"a whole number from 1 to {MOST_STEPS:,}"
        )
    if trained is not None:
        if (
            not isinstance(trained, list)
            or len(trained) != steps
            or not all(_between(beta, 0, 1) for beta in trained)
        ):
            raise refuse(
                f"trained_betas in {file}", f"{steps} numbers between 0 and 1, one a timestep, or null"
            )
        return
    if (betas := config.get("beta_schedule")) not in BETAS:
        raise refuse(f"beta_schedule {betas!r:.40} in {file}", " or ".join(BETAS))
    start: Any = config.get("beta_start")
    end: Any = config.get("beta_end")
    if not (_between(start, 0, 1) and _between(end, 0, 1) and start <= end):
        raise refuse(
            f"beta_start {start!r:.40} and beta_end {end!r:.40} in {file}",
            "numbers between 0 and 1, the smaller first",
        )


def _between(value: Any, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low < value < high
