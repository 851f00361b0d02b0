"""Layers for images and sequences of them against torch, what convolution and pooling promise beyond values, and how
much they communicate."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import distgrad as dg
from distgrad.ops import convolution

torch = pytest.importorskip("torch")

# One row: the expression that builds a layer, and the shapes of its inputs.
LAYERS = [
    ("Conv1d(4, 6, 3, padding='same', groups=2)", [(2, 4, 7)]),
    ("Conv2d(3, 4, (3, 2), 2, 1, bias=False)", [(2, 3, 6, 5)]),
    ("Conv2d(2, 4, 3, padding=(1, 2), dilation=2, padding_mode='reflect')", [(2, 2, 6, 5)]),
    ("Conv2d(2, 2, 2, padding='same', padding_mode='replicate')", [(2, 2, 4, 5)]),
    ("Conv2d(2, 2, 3, padding=1, padding_mode='circular')", [(2, 4, 5)]),
    ("Conv3d(2, 3, 2)", [(2, 2, 3, 4, 3)]),
    ("ConvTranspose1d(3, 2, 3, 2)", [(2, 3, 4)]),
    ("ConvTranspose2d(4, 6, 3, 2, 1, 1, 2, True, 2)", [(2, 4, 3, 4)]),
    ("ConvTranspose3d(2, 3, 2, bias=False)", [(2, 2, 2, 3, 2)]),
    ("MaxPool1d(3, 2, 1)", [(2, 3, 8)]),
    ("MaxPool2d(2, ceil_mode=True)", [(2, 3, 5, 4)]),
    ("MaxPool3d(2, 1)", [(2, 2, 3, 3, 3)]),
    ("AvgPool1d(3)", [(2, 3, 7)]),
    ("AvgPool2d((2, 3), 1, (1, 0), count_include_pad=False)", [(2, 3, 5, 4)]),
    ("AvgPool3d(2, divisor_override=5)", [(2, 2, 4, 4, 2)]),
    ("LPPool1d(2, 3)", [(2, 3, 7)]),
    ("LPPool2d(2, 3, 2)", [(2, 3, 5, 5)]),
    ("LPPool3d(2, 2)", [(2, 2, 4, 4, 2)]),
    ("AdaptiveAvgPool1d(3)", [(2, 3, 7)]),
    ("AdaptiveAvgPool2d((3, None))", [(2, 3, 7, 4)]),
    ("AdaptiveAvgPool3d(1)", [(2, 3, 3, 4, 2)]),
    ("AdaptiveMaxPool1d(3)", [(2, 3, 7)]),
    ("AdaptiveMaxPool2d(2)", [(2, 3, 5, 4)]),
    ("AdaptiveMaxPool3d(2)", [(2, 3, 3, 4, 2)]),
    ("ConstantPad1d((1, 2), 3.5)", [(2, 3, 4)]),
    ("ConstantPad2d(1, -1.0)", [(2, 3, 4)]),
    ("ConstantPad3d((1, 0, 0, 1, 2, 1), 0.5)", [(2, 3, 2, 3)]),
    ("ZeroPad1d(2)", [(2, 3, 4)]),
    ("ZeroPad2d((1, 2, 0, 1))", [(2, 3, 4)]),
    ("ZeroPad3d(1)", [(2, 3, 2, 4)]),
    ("ReflectionPad1d(2)", [(2, 3, 4)]),
    ("ReflectionPad2d((1, 2, 0, 1))", [(2, 3, 4, 3)]),
    ("ReflectionPad3d(1)", [(2, 3, 2, 4, 3)]),
    ("ReplicationPad1d(2)", [(2, 3, 4)]),
    ("ReplicationPad2d((1, 2, 0, 1))", [(2, 3, 4, 3)]),
    ("ReplicationPad3d(1)", [(2, 3, 2, 4, 3)]),
    ("CircularPad1d(2)", [(2, 3, 4)]),
    ("CircularPad2d((1, 2, 0, 1))", [(2, 3, 4, 3)]),
    ("CircularPad3d(1)", [(2, 3, 2, 4, 3)]),
    ("BatchNorm1d(3)", [(4, 3)]),
    ("BatchNorm1d(3, momentum=None)", [(4, 3, 2)]),
    ("BatchNorm2d(3, 1e-3, 0.3)", [(2, 3, 4, 2)]),
    ("BatchNorm2d(3, affine=False, track_running_stats=False)", [(2, 3, 4, 2)]),
    ("BatchNorm3d(2, bias=False)", [(2, 2, 2, 2, 3)]),
    ("InstanceNorm1d(3)", [(2, 3, 5)]),
    ("InstanceNorm1d(3, affine=True)", [(3, 5)]),
    ("InstanceNorm2d(3, affine=True, track_running_stats=True)", [(2, 3, 4, 2)]),
    ("InstanceNorm3d(2)", [(2, 2, 2, 2, 3)]),
    ("LocalResponseNorm(3, k=2.0)", [(2, 4, 3)]),
    ("Upsample(scale_factor=2)", [(2, 3, 4)]),
    ("Upsample((3, 5), mode='bilinear', align_corners=True)", [(2, 3, 4, 2)]),
    ("Upsample(scale_factor=(1.5, 2.0, 0.5), mode='trilinear')", [(1, 2, 2, 3, 4)]),
    ("UpsamplingNearest2d(scale_factor=2)", [(2, 3, 2, 2)]),
    ("UpsamplingBilinear2d((3, 4))", [(2, 3, 2, 2)]),
    ("PixelShuffle(2)", [(2, 8, 2, 3)]),
    ("PixelUnshuffle(2)", [(2, 2, 4, 6)]),
    ("ChannelShuffle(2)", [(2, 4, 3, 1)]),
    ("Unfold((2, 3), padding=1)", [(2, 3, 4, 5)]),
    ("Fold((4, 5), (2, 3), stride=(2, 1))", [(2, 12, 6)]),
]


def _equal(ours, theirs):
    np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), rtol=1e-9, atol=1e-10)


def _both(expression):
    theirs = eval("lib." + expression, {"lib": torch.nn}).double()
    ours = eval("lib." + expression, {"lib": dg.nn}).double()
    ours.load_state_dict({name: dg.from_numpy(value.numpy().copy()) for name, value in theirs.state_dict().items()})
    return ours, theirs


@pytest.mark.parametrize(("expression", "shapes"), LAYERS)
def test_layer_matches_torch(expression, shapes):
    ours, theirs = _both(expression)
    assert repr(ours) == repr(theirs)
    assert [(k, tuple(v.shape)) for k, v in ours.state_dict().items()] == [
        (k, tuple(v.shape)) for k, v in theirs.state_dict().items()
    ]
    torch.manual_seed(0)
    for training in (True, False):
        ours.train(training)
        theirs.train(training)
        their_inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
        our_inputs = [dg.from_numpy(value.detach().numpy()).requires_grad_() for value in their_inputs]
        their_output, our_output = theirs(*their_inputs), ours(*our_inputs)
        _equal(our_output, their_output)
        weights = torch.randn(their_output.shape, dtype=torch.float64)
        their_grads = torch.autograd.grad((their_output * weights).sum(), [*their_inputs, *theirs.parameters()])
        our_grads = dg.autograd.grad((our_output * dg.from_numpy(weights.numpy())).sum(),
                                     [*our_inputs, *ours.parameters()])
        for our_grad, their_grad in zip(our_grads, their_grads, strict=True):
            _equal(our_grad, their_grad)
        for name, buffer in theirs.named_buffers():
            _equal(dict(ours.named_buffers())[name].double(), buffer.double())


PRINTED = [
    "MaxUnpool1d(2)", "MaxUnpool2d(2, 2)", "MaxUnpool3d((1, 2, 2))", "FractionalMaxPool2d(2, 3)",
    "FractionalMaxPool3d(2, output_ratio=0.5)", "SyncBatchNorm(3)", "AdaptiveMaxPool1d(3, True)",
]  # fmt: skip


@pytest.mark.parametrize("expression", PRINTED)
def test_printing_matches_torch(expression):
    assert repr(eval("lib." + expression, {"lib": dg.nn})) == repr(eval("lib." + expression, {"lib": torch.nn}))


def test_pooling_and_unpooling_layers():
    x = np.random.default_rng(0).standard_normal((2, 3, 6, 5))
    found = []
    for library in (dg, torch):
        pooled, indices = library.nn.MaxPool2d(2, return_indices=True)(library.from_numpy(x))
        found.append(library.nn.MaxUnpool2d(2)(pooled, indices, output_size=[6, 5]))
        samples = library.from_numpy(np.random.default_rng(1).random((2, 3, 2)))
        found.append(library.nn.FractionalMaxPool2d(2, (3, 3), _random_samples=samples)(library.from_numpy(x)))
    _equal(found[0], found[2])
    _equal(found[1], found[3])


def test_transpose_takes_an_output_size():
    ours, theirs = _both("ConvTranspose2d(2, 3, 3, stride=2, padding=1)")
    x = np.random.default_rng(0).standard_normal((2, 2, 3, 4))
    _equal(ours(dg.from_numpy(x), output_size=[6, 7]), theirs(torch.from_numpy(x), output_size=[6, 7]))
    with pytest.raises(ValueError, match="valid sizes range from"):
        ours(dg.from_numpy(x), output_size=[9, 9])


def test_convolution_layers_start_as_torch_says():
    dg.manual_seed(0)
    for layer, fan_in in ((dg.nn.Conv2d(8, 16, 3, groups=2), 36), (dg.nn.ConvTranspose2d(8, 16, 3), 144)):
        for tensor in (layer.weight, layer.bias):
            values = np.abs(tensor.detach().numpy())
            assert values.max() <= 1 / np.sqrt(fan_in)
            assert values.max() > 0.7 / np.sqrt(fan_in)


@pytest.mark.parametrize(("expression", "message"), [
    ("Conv2d(3, 4, 3, groups=2)", "in_channels must be divisible by groups"),
    ("Conv2d(4, 3, 3, groups=2)", "out_channels must be divisible by groups"),
    ("Conv2d(4, 4, 3, groups=0)", "groups must be a positive integer"),
    ("Conv2d(4, 4, 3, padding='full')", "Invalid padding string"),
    ("Conv2d(4, 4, 3, stride=2, padding='same')", "not supported for strided convolutions"),
    ("Conv2d(4, 4, 3, padding_mode='mirror')", "padding_mode must be one of"),
    ("ConvTranspose2d(4, 4, 3, padding_mode='reflect')", 'Only "zeros" padding mode is supported'),
    ("FractionalMaxPool2d(2)", "requires specifying either an output size, or a pooling ratio"),
    ("FractionalMaxPool2d(2, 3, 0.5)", "only one of output_size and output_ratio may be specified"),
    ("FractionalMaxPool2d(2, output_ratio=1.5)", "output_ratio must be between 0 and 1"),
])
def test_refused_options(expression, message):
    for library in (dg, torch):
        with pytest.raises(ValueError, match=message):
            eval("nn." + expression, {"nn": library.nn})


@pytest.mark.parametrize(("expression", "shape"), [
    ("BatchNorm1d(3)", (2, 3, 4, 5)), ("BatchNorm2d(3)", (2, 3)), ("BatchNorm3d(3)", (2, 3, 4)),
    ("SyncBatchNorm(3)", (3,)), ("InstanceNorm2d(3)", (3, 4)), ("CircularPad2d(1)", (3, 4)),
])
def test_refused_inputs(expression, shape):
    for library in (dg, torch):
        with pytest.raises(ValueError, match=r"expected .*D.* input \(got .D input\)"):
            eval("nn." + expression, {"nn": library.nn})(library.zeros(*shape))


def test_state_dicts_without_a_count_of_batches_load():
    layer = dg.nn.BatchNorm2d(3)
    state = {name: value for name, value in layer.state_dict().items() if name != "num_batches_tracked"}
    layer(dg.ones(2, 3, 2, 2))
    layer.load_state_dict(state)
    assert layer.num_batches_tracked.item() == 0


def test_batch_norms_become_synchronized_ones():
    model = dg.nn.Sequential(dg.nn.Conv2d(1, 2, 1), dg.nn.Sequential(dg.nn.BatchNorm2d(2, momentum=0.3)))
    weight = model[1][0].weight
    converted = dg.nn.SyncBatchNorm.convert_sync_batchnorm(model.eval())
    assert isinstance(converted[1][0], dg.nn.SyncBatchNorm)
    assert converted[1][0].weight is weight
    assert converted[1][0].momentum == 0.3
    assert not converted[1][0].training
    x = dg.randn(4, 2, 3, dtype=dg.float64)
    _equal(dg.nn.SyncBatchNorm(2).double()(x), torch.nn.BatchNorm1d(2).double()(torch.from_numpy(x.numpy())))


# -- functions ---------------------------------------------------------------------------------------------------


def test_same_padding_of_an_odd_width_puts_more_behind():
    x, w = np.arange(7.0).reshape(1, 1, 7), np.array([[[1.0, 10.0]]])
    ours = dg.nn.functional.conv1d(dg.from_numpy(x), dg.from_numpy(w), padding="same", dilation=3)
    assert ours.tolist() == [[[20.0, 30.0, 41.0, 52.0, 63.0, 4.0, 5.0]]]
    padded = dg.nn.functional.pad(dg.from_numpy(x), (1, 2))
    assert ours.tolist() == dg.nn.functional.conv1d(padded, dg.from_numpy(w), dilation=3).tolist()


@pytest.mark.parametrize("block", [1, 40, 500])
def test_blocks_of_a_convolution_do_not_change_it(monkeypatch, block):
    generator = np.random.default_rng(0)
    x, w = generator.standard_normal((3, 4, 7, 6)), generator.standard_normal((6, 2, 3, 2))
    calls = [
        lambda a, b: dg.nn.functional.conv2d(a, b, padding=1, groups=2),
        lambda a, b: dg.nn.functional.conv2d(a, b, stride=(2, 1), dilation=(1, 2), groups=2),
    ]
    for call in calls:
        results = []
        for size in (1 << 19, block):
            monkeypatch.setattr(convolution, "_BLOCK", size)
            a, b = (dg.from_numpy(v).requires_grad_() for v in (x, w))
            y = call(a, b)
            results.append([y, *dg.autograd.grad((y * y).sum(), [a, b])])
        for one, other in zip(*results, strict=True):
            np.testing.assert_allclose(one.detach().numpy(), other.detach().numpy(), rtol=1e-12, atol=1e-12)


def test_memory_of_a_convolution_is_bounded():
    x, w = dg.zeros(4, 8, 128, 128), dg.zeros(8, 8, 5, 5)
    tracemalloc.start()
    try:
        y = dg.nn.functional.conv2d(x, w, padding=2)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # All columns at once would be 25 times the input.
    assert peak < y.numel() * 4 + 12e6


def test_maxima_of_nan_infinity_and_ties_are_torchs():
    x = np.array([[[1.0, 1.0, np.nan, 0.0, np.nan, -np.inf, -np.inf, -np.inf, 2.0, np.inf]]])
    for kernel, stride, padding in ((2, 1, 1), (3, 2, 0), (3, 3, 1)):
        ours = dg.nn.functional.max_pool1d(dg.from_numpy(x), kernel, stride, padding, return_indices=True)
        theirs = torch.nn.functional.max_pool1d(torch.from_numpy(x), kernel, stride, padding, return_indices=True)
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_means_see_their_own_window_only():
    x = np.array([[[np.inf, 1.0, 2.0, 3.0, np.nan, 5.0, 6.0]]])
    for call in (lambda T, v: T.nn.functional.adaptive_avg_pool1d(v, 4), lambda T, v: T.nn.functional.avg_pool1d(v, 2)):
        np.testing.assert_array_equal(call(dg, dg.from_numpy(x)).numpy(), call(torch, torch.from_numpy(x)).numpy())


def test_taps_that_only_see_padding():
    x = np.array([[[1.0, 2.0]]])
    for call in (
        lambda T, v: T.nn.functional.avg_pool1d(v, 3, 3, 1, count_include_pad=False),
        lambda T, v: T.nn.functional.max_pool1d(v, 3, 3, 1),
        lambda T, v: T.nn.functional.conv1d(v, v, stride=4, padding=3),
    ):
        np.testing.assert_array_equal(call(dg, dg.from_numpy(x)).numpy(), call(torch, torch.from_numpy(x)).numpy())
    # One row, read at -1 and 1 only: there PyTorch names a position that does not exist.
    one = dg.ones(1, 1, 1, requires_grad=True)
    value, index = dg.nn.functional.max_pool1d(one, 2, 1, 1, 2, return_indices=True)
    assert value.item() == -np.inf
    assert index.item() == 0


@pytest.mark.parametrize("kind", ["int64", "float16", "bfloat16", "complex64"])
def test_other_dtypes(kind):
    x = np.random.default_rng(0).integers(-4, 5, (2, 2, 5, 4)).astype(np.float32)
    w = np.random.default_rng(1).integers(-4, 5, (3, 2, 2, 2)).astype(np.float32)
    ours, theirs = ([library.from_numpy(v).to(getattr(library, kind)) for v in (x, w)] for library in (dg, torch))
    calls = [
        lambda T, a, b: T.nn.functional.conv2d(a, b),
        lambda T, a, b: T.nn.functional.conv_transpose2d(a, b.transpose(0, 1)),
    ]
    if kind != "complex64":
        calls.append(lambda T, a, b: T.nn.functional.max_pool2d(a, 2))
        calls.append(lambda T, a, b: T.nn.functional.avg_pool2d(a, 2))
    if kind in ("float16", "bfloat16"):
        calls.append(lambda T, a, b: T.nn.functional.interpolate(a, (7, 3), mode="bilinear"))
    for call in calls:
        one, other = call(dg, *ours), call(torch, *theirs)
        assert str(one.dtype).split(".")[1] == kind == str(other.dtype).split(".")[1]
        wide = (lambda v: v) if kind in ("int64", "complex64") else (lambda v: v.float())
        np.testing.assert_allclose(wide(one).numpy(), wide(other).numpy(), rtol=1e-2 if kind == "bfloat16" else 2e-3)


def test_nearest_rounds_like_torch_in_single_precision():
    for size, out in ((7, 23), (10, 33), (3, 50), (48, 13)):
        x = np.arange(float(size), dtype=np.float32).reshape(1, 1, size)
        for mode in ("nearest", "nearest-exact"):
            ours = dg.nn.functional.interpolate(dg.from_numpy(x), out, mode=mode)
            theirs = torch.nn.functional.interpolate(torch.from_numpy(x), out, mode=mode)
            np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    for shape, factor in (((1, 2, 2), 2.36), ((1, 2, 2, 3), 2.36), ((1, 2, 3, 3), 1.3), ((1, 2, 1, 2, 5), 2.1)):
        x = np.arange(float(np.prod(shape))).reshape(shape)
        ours = dg.nn.functional.interpolate(dg.from_numpy(x), scale_factor=factor)
        theirs = torch.nn.functional.interpolate(torch.from_numpy(x), scale_factor=factor)
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("align", [False, True])
def test_samples_at_positions_match_torch(mode, padding, align):
    generator = np.random.default_rng(0)
    x, grid = generator.standard_normal((2, 2, 4, 5)), generator.uniform(-3, 3, (2, 3, 4, 2))
    found = []
    for library in (dg, torch):
        a, b = (library.from_numpy(v).requires_grad_() for v in (x, grid))
        y = library.nn.functional.grid_sample(a, b, mode, padding, align)
        found.append([y, *library.autograd.grad((y * y).sum(), [a, b], allow_unused=True)])
    for one, other in zip(*found, strict=True):
        if one is not None or mode != "nearest":
            _equal(one, other)


# -- what workers exchange ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("expression", [
    "Conv2d(2, 3, 3, padding=1)", "ConvTranspose2d(2, 3, 2, 2)", "MaxPool2d(2)", "AvgPool2d(3, 2, 1)",
    "AdaptiveAvgPool2d(3)", "AdaptiveMaxPool2d((3, 2))", "LPPool2d(2, 2)", "Upsample(scale_factor=2)",
    "UpsamplingBilinear2d((3, 9))", "Unfold(2)", "InstanceNorm2d(2)", "ReflectionPad2d(1)",
])
def test_images_are_independent(expression):
    with dg.init(local_mode=True, num_workers=3):
        layer = eval("nn." + expression, {"nn": dg.nn})
        x = dg.shard(np.random.default_rng(0).standard_normal((7, 2, 8, 6)).astype(np.float32)).requires_grad_()
        before = dg.stats().collectives
        y = layer(x)
        (g,) = dg.autograd.grad(y, [x], dg.ones_like(y))
        assert isinstance(y.placement, dg.Shard)
        assert isinstance(g.placement, dg.Shard)
        dg.synchronize()
        assert dg.stats().collectives == before
