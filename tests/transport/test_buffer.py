import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from fedray.transport.buffer import DTYPES, FlatParameters, Layout, safetensors_bytes, sha256

PRECISIONS = list(DTYPES)


def a_model(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2, bias=False), nn.LayerNorm(2))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_buffer_survives_receiving_sending_saving_and_loading(precision, tmp_path):
    flat = FlatParameters(dict(a_model().named_parameters()), precision, torch.device("cpu"))
    buffer = flat.send().copy()
    assert buffer.dtype == np.uint8
    assert buffer.nbytes == flat.layout.nbytes == flat.layout.numel * DTYPES[precision].itemsize
    flat.receive(buffer)
    assert sha256(flat.send()) == sha256(buffer)
    flat.layout.save(buffer, tmp_path / "weights.safetensors")
    assert np.array_equal(flat.layout.load(tmp_path / "weights.safetensors"), buffer)
    theirs, ours = load_file(tmp_path / "weights.safetensors"), flat.layout.tensors(buffer)
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[n], ours[n]) for n in ours)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_a_buffer_holds_is_the_parameters_in_its_dtype(precision):
    model, same = a_model(), a_model()
    flat = FlatParameters(dict(model.named_parameters()), precision, torch.device("cpu"))
    tensors = flat.layout.tensors(flat.send())
    for name, parameter in same.named_parameters():
        assert torch.equal(tensors[name], parameter.detach().to(DTYPES[precision]))


def test_a_read_only_buffer_as_ray_gives_it_is_received():
    flat = FlatParameters(dict(a_model().named_parameters()), "fp32", torch.device("cpu"))
    buffer = FlatParameters(dict(a_model(1).named_parameters()), "fp32", torch.device("cpu")).send().copy()
    buffer.setflags(write=False)
    flat.receive(buffer)
    assert np.array_equal(flat.send(), buffer)
    flat.layout.flat(buffer)[0] = 5.0  # a copy
    assert np.array_equal(flat.send(), buffer)


@settings(max_examples=30)
@given(
    shapes=st.lists(st.lists(st.integers(1, 5), max_size=4).map(tuple), min_size=1, max_size=8),
    precision=st.sampled_from(PRECISIONS),
    mixed=st.booleans(),
)
def test_the_size_of_a_safetensors_file_is_known_without_writing_it(shapes, precision, mixed, tmp_path):
    tensors = {
        f"layer.{i * 37 % 11}.{i}.weight": torch.zeros(shape, dtype=DTYPES[precision])
        for i, shape in enumerate(shapes)
    }
    if mixed:
        tensors |= {f"other.{i}": torch.zeros(shape) for i, shape in enumerate(shapes)}
    names = {dtype: name for name, dtype in DTYPES.items()}
    file = tmp_path / "x.safetensors"
    save_file(tensors, file, metadata={"format": "pt"})
    assert (
        safetensors_bytes({n: (names[t.dtype], t.shape) for n, t in tensors.items()}) == file.stat().st_size
    )


@pytest.mark.parametrize(
    "damage", ["truncated", "empty", "no file", "text", "another layout", "another dtype"]
)
def test_a_file_that_is_not_the_layouts_is_refused(damage, tmp_path):
    file = tmp_path / "weights.safetensors"
    flat = FlatParameters(dict(a_model().named_parameters()), "fp32", torch.device("cpu"))
    flat.layout.save(flat.send(), file)
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-7])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "no file":
        file.unlink()
    elif damage == "text":
        file.write_text("these are no weights, whatever the name says " * 10)
    elif damage == "another layout":
        Layout(flat.layout.names, (*flat.layout.shapes[:-1], (1, 2)), "fp32", flat.layout.trained).save(
            flat.send(), file
        )
    else:
        FlatParameters(dict(a_model().named_parameters()), "fp16", torch.device("cpu"))
        half = Layout(flat.layout.names, flat.layout.shapes, "fp16", flat.layout.trained)
        half.save(np.zeros(half.nbytes, np.uint8), file)
    with pytest.raises(ValueError, match=r"weights\.safetensors"):
        flat.layout.load(file)


def test_training_through_the_flat_master_is_training_the_parameters_themselves():
    ours, theirs = a_model(), a_model()
    flat = FlatParameters(dict(ours.named_parameters()), "fp32", torch.device("cpu"))
    a = torch.optim.AdamW([flat.trained], lr=1e-2, weight_decay=0.1)
    b = torch.optim.AdamW(theirs.parameters(), lr=1e-2, weight_decay=0.1, foreach=False)
    for step in range(5):
        x = torch.randn(7, 3, generator=torch.Generator().manual_seed(step))
        flat.gradient.zero_()
        b.zero_grad()
        ours(x).square().mean().backward()
        theirs(x).square().mean().backward()
        a.step()
        b.step()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, other)
    assert torch.equal(flat.trained, nn.utils.parameters_to_vector(theirs.parameters()))


def test_parameters_are_views_of_one_tensor_and_so_are_their_gradients():
    model = a_model()
    flat = FlatParameters(dict(model.named_parameters()), "fp32", torch.device("cpu"))
    flat.trained.data.fill_(0.5)
    assert all((p == 0.5).all() for p in model.parameters())
    model(torch.ones(2, 3)).sum().backward()
    assert torch.equal(flat.gradient, torch.cat([p.grad.flatten() for p in model.parameters()]))


def test_a_hash_is_of_the_bytes():
    buffer = np.arange(100, dtype=np.uint8)
    changed = buffer.copy()
    changed[50] ^= 1
    assert sha256(buffer) == sha256(buffer.copy()) != sha256(changed)
