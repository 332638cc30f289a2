"""Products of ptychodus: the input of a reconstruction as files, and its object as a product."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from ptychodus.api.assemble import AssembledDiffractionData
from ptychodus.api.geometry import PixelGeometry
from ptychodus.api.io import StandardFileLayout, load_product, save_diffraction_data, save_product
from ptychodus.api.object import Object, ObjectCenter
from ptychodus.api.product import LossValue, Product
from ptychodus.api.reconstruct import ReconstructInput

import ptychonnx

__all__ = ["read_input", "with_object", "write_input"]

# Share of a probe's photons that a mean pattern may hold, if the probe is in photons.
_PASSED = (0.02, 1.05)


def write_input(folder: Path, parameters: ReconstructInput) -> None:
    """Write `diffraction.h5` and `product.h5`, which ptychonnx reads."""
    product, patterns = parameters.product, parameters.diffraction_patterns
    bad = parameters.bad_pixels
    if bad is None:
        bad = np.zeros(patterns.shape[1:], dtype=np.bool_)
    # The pitch of the detector is not read.
    data = AssembledDiffractionData(
        product.probe_positions.get_indexes(), patterns, PixelGeometry(1.0, 1.0), bad
    )
    save_diffraction_data(folder / StandardFileLayout.DIFFRACTION, data)
    save_product(folder / StandardFileLayout.PRODUCT, product)


def read_input(folder: Path, parameters: ReconstructInput) -> ptychonnx.Scan:
    """Read the input as a scan.

    ptychodus scales probes to photons. Such a probe is kept; another one is scaled to the patterns behind the object.
    """
    scan = ptychonnx.read_scan(folder / StandardFileLayout.DIFFRACTION, estimate_probe=True)
    if scan.probe is None:
        return scan
    probe = parameters.product.probes.get_probe_no_opr().get_array().astype(np.complex64)
    least, most = _PASSED
    if least < scan.flux / np.sum(np.abs(probe) ** 2) < most:
        return replace(scan, probe=probe, probe_estimated=False)
    return scan


def with_object(product: Product, path: Path, misfit: float | None) -> Product:
    """The product with the object in a file that ptychonnx wrote, whose origin is the corner of the product's object.

    Positions and probe stay; the loss is the forward misfit of the new object.
    """
    old, new = product.object_.get_geometry(), load_product(path).object_
    centre = new.get_geometry().get_center()
    object_ = Object(
        new.get_array(),
        old.get_pixel_geometry(),
        ObjectCenter(
            centre.x_m + old.center_x_m - (old.width_px - 1) / 2 * old.pixel_width_m,
            centre.y_m + old.center_y_m - (old.height_px - 1) / 2 * old.pixel_height_m,
        ),
        [],
    )
    losses = [] if misfit is None else [LossValue(1, misfit)]
    return replace(product, object_=object_, losses=losses)
