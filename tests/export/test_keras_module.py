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

from ptychonnx.export.artifact.export_module import ModuleInput, export_module  # noqa: E402
from ptychonnx.export.artifact.source_loading import load_source  # noqa: E402
from ptychonnx.export.lowering.tensorflow.fourier import real_transforms  # noqa: E402
from ptychonnx.runtime.errors import InputError  # noqa: E402


def run(path, feed):
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return dict(zip([value.name for value in session.get_outputs()], session.run(None, feed), strict=True))


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


def test_sizes_that_the_model_leaves_open_are_asked_for(tmp_path):
    model = keras.Sequential([keras.Input((None, None, 1)), layers.Conv2D(2, 3, padding="same")])
    with pytest.raises(InputError, match="expected --shape with fixed sizes"):
        export_module(model, [], tmp_path / "open.onnx")
    with pytest.raises(InputError, match=r"is \[None, None, 1\], got \[8, 8, 2\]"):
        export_module(model, [ModuleInput((8, 8, 2))], tmp_path / "open.onnx")
    export_module(model, [ModuleInput((8, 6, 1))], tmp_path / "open.onnx")
    shape = onnx.load(tmp_path / "open.onnx").graph.output[0].type.tensor_type.shape.dim
    assert [axis.dim_value for axis in shape][1:] == [8, 6, 2]


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
