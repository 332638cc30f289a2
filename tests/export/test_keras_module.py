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
from ptychonnx.export.artifact.source_loading import load_source, load_weights  # noqa: E402
from ptychonnx.export.lowering.tensorflow.complex_pairs import real_form  # noqa: E402
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


def by_pairs(function, *inputs):
    """What a function of float32 tensors and its form without complex tensors return, by name, one after the other."""
    tensors = [tf.constant(x, tf.float32) for x in inputs]
    traced = tf.function(function, autograph=False).get_concrete_function(
        *(tf.TensorSpec([None, *x.shape[1:]], tf.float32) for x in tensors)
    )
    again = tf.function(real_form(traced), autograph=False).get_concrete_function(*tensors)
    assert not any(one.dtype.is_complex for step in again.graph.get_operations() for one in step.outputs)
    return traced(*tensors), again(*tensors)


def compared(function, *inputs, atol=2e-5):
    expected, found = by_pairs(function, *inputs)
    assert list(found) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=atol * np.abs(value).max(), err_msg=name)


def flat(**values):
    """Complex values as pairs."""
    return {
        name: tf.stack([tf.math.real(value), tf.math.imag(value)], -1) if value.dtype.is_complex else value
        for name, value in values.items()
    }


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(("size", "length"), [(6, None), (7, None), (7, 5), (5, 8), (6, 9)])
def test_the_transforms_are_those_of_keras(size, length):
    def transforms(x):
        pair, values = (x, x[:, ::-1]), {}
        values["r"], values["i"] = keras.ops.rfft(x, length)
        values["back"] = keras.ops.irfft(pair, length)
        values["fr"], values["fi"] = keras.ops.fft(pair)
        values["f2r"], values["f2i"] = keras.ops.fft2(pair)
        values["g2r"], values["g2i"] = keras.ops.ifft2(pair)
        return values

    compared(transforms, numbers(2, 3, size))


def test_the_transforms_are_those_of_tensorflow():
    signal = tf.signal

    def transforms(x):
        z = tf.complex(x, tf.reverse(x, [1]))
        return flat(
            fft=signal.fft(z), ifft=signal.ifft(z), fft2=signal.fft2d(z), ifft2=signal.ifft2d(z),
            fft3=signal.fft3d(z), ifft3=signal.ifft3d(z), rfft2=signal.rfft2d(x), rfft2_long=signal.rfft2d(x, [4, 9]),
            rfft3=signal.rfft3d(x), irfft=signal.irfft(z), irfft_odd=signal.irfft(z, [7]),
            irfft2=signal.irfft2d(z, [4, 9]), irfft2_short=signal.irfft2d(z, [6, 5]), irfft3=signal.irfft3d(z),
            shifted=signal.ifftshift(signal.fftshift(z, axes=(-2, -1)) * 2, axes=-1),
            frames=signal.stft(x[:, 0, 0], 4, 2), again=signal.inverse_stft(signal.stft(x[:, 0, 0], 4, 2), 4, 2),
        )  # fmt: skip

    compared(transforms, numbers(2, 3, 5, 6))


def test_complex_arithmetic_of_tensorflow():
    weights = tf.constant(numbers(6, 4) + 1j * numbers(6, 4, seed=1))

    def arithmetic(x, y):
        z, w = tf.complex(x, y), tf.complex(y, x) + 2
        return flat(
            sums=z + w - 3, product=z * w, quotient=z / w, inverse=1 / w, square=tf.square(z), size=tf.abs(z),
            angle=tf.math.angle(z), conjugate=tf.math.conj(z), unit=tf.sign(z), exponential=tf.exp(z),
            logarithm=tf.math.log(w), root=tf.sqrt(z), scaled=z * tf.cast(x, tf.complex64), real=tf.cast(z, tf.float32),
            tanh=tf.tanh(z), sigmoid=tf.sigmoid(z), dense=z @ weights, adjoint=tf.matmul(z, w, adjoint_b=True),
            einsum=tf.einsum("bij,jk->bki", z, weights), bilinear=tf.einsum("bij,bkj->bik", z, w),
            transposed=tf.transpose(z, [0, 2, 1]), hermitian=tf.linalg.adjoint(z), flat=tf.reshape(z, [-1, 18]),
            sliced=z[:, ::2, 1:], padded=tf.pad(z, [[0, 0], [1, 0], [0, 2]]), joined=tf.concat([z, w[..., :1]], -1),
            stacked=tf.stack([z, w], 1), chosen=tf.where(x > 0, z, w), mean=tf.reduce_mean(z, 1),
            total=tf.reduce_sum(z), shifted=tf.roll(z, 1, -1), empty=tf.zeros_like(z) + tf.ones_like(w),
            split=tf.split(z, 3, -1)[1], gathered=tf.gather(z, [2, 0], axis=1), sizes=tf.cast(tf.shape(z), tf.float32),
        )  # fmt: skip

    compared(arithmetic, numbers(2, 3, 6), numbers(2, 3, 6, seed=2))


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


class SpectralConvolution(layers.Layer):
    """As in Fourier neural operators: complex weights for the low frequencies of an image."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(2, shape[-1], 3, 3, 3), name="kernel")

    def call(self, x):
        spectrum = tf.signal.rfft2d(tf.transpose(x, (0, 3, 1, 2)))
        low = tf.einsum("bixy,ioxy->boxy", spectrum[..., :3, :3], tf.complex(self.kernel[0], self.kernel[1]))
        rows, columns = x.shape[1], x.shape[2]
        low = tf.pad(low, [[0, 0], [0, 0], [0, rows - 3], [0, columns // 2 + 1 - 3]])
        return tf.transpose(tf.signal.irfft2d(low, [rows, columns]), (0, 2, 3, 1))


def test_a_layer_of_complex_numbers_of_tensorflow_is_exported(tmp_path):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 7, 2))
    joined = layers.Add()([SpectralConvolution()(inputs), layers.Conv2D(3, 1)(inputs)])
    model = keras.Model(inputs, layers.Activation("gelu")(joined))
    result = export_module(model, [], tmp_path / "net.onnx")
    assert result.description.lowering.startswith("Fourier transforms and complex numbers")
    graph = onnx.load(tmp_path / "net.onnx").graph
    assert not {node.op_type for node in graph.node} & {"DFT", "STFT"}
    x = numbers(3, 8, 7, 2)
    found = run(tmp_path / "net.onnx", {graph.input[0].name: x})["output"]
    np.testing.assert_allclose(found, model(x), atol=1e-5)


class ShortTime(layers.Layer):
    def call(self, x):
        return tf.signal.inverse_stft(tf.signal.stft(x, 8, 4) * tf.complex(0.5, 0.2), 8, 4)


def test_short_time_transforms_next_to_a_recurrent_layer_are_exported(tmp_path):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((24,))
    signal = ShortTime()(inputs)
    frames = layers.Reshape((6, 4))(signal)
    with pytest.raises(UnsupportedError, match=r"^While in .*gru.* unroll=True of recurrent layers$"):
        export_module(keras.Model(inputs, layers.GRU(3)(frames)), [], tmp_path / "loop.onnx")
    model = keras.Model(inputs, [signal, layers.GRU(3, unroll=True)(frames)])
    export_module(model, [], tmp_path / "net.onnx")
    x = numbers(3, 24)
    (name,) = (value.name for value in onnx.load(tmp_path / "net.onnx").graph.input)
    for found, expected in zip(run(tmp_path / "net.onnx", {name: x}).values(), model(x), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


class Inverted(layers.Layer):
    def call(self, x):
        return tf.abs(tf.linalg.inv(tf.cast(x, tf.complex64)))


def test_operations_without_a_real_form_are_refused_with_a_way_out(tmp_path):
    inputs = keras.Input((3, 3))
    model = keras.Model(inputs, Inverted(name="inverted")(inputs))
    with pytest.raises(
        UnsupportedError,
        match=r"^MatrixInverse of complex numbers in .*inverted.*has no form.*such as those of keras\.ops\.rfft$",
    ) as error:
        export_module(model, [], tmp_path / "net.onnx")
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


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


def test_weights_of_keras_are_loaded_into_a_model_that_code_builds(tmp_path):
    trained, other = (keras.Sequential([keras.Input((4,)), layers.Dense(3)]) for _ in range(2))
    trained.save_weights(tmp_path / "net.weights.h5")
    load_weights(other, tmp_path / "net.weights.h5")
    x = np.ones((1, 4), np.float32)
    np.testing.assert_array_equal(other(x), trained(x))
    wider = keras.Sequential([keras.Input((4,)), layers.Dense(5)])
    with pytest.raises(InputError, match=r"net\.weights\.h5: loading it raised ValueError") as error:
        load_weights(wider, tmp_path / "net.weights.h5")
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match=r"expected one that ends in \.weights\.h5"):
        load_weights(other, tmp_path / "net.pt")
