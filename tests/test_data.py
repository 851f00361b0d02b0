"""``distgrad.utils.data``: batches, orders and errors against torch.

Invariant: batches of tensor datasets come from index tensors that are never read (checked by forbidding reads).
"""

import collections

import numpy as np
import pytest

import distgrad as dg
from distgrad.utils import data as ours_data

torch = pytest.importorskip("torch")
theirs_data = torch.utils.data


def plain(value):
    """Turns tensors of either library, and structures of them, into Python values."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(plain(item) for item in value)
    return [plain(item) for item in value] if isinstance(value, list) else value


def tensors(library, rows=10):
    return library.data.TensorDataset(library.lib.arange(float(rows)).reshape(rows, 1) * 10, library.lib.arange(rows))


Library = collections.namedtuple("Library", "lib data")
OURS = Library(dg, ours_data)
THEIRS = Library(torch, theirs_data)


class Squares(ours_data.Dataset):
    """A dataset of the user's own."""

    def __len__(self):
        return 5

    def __getitem__(self, index):
        return {"n": index, "square": float(index * index), "name": str(index)}


class Numbers(ours_data.IterableDataset):
    """A dataset that can only be gone through in order."""

    def __init__(self, count=5):
        self.count = count

    def __iter__(self):
        return iter(range(self.count))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batch_size": 3},
        {"batch_size": 3, "drop_last": True},
        {"batch_size": 20},
        {"batch_size": None},
        {"batch_size": 2, "sampler": [7, 1, 1]},
        {"batch_sampler": [[0, 2], [5]]},
    ],
)
@pytest.mark.parametrize("subset", [None, [8, 3, 5, 1, 9]])
def test_batches_match_torch(options, subset):
    if subset is not None and ("sampler" in options or "batch_sampler" in options):
        options = {key: [4, 0] if key == "sampler" else [[1, 2]] for key in options if "sampler" in key}

    def run(library):
        dataset = tensors(library)
        if subset is not None:
            dataset = library.data.Subset(library.data.Subset(dataset, list(range(10))), subset)
        loader = library.data.DataLoader(dataset, **options)
        return len(loader), [plain(batch) for batch in loader], [type(batch) for batch in loader]

    assert run(OURS) == run(THEIRS)


def test_shuffled_batches_take_every_row_once():
    dataset = tensors(OURS, 23)
    loader = ours_data.DataLoader(dataset, batch_size=4, shuffle=True, generator=dg.Generator().manual_seed(5))
    epochs = [list(loader) for _ in range(2)]
    orders = []
    for epoch in epochs:
        assert [len(labels) for _, labels in epoch] == [4, 4, 4, 4, 4, 3]
        assert all(features[:, 0].tolist() == [10.0 * n for n in labels.tolist()] for features, labels in epoch)
        orders.append([n for _, labels in epoch for n in labels.tolist()])
        assert sorted(orders[-1]) == list(range(23))
    assert orders[0] != orders[1]
    generator = dg.Generator().manual_seed(5)
    dg.empty((), dtype=dg.int64).random_(generator=generator)  # the loader's seed for worker processes
    assert orders[0] == dg.randperm(23, generator=generator).tolist()
    again = ours_data.DataLoader(dataset, batch_size=4, shuffle=True, generator=dg.Generator().manual_seed(5))
    assert [n for _, labels in again for n in labels.tolist()] == orders[0]


def test_item_by_item_and_by_tensor_agree():
    class Own(ours_data.TensorDataset):
        """A subclass: the loader must ask it for its items."""

    def run(kind):
        dataset = kind(dg.arange(11.0), dg.arange(11))
        loader = ours_data.DataLoader(dataset, 3, shuffle=True, generator=dg.Generator().manual_seed(1))
        return [plain(batch) for batch in loader]

    assert run(Own) == run(ours_data.TensorDataset)


def test_tensor_batches_read_no_value(monkeypatch):
    dataset = tensors(OURS)
    first, second = ours_data.random_split(dataset, [0.7, 0.3])
    loaders = [
        ours_data.DataLoader(dataset, 4),
        ours_data.DataLoader(dataset, 4, shuffle=True),
        ours_data.DataLoader(first, 4, shuffle=True),
        ours_data.DataLoader(ours_data.Subset(second, [2, 0]), 1),
        ours_data.DataLoader(dataset, 2, sampler=ours_data.SubsetRandomSampler([1, 5, 7])),
        ours_data.DataLoader(dataset, 2, sampler=ours_data.RandomSampler(dataset, True, 5)),
    ]

    def refuse(self, *args):
        raise AssertionError("a value was read")

    with monkeypatch.context() as patch:
        for method in ("item", "tolist", "numpy", "__bool__", "__float__", "__int__", "__index__"):
            patch.setattr(dg.Tensor, method, refuse, raising=False)
        batches = [list(loader) for loader in loaders]
    assert [len(epoch) for epoch in batches] == [3, 3, 2, 2, 2, 3]
    split = [n for part in (first, second) for n in part.indices]
    assert sorted(split) == list(range(10))
    assert sorted(n for _, labels in batches[2] for n in labels.tolist()) == sorted(first.indices)
    assert [n for _, labels in batches[3] for n in labels.tolist()] == [second.indices[2], second.indices[0]]


@pytest.mark.parametrize("workers", [1, 3])
def test_batches_of_sharded_data_stay_on_the_workers(workers):
    values = np.random.default_rng(0).standard_normal((40, 500))

    def epoch():
        dg.manual_seed(4)
        rows, held_out = ours_data.random_split(ours_data.TensorDataset(dg.tensor(values)), [32, 8])
        batches = [
            (batch, batch.sum(1))
            for part, shuffle in ((rows, True), (held_out, False))
            for (batch,) in ours_data.DataLoader(part, batch_size=5, shuffle=shuffle)
        ]
        return batches, [sums.tolist() for _, sums in batches]

    expected = epoch()[1]
    with dg.init(local_mode=True, num_workers=workers, shard_threshold=0):
        batches, sums = epoch()
        for ours, alone in zip(sums, expected, strict=True):
            np.testing.assert_allclose(ours, alone, rtol=1e-12)
        # The data goes out once; after that only indices and sums are small enough to be seen by the driver.
        assert dg.stats().driver_bytes < 1.05 * values.nbytes
        assert [len(batch) for batch, _ in batches] == [5] * 6 + [2, 5, 3]


def test_datasets_of_the_users_own():
    batches = list(ours_data.DataLoader(Squares(), batch_size=2))
    assert plain(batches[1]) == {"n": [2, 3], "square": [4.0, 9.0], "name": ["2", "3"]}
    assert batches[0]["square"].dtype == dg.float64
    assert batches[0]["n"].dtype == dg.int64
    assert list(ours_data.DataLoader(Squares(), batch_size=None))[2]["square"] == 4.0
    joined = list(ours_data.DataLoader(Squares(), 3, collate_fn=lambda samples: [sample["name"] for sample in samples]))
    assert joined == [["0", "1", "2"], ["3", "4"]]

    class Fast(Squares):
        def __getitems__(self, indices):
            return [sum(indices)]

    assert plain(list(ours_data.DataLoader(Fast(), 2))) == [[1], [5], [4]]


def test_iterable_datasets():
    assert plain(list(ours_data.DataLoader(Numbers(), batch_size=2))) == [[0, 1], [2, 3], [4]]
    assert plain(list(ours_data.DataLoader(Numbers(), batch_size=2, drop_last=True))) == [[0, 1], [2, 3]]
    assert list(ours_data.DataLoader(Numbers(), batch_size=None)) == [0, 1, 2, 3, 4]
    assert list(Numbers(2) + Numbers(3)) == [0, 1, 0, 1, 2]


def test_random_split():
    dataset = tensors(OURS)
    parts = ours_data.random_split(dataset, [6, 3, 1], generator=dg.Generator().manual_seed(2))
    assert [len(part) for part in parts] == [6, 3, 1]
    again = ours_data.random_split(dataset, [6, 3, 1], generator=dg.Generator().manual_seed(2))
    assert [part.indices for part in parts] == [part.indices for part in again]
    assert isinstance(parts[0].indices, list)
    assert plain(parts[1][0]) == plain(dataset[parts[1].indices[0]])
    for fractions in ([0.5, 0.25, 0.25], [0.34, 0.33, 0.33], [0.9, 0.1]):
        ours = [len(part) for part in ours_data.random_split(dataset, fractions)]
        assert ours == [len(part) for part in theirs_data.random_split(tensors(THEIRS), fractions)]
    with pytest.warns(UserWarning, match="Length of split at index 0 is 0"):
        ours_data.random_split(tensors(OURS, 2), [0.0, 1.0])


def test_joined_and_paired_datasets_match_torch():
    def run(library):
        first, second = tensors(library, 3), tensors(library, 4)
        joined = first + second
        pair = library.data.StackDataset(first, first)
        named = library.data.StackDataset(a=first, b=first)
        return (
            len(joined),
            joined.cumulative_sizes,
            [plain(joined[place]) for place in (0, 2, 3, -1)],
            plain(pair[1]),
            plain(named[1]),
            len(named),
            plain(library.data.Subset(first, [2, 1])[[0, 1]]),
        )

    assert run(OURS) == run(THEIRS)


def test_samplers():
    data = range(10)
    assert list(ours_data.SequentialSampler(data)) == list(data)
    assert sorted(ours_data.RandomSampler(data)) == list(data)
    more = list(ours_data.RandomSampler(data, num_samples=25))
    assert len(more) == 25
    assert sorted(more[:10]) == sorted(more[10:20]) == list(data)
    drawn = list(ours_data.RandomSampler(data, replacement=True, num_samples=200))
    assert len(drawn) == 200
    assert set(drawn) == set(data)
    assert sorted(ours_data.SubsetRandomSampler([3, 8, 5])) == [3, 5, 8]
    weighted = list(ours_data.WeightedRandomSampler([0.0, 1.0, 0.0, 3.0], 400))
    assert set(weighted) == {1, 3}
    assert 0.65 < weighted.count(3) / 400 < 0.85
    assert sorted(ours_data.WeightedRandomSampler([1.0, 1.0, 0.5], 3, replacement=False)) == [0, 1, 2]
    for size, drop in ((3, False), (3, True), (5, False)):
        ours = ours_data.BatchSampler(range(10), size, drop)
        theirs = theirs_data.BatchSampler(range(10), size, drop)
        assert list(ours) == list(theirs)
        assert len(ours) == len(theirs)
    with pytest.raises(NotImplementedError):
        iter(ours_data.Sampler())


Point = collections.namedtuple("Point", "x y")
BATCHES = [
    [1, 2],
    [1.5, 2],
    [True, False],
    ["a", "b"],
    [b"a"],
    [{"a": 1, "b": [1, 2]}, {"a": 2, "b": [3, 4]}],
    [(1, 2.0), (3, 4.0)],
    [[1, 2], [3, 4]],
    [Point(1, 2), Point(3, 4)],
    [np.ones(2), np.zeros(2)],
    [np.float32(1), np.float32(2)],
]


@pytest.mark.parametrize("batch", BATCHES)
def test_collate_matches_torch(batch):
    ours, theirs = ours_data.default_collate(batch), theirs_data.default_collate(batch)
    assert type(ours).__name__ == type(theirs).__name__
    assert plain(ours) == plain(theirs)
    if hasattr(theirs, "dtype"):
        assert str(ours.dtype).split(".")[1] == str(theirs.dtype).split(".")[1]


def test_convert():
    converted = ours_data.default_convert({"a": np.ones(2), "b": 3, "c": (np.zeros(1), "x")})
    assert isinstance(converted["a"], dg.Tensor)
    assert converted["a"].dtype == dg.float64
    assert converted["b"] == 3
    assert converted["c"][1] == "x"
    assert ours_data.get_worker_info() is None


def _both(function):
    """Returns what ``function`` raises with either library."""
    found = []
    for library in (OURS, THEIRS):
        with pytest.raises(Exception) as info:  # the caller compares the texts
            function(library)
        found.append((type(info.value).__name__, str(info.value).replace("distgrad", "torch")))
    return found


def _iterable(library):
    class Stream(library.data.IterableDataset):
        def __iter__(self):
            return iter(range(3))

    return Stream()


ERRORS = {
    "rows differ": lambda l: l.data.TensorDataset(l.lib.ones(2), l.lib.ones(3)),
    "nothing stacked": lambda l: l.data.StackDataset(),
    "nothing joined": lambda l: l.data.ConcatDataset([]),
    "stream joined": lambda l: l.data.ConcatDataset([_iterable(l)]),
    "joined index": lambda l: (tensors(l) + tensors(l))[-30],
    "base dataset": lambda l: l.data.Dataset()[3],
    "both samplers": lambda l: l.data.DataLoader(tensors(l), batch_size=3, batch_sampler=[[1]]),
    "drop without batches": lambda l: l.data.DataLoader(tensors(l), batch_size=None, drop_last=True),
    "sampler and shuffle": lambda l: l.data.DataLoader(tensors(l), sampler=[1], shuffle=True),
    "negative workers": lambda l: l.data.DataLoader(tensors(l), num_workers=-1),
    "negative timeout": lambda l: l.data.DataLoader(tensors(l), timeout=-1),
    "batch of 0": lambda l: l.data.DataLoader(tensors(l), batch_size=0),
    "batch of 1.5": lambda l: l.data.DataLoader(tensors(l), batch_size=1.5),
    "prefetch": lambda l: l.data.DataLoader(tensors(l), prefetch_factor=3),
    "persistent": lambda l: l.data.DataLoader(tensors(l), persistent_workers=True),
    "drop_last": lambda l: l.data.DataLoader(tensors(l), drop_last=3),
    "shuffled stream": lambda l: l.data.DataLoader(_iterable(l), shuffle=True),
    "sampled stream": lambda l: l.data.DataLoader(_iterable(l), sampler=range(3)),
    "batched stream": lambda l: l.data.DataLoader(_iterable(l), batch_sampler=[[1]]),
    "fixed": lambda l: setattr(l.data.DataLoader(tensors(l)), "batch_size", 3),
    "replacement": lambda l: l.data.RandomSampler([1], replacement=3),
    "no samples": lambda l: l.data.RandomSampler([]),
    "weighted count": lambda l: l.data.WeightedRandomSampler([1.0], 0),
    "weighted replacement": lambda l: l.data.WeightedRandomSampler([1.0], 2, replacement=3),
    "weighted shape": lambda l: l.data.WeightedRandomSampler([[1.0]], 2),
    "split lengths": lambda l: l.data.random_split(tensors(l), [3, 3]),
    "split fractions": lambda l: l.data.random_split(tensors(l), [1.5, -0.5]),
    "collate none": lambda l: l.data.default_collate([None]),
    "collate lengths": lambda l: l.data.default_collate([[1], [1, 2]]),
    "collate text array": lambda l: l.data.default_collate([np.array(["a"])]),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_match_torch(case):
    ours, theirs = _both(ERRORS[case])
    assert ours == theirs


def test_options_of_worker_processes_are_accepted():
    loader = ours_data.DataLoader(
        tensors(OURS), 5, num_workers=2, pin_memory=True, persistent_workers=True, prefetch_factor=4, timeout=1
    )
    assert [len(labels) for _, labels in loader] == [5, 5]
