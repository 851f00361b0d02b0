"""``distgrad.optim`` against torch: parameters after 20 steps, schedules, state dicts, printing and errors.

Invariant: a step reads no tensor's value (checked by counting reads).
"""

import contextlib
import copy
import inspect
import math
import pickle
import warnings

import numpy as np
import pytest

import distgrad as dg

torch = pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def _float64():
    """Lets torch keep its scalar state in float64 as well, so that both sides can be compared closely."""
    before, ours = torch.get_default_dtype(), dg.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    dg.set_default_dtype(dg.float64)
    yield
    torch.set_default_dtype(before)
    dg.set_default_dtype(ours)


START = [np.linspace(-1, 1, 6).reshape(2, 3), np.array([0.3, -0.7])]
TARGET = [np.full((2, 3), 0.2), np.array([1.0, 2.0])]


def parameters(library):
    return [library.nn.Parameter(library.tensor(value.copy())) for value in START]


def loss_of(library, params):
    total = 0.0
    for param, target in zip(params, TARGET, strict=True):
        total = total + ((param - library.tensor(target)) ** 4).sum() + (param**2).sum() * 0.1
    return total


def train(library, optimizer, params, steps=20):
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(library, params).backward()
        optimizer.step()


def assert_same(ours, theirs, rtol=1e-6):
    for our, their in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(our.detach().numpy(), their.detach().numpy(), rtol=rtol, atol=1e-12)


RUNS = [
    ("SGD", {"lr": 0.01}),
    ("SGD", {"lr": 0.01, "momentum": 0.9}),
    ("SGD", {"lr": 0.01, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.01, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.001, "momentum": 0.5, "maximize": True}),
    ("ASGD", {"lr": 0.01, "weight_decay": 0.1}),
    ("ASGD", {"lr": 0.01, "t0": 5, "lambd": 0.01, "alpha": 0.6}),
    ("Adam", {"lr": 0.1}),
    ("Adam", {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-4, "weight_decay": 0.1, "amsgrad": True}),
    ("Adam", {"lr": 0.1, "decoupled_weight_decay": True, "weight_decay": 0.1, "maximize": True}),
    ("AdamW", {"lr": 0.1}),
    ("AdamW", {"lr": 0.1, "weight_decay": 0.3, "amsgrad": True}),
    ("RMSprop", {"lr": 0.05}),
    ("RMSprop", {"lr": 0.05, "centered": True, "momentum": 0.9, "weight_decay": 0.1}),
    ("RMSprop", {"lr": 0.05, "alpha": 0.8, "momentum": 0.5, "maximize": True}),
    ("Adagrad", {"lr": 0.1}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.5}),
    ("Adadelta", {}),
    ("Adadelta", {"lr": 0.5, "rho": 0.8, "weight_decay": 0.1}),
    ("Adamax", {"lr": 0.1}),
    ("Adamax", {"lr": 0.1, "betas": (0.8, 0.9), "weight_decay": 0.1}),
    ("NAdam", {"lr": 0.1}),
    ("NAdam", {"lr": 0.1, "momentum_decay": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("RAdam", {"lr": 0.1}),
    ("RAdam", {"lr": 0.1, "betas": (0.8, 0.99), "weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("Rprop", {"lr": 0.05}),
    ("Rprop", {"lr": 0.05, "etas": (0.4, 1.4), "step_sizes": (1e-3, 0.2)}),
]


@pytest.mark.parametrize(("name", "options"), RUNS)
def test_twenty_steps_match_torch(name, options):
    ours, theirs = parameters(dg), parameters(torch)
    our_optimizer = getattr(dg.optim, name)(ours, **options)
    their_optimizer = getattr(torch.optim, name)(theirs, foreach=False, **options)
    assert str(our_optimizer).replace("foreach: None", "foreach: False") == str(their_optimizer)
    train(dg, our_optimizer, ours)
    train(torch, their_optimizer, theirs)
    assert_same(ours, theirs)
    our_state, their_state = our_optimizer.state_dict(), their_optimizer.state_dict()
    assert list(our_state) == list(their_state)
    for our_group, their_group in zip(our_state["param_groups"], their_state["param_groups"], strict=True):
        assert our_group == their_group | {"foreach": None}
    assert list(our_state["state"]) == list(their_state["state"])
    for place, their_entry in their_state["state"].items():
        our_entry = our_state["state"][place]
        assert set(our_entry) == set(their_entry)
        for key, value in their_entry.items():
            assert our_entry[key].shape == tuple(value.shape)
            np.testing.assert_allclose(our_entry[key].numpy(), value.numpy(), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("source", ["ours", "torch"])
@pytest.mark.parametrize(
    ("name", "options"), [("SGD", {"lr": 0.01, "momentum": 0.9}), ("Adam", {"lr": 0.1}), ("NAdam", {"lr": 0.1})]
)
def test_training_goes_on_from_a_state_dict(name, options, source):
    straight = parameters(dg)
    train(dg, getattr(dg.optim, name)(straight, **options), straight)
    library = dg if source == "ours" else torch
    halfway = parameters(library)
    first = getattr(library.optim, name)(halfway, **options)
    train(library, first, halfway, 10)
    state = first.state_dict()
    if source == "torch":
        for entry in state["state"].values():
            for key, value in entry.items():
                entry[key] = dg.from_numpy(np.array(value.numpy()))
    resumed = [dg.nn.Parameter(dg.tensor(param.detach().numpy().copy())) for param in halfway]
    second = getattr(dg.optim, name)(resumed, lr=123.0)
    second.load_state_dict(state)
    assert second.param_groups[0]["lr"] == options["lr"]
    train(dg, second, resumed, 10)
    assert_same(resumed, straight)
    if source == "ours":
        # The first optimizer's state is its own still.
        assert first.state_dict()["state"][0].keys() == state["state"][0].keys()
        train(dg, first, halfway, 10)
        assert_same(halfway, straight)


def test_steps_are_plain_numbers_and_tensors_in_a_state_dict():
    params = parameters(dg)
    optimizer = dg.optim.Adam(params)
    train(dg, optimizer, params, 3)
    assert optimizer.state[params[0]]["step"] == 3.0
    assert isinstance(optimizer.state[params[0]]["step"], float)
    step = optimizer.state_dict()["state"][0]["step"]
    assert isinstance(step, dg.Tensor)
    assert step.item() == 3.0


def test_a_step_reads_no_value(monkeypatch):
    params = parameters(dg)
    optimizers = [getattr(dg.optim, name)(params, **options) for name, options in RUNS]
    loss_of(dg, params).backward()

    def refuse(self, *args):
        raise AssertionError("a value was read")

    for method in ("item", "tolist", "numpy", "__bool__", "__float__", "__int__"):
        monkeypatch.setattr(dg.Tensor, method, refuse)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.step()
    dg.nn.utils.clip_grad_norm_(params, 1.0)


@pytest.mark.parametrize(("name", "options"), [row for row in RUNS if row[1].get("weight_decay")])
def test_steps_on_a_group_of_workers_match_local_ones(name, options):
    alone = parameters(dg)
    train(dg, getattr(dg.optim, name)(alone, **options), alone, 5)
    with dg.init(local_mode=True, num_workers=3):
        shared = parameters(dg)
        optimizer = getattr(dg.optim, name)(shared, **options)
        train(dg, optimizer, shared, 3)
        built = dg.stats().programs_built
        train(dg, optimizer, shared, 2)
        # Step counts and rates are inputs of the program, not part of it.
        assert dg.stats().programs_built == built
        assert_same(shared, alone, rtol=1e-12)


def test_groups_have_their_own_options():
    def run(library):
        first, second = parameters(library)
        optimizer = library.optim.SGD([{"params": first}, {"params": [second], "lr": 0.2}], lr=0.01, momentum=0.9)
        train(library, optimizer, [first, second], 5)
        return [first, second]

    assert_same(run(dg), run(torch))
    first, second = parameters(dg)
    optimizer = dg.optim.SGD([("first", first)], lr=0.1)
    optimizer.add_param_group({"params": [("second", second)], "lr": 0.5})
    groups = optimizer.state_dict()["param_groups"]
    assert [group["param_names"] for group in groups] == [["first"], ["second"]]
    assert [group["params"] for group in groups] == [[0], [1]]


def test_closure_zero_grad_and_missing_gradients():
    params = parameters(dg)
    optimizer = dg.optim.SGD(params, lr=0.1)

    def closure():
        assert dg.is_grad_enabled()
        optimizer.zero_grad()
        loss = (params[0] ** 2).sum()
        loss.backward()
        return loss

    before = params[1].tolist()
    with dg.no_grad():
        loss = optimizer.step(closure)
    assert loss.item() == pytest.approx((START[0] ** 2).sum())
    assert params[1].tolist() == before
    optimizer.zero_grad(set_to_none=False)
    assert params[0].grad.abs().sum().item() == 0
    optimizer.zero_grad()
    assert params[0].grad is None


def test_hooks():
    params = parameters(dg)
    optimizer = dg.optim.SGD(params, lr=0.1)
    calls = []
    handle = optimizer.register_step_pre_hook(lambda o, args, kwargs: calls.append("pre"))
    optimizer.register_step_post_hook(lambda o, args, kwargs: calls.append("post"))
    optimizer.register_state_dict_post_hook(lambda o, state: state | {"more": 1})
    optimizer.register_load_state_dict_pre_hook(lambda o, state: calls.append("load"))
    optimizer.step()
    handle.remove()
    optimizer.step()
    state = optimizer.state_dict()
    assert state["more"] == 1
    optimizer.load_state_dict(state)
    assert calls == ["pre", "post", "post", "load"]


def test_optimizers_of_the_users_own_work():
    class Plain(dg.optim.Optimizer):
        def __init__(self, params, lr):
            super().__init__(params, {"lr": lr})

        def step(self, closure=None):
            with dg.no_grad():
                for group in self.param_groups:
                    for param in group["params"]:
                        self.state[param]["seen"] = self.state[param].get("seen", 0) + 1
                        param -= group["lr"] * param.grad

    params = parameters(dg)
    optimizer = Plain(params, 0.5)
    (params[0].sum() + params[1].sum()).backward()
    optimizer.step()
    np.testing.assert_allclose(params[0].detach().numpy(), START[0] - 0.5)
    assert optimizer.state_dict()["state"][1] == {"seen": 1}
    with pytest.raises(NotImplementedError):
        dg.optim.Optimizer(parameters(dg), {}).step()


def test_optimizers_copy_and_pickle():
    params = parameters(dg)
    optimizer = dg.optim.Adam(params, lr=0.1)
    train(dg, optimizer, params, 2)
    for other in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        group = other.param_groups[0]
        loss_of(dg, group["params"]).backward()
        other.step()
        assert [entry["step"] for entry in other.state.values()] == [3.0, 3.0]
    assert optimizer.state[params[0]]["step"] == 2.0


def _error(function):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(Exception) as info:  # the caller compares the texts
            function()
    return type(info.value).__name__, str(info.value).replace("distgrad", "torch").replace("Double", "Float")


def _one(library):
    return library.nn.Parameter(library.ones(2))


ERRORS = {
    "no parameters": lambda lib: lib.optim.SGD([], lr=0.1),
    "a tensor": lambda lib: lib.optim.SGD(_one(lib), lr=0.1),
    "a number": lambda lib: lib.optim.SGD([3], lr=0.1),
    "no leaf": lambda lib: lib.optim.SGD([_one(lib) * 2], lr=0.1),
    "nesterov": lambda lib: lib.optim.SGD([_one(lib)], nesterov=True),
    "fused and foreach": lambda lib: lib.optim.SGD([_one(lib)], fused=True, foreach=True),
    "lr with elements": lambda lib: lib.optim.SGD([_one(lib)], lr=lib.ones(2)),
    "set": lambda lib: lib.optim.SGD([{"params": {_one(lib)}}]),
    "group without params": lambda lib: lib.optim.SGD([{"x": 1}]),
    "group of a number": lambda lib: lib.optim.SGD([_one(lib)]).add_param_group(3),
    "twice": lambda lib: lib.optim.SGD([{"params": [p]} for p in [_one(lib)] * 2]),
    "half named": lambda lib: lib.optim.SGD([("a", _one(lib)), _one(lib)]),
    "groups differ": lambda lib: lib.optim.SGD([_one(lib)]).load_state_dict(
        lib.optim.SGD([{"params": [_one(lib)]}, {"params": [_one(lib)]}]).state_dict()
    ),
    "sizes differ": lambda lib: lib.optim.SGD([_one(lib)]).load_state_dict(
        lib.optim.SGD([_one(lib), _one(lib)]).state_dict()
    ),
    "etas": lambda lib: lib.optim.Rprop([_one(lib)], etas=(1, 2)),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_match_torch(case):
    assert _error(lambda: ERRORS[case](dg)) == _error(lambda: ERRORS[case](torch))


def test_option_errors_match_torch():
    wrong = {
        "lr": -1.0,
        "betas": (1.0, 0.9),
        "eps": -1.0,
        "weight_decay": -1.0,
        "momentum": -1.0,
        "alpha": -1.0,
        "rho": 2.0,
        "lr_decay": -1.0,
        "initial_accumulator_value": -1.0,
        "momentum_decay": -1.0,
    }
    checked = 0
    for name in {name for name, _ in RUNS}:
        accepted = inspect.signature(getattr(torch.optim, name)).parameters
        assert list(inspect.signature(getattr(dg.optim, name)).parameters) == list(accepted)
        for option in accepted.keys() & wrong.keys():
            if name == "ASGD" and option == "alpha":
                continue  # not checked by torch

            def build(lib, name=name, option=option):
                return getattr(lib.optim, name)([_one(lib)], **{option: wrong[option]})

            assert _error(lambda build=build: build(dg)) == _error(lambda build=build: build(torch))
            checked += 1
    assert checked > 30


def test_duplicate_parameters_warn():
    param = _one(dg)
    with pytest.warns(UserWarning, match="duplicate parameters"):
        dg.optim.SGD([param, param])


# -- schedules ---------------------------------------------------------------------------------------------------


def _optimizer(library, kind="SGD"):
    groups = [{"params": [_one(library)], "lr": 0.1}, {"params": [_one(library)], "lr": 0.5}]
    return getattr(library.optim, kind)(groups, **({"momentum": 0.9} if kind == "SGD" else {}))


SCHEDULES = {
    "LambdaLR": lambda s, o: s.LambdaLR(o, lambda epoch: 0.9**epoch),
    "LambdaLR list": lambda s, o: s.LambdaLR(o, [lambda epoch: 1 / (1 + epoch), lambda epoch: 0.5]),
    "MultiplicativeLR": lambda s, o: s.MultiplicativeLR(o, lambda epoch: 0.95),
    "StepLR": lambda s, o: s.StepLR(o, 3, 0.5),
    "MultiStepLR": lambda s, o: s.MultiStepLR(o, [2, 5, 5, 9], 0.5),
    "ConstantLR": lambda s, o: s.ConstantLR(o, 0.5, 4),
    "LinearLR": lambda s, o: s.LinearLR(o, 0.25, 0.75, 6),
    "ExponentialLR": lambda s, o: s.ExponentialLR(o, 0.8),
    "PolynomialLR": lambda s, o: s.PolynomialLR(o, 7, 2.0),
    "CosineAnnealingLR": lambda s, o: s.CosineAnnealingLR(o, 6, 0.01),
    "CosineAnnealingWarmRestarts": lambda s, o: s.CosineAnnealingWarmRestarts(o, 4, eta_min=0.01),
    "CosineAnnealingWarmRestarts x2": lambda s, o: s.CosineAnnealingWarmRestarts(o, 3, 2),
    "OneCycleLR": lambda s, o: s.OneCycleLR(o, 1.0, total_steps=30),
    "OneCycleLR three": lambda s, o: s.OneCycleLR(
        o, [1.0, 2.0], epochs=5, steps_per_epoch=5, anneal_strategy="linear", three_phase=True, pct_start=0.4
    ),
    "CyclicLR": lambda s, o: s.CyclicLR(o, 0.1, 1.0, 4, 3),
    "CyclicLR triangular2": lambda s, o: s.CyclicLR(o, [0.1, 0.2], [1.0, 2.0], 4, mode="triangular2"),
    "CyclicLR exp_range": lambda s, o: s.CyclicLR(o, 0.1, 1.0, 4, mode="exp_range", gamma=0.9, cycle_momentum=False),
    "CyclicLR scale_fn": lambda s, o: s.CyclicLR(o, 0.1, 1.0, 4, scale_fn=lambda x: 1 / x),
    "SequentialLR": lambda s, o: s.SequentialLR(
        o, [s.ConstantLR(o, 0.1, 3), s.ExponentialLR(o, 0.9), s.CosineAnnealingLR(o, 5)], [3, 9]
    ),
    "SequentialLR warm": lambda s, o: s.SequentialLR(o, [s.LinearLR(o, 0.1, 1.0, 5), s.StepLR(o, 2)], [5]),
    "ChainedScheduler": lambda s, o: s.ChainedScheduler([s.ConstantLR(o, 0.1, 3), s.ExponentialLR(o, 0.9)]),
}


def _rates(optimizer):
    keys = ("lr", "momentum", "betas")
    return [[group[key] for key in keys if key in group] for group in optimizer.param_groups]


def _flat(rates):
    return np.array([np.hstack([np.ravel(value) for value in group]) for step in rates for group in step])


@contextlib.contextmanager
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_matches_torch(name, kind):
    def run(library):
        optimizer = _optimizer(library, kind)
        schedule = SCHEDULES[name](library.optim.lr_scheduler, optimizer)
        rates = [_rates(optimizer)]
        for _ in range(24):
            optimizer.step()
            schedule.step()
            rates.append(_rates(optimizer))
            assert schedule.get_last_lr() == [group["lr"] for group in optimizer.param_groups]
        return rates, schedule.state_dict()

    ours, our_state = run(dg)
    theirs, their_state = run(torch)
    np.testing.assert_allclose(_flat(ours), _flat(theirs), rtol=1e-12, atol=1e-15)
    assert set(our_state) == set(their_state)


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_goes_on_from_its_state_dict(name):
    schedules = dg.optim.lr_scheduler
    with _quiet():
        straight = _optimizer(dg)
        schedule = SCHEDULES[name](schedules, straight)
        for _ in range(7):
            schedule.step()
        state = pickle.loads(pickle.dumps((schedule.state_dict(), straight.state_dict())))
        resumed = _optimizer(dg)
        other = SCHEDULES[name](schedules, resumed)
        other.load_state_dict(state[0])
        resumed.load_state_dict(state[1])
        for _ in range(9):
            schedule.step()
            other.step()
            assert _rates(resumed) == _rates(straight)


def test_explicit_epochs_match_torch():
    def run(library, make):
        optimizer = _optimizer(library)
        schedule = make(library.optim.lr_scheduler, optimizer)
        rates = []
        for epoch in (5, 2, 11, None, 3.5):
            if isinstance(epoch, float) and "Warm" not in type(schedule).__name__:
                continue
            schedule.step(epoch)
            rates.append(_rates(optimizer))
        return _flat(rates)

    for name, make in SCHEDULES.items():
        if name.startswith(("SequentialLR", "Chained", "Multiplicative", "OneCycle")):
            continue
        with _quiet():
            np.testing.assert_allclose(run(dg, make), run(torch, make), rtol=1e-12, err_msg=name)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"patience": 1, "cooldown": 2, "factor": 0.5},
        {"mode": "max", "threshold_mode": "abs", "threshold": 0.1, "patience": 0, "min_lr": [0.01, 0.3]},
        {"mode": "max", "patience": 2},
        {"threshold_mode": "abs", "threshold": 0.2, "patience": 1, "min_lr": 0.05},
    ],
)
def test_plateau_matches_torch(options):
    values = [1.0, 0.9, 0.95, 0.9, 1.2, 1.3, 0.5, 0.5, 0.5, 0.5, 0.5, 0.6, 2.0, 1.9, 1.8, 0.4, 0.41, 0.42, 0.43, 0.44]

    def run(library):
        optimizer = _optimizer(library)
        schedule = library.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **options)
        rates = []
        for value in values:
            schedule.step(library.tensor(value))
            rates.append(_rates(optimizer))
        return rates, schedule.state_dict()

    (ours, our_state), (theirs, their_state) = run(dg), run(torch)
    assert ours == theirs
    assert our_state == their_state


SCHEDULE_ERRORS = {
    "no optimizer": lambda s, o: s.StepLR(3, 3),
    "resumed too early": lambda s, o: s.StepLR(o, 3, last_epoch=3),
    "lambdas": lambda s, o: s.LambdaLR(o, [lambda epoch: 1]),
    "constant": lambda s, o: s.ConstantLR(o, 2.0),
    "linear start": lambda s, o: s.LinearLR(o, 0.0),
    "linear end": lambda s, o: s.LinearLR(o, end_factor=2.0),
    "sequence of none": lambda s, o: s.SequentialLR(o, [], []),
    "sequence of numbers": lambda s, o: s.SequentialLR(o, [3], [1]),
    "sequence milestones": lambda s, o: s.SequentialLR(o, [s.ConstantLR(o), s.ConstantLR(o)], []),
    "sequence plateau": lambda s, o: s.SequentialLR(o, [s.ReduceLROnPlateau(o), s.ConstantLR(o)], [1]),
    "chain of none": lambda s, o: s.ChainedScheduler([]),
    "restart length": lambda s, o: s.CosineAnnealingWarmRestarts(o, 0),
    "restart factor": lambda s, o: s.CosineAnnealingWarmRestarts(o, 3, 0),
    "restart epoch": lambda s, o: s.CosineAnnealingWarmRestarts(o, 3).step(-1),
    "cycle without length": lambda s, o: s.OneCycleLR(o, 1.0),
    "cycle of length 0": lambda s, o: s.OneCycleLR(o, 1.0, total_steps=0),
    "cycle epochs": lambda s, o: s.OneCycleLR(o, 1.0, epochs=0, steps_per_epoch=3),
    "cycle start": lambda s, o: s.OneCycleLR(o, 1.0, total_steps=5, pct_start=2.0),
    "cycle strategy": lambda s, o: s.OneCycleLR(o, 1.0, total_steps=5, anneal_strategy="x"),
    "cycle rates": lambda s, o: s.OneCycleLR(o, [1.0], total_steps=5),
    "cycle end": lambda s, o: [schedule.step() for schedule in [s.OneCycleLR(o, 1.0, total_steps=3)] * 5],
    "plateau factor": lambda s, o: s.ReduceLROnPlateau(o, factor=1.0),
    "plateau rates": lambda s, o: s.ReduceLROnPlateau(o, min_lr=[1]),
    "plateau mode": lambda s, o: s.ReduceLROnPlateau(o, mode="x"),
    "plateau threshold": lambda s, o: s.ReduceLROnPlateau(o, threshold_mode="x"),
    "cyclic mode": lambda s, o: s.CyclicLR(o, 0.1, 1.0, mode="x"),
}


@pytest.mark.parametrize("case", SCHEDULE_ERRORS)
def test_schedule_errors_match_torch(case):
    def run(library):
        return _error(lambda: SCHEDULE_ERRORS[case](library.optim.lr_scheduler, _optimizer(library)))

    assert run(dg) == run(torch)


def test_schedule_warnings():
    with pytest.warns(UserWarning, match=r"`lr_scheduler.step\(\)` before `optimizer.step\(\)`"):
        dg.optim.lr_scheduler.StepLR(_optimizer(dg), 3).step()
    optimizer = _optimizer(dg)
    schedule = dg.optim.lr_scheduler.StepLR(optimizer, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step()
        schedule.step()
    with pytest.warns(UserWarning, match="please use `get_last_lr"):
        schedule.get_lr()


def test_schedule_of_callable_objects_is_saved():
    class Decay:
        def __init__(self, base):
            self.base = base

        def __call__(self, epoch):
            return self.base**epoch

    optimizer = dg.optim.SGD([_one(dg)], lr=1.0)
    state = dg.optim.lr_scheduler.LambdaLR(optimizer, Decay(0.5)).state_dict()
    assert state["lr_lambdas"] == [{"base": 0.5}]
    other = dg.optim.lr_scheduler.LambdaLR(dg.optim.SGD([_one(dg)], lr=1.0), Decay(0.9))
    other.load_state_dict(state)
    assert math.isclose(other.lr_lambdas[0](2), 0.25)
