"""``distgrad.nn.Module`` and its containers against torch: names, state dicts, hooks, copies, printing and errors.

Invariant: torch is the only oracle.
"""

import copy
import pickle
from collections import OrderedDict

import numpy as np
import pytest

import distgrad as dg

torch = pytest.importorskip("torch")


def to_dg(tensor):
    """Copies a torch tensor."""
    return dg.from_numpy(tensor.detach().numpy().copy())


def to_torch(tensor):
    """Copies a distgrad tensor."""
    return torch.from_numpy(np.array(tensor.detach().numpy()))


def state_from_torch(module):
    return OrderedDict((name, to_dg(value)) for name, value in module.state_dict().items())


def assert_equal(actual, expected, rtol=1e-7, atol=1e-9):
    expected = expected.detach().numpy()
    actual = actual.detach().numpy()
    assert actual.dtype == expected.dtype
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def error_of(function):
    """Returns the class name and the text of what ``function`` raises, in torch's spelling."""
    with pytest.raises(Exception) as info:  # the caller compares the texts
        function()
    text = str(info.value)
    for ours, theirs in (("distgrad.nn.modules.containers", "torch.nn.modules.container"), ("distgrad", "torch")):
        text = text.replace(ours, theirs)
    return type(info.value).__name__, text


def build(library):
    """A model with a shared layer, buffers of both kinds and a missing parameter."""
    nn = library.nn

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(3, 4)
            self.body = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.ModuleList([nn.Linear(4, 1, bias=False)]))
            self.again = self.first
            self.scale = nn.Parameter(library.ones(()))
            self.register_buffer("mean", library.zeros(2))
            self.register_buffer("cache", library.zeros(2), persistent=False)
            self.count = nn.Buffer(library.zeros(1))
            self.register_parameter("nothing", None)

        def extra_repr(self):
            return "model"

    return Model()


def test_module_tree_matches_torch():
    ours, theirs = build(dg), build(torch)
    assert repr(ours) == repr(theirs)
    for walk in ("named_parameters", "named_buffers", "named_modules", "named_children"):
        names = [name for name, _ in getattr(ours, walk)()]
        assert names == [name for name, _ in getattr(theirs, walk)()], walk
    assert [n for n, _ in ours.named_parameters(prefix="p", recurse=False)] == ["p.scale"]
    assert len(list(ours.named_parameters(remove_duplicate=False))) == len(
        list(theirs.named_parameters(remove_duplicate=False))
    )
    assert list(ours.state_dict(prefix="x.")) == list(theirs.state_dict(prefix="x."))
    assert dict(ours.state_dict()._metadata) == dict(theirs.state_dict()._metadata)
    assert ours.get_parameter("body.0.weight") is ours.body[0].weight
    assert ours.get_submodule("body.2.0") is ours.body[2][0]
    assert ours.get_buffer("mean") is ours.mean
    assert ours.again is ours.first
    del ours.mean
    assert not hasattr(ours, "mean")
    ours.first = None
    assert ours.first is None


def test_state_dict_round_trips_with_torch():
    ours, theirs = build(dg), build(torch)
    assert str(ours.load_state_dict(state_from_torch(theirs))) == "<All keys matched successfully>"
    for name, value in theirs.state_dict().items():
        assert_equal(ours.state_dict()[name], value)
    back = build(torch)
    back.load_state_dict(OrderedDict((name, to_torch(value)) for name, value in ours.state_dict().items()))
    for name, value in theirs.state_dict().items():
        assert torch.equal(back.state_dict()[name], value)
    assert not ours.state_dict()["scale"].requires_grad
    assert ours.state_dict(keep_vars=True)["scale"] is ours.scale


def test_load_state_dict_reports_as_torch():
    def broken(module, library):
        state = module.state_dict()
        state["first.weight"] = library.ones(2, 2)
        del state["body.0.bias"]
        state["foo"] = library.ones(1)
        state["body.0.bar"] = library.ones(1)
        state["scale"] = 3
        return state

    ours, theirs = build(dg), build(torch)
    assert error_of(lambda: ours.load_state_dict(broken(ours, dg))) == error_of(
        lambda: theirs.load_state_dict(broken(theirs, torch))
    )
    assert error_of(lambda: ours.load_state_dict(3)) == error_of(lambda: theirs.load_state_dict(3))
    partial = ours.state_dict()
    del partial["scale"]
    partial["foo"] = dg.ones(1)
    keys = ours.load_state_dict(partial, strict=False)
    assert keys.missing_keys == ["scale"]
    assert keys.unexpected_keys == ["foo"]
    assert repr(keys) == "_IncompatibleKeys(missing_keys=['scale'], unexpected_keys=['foo'])"


def test_load_state_dict_assigns():
    layer = dg.nn.Linear(2, 2)
    weight = dg.ones(2, 2, dtype=dg.float64)
    layer.load_state_dict({"weight": weight, "bias": dg.zeros(2)}, assign=True)
    assert layer.weight.dtype == dg.float64
    assert isinstance(layer.weight, dg.nn.Parameter)
    assert layer.weight.requires_grad


def _uninitialised(library, assign):
    class Model(library.nn.Module):
        def __init__(self):
            assign(self)

    return Model()


ERRORS = {
    "module before init": lambda lib: _uninitialised(lib, lambda m: setattr(m, "x", lib.nn.Linear(1, 1))),
    "parameter before init": lambda lib: _uninitialised(lib, lambda m: setattr(m, "x", lib.nn.Parameter(lib.ones(1)))),
    "buffer before init": lambda lib: _uninitialised(lib, lambda m: setattr(m, "x", lib.nn.Buffer(lib.ones(1)))),
    "register_buffer before init": lambda lib: _uninitialised(lib, lambda m: m.register_buffer("x", lib.ones(1))),
    "register_parameter before init": lambda lib: _uninitialised(lib, lambda m: m.register_parameter("x", None)),
    "tensor for parameter": lambda lib: setattr(lib.nn.Linear(1, 1), "weight", lib.ones(1)),
    "number for parameter": lambda lib: setattr(lib.nn.Linear(1, 1), "weight", 3),
    "number for module": lambda lib: setattr(lib.nn.Sequential(lib.nn.ReLU()), "0", 3),
    "number for buffer": lambda lib: setattr(build(lib), "mean", 3),
    "no attribute": lambda lib: lib.nn.Linear(1, 1).foo,
    "delete nothing": lambda lib: delattr(lib.nn.Linear(1, 1), "foo"),
    "no forward": lambda lib: lib.nn.Module()(1),
    "constructor argument": lambda lib: lib.nn.Module(3),
    "dotted buffer": lambda lib: lib.nn.Module().register_buffer("a.b", None),
    "empty buffer": lambda lib: lib.nn.Module().register_buffer("", None),
    "unnamed buffer": lambda lib: lib.nn.Module().register_buffer(3, None),
    "number as buffer": lambda lib: lib.nn.Module().register_buffer("x", 3),
    "taken buffer": lambda lib: lib.nn.Module().register_buffer("training", None),
    "dotted parameter": lambda lib: lib.nn.Module().register_parameter("a.b", None),
    "tensor as parameter": lambda lib: lib.nn.Module().register_parameter("x", lib.ones(1)),
    "dotted module": lambda lib: lib.nn.Module().add_module("a.b", None),
    "number as module": lambda lib: lib.nn.Module().add_module("a", 3),
    "unknown submodule": lambda lib: build(lib).get_submodule("body.7"),
    "parameter as submodule": lambda lib: build(lib).get_submodule("scale"),
    "unknown parameter": lambda lib: build(lib).get_parameter("foo"),
    "buffer as parameter": lambda lib: build(lib).get_parameter("mean"),
    "parameter as buffer": lambda lib: build(lib).get_buffer("scale"),
    "nameless submodule": lambda lib: build(lib).set_submodule("", lib.nn.ReLU()),
    "training mode": lambda lib: lib.nn.ReLU().train(3),
    "integer dtype": lambda lib: lib.nn.Linear(1, 1).to(lib.int64),
    "sequential index": lambda lib: lib.nn.Sequential()[0],
    "sequential key": lambda lib: lib.nn.Sequential()["a"],
    "sequential add": lambda lib: lib.nn.Sequential() + 3,
    "sequential times zero": lambda lib: lib.nn.Sequential() * 0,
    "sequential times float": lambda lib: lib.nn.Sequential() * 1.5,
    "sequential append": lambda lib: lib.nn.Sequential().append(3),
    "sequential insert": lambda lib: lib.nn.Sequential().insert(9, lib.nn.ReLU()),
    "list index": lambda lib: lib.nn.ModuleList()[0],
    "list extend": lambda lib: lib.nn.ModuleList().extend(3),
    "list call": lambda lib: lib.nn.ModuleList()(3),
    "dict of number": lambda lib: lib.nn.ModuleDict(3),
    "dict of numbers": lambda lib: lib.nn.ModuleDict([3]),
    "dict of triples": lambda lib: lib.nn.ModuleDict([(1, 2, 3)]),
    "dict number key": lambda lib: lib.nn.ModuleDict([(1, lib.nn.ReLU())]),
    "dict key": lambda lib: lib.nn.ModuleDict()["q"],
    "parameters of number": lambda lib: lib.nn.ParameterList(3),
    "parameters call": lambda lib: lib.nn.ParameterList()(3),
    "parameter dict of number": lambda lib: lib.nn.ParameterDict(3),
    "padding index": lambda lib: lib.nn.Embedding(3, 2, padding_idx=5),
    "embedding weight": lambda lib: lib.nn.Embedding(3, 2, _weight=lib.ones(2, 2)),
    "pretrained": lambda lib: lib.nn.Embedding.from_pretrained(lib.ones(3)),
    "dropout": lambda lib: lib.nn.Dropout(2),
    "unflatten type": lambda lib: lib.nn.Unflatten(1, 3),
    "unflatten element": lambda lib: lib.nn.Unflatten(1, (2, "a")),
    "bilinear": lambda lib: lib.nn.Bilinear(0, 1, 1),
    "gain": lambda lib: lib.nn.init.calculate_gain("x"),
    "gain slope": lambda lib: lib.nn.init.calculate_gain("leaky_relu", "a"),
    "fan": lambda lib: lib.nn.init.xavier_uniform_(lib.ones(3)),
    "fan mode": lambda lib: lib.nn.init.kaiming_uniform_(lib.ones(3, 3), mode="x"),
    "eye": lambda lib: lib.nn.init.eye_(lib.ones(3)),
    "dirac": lambda lib: lib.nn.init.dirac_(lib.ones(3)),
    "dirac groups": lambda lib: lib.nn.init.dirac_(lib.ones(3, 3, 3), groups=2),
    "orthogonal": lambda lib: lib.nn.init.orthogonal_(lib.ones(3)),
    "sparse": lambda lib: lib.nn.init.sparse_(lib.ones(3), 0.1),
    "vector": lambda lib: lib.nn.utils.vector_to_parameters(3, []),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_match_torch(case):
    assert error_of(lambda: ERRORS[case](dg)) == error_of(lambda: ERRORS[case](torch))


def test_a_parameter_must_be_a_leaf():
    layer = dg.nn.Linear(1, 1)
    with pytest.raises(TypeError, match="cannot assign"):
        layer.weight = layer.weight * 2


def test_assignment_moves_a_name_between_tables():
    module = dg.nn.Module()
    module.x = 3
    module.x = dg.nn.Parameter(dg.ones(1))
    assert "x" not in module.__dict__
    assert list(module.state_dict()) == ["x"]
    module.x = None
    assert module.x is None
    assert list(module.parameters()) == []
    module.x = dg.nn.Parameter(dg.ones(1))
    del module.x
    module.x = dg.nn.Linear(1, 1)
    assert list(module.state_dict()) == ["x.weight", "x.bias"]


def test_parameter_is_a_leaf():
    parameter = dg.nn.Parameter(dg.ones(2))
    assert parameter.is_leaf
    assert parameter.requires_grad
    assert isinstance(parameter, dg.Tensor)
    assert type(parameter * 2) is dg.Tensor
    assert dg.nn.Parameter().shape == (0,)
    assert repr(dg.nn.Parameter(dg.ones(2), requires_grad=False)) == "Parameter containing:\ntensor([1., 1.])"
    with pytest.raises(RuntimeError, match="Only Tensors of floating point and complex dtype can require gradients"):
        dg.nn.Parameter(dg.ones(2, dtype=dg.int64))


class Net(dg.nn.Module):
    """A module that pickles: it is at the top level of a file."""

    def __init__(self):
        super().__init__()
        self.layer = dg.nn.Linear(3, 2)
        self.tied = self.layer.weight
        self.register_buffer("seen", dg.zeros(1))

    def forward(self, x):
        return self.layer(x)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_are_equal_and_independent(duplicate):
    net = Net()
    other = duplicate(net)
    x = dg.randn(4, 3)
    assert other(x).tolist() == net(x).tolist()
    assert isinstance(other.layer.weight, dg.nn.Parameter)
    assert other.layer.weight is not net.layer.weight
    with dg.no_grad():
        net.layer.weight.add_(1)
    assert other(x).tolist() != net(x).tolist()
    assert list(other.state_dict()) == list(net.state_dict())
    other(x).sum().backward()
    assert net.layer.weight.grad is None


def test_deepcopy_keeps_ties():
    net = copy.deepcopy(Net())
    assert net.tied is net.layer.weight


def test_conversion_and_modes():
    net = Net()
    net(dg.ones(1, 3)).sum().backward()
    assert net.double() is net
    assert {tensor.dtype for tensor in net.state_dict().values()} == {dg.float64}
    assert net.layer.weight.grad.dtype == dg.float64
    assert net.to(dg.float32).layer.bias.dtype == dg.float32
    assert net.to("cpu", dg.float64).layer.bias.dtype == dg.float64
    assert net.to(dg.ones(1)).layer.bias.dtype == dg.float32
    assert net.half().float().layer.bias.dtype == dg.float32
    assert net.train().training
    assert not net.eval().layer.training
    assert not any(p.requires_grad for p in net.requires_grad_(False).parameters())
    net.requires_grad_()
    net.zero_grad(set_to_none=False)
    assert net.layer.weight.grad.abs().sum().item() == 0
    net.zero_grad()
    assert net.layer.weight.grad is None
    seen = []
    net.apply(seen.append)
    assert seen == [net.layer, net]


def test_forward_hooks():
    layer = dg.nn.Identity()
    calls = []
    first = layer.register_forward_pre_hook(lambda module, args: calls.append("pre") or (args[0] + 1,))
    layer.register_forward_hook(lambda module, args, output: calls.append("post") or output * 10)
    layer.register_forward_hook(lambda module, args, output: calls.append("front"), prepend=True)
    assert layer(dg.tensor(1.0)).item() == 20.0
    assert calls == ["pre", "front", "post"]
    first.remove()
    assert layer(dg.tensor(1.0)).item() == 10.0

    class Add(dg.nn.Module):
        def forward(self, x, *, y):
            if y is None:
                raise ValueError("y is missing")
            return x + y

    add = Add()
    add.register_forward_pre_hook(lambda module, args, kwargs: (args, {"y": kwargs["y"]}), with_kwargs=True)
    late = []
    add.register_forward_hook(
        lambda module, args, kwargs, output: late.append(kwargs), with_kwargs=True, always_call=True
    )
    assert add(dg.tensor(1.0), y=2.0).item() == 3.0
    with pytest.raises(ValueError, match="y is missing"):
        add(dg.tensor(1.0), y=None)
    assert late == [{"y": 2.0}, {"y": None}]


def test_full_backward_hooks_match_torch():
    def run(library):
        layer = library.nn.Linear(3, 2)
        library.nn.init.constant_(layer.weight, 0.5)
        library.nn.init.zeros_(layer.bias)
        seen = []

        def hook(module, grad_input, grad_output):
            seen.append([None if g is None else g.tolist() for g in (*grad_input, *grad_output)])
            return tuple(g * 2 for g in grad_input) if grad_input[0] is not None else None

        handle = layer.register_full_backward_hook(hook)
        layer.register_full_backward_pre_hook(lambda module, grad_output: (grad_output[0] * 3,))
        x = library.ones(2, 3, requires_grad=True)
        layer(x).sum().backward()
        layer(library.ones(2, 3)).sum().backward()
        handle.remove()
        return seen, x.grad.tolist(), layer.weight.grad.tolist()

    assert run(dg) == run(torch)


def test_state_dict_hooks_and_extra_state():
    class Extra(dg.nn.Linear):
        note = "a"

        def get_extra_state(self):
            return self.note

        def set_extra_state(self, state):
            self.note = state

    source, target = Extra(1, 1), Extra(1, 1)
    source.note = "b"
    assert list(source.state_dict()) == ["weight", "bias", "_extra_state"]
    target.load_state_dict(source.state_dict())
    assert target.note == "b"
    layer = dg.nn.Linear(1, 1)
    layer.register_state_dict_post_hook(lambda module, state, prefix, meta: state.update({prefix + "more": 1}))
    assert "more" in layer.state_dict()
    layer.register_load_state_dict_pre_hook(lambda module, state, *rest: state.pop("more"))
    layer.register_load_state_dict_post_hook(lambda module, keys: keys.missing_keys.clear())
    state = layer.state_dict()
    del state["bias"]
    assert layer.load_state_dict(state).missing_keys == []
    assert "more" in state


def test_sequential_behaves_as_a_list():
    relu, tanh, line = dg.nn.ReLU(), dg.nn.Tanh(), dg.nn.Linear(2, 2)
    chain = dg.nn.Sequential(relu, tanh)
    chain.append(line).insert(0, line)
    assert list(chain) == [line, relu, tanh, line]
    assert chain[-1] is line
    assert list(chain[1:3]) == [relu, tanh]
    del chain[0]
    assert list(chain._modules) == ["0", "1", "2"]
    assert chain.pop(0) is relu
    chain[0] = relu
    assert list(chain + chain) == [relu, line, relu, line]
    assert len(chain * 3) == 6
    chain += dg.nn.Sequential(tanh)
    assert list(chain) == [relu, line, tanh]
    modules = dg.nn.ModuleList([relu]) + [tanh]
    modules.insert(0, line)
    modules += [relu]
    assert list(modules) == [line, relu, tanh, relu]
    del modules[1:3]
    assert list(modules._modules) == ["0", "1"]
    table = dg.nn.ModuleDict({"a": relu})
    table.update([("b", tanh)])
    assert list(table.items()) == [("a", relu), ("b", tanh)]
    assert table.pop("a") is relu
    assert "a" not in table


def test_parameter_containers_match_torch():
    def text(lib, library):
        values = [library.nn.Parameter(library.ones(2, 3)), library.ones(2), 3, "x"]
        pairs = {"a": library.nn.Parameter(library.ones(2, 3)), "c": 3}
        return (
            repr(lib.ParameterList(values)),
            repr(lib.ParameterDict(pairs)),
            repr(library.nn.Parameter(library.ones(2))),
        )

    ours = [text.replace("distgrad", "torch") for text in text(dg.nn, dg)]
    assert ours == list(text(torch.nn, torch))
    values = dg.nn.ParameterList([dg.ones(2), dg.ones(3)])
    values.append(dg.zeros(1))
    assert [name for name, _ in values.named_parameters()] == ["0", "1", "2"]
    assert isinstance(values[1:], dg.nn.ParameterList)
    assert len(values[1:]) == 2
    named = dg.nn.ParameterDict({"a": dg.ones(2)})
    named["b"] = dg.zeros(1)
    assert list(named.keys()) == ["a", "b"]
    assert named.pop("a").tolist() == [1.0, 1.0]
    assert "a" not in named
    assert len(list(named.parameters())) == 1
