"""Number formats of frozen weights that a library makes (`runtime.base_precision`)."""

from dataclasses import dataclass

INSTALL = "pip install 'fedray[quantized]'"  # all their libraries


@dataclass(frozen=True)
class QuantizedFormat:
    """How the weights of linear layers are in memory.

    Attributes:
        library: the package that makes them and computes with them.
        bits: that a weight takes, with its share of scales.
        beside_fp32: whether what is not quantized is in fp32; otherwise as training.precision has it.
        cites: keys of BibTeX entries.
    """

    library: str
    bits: float
    beside_fp32: bool
    cites: tuple[str, ...] = ()


QUANTIZED = {
    # torchao's layers do not take part in autocast: norms beside them need fp32
    "int8": QuantizedFormat("torchao", bits=8, beside_fp32=True),
    # a scale of 8 bits for 64 weights, and one of 32 bits for 256 scales (Dettmers et al. 2023, Sec. 3)
    "nf4": QuantizedFormat(
        "bitsandbytes",
        bits=4 + 8 / 64 + 32 / (64 * 256),
        beside_fp32=False,
        cites=("dettmers2023qlora",),
    ),
}
