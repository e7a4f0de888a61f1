"""How near one set of images is to another in style, and how many still show what their caption says.

Images are float tensors [N, 3, H, W] in 0..1; features [N, 64] and probabilities [N, labels] are a judge's.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fedray.data.captions import NoLabel
from fedray.data.captions import labels_in as captions_labels

REC_709 = (0.2126, 0.7152, 0.0722)  # weights of red, green and blue, ITU-R BT.709


def feature_distance(a: Tensor, b: Tensor) -> float:
    """Euclidean distance between the mean features of two sets.

    The square root of the Frechet distance's first term (Heusel et al. 2017). Its second term compares 64 x
    64 covariances, which a few dozen images determine only by noise, so it is left out.
    """
    return (a.mean(0) - b.mean(0)).norm().item()


def mean_darkness(images: Tensor) -> float:
    """Mean over all pixels of 1 - luma, with Rec. 709's weights on the pixel values as they are stored
    (gamma-encoded). 0 is a white page, 1 a black one; it needs no threshold between ink and paper."""
    weights = torch.tensor(REC_709, device=images.device)
    return 1 - torch.einsum("nchw,c->nhw", images.float(), weights).mean().item()


def coverage_distance(a: Tensor, b: Tensor) -> float:
    """Absolute difference between two sets' mean darkness: whether they spend as much ink on the page."""
    return abs(mean_darkness(a) - mean_darkness(b))


def recognised(probabilities: Tensor, labels: Tensor) -> float:
    """Share of images whose most probable label is the one in labels [N]."""
    return (probabilities.argmax(1) == labels.to(probabilities.device)).float().mean().item()


def labels_in(captions: Sequence[str], names: Sequence[str]) -> Tensor:
    """Which of a judge's labels each caption names: indices [N]. Of several, the longest name counts, so that
    "ankle boot" is not a boot and "t-shirt" not a shirt.

    Raises:
        ValueError: for a caption that names none.
    """
    try:
        return torch.tensor(captions_labels(captions, names), dtype=torch.long)
    except NoLabel as e:
        message = f"the caption {e.text!r} names none of the judge's labels: {', '.join(names)}"
        raise ValueError(message) from None
