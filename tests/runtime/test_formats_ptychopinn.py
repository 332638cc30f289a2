from __future__ import annotations

import numpy as np
import pytest

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import read_scan
from ptychonnx.runtime.scan.forward_model import cut_windows, forward


@pytest.fixture
def flat(scan, truth, tmp_path):
    """What the flat files hold: normalised amplitudes, x = column, y = row."""
    return {
        "diffraction": scan.diffraction / 300,
        "xcoords": scan.positions[:, 1],
        "ycoords": scan.positions[:, 0],
        "probeGuess": scan.probe[0] * 7,
        "objectGuess": truth,
    }


def read(tmp_path, arrays):
    path = tmp_path / "pinn.npz"
    np.savez(path, **arrays)
    return read_scan(path)


def without(arrays, *keys):
    return {key: value for key, value in arrays.items() if key not in keys}


def test_x_is_the_column_and_y_the_row_of_the_centre_in_the_object(flat, scan, tmp_path):
    back = read(tmp_path, flat)
    np.testing.assert_array_equal(back.positions, scan.positions)
    patches = cut_windows(back.reference.object, back.positions, back.size, back.reference.origin)
    np.testing.assert_allclose(forward(patches, back.probe), back.diffraction, rtol=1e-4, atol=1e-5)


def test_the_probe_explains_the_power_of_the_patterns(flat, tmp_path):
    bare = read(tmp_path, without(flat, "objectGuess"))
    assert np.sum(np.abs(bare.probe) ** 2) == pytest.approx(bare.flux, rel=1e-5)
    assert read(tmp_path, without(flat, "probeGuess")).probe is None


@pytest.mark.parametrize("layout", ["diff3d", "channel", "last"])
def test_every_layout_gives_the_same_patterns(flat, scan, tmp_path, layout):
    patterns = flat.pop("diffraction")
    if layout == "diff3d":
        flat["diff3d"] = patterns
    elif layout == "channel":
        flat["diffraction"] = patterns[..., None]
    else:
        flat["diff3d"] = np.moveaxis(patterns, 0, 2)
    np.testing.assert_array_equal(read(tmp_path, flat).diffraction, patterns)


def test_integers_are_counts(flat, scan, tmp_path):
    counts = np.rint(scan.diffraction.astype(np.float64) ** 2)
    flat["diffraction"] = np.minimum(counts, 60000).astype(np.uint16)
    np.testing.assert_allclose(
        read(tmp_path, flat).diffraction, np.sqrt(np.minimum(counts, 60000)), rtol=1e-6
    )


@pytest.mark.parametrize("behind_probe", [True, False])
def test_labels_are_the_object_whatever_the_file_holds(flat, scan, tmp_path, behind_probe):
    magnitude = np.abs(flat["probeGuess"])
    patches = scan.labels
    arrays = without(flat, "objectGuess")
    arrays["diffraction"] = forward(patches, flat["probeGuess"][None]).astype(np.float32)
    arrays["Y_I"] = np.abs(patches) * (magnitude if behind_probe else 1)
    arrays["Y_phi"] = np.angle(patches)
    back = read(tmp_path, arrays)
    lit = magnitude**2 > 1e-4 * np.max(magnitude**2)
    np.testing.assert_allclose(back.labels[:, lit], patches[:, lit], rtol=1e-3, atol=1e-4)
    # The stored probe and the labels explain the patterns already.
    np.testing.assert_allclose(back.probe[0], flat["probeGuess"], rtol=1e-2)


def grid_positions():
    rows, columns = np.meshgrid(np.arange(9, 31, 7), np.arange(9, 43, 8), indexing="ij")
    return np.stack([rows.ravel(), columns.ravel()], axis=1).astype(np.float64)


def test_grid_offsets_give_row_then_column_of_the_middle(truth, probe, tmp_path):
    centres = grid_positions()
    patches = cut_windows(truth, centres, 16)
    middle = centres - 8 + 7.5
    back = read(
        tmp_path,
        {
            "diffraction": forward(patches, probe).astype(np.float32)[..., None],
            "Y_I": np.abs(patches)[..., None],
            "Y_phi": np.angle(patches)[..., None],
            "coords_offsets": middle[:, None, :, None],
            "probeGuess": probe[0],
        },
    )
    np.testing.assert_array_equal(back.positions, centres)
    np.testing.assert_allclose(back.labels, cut_windows(truth, back.positions, 16), atol=1e-6)


def test_objects_of_one_grid_dataset_do_not_overlap(truth, probe, tmp_path):
    centres = grid_positions()
    both = np.concatenate([cut_windows(truth, centres, 16), cut_windows(truth[::-1].copy(), centres, 16)])
    offsets = np.repeat(centres - 0.5, 2, axis=0)
    back = read(
        tmp_path,
        {
            "diffraction": forward(both, probe).astype(np.float32)[..., None],
            "coords_offsets": offsets[:, None, :, None],
        },
    )
    n = len(centres)
    np.testing.assert_array_equal(back.positions[:n], centres)
    shift = back.positions[n:] - centres
    assert np.ptp(shift, axis=0).tolist() == [0, 0]
    assert shift[0, 0] == 0
    assert back.positions[n:, 1].min() - back.positions[:n, 1].max() > 16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"xcoords": np.zeros(19)}, "'xcoords' and 'ycoords' have shapes"),
        ({"diffraction": np.zeros((20, 16, 15), np.float32)}, r"'diffraction' has shape \(20, 16, 15\)"),
        ({"diffraction": np.zeros((20, 16, 16, 4), np.float32)}, "groups of 4 patterns"),
        ({"diffraction": np.full((20, 16, 16), -1, np.int32)}, r"'diffraction'\[0\] has 256 negative"),
        ({"diffraction": np.full((20, 16, 16), np.nan, np.float32)}, r"diffraction\[0\] holds NaN"),
        ({"probeGuess": np.ones((8, 8), np.complex64)}, "probe has shape"),
        ({"objectGuess": np.ones((1, 40, 52), np.complex64)}, "'objectGuess' has shape"),
        ({"Y_I": np.ones((20, 16, 16)), "Y_phi": np.ones((20, 16))}, "'Y_phi' has shape"),
        ({"Y": np.full((20, 16, 16), np.nan, np.complex64)}, "labels hold NaN"),
        ({"Y": np.ones((20, 8, 8), np.complex64)}, "labels have shape"),
        ({"ycoords": np.array([None] * 20)}, "'ycoords' is a pickled object"),
    ],
)
def test_broken_content_is_refused(flat, tmp_path, change, message):
    with pytest.raises(InputError, match=message) as error:
        read(tmp_path, flat | change)
    assert "pinn.npz" in str(error.value)


def test_degenerate_grid_offsets_are_refused(flat, tmp_path):
    arrays = without(flat, "xcoords", "ycoords") | {"coords_offsets": np.zeros((20, 1, 2, 1))}
    with pytest.raises(InputError, match="same position 20 times"):
        read(tmp_path, arrays)


def test_an_object_that_the_positions_leave_is_no_reference(flat, tmp_path):
    flat["xcoords"] = flat["xcoords"] - 30
    with pytest.warns(UserWarning, match="positions leave 'objectGuess'"):
        back = read(tmp_path, flat)
    assert back.reference is None
