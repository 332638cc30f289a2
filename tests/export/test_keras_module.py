"""Any Keras model becomes a verified file, or is refused."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")
pytest.importorskip("tf2onnx")

from keras import layers  # noqa: E402

from ptychonnx.export.artifact.artifact_checks import check_artifact  # noqa: E402
from ptychonnx.export.artifact.export_module import ModuleInput, export_module  # noqa: E402
from ptychonnx.export.artifact.source_loading import load_source  # noqa: E402
from ptychonnx.export.lowering.tensorflow.fourier import real_transforms  # noqa: E402
from ptychonnx.runtime.errors import InputError, UnsupportedError  # noqa: E402


def run(path, feed):
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return dict(zip([value.name for value in session.get_outputs()], session.run(None, feed), strict=True))


class Filter(layers.Layer):
    """A filter of the real spectrum, and a two-dimensional transform there and back."""

    def call(self, x):
        real, imaginary = keras.ops.rfft(x)
        x = keras.ops.irfft((0.5 * real, imaginary))
        real, imaginary = keras.ops.ifft2(keras.ops.fft2((x, keras.ops.zeros_like(x))))
        return real + imaginary


def model_of_everything():
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 10, 1), name="image")
    ids = keras.Input((3,), dtype="int32", name="ids")
    x = layers.Conv2D(4, 3, padding="same", activation="gelu")(image)
    x = layers.Permute((2, 3, 1))(Filter()(layers.Permute((3, 1, 2))(x)))
    tokens = layers.Flatten()(layers.Embedding(5, 4)(ids))
    positive = keras.ops.cast(tokens > 0, "int32")
    return keras.Model([image, ids], {"picture": x, "tokens": tokens, "positive": positive})


def test_a_model_with_several_inputs_outputs_gelu_and_transforms_is_exported(tmp_path):
    model, out = model_of_everything(), tmp_path / "keras.onnx"
    result = export_module(model, [], out, source="net.py:build")
    graph = onnx.load(out).graph
    assert [value.name for value in graph.input] == ["image", "ids"]
    assert [value.name for value in graph.output] == ["picture", "tokens", "positive"]
    assert result.description.framework == "tensorflow"
    assert result.description.bounds == {"ids": (0, 4)}
    assert "DFT" not in {node.op_type for node in graph.node}
    generator = np.random.default_rng(0)
    image = generator.normal(size=(3, 8, 10, 1)).astype(np.float32)
    ids = generator.integers(0, 5, (3, 3)).astype(np.int32)
    expected = model([image, ids], training=False)
    found = run(out, {"image": image, "ids": ids})
    np.testing.assert_allclose(found["picture"], expected["picture"], atol=1e-5)
    np.testing.assert_allclose(found["tokens"], expected["tokens"], atol=1e-6)
    assert found["positive"].tolist() == expected["positive"].numpy().tolist()
    assert all(check.passed for check in check_artifact(out))


@pytest.mark.parametrize(("size", "length"), [(6, None), (7, None), (7, 5), (5, 8), (6, 9)])
def test_the_transforms_are_those_of_keras(size, length):
    x = np.random.default_rng(0).normal(size=(2, 3, size)).astype(np.float32)
    pair = (x, x[::-1].copy())
    expected = [
        *keras.ops.rfft(x, length),
        keras.ops.irfft(pair, length),
        *keras.ops.fft(pair),
        *keras.ops.fft2(pair),
    ]
    with real_transforms():
        found = [
            *keras.ops.rfft(x, length),
            keras.ops.irfft(pair, length),
            *keras.ops.fft(pair),
            *keras.ops.fft2(pair),
        ]
    for value, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(value, other, atol=2e-5)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense, self.drop = layers.Dense(2), layers.Dropout(0.5)

    def call(self, a, b, training=False):
        return self.dense(a) + b, self.drop(a, training=training)


def test_a_subclassed_model_takes_its_inputs_from_shapes(tmp_path):
    model = Subclassed()
    export_module(model, [ModuleInput((3,)), ModuleInput((2,))], tmp_path / "sub.onnx")
    a, b = np.ones((2, 3), np.float32), np.ones((2, 2), np.float32)
    found = list(run(tmp_path / "sub.onnx", {"input_0": a, "input_1": b}).values())
    for value, other in zip(found, model(a, b), strict=True):
        np.testing.assert_allclose(value, other, rtol=1e-6)
    with pytest.raises(InputError, match="does not know its inputs"):
        export_module(Subclassed(), [], tmp_path / "none.onnx")


def test_sizes_that_the_model_leaves_open_are_asked_for(tmp_path):
    model = keras.Sequential([keras.Input((None, None, 1)), layers.Conv2D(2, 3, padding="same")])
    with pytest.raises(InputError, match="expected --shape with fixed sizes"):
        export_module(model, [], tmp_path / "open.onnx")
    with pytest.raises(InputError, match=r"is \[None, None, 1\], got \[8, 8, 2\]"):
        export_module(model, [ModuleInput((8, 8, 2))], tmp_path / "open.onnx")
    export_module(model, [ModuleInput((8, 6, 1))], tmp_path / "open.onnx")
    shape = onnx.load(tmp_path / "open.onnx").graph.output[0].type.tensor_type.shape.dim
    assert [axis.dim_value for axis in shape][1:] == [8, 6, 2]


class Spectrum(layers.Layer):
    def call(self, x):
        return tf.abs(tf.signal.rfft(x))


def test_a_spectrum_of_tensorflow_itself_is_exported_without_complex_numbers(tmp_path):
    inputs = keras.Input((8,))
    model = keras.Model(inputs, Spectrum()(inputs))
    export_module(model, [], tmp_path / "net.onnx")
    (name,) = (value.name for value in onnx.load(tmp_path / "net.onnx").graph.input)
    x = np.random.default_rng(0).normal(size=(2, 8)).astype(np.float32)
    np.testing.assert_allclose(run(tmp_path / "net.onnx", {name: x})["output"], model(x), atol=1e-5)


class Bits(layers.Layer):
    def call(self, x):
        return tf.bitcast(x, tf.int32)


def test_operations_that_onnx_lacks_are_refused_by_name(tmp_path):
    inputs = keras.Input((8,))
    with pytest.raises(UnsupportedError, match="tf2onnx cannot convert Bitcast"):
        export_module(keras.Model(inputs, Bits()(inputs)), [], tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


class Filtered(layers.Layer):
    def call(self, x):
        return tf.signal.irfft(tf.signal.rfft(x) * (1 + 2j))


def test_complex_numbers_of_tensorflow_are_refused_with_a_way_out(tmp_path):
    inputs = keras.Input((8,))
    with pytest.raises(
        UnsupportedError, match=r"cannot convert IRFFT, RFFT.*such as those of keras\.ops\.rfft"
    ):
        export_module(keras.Model(inputs, Filtered()(inputs)), [], tmp_path / "net.onnx")


def test_a_keras_file_is_read_in_safe_mode(tmp_path):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    model.save(tmp_path / "plain.keras")
    loaded = load_source(str(tmp_path / "plain.keras"))
    x = np.ones((1, 4), np.float32)
    np.testing.assert_array_equal(loaded(x), model(x))
    unsafe = keras.Sequential([keras.Input((4,)), layers.Lambda(lambda x: x + 1)])
    unsafe.save(tmp_path / "lambda.keras")
    for name in ("lambda.keras", "gone.keras"):
        with pytest.raises(InputError, match=name):
            load_source(str(tmp_path / name))
