"""Keras networks agree with their graphs in onnxruntime, with Resize for UpSampling2D."""

from __future__ import annotations

import os

import numpy as np
import pytest

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")
pytest.importorskip("tf2onnx")

from keras import layers  # noqa: E402

from ptychonnx.export.graph.inspection import check_graph, operators  # noqa: E402
from ptychonnx.export.lowering.tensorflow.convert import convert_model  # noqa: E402
from ptychonnx.export.passes import clean  # noqa: E402
from ptychonnx.export.verification.engines import open_onnxruntime  # noqa: E402
from ptychonnx.export.verification.verify import relative_difference  # noqa: E402
from ptychonnx.runtime.errors import InputError  # noqa: E402


@keras.saving.register_keras_serializable("ptychonnx-tests")
class Spread(layers.Layer):
    """A constant matrix product, a logarithm and a change of layout, as the networks begin."""

    def build(self, shape):
        rng = np.random.default_rng(1)
        self.rows = (rng.normal(size=shape[-2:]) / shape[-1]).astype(np.float32)
        # A tensor of TensorFlow's own, which is neither a weight nor written into the graph by tracing.
        self.columns = tf.constant(rng.normal(size=shape[-2:]) / shape[-1], tf.float32)

    def call(self, x):
        product = tf.matmul(self.rows, tf.tensordot(x, self.columns, 1))
        return tf.transpose(tf.concat([product, tf.math.log1p(x)], axis=1), [0, 2, 3, 1])


class Parts(layers.Layer):
    def call(self, heads):
        amplitude, phase = heads
        return tf.stack([amplitude * tf.cos(phase), amplitude * tf.sin(phase)], axis=-1)


def two_heads(n=32, channels=1, activation="relu", size=2):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((channels, n, n))
    x = skip = layers.Conv2D(6, 3, padding="same", activation=activation)(Spread()(inputs))
    x = layers.Conv2D(8, 3, padding="same", activation=activation)(layers.MaxPool2D(size)(x))
    heads = []
    for kind in ("sigmoid", "tanh"):
        head = layers.Conv2D(8, 3, padding="same", activation=activation)(x)
        head = layers.Concatenate()([layers.UpSampling2D(size)(head), skip])
        head = layers.Conv2D(6, 3, padding="same", activation=activation)(head)
        heads.append(layers.Conv2D(channels, 3, padding="same", activation=kind)(head))
    model = keras.Model(inputs, Parts()(heads))
    rng = np.random.default_rng(2)
    model.set_weights([value + 0.05 * rng.normal(size=value.shape) for value in model.get_weights()])
    return model


@pytest.mark.parametrize(
    "settings",
    [{}, {"channels": 4}, {"activation": "gelu"}, {"n": 33, "size": 3}],
    ids=["plain", "gridsize-2", "gelu", "33-by-3"],
)
def test_a_network_with_two_heads_agrees_in_onnxruntime(settings, capfd):
    model = two_heads(**settings)
    n, channels = settings.get("n", 32), settings.get("channels", 1)
    capfd.readouterr()
    converted = convert_model(model)
    assert capfd.readouterr().out == ""
    before = operators(converted.model)
    cleaned = check_graph(clean(converted.model).model.SerializeToString())
    after = operators(cleaned)
    assert before["Tile"] == 4
    assert after["Resize"] == 2
    assert not {"Tile", "Cast", "Shape", "Gather"} & set(after)
    assert after["Transpose"] <= 2
    diffraction = np.random.default_rng(0).random((6, channels, n, n), dtype=np.float32)
    engine = open_onnxruntime(cleaned.SerializeToString())
    expected = np.asarray(model(diffraction, training=False))
    assert relative_difference(engine(diffraction), expected) < 1e-5
    bare = open_onnxruntime(converted.model.SerializeToString())
    assert np.abs(engine(diffraction) - bare(diffraction)).max() < 1e-6
    dimension = cleaned.graph.input[0].type.tensor_type.shape.dim
    assert (dimension[0].dim_param, cleaned.graph.output[0].name) == ("batch", "object")
    assert [value.name for value in cleaned.graph.input] == ["diffraction"]


def test_two_conversions_give_the_same_bytes():
    model = two_heads(n=16)
    one, other = (clean(convert_model(model).model).model.SerializeToString() for _ in range(2))
    assert one == other


def test_an_optimizer_of_tf2onnx_that_fails_is_left_out(monkeypatch):
    """The others run in place, without a copy of the graph for each; only now the graph is converted again."""
    from tf2onnx import optimizer

    seen = []

    class Failing(optimizer.IdentityOptimizer):
        def _optimize(self, graph):
            seen.append(graph)
            raise ValueError("no optimum")

    model = two_heads(n=16)
    expected = clean(convert_model(model).model).model.SerializeToString()
    monkeypatch.setitem(optimizer._optimizers, "failing", Failing)
    assert clean(convert_model(model).model).model.SerializeToString() == expected
    assert len(seen) > 1
    assert "TF2ONNX_CATCH_ERRORS" not in os.environ


def test_unsupported_networks_are_refused_in_one_line():
    class Bits(layers.Layer):
        def call(self, x):
            return tf.bitcast(x, tf.int32)

    inputs = keras.Input((1, 8, 8))
    with pytest.raises(InputError, match=r"^tf2onnx cannot convert [^\n]*$"):
        convert_model(keras.Model(inputs, Bits()(inputs)))
    with pytest.raises(InputError, match=r"2 outputs, expected one"):
        convert_model(keras.Model(inputs, [inputs, inputs]))
    loose = keras.Input((1, None, 8))
    with pytest.raises(InputError, match=r"expected fixed sizes"):
        convert_model(keras.Model(loose, layers.ReLU()(loose)))
