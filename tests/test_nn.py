"""Layers, losses, initial values and helpers of ``distgrad.nn`` against torch. Invariant: torch is the only oracle."""

import math
from collections import OrderedDict

import numpy as np
import pytest

import distgrad as dg

torch = pytest.importorskip("torch")


def to_dg(tensor):
    """Copies a torch tensor."""
    return dg.from_numpy(tensor.detach().numpy().copy())


def state_from_torch(module):
    return OrderedDict((name, to_dg(value)) for name, value in module.state_dict().items())


def assert_equal(actual, expected, rtol=1e-7, atol=1e-9):
    expected = expected.detach().numpy()
    actual = actual.detach().numpy()
    assert actual.dtype == expected.dtype
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


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
