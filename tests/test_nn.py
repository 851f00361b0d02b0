"""``distgrad.nn`` against torch: values, gradients, names, printing, errors. Invariant: torch is the only oracle."""

import copy
import math
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


# One row: the expression that builds a layer, and the shapes of its inputs.
LAYERS = [
    ("Linear(4, 3)", [(5, 4)]),
    ("Linear(4, 3, bias=False)", [(2, 5, 4)]),
    ("Bilinear(3, 4, 2)", [(5, 3), (5, 4)]),
    ("Identity()", [(2, 3)]),
    ("Flatten()", [(2, 3, 4)]),
    ("Unflatten(1, (2, 3))", [(2, 6)]),
    ("LayerNorm(6)", [(4, 6)]),
    ("LayerNorm((3, 4), eps=1e-3)", [(2, 3, 4)]),
    ("LayerNorm(6, bias=False)", [(4, 6)]),
    ("LayerNorm(6, elementwise_affine=False)", [(4, 6)]),
    ("RMSNorm(6)", [(4, 6)]),
    ("RMSNorm(6, eps=1e-3, elementwise_affine=False)", [(4, 6)]),
    ("GroupNorm(2, 4)", [(3, 4, 5)]),
    ("GroupNorm(4, 4, affine=False)", [(3, 4)]),
    ("PairwiseDistance(3.0)", [(5, 3), (5, 3)]),
    ("CosineSimilarity()", [(5, 3), (5, 3)]),
    ("Dropout(0.0)", [(3, 4)]),
    ("ReLU()", [(3, 4)]),
    ("ReLU(inplace=True)", [(3, 4)]),
    ("LeakyReLU(0.2)", [(3, 4)]),
    ("ELU(0.7)", [(3, 4)]),
    ("SELU()", [(3, 4)]),
    ("CELU(0.7)", [(3, 4)]),
    ("GELU()", [(3, 4)]),
    ("GELU('tanh')", [(3, 4)]),
    ("Sigmoid()", [(3, 4)]),
    ("Tanh()", [(3, 4)]),
    ("SiLU()", [(3, 4)]),
    ("Mish()", [(3, 4)]),
    ("Softplus(2.0, 10.0)", [(3, 4)]),
    ("Softsign()", [(3, 4)]),
    ("Hardtanh(-0.5, 0.5)", [(3, 4)]),
    ("ReLU6()", [(3, 4)]),
    ("Hardsigmoid()", [(3, 4)]),
    ("Hardswish()", [(3, 4)]),
    ("Hardshrink(0.3)", [(3, 4)]),
    ("Softshrink(0.3)", [(3, 4)]),
    ("LogSigmoid()", [(3, 4)]),
    ("Softmax(1)", [(3, 4)]),
    ("LogSoftmax(-1)", [(3, 4)]),
    ("Softmin(0)", [(3, 4)]),
    ("Softmax2d()", [(2, 3, 4, 2)]),
    ("Threshold(0.1, 20.0)", [(3, 4)]),
    ("Tanhshrink()", [(3, 4)]),
    ("PReLU()", [(3, 4)]),
    ("PReLU(4, init=0.1)", [(3, 4)]),
    ("GLU(1)", [(3, 4)]),
    ("Sequential(lib.Linear(4, 3), lib.Tanh(), lib.Linear(3, 2))", [(5, 4)]),
]


@pytest.mark.parametrize(("expression", "shapes"), LAYERS)
def test_layer_matches_torch(expression, shapes):
    theirs = eval("lib." + expression, {"lib": torch.nn}).double()
    ours = eval("lib." + expression, {"lib": dg.nn}).double()
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert [tuple(p.shape) for p in ours.parameters()] == [tuple(p.shape) for p in theirs.parameters()]
    ours.load_state_dict(state_from_torch(theirs))
    torch.manual_seed(0)
    their_inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    our_inputs = [to_dg(value).requires_grad_() for value in their_inputs]
    # In-place layers may not change a leaf.
    their_output = theirs(*(value * 1.0 for value in their_inputs))
    our_output = ours(*(value * 1.0 for value in our_inputs))
    assert_equal(our_output, their_output)
    weights = torch.randn(their_output.shape, dtype=torch.float64)
    (their_output * weights).sum().backward()
    (our_output * to_dg(weights)).sum().backward()
    for our_value, their_value in zip(
        [*our_inputs, *ours.parameters()], [*their_inputs, *theirs.parameters()], strict=True
    ):
        assert_equal(our_value.grad, their_value.grad)


def _probabilities(*shape):
    return torch.softmax(torch.randn(shape, dtype=torch.float64), 1)


def _signs(*shape):
    return torch.randint(0, 2, shape).double() * 2 - 1


def _uniform(*shape):
    return torch.rand(shape, dtype=torch.float64) * 0.9 + 0.05


def _normal(*shape):
    return torch.randn(shape, dtype=torch.float64)


CLASSES = torch.tensor([0, 2, 1, 2, 0])
LOSSES = [
    ("L1Loss", {}, lambda: (_normal(5, 3), _normal(5, 3))),
    ("MSELoss", {}, lambda: (_normal(5, 3), _normal(5, 3))),
    ("SmoothL1Loss", {"beta": 0.5}, lambda: (_normal(5, 3), _normal(5, 3))),
    ("HuberLoss", {"delta": 0.5}, lambda: (_normal(5, 3), _normal(5, 3))),
    ("NLLLoss", {}, lambda: (_probabilities(5, 3).log(), CLASSES)),
    (
        "NLLLoss",
        {"weight": torch.tensor([1.0, 2.0, 0.5]).double(), "ignore_index": 1},
        lambda: (_normal(5, 3), CLASSES),
    ),
    ("CrossEntropyLoss", {}, lambda: (_normal(5, 3), CLASSES)),
    ("CrossEntropyLoss", {"weight": torch.tensor([1.0, 2.0, 0.5]).double()}, lambda: (_normal(5, 3), CLASSES)),
    ("CrossEntropyLoss", {"ignore_index": 2, "label_smoothing": 0.1}, lambda: (_normal(5, 3), CLASSES)),
    ("CrossEntropyLoss", {}, lambda: (_normal(5, 3), _probabilities(5, 3))),
    ("CrossEntropyLoss", {}, lambda: (_normal(2, 3, 5), torch.stack([CLASSES, CLASSES]))),
    ("BCELoss", {}, lambda: (_uniform(5, 3), _uniform(5, 3))),
    ("BCEWithLogitsLoss", {}, lambda: (_normal(5, 3), _uniform(5, 3))),
    (
        "BCEWithLogitsLoss",
        {"pos_weight": torch.tensor([1.0, 2.0, 0.5]).double()},
        lambda: (_normal(5, 3), _uniform(5, 3)),
    ),
    ("KLDivLoss", {}, lambda: (_probabilities(5, 3).log(), _probabilities(5, 3))),
    ("KLDivLoss", {"log_target": True}, lambda: (_probabilities(5, 3).log(), _probabilities(5, 3).log())),
    ("PoissonNLLLoss", {"full": True}, lambda: (_normal(5, 3), _uniform(5, 3) * 6)),
    ("GaussianNLLLoss", {}, lambda: (_normal(5, 3), _normal(5, 3), _uniform(5, 3))),
    ("HingeEmbeddingLoss", {"margin": 0.5}, lambda: (_normal(5, 3), _signs(5, 3))),
    ("SoftMarginLoss", {}, lambda: (_normal(5, 3), _signs(5, 3))),
    ("MultiLabelSoftMarginLoss", {}, lambda: (_normal(5, 3), (_signs(5, 3) + 1) / 2)),
    ("MultiLabelMarginLoss", {}, lambda: (_normal(2, 4), torch.tensor([[3, 0, -1, 1], [1, -1, 0, 2]]))),
    ("MultiMarginLoss", {"p": 2, "margin": 0.7}, lambda: (_normal(5, 3), CLASSES)),
    ("CosineEmbeddingLoss", {"margin": 0.1}, lambda: (_normal(5, 3), _normal(5, 3), _signs(5))),
    ("MarginRankingLoss", {"margin": 0.1}, lambda: (_normal(5), _normal(5), _signs(5))),
    ("TripletMarginWithDistanceLoss", {"swap": True}, lambda: (_normal(5, 3), _normal(5, 3), _normal(5, 3))),
    ("TripletMarginLoss", {"margin": 0.7}, lambda: (_normal(5, 3), _normal(5, 3), _normal(5, 3))),
]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(("name", "options", "make"), LOSSES)
def test_loss_matches_torch(name, options, make, reduction):
    torch.manual_seed(1)
    theirs = getattr(torch.nn, name)(reduction=reduction, **options)
    our_options = {key: to_dg(value) if isinstance(value, torch.Tensor) else value for key, value in options.items()}
    ours = getattr(dg.nn, name)(reduction=reduction, **our_options)
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    their_input, *their_rest = make()
    their_input.requires_grad_()
    our_input = to_dg(their_input).requires_grad_()
    their_loss = theirs(their_input, *their_rest)
    our_loss = ours(our_input, *map(to_dg, their_rest))
    assert_equal(our_loss, their_loss)
    their_loss.sum().backward()
    our_loss.sum().backward()
    assert_equal(our_input.grad, their_input.grad)


def test_loss_accepts_the_old_reduction_flags():
    with pytest.warns(UserWarning, match="please use reduction='sum' instead"):
        assert dg.nn.MSELoss(size_average=False).reduction == "sum"
    with pytest.warns(UserWarning, match="please use reduction='none' instead"):
        assert dg.nn.MSELoss(reduce=False).reduction == "none"


@pytest.mark.parametrize("padding_idx", [None, 1, -1])
def test_embedding_matches_torch(padding_idx):
    theirs = torch.nn.Embedding(6, 3, padding_idx=padding_idx).double()
    ours = dg.nn.Embedding(6, 3, padding_idx=padding_idx).double()
    assert repr(ours) == repr(theirs)
    if padding_idx is not None:
        assert ours.weight[padding_idx].abs().sum().item() == 0
    ours.load_state_dict(state_from_torch(theirs))
    index = torch.tensor([[0, 5, 1], [5, 2, 2]])
    their_output, our_output = theirs(index), ours(to_dg(index))
    assert_equal(our_output, their_output)
    (their_output**2).sum().backward()
    (our_output**2).sum().backward()
    assert_equal(ours.weight.grad, theirs.weight.grad)
    rows = dg.arange(6.0).reshape(2, 3)
    pretrained = dg.nn.Embedding.from_pretrained(rows)
    assert not pretrained.weight.requires_grad
    assert pretrained(dg.tensor([1])).tolist() == [[3.0, 4.0, 5.0]]


PRINTED = [
    "Embedding(3, 2, padding_idx=-1, max_norm=1., norm_type=1., scale_grad_by_freq=True, sparse=True)",
    "Dropout(0.2, True)",
    "AlphaDropout()",
    "Dropout2d(0.3)",
    "FeatureAlphaDropout(0.3)",
    "GroupNorm(2, 4, bias=False)",
    "Threshold(.1, 20, True)",
    "ReLU(True)",
    "RReLU()",
    "RReLU(inplace=True)",
    "Hardtanh(-2, 2, True)",
    "ReLU6(True)",
    "Hardsigmoid(True)",
    "SiLU(True)",
    "Hardswish(True)",
    "ELU(.5, True)",
    "LeakyReLU(.2, True)",
    "ModuleList()",
    "ModuleList([lib.Linear(1, 1), lib.Linear(1, 1), lib.ReLU()])",
    "ModuleDict({'a': lib.ReLU(), 'b': lib.ModuleList([lib.Tanh(), lib.Tanh()])})",
    "Sequential()",
    "Sequential(lib.OrderedDict(a=lib.Linear(2, 2)))",
    "ParameterList()",
    "ParameterDict()",
]


@pytest.mark.parametrize("expression", PRINTED)
def test_printing_matches_torch(expression):
    scope = expression.replace("lib.OrderedDict", "OrderedDict")
    ours = eval("lib." + scope, {"lib": dg.nn, "OrderedDict": OrderedDict})
    theirs = eval("lib." + scope, {"lib": torch.nn, "OrderedDict": OrderedDict})
    assert repr(ours) == repr(theirs)


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


# -- Module ------------------------------------------------------------------------------------------------------


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


# -- initial values ----------------------------------------------------------------------------------------------


def test_gains_match_torch():
    for name in ("linear", "conv1d", "conv_transpose3d", "sigmoid", "tanh", "relu", "leaky_relu", "selu"):
        assert dg.nn.init.calculate_gain(name) == torch.nn.init.calculate_gain(name)
    assert dg.nn.init.calculate_gain("leaky_relu", 0.3) == torch.nn.init.calculate_gain("leaky_relu", 0.3)


# One row: a call that fills a tensor, its shape, and the bounds and standard deviation it must show.
SPREADS = [
    (lambda init, t: init.uniform_(t, -2, 3), (60, 50), (-2, 3), 5 / math.sqrt(12)),
    (lambda init, t: init.normal_(t, 0, 2), (60, 50), None, 2),
    (lambda init, t: init.trunc_normal_(t, 0, 1, -1, 1), (60, 50), (-1, 1), 0.5396),
    (lambda init, t: init.xavier_uniform_(t, 2), (60, 50), (-2 * math.sqrt(6 / 110), 2 * math.sqrt(6 / 110)), None),
    (lambda init, t: init.xavier_normal_(t), (60, 50), None, math.sqrt(2 / 110)),
    (
        lambda init, t: init.kaiming_uniform_(t, nonlinearity="relu"),
        (60, 50),
        (-math.sqrt(0.12), math.sqrt(0.12)),
        None,
    ),
    (
        lambda init, t: init.kaiming_normal_(t, mode="fan_out", nonlinearity="relu"),
        (60, 10, 5),
        None,
        math.sqrt(2 / 300),
    ),
]


@pytest.mark.parametrize(("fill", "shape", "bounds", "deviation"), SPREADS)
def test_random_initial_values_have_their_distribution(fill, shape, bounds, deviation):
    dg.manual_seed(3)
    tensor = dg.empty(shape, dtype=dg.float64)
    assert fill(dg.nn.init, tensor) is tensor
    values = tensor.numpy()
    if bounds is not None:
        assert bounds[0] <= values.min() < bounds[0] * 0.9
        assert bounds[1] * 0.9 < values.max() <= bounds[1]
    if deviation is not None:
        assert values.std() == pytest.approx(deviation, rel=0.06)


def test_fixed_initial_values_match_torch():
    for call in (
        lambda lib: lib.nn.init.eye_(lib.empty(3, 5)),
        lambda lib: lib.nn.init.dirac_(lib.empty(4, 3, 3, 2)),
        lambda lib: lib.nn.init.dirac_(lib.empty(4, 2, 3), groups=2),
        lambda lib: lib.nn.init.constant_(lib.empty(2), 0.3),
        lambda lib: lib.nn.init.ones_(lib.empty(2)),
    ):
        assert_equal(call(dg), call(torch))


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 2, 3)])
def test_orthogonal_rows_or_columns(shape):
    matrix = dg.nn.init.orthogonal_(dg.empty(shape, dtype=dg.float64), gain=2).numpy().reshape(shape[0], -1)
    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    np.testing.assert_allclose(gram, 4 * np.eye(len(gram)), atol=1e-12)


def test_sparse_columns():
    matrix = dg.nn.init.sparse_(dg.empty(10, 4), 0.25).numpy()
    assert ((matrix == 0).sum(axis=0) == 3).all()


def test_default_initial_values():
    dg.manual_seed(0)
    layer = dg.nn.Linear(100, 80)
    bound = 1 / math.sqrt(100)
    for tensor in (layer.weight, layer.bias):
        values = tensor.detach().numpy()
        assert abs(values).max() <= bound
        assert abs(values).max() > 0.9 * bound
    with pytest.warns(UserWarning, match="Initializing zero-element tensors is a no-op"):
        dg.nn.Linear(0, 3)
    dg.manual_seed(0)
    assert dg.nn.Linear(100, 80).weight.tolist() == layer.weight.tolist()


def test_dropout_layer_only_drops_in_training():
    layer = dg.nn.Dropout(0.4)
    x = dg.ones(2000)
    kept = layer(x).numpy()
    assert set(np.unique(kept)) == {0.0, np.float32(1 / 0.6)}
    assert abs((kept == 0).mean() - 0.4) < 0.05
    assert layer.eval()(x).tolist() == x.tolist()
    channels = dg.nn.Dropout2d(0.5)(dg.ones(10, 8, 2, 3)).reshape(80, 6).numpy()
    assert set(np.unique(channels.sum(axis=1))) == {0.0, 12.0}
    for kind in (dg.nn.AlphaDropout, dg.nn.FeatureAlphaDropout, dg.nn.Dropout1d, dg.nn.Dropout3d):
        y = dg.ones(4, 3, 2, 2, 2) if kind is dg.nn.Dropout3d else dg.ones(4, 3, 2)
        assert kind(0.5).eval()(y).tolist() == y.tolist()
        assert kind(0.5)(y).tolist() != y.tolist()


# -- utilities ---------------------------------------------------------------------------------------------------


def _with_gradients(library, gradients):
    parameters = []
    for gradient in gradients:
        parameter = library.nn.Parameter(library.zeros(len(gradient), dtype=library.float64))
        parameter.grad = library.tensor(gradient, dtype=library.float64)
        parameters.append(parameter)
    return [*parameters, library.nn.Parameter(library.zeros(1))]


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.5, math.inf])
@pytest.mark.parametrize("max_norm", [0.5, 100.0])
def test_clip_grad_norm_matches_torch(norm_type, max_norm):
    gradients = [[3.0, -4.0], [1.0, 2.0, -2.0]]
    ours, theirs = _with_gradients(dg, gradients), _with_gradients(torch, gradients)
    our_norm = dg.nn.utils.clip_grad_norm_(ours, max_norm, norm_type)
    assert_equal(our_norm, torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type))
    for our, their in zip(ours[:2], theirs[:2], strict=True):
        assert_equal(our.grad, their.grad)


def test_clip_grad_norm_refuses_what_is_not_finite_when_asked():
    (parameter, _) = _with_gradients(dg, [[math.nan, 1.0]])
    with pytest.raises(RuntimeError, match="total norm of order 2.0 for gradients from `parameters` is non-finite"):
        dg.nn.utils.clip_grad_norm_(parameter, 1.0, error_if_nonfinite=True)
    assert math.isnan(dg.nn.utils.clip_grad_norm_(parameter, 1.0).item())
    assert dg.nn.utils.clip_grad_norm_([], 1.0).item() == 0


def test_clip_grad_value():
    (parameter, _) = _with_gradients(dg, [[3.0, -4.0, 0.5]])
    dg.nn.utils.clip_grad_value_(parameter, 1.0)
    assert parameter.grad.tolist() == [1.0, -1.0, 0.5]


def test_vector_of_parameters_round_trip():
    layer = dg.nn.Linear(3, 2)
    vector = dg.nn.utils.parameters_to_vector(layer.parameters())
    assert vector.shape == (8,)
    other = dg.nn.Linear(3, 2)
    dg.nn.utils.vector_to_parameters(vector.detach(), other.parameters())
    assert other.weight.tolist() == layer.weight.tolist()
    assert other.bias.tolist() == layer.bias.tolist()
