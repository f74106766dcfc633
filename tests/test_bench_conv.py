"""The benchmark of convolutions, untimed: contestants agree; what is written by hand is right."""

import numpy as np
import pytest

from bench import conv, harness


def test_contestants_agree(monkeypatch):
    monkeypatch.setattr(harness.Options, "rounds", 1)
    monkeypatch.setattr(harness.Options, "slice_s", 0.0)
    options = harness.Options(only=("graphdl", "torch"), quick=True, size="tiny")
    for case in conv.run(options).cases:
        assert {outcome.name for outcome in case.outcomes} == {"graphdl", "torch", "floor"}
        for outcome in case.outcomes:
            assert outcome.note in ("", "not installed"), f"{case.name}: {outcome.label}"


@pytest.mark.parametrize("layer", conv.LAYERS["tiny"], ids=lambda layer: layer.name)
def test_layer_gradients_are_derivatives(layer):
    inputs = {key: value.astype(np.float64) for key, value in conv.layer_inputs(layer).items()}
    _, *gradients = conv.gradient_expected(layer, inputs)
    rng = np.random.default_rng(0)
    for name, gradient in zip("xwb", gradients, strict=True):
        direction = rng.standard_normal(gradient.shape)
        ends = [
            np.sum(
                inputs["g"]
                * conv.forward_expected(layer, {**inputs, name: inputs[name] + step * direction})[0]
            )
            for step in (1e-6, -1e-6)
        ]
        assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(np.sum(gradient * direction), rel=1e-5)


def test_a_step_goes_down_the_gradient():
    (network,) = conv.NETWORKS["tiny"]
    inputs = conv.network_inputs(network)
    losses, *after = conv.network_expected(network, inputs)
    assert losses[1] < losses[0]
    assert losses.shape == (2,)
    first = [p.astype(np.float64) for p in inputs["parameters"]]
    before = [p.copy() for p in first]
    conv._step_by_hand(network, first, inputs["x"], inputs["labels"])
    rng = np.random.default_rng(0)
    for index, (old, new) in enumerate(zip(before, first, strict=True)):
        slope = (old - new) / conv.RATE
        direction = rng.standard_normal(old.shape)
        ends = []
        for step in (1e-6, -1e-6):
            moved = [p.copy() for p in before]
            moved[index] += step * direction
            ends.append(conv._step_by_hand(network, moved, inputs["x"], inputs["labels"]))
        assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(np.sum(slope * direction), rel=1e-5)
    assert len(after) == len(first)
