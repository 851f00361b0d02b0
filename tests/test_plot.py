"""The benchmark pictures: efficiencies against hand calculation, the lines drawn against the numbers given."""

from __future__ import annotations

import builtins
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="module")
def plot() -> ModuleType:
    path = Path(__file__).resolve().parent.parent / "benchmarks" / "plot.py"
    spec = importlib.util.spec_from_file_location("benchmark_plot", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_efficiency_follows_its_definition(plot: ModuleType) -> None:
    assert plot.efficiency("strong", [1, 2, 4], [8.0, 4.0, 4.0]) == [1.0, 1.0, 0.5]
    assert plot.efficiency("weak", [1, 2, 4], [8.0, 8.0, 16.0]) == [1.0, 1.0, 0.5]
    # Relative to the fewest workers there are, in whatever order they come.
    assert plot.efficiency("strong", [4, 2], [2.0, 3.0]) == [0.75, 1.0]


@pytest.mark.parametrize(
    ("kind", "workers", "seconds"),
    [("fast", [1], [1.0]), ("weak", [], []), ("weak", [1, 2], [1.0]), ("weak", [1], [0.0])],
)
def test_efficiency_refuses_what_it_cannot_mean(plot: ModuleType, kind: str, workers: Any, seconds: Any) -> None:
    with pytest.raises(ValueError, match="efficiency: "):
        plot.efficiency(kind, workers, seconds)


def test_without_matplotlib_the_message_says_what_to_do(
    plot: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real_import = builtins.__import__

    def without_matplotlib(name: str, *arguments: Any, **settings: Any) -> Any:
        if name.split(".")[0] == "matplotlib":
            raise ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib")
        return real_import(name, *arguments, **settings)

    monkeypatch.setattr(builtins, "__import__", without_matplotlib)
    with pytest.raises(ModuleNotFoundError, match="pip install matplotlib"):
        plot.plot_learning_curve([1.0], [0.5], tmp_path / "curve.png")
    results = tmp_path / "results.json"
    results.write_text(json.dumps({"strong": [{"workers": 1, "seconds": 1.0}]}))
    assert plot.main([str(results), str(tmp_path / "scaling.png")]) == 1
    assert "pip install matplotlib" in capsys.readouterr().err


@pytest.fixture
def drawn(plot: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The axes of the figures made."""
    pytest.importorskip("matplotlib")
    axes: list[Any] = []
    make = plot._figure

    def keep(columns: int) -> Any:
        figure, both = make(columns)
        axes.extend(both)
        return figure, both

    monkeypatch.setattr(plot, "_figure", keep)
    return axes


def test_scaling_picture_shows_the_numbers(plot: ModuleType, drawn: list[Any], tmp_path: Path) -> None:
    strong = [{"workers": 2, "seconds": 0.5}, {"workers": 1, "seconds": 0.8}]
    plot.plot_scaling({"strong": strong, "weak": [{"workers": 1, "seconds": 0.8}]}, tmp_path / "scaling.png")
    times, efficiencies = drawn
    lines = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in times.get_lines()}
    assert lines["strong scaling"] == ([1, 2], [800.0, 500.0])
    assert lines["strong, ideal"] == ([1, 2], [800.0, 400.0])
    assert list(efficiencies.get_lines()[0].get_ydata()) == [1.0, pytest.approx(0.8)]
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")


def test_learning_curve_shows_the_numbers(plot: ModuleType, drawn: list[Any], tmp_path: Path) -> None:
    plot.plot_learning_curve([2.0, 0.5], [0.25, 0.75], tmp_path / "curve.svg", title="digits")
    left, right = drawn
    assert (list(left.get_lines()[0].get_xdata()), list(left.get_lines()[0].get_ydata())) == ([1, 2], [2.0, 0.5])
    assert list(right.get_lines()[0].get_ydata()) == [25.0, 75.0]
    assert "<svg" in (tmp_path / "curve.svg").read_text()


def test_pictures_of_nothing_are_refused(plot: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="plot_scaling: .*'strong', 'weak'"):
        plot.plot_scaling({"medium": []}, tmp_path / "x.png")
    with pytest.raises(ValueError, match="2 losses and 1 accuracies"):
        plot.plot_learning_curve([1.0, 2.0], [0.5], tmp_path / "x.png")
