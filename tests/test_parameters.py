"""Parameters of models: their flat arrays, copies, and saved states."""

import copy
import pickle
import re
from collections import OrderedDict

import numpy as np
import pytest

from fastnn import nn, optim
from tests.small_models import images_model, small_model


def assert_flat(model):
    """All parameters are views into one array of values and one of gradients, in order, without overlap."""
    parameters = model.parameters()
    assert len(nn.flat_arrays(parameters)) == len({parameter.dtype for parameter in parameters})
    storages = {id(parameter.storage) for parameter in parameters}
    assert len(storages) == len({parameter.dtype for parameter in parameters})
    for parameter in parameters:
        for view, flat in zip((parameter.data, parameter.grad), parameter.storage, strict=True):
            assert np.shares_memory(view, flat)
            assert view.ctypes.data == flat.ctypes.data + parameter.offset * flat.itemsize
            assert flat.ctypes.data % 64 == 0
    assert sum(values.size for values, _ in nn.flat_arrays(parameters)) == sum(p.size for p in parameters)


def test_parameters_live_in_one_flat_array(rng):
    model = images_model()
    before = model.state_dict()
    assert_flat(model)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    ((values, gradients),) = nn.flat_arrays(model.parameters())
    values.fill(2)
    gradients.fill(3)
    assert np.all(model.head.weight.data == 2)
    assert np.all(model.block.shortcut.bias.grad == 3)
    first = [parameter.data for parameter in model.parameters()]
    model.block.parameters()  # part of a model that is together: nothing moves
    assert all(parameter.data is data for parameter, data in zip(model.parameters(), first, strict=True))
    assert model.parameters()[0].name == "conv.weight"


@pytest.mark.parametrize("by", ["model", "optimizer", "assignment"])
def test_a_zeroed_gradient_is_written_by_the_next_backward_or_read_as_zeros(by, rng):
    model, x = images_model(), rng.standard_normal((2, 2, 6, 6)).astype(np.float32)
    parameters = model.parameters()
    y = model(x)
    model.backward(y)
    expected = [parameter.grad.copy() for parameter in parameters]
    if by == "model":
        model.zero_grad()
    elif by == "optimizer":
        optim.SGD(parameters, lr=0.1).zero_grad()
    else:
        for parameter in parameters:
            parameter.grad = None
    parameters[0].storage.grad.fill(np.nan)  # what stands in the arrays now counts for nothing
    model(x)
    model.backward(y)
    for parameter, gradient in zip(parameters, expected, strict=True):
        np.testing.assert_array_equal(parameter.grad, gradient)
    model(x)
    model.backward(y)
    for parameter, gradient in zip(parameters, expected, strict=True):
        np.testing.assert_array_equal(parameter.grad, 2 * gradient)


def test_gradients_of_parameters_that_a_backward_leaves_alone_are_zero_once_zeroed(rng):
    model = small_model()
    parameters = model.parameters()
    for parameter in parameters:
        parameter.grad = np.full(parameter.shape, 3, np.float32)
    model.zero_grad()
    assert all(not parameter.grad.any() for parameter in copy.deepcopy(model).parameters())
    model.zero_grad()
    model[0].weight.grad += 1  # as a layer of one's own adds
    model[0].bias.grad = np.full(5, 2, np.float32)
    assert [float(parameter.grad.max()) for parameter in parameters] == [1, 2, 0, 0]
    model.zero_grad()
    ((_, gradients),) = nn.flat_arrays(parameters)
    assert not gradients.any()
    before = parameters[2].data.copy()
    optim.SGD(parameters, lr=0.1).step()
    np.testing.assert_array_equal(parameters[2].data, before)


def test_parameters_stay_flat_after_loading_assigning_and_going_back(rng):
    model = small_model()
    assert_flat(model)
    model.load_state_dict(small_model().state_dict())
    model[0].weight.data = np.ones((5, 4), np.float32)
    model[0].bias.grad = np.ones(5, np.float32)
    model[2].bias.grad = None
    y = model(rng.standard_normal((2, 4)).astype(np.float32))
    model.backward(y)
    assert_flat(model)
    assert np.all(model[0].weight.data == 1)
    with pytest.raises(ValueError, match=r"Parameter: data must have shape \(5, 4\), got \(4, 5\)"):
        model[0].weight.data = np.ones((4, 5), np.float32)


def test_adding_a_layer_gathers_the_parameters_anew(rng):
    model = small_model()
    kept = model.parameters()
    kept[0].grad.fill(7)
    model.append(nn.Linear(3, 2))
    assert_flat(model)
    assert model.parameters()[:4] == kept
    assert np.all(kept[0].grad == 7)
    assert model.parameters()[-1].name == "3.bias"
    model[-1] = nn.Linear(3, 9)
    assert_flat(model)


def test_optimiser_keeps_working_when_parameters_have_moved():
    model = small_model()
    optimizer = optim.SGD(model.parameters(), lr=1.0)
    model.append(nn.Linear(3, 2))
    model.parameters()
    model[0].weight.grad.fill(1)
    before = model[0].weight.data.copy()
    optimizer.step()
    np.testing.assert_array_equal(model[0].weight.data, before - 1)
    optimizer.zero_grad()
    assert_flat(model)
    assert not model[0].weight.grad.any()


def test_shared_parameters_are_listed_once():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    assert [name for name, _ in model.named_parameters()] == ["0.weight", "0.bias", "1.bias"]
    assert_flat(model)
    assert list(model.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    model.load_state_dict(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).state_dict())
    assert model[1].weight is model[0].weight
    twin = copy.deepcopy(model)
    assert twin[1].weight is twin[0].weight


def test_each_dtype_has_its_flat_array():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4).to(np.float64), nn.Linear(2, 2))
    parameters = model.parameters()
    assert len({id(parameter.storage) for parameter in parameters}) == 2
    assert len(nn.flat_arrays(parameters)) == 3
    model.to(np.float64)
    assert_flat(model)
    with pytest.raises(TypeError, match=r"Sequential.to: dtype must be float32 or float64, got int32"):
        model.to(np.int32)


def test_to_converts_parameters_and_floating_buffers():
    layer = nn.BatchNorm2d(3).to(np.float64)
    kinds = {name: value.dtype for name, value in layer.state_dict().items()}
    assert kinds.pop("num_batches_tracked") == np.int64
    assert set(kinds.values()) == {np.dtype(np.float64)}
    assert layer.weight.grad.dtype == np.float64


def test_copies_and_pickles_are_models_of_their_own(rng):
    model = images_model()
    x = rng.standard_normal((2, 2, 6, 6)).astype(np.float32)
    model.parameters()
    model(x)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert not any(module._saved for module in twin.modules())
        assert_flat(twin)
        for mine, yours in zip(model.parameters(), twin.parameters(), strict=True):
            np.testing.assert_array_equal(mine.data, yours.data)
            assert not np.shares_memory(mine.data, yours.data)
        y = twin.train()(x)
        twin.backward(y)
        assert not model.conv.weight.grad.any()
        twin.conv.weight.data.fill(0)
        assert model.conv.weight.data.any()
        assert repr(twin) == repr(model)


# Checkpoints


def test_torch_checkpoint_loads(rng):
    torch = pytest.importorskip("torch")
    theirs = torch.nn.Sequential(
        OrderedDict(
            conv=torch.nn.Conv2d(2, 4, 3),
            norm=torch.nn.BatchNorm2d(4),
            relu=torch.nn.ReLU(),
            flatten=torch.nn.Flatten(),
        )
    )
    theirs.append(torch.nn.Linear(64, 3))
    ours = nn.Sequential(
        OrderedDict(conv=nn.Conv2d(2, 4, 3), norm=nn.BatchNorm2d(4), relu=nn.ReLU(), flatten=nn.Flatten())
    ).append(nn.Linear(64, 3))
    assert repr(ours) == re.sub(", inplace=False|(?<=affine=True), bias=True", "", repr(theirs))
    assert ours.load_state_dict(theirs.state_dict()) == ([], [])
    x = rng.standard_normal((2, 2, 6, 6)).astype(np.float32)
    np.testing.assert_allclose(ours(x), theirs(torch.tensor(x)).detach(), rtol=1e-4, atol=1e-5)
    theirs.load_state_dict({name: torch.tensor(value) for name, value in ours.state_dict().items()})


def test_state_that_does_not_fit_is_told_in_full_and_nothing_is_loaded():
    model = small_model()
    before = model.state_dict()
    state = {name: value + 1 for name, value in before.items()}
    state["2.weight"] = np.zeros((3, 6), np.float32)
    state["extra"] = state.pop("0.bias")
    with pytest.raises(ValueError, match=r"Sequential.load_state_dict: the state does not fit") as caught:
        model.load_state_dict(state)
    message = str(caught.value)
    assert "missing: 0.bias" in message
    assert "not in this module: extra" in message
    assert "2.weight has shape (3, 6), expected (3, 5)" in message
    with pytest.raises(ValueError, match=r"2.weight has shape") as caught:  # shapes matter in any case
        model.load_state_dict(state, strict=False)
    assert "missing" not in str(caught.value)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_state_loads_in_part_without_strict():
    model = small_model()
    bias = model[0].bias.data.copy()
    result = model.load_state_dict({"0.weight": np.ones((5, 4)), "other": 3}, strict=False)
    assert result.missing_keys == ["0.bias", "2.weight", "2.bias"]
    assert result.unexpected_keys == ["other"]
    assert np.all(model[0].weight.data == 1)
    assert model[0].weight.dtype == np.float32
    np.testing.assert_array_equal(model[0].bias.data, bias)


def test_state_of_a_wrong_type_is_refused():
    model = small_model()
    with pytest.raises(
        TypeError, match=r"Sequential.load_state_dict: expected a mapping from names to arrays, got list"
    ):
        model.load_state_dict([1, 2])
    state = model.state_dict()
    state["2.bias"] = np.array(["a", "b", "c"])
    before = model.state_dict()
    state["0.weight"] = state["0.weight"] + 1
    with pytest.raises(TypeError, match=r"2.bias must be float32, got <U1"):
        model.load_state_dict(state)
    np.testing.assert_array_equal(model[0].weight.data, before["0.weight"])


def test_state_dict_is_a_copy():
    model = small_model()
    state = model.state_dict()
    model[0].weight.data.fill(5)
    assert not np.any(state["0.weight"] == 5)
