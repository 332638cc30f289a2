"""File plugins: scans of any format that ptychonnx reads, and products with the plots of ptychonnx."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray
from ptychodus.api.constants import energy_eV_to_wavelength_m, wavelength_m_to_energy_eV
from ptychodus.api.diffraction import (
    DiffractionDataset,
    DiffractionDatasetLayoutNode,
    DiffractionFileReader,
    DiffractionMetadata,
    SimpleDiffractionArray,
    SimpleDiffractionDataset,
)
from ptychodus.api.geometry import ImageExtent, PixelGeometry
from ptychodus.api.io import load_product, save_product
from ptychodus.api.object import Object, ObjectCenter
from ptychodus.api.plugins import PluginRegistry
from ptychodus.api.probe import ProbeSequence
from ptychodus.api.probe_positions import ProbePosition, ProbePositionSequence
from ptychodus.api.product import LossValue, Product, ProductFileReader, ProductFileWriter, ProductMetadata

import ptychonnx
from ptychonnx.runtime.formats.writers.nxdata import ObjectPlots

__all__ = ["FILE_TYPE", "ScanPatterns", "ScanProduct", "register_plugins"]

# Name of the plugins, as ptychodus' `file_type`.
FILE_TYPE = "ptychonnx"
# Stands for an unknown pixel of the detector: the object's pixels depend on its ratio to the distance alone.
_NOMINAL_DETECTOR_PIXEL = 75e-6
_COMMENT = "Read by ptychonnx; unknown parameters of the experiment are 0."
_NOMINAL = "The distance is not in the file: it is that of a detector with pixels of 75 um."


class ScanPatterns(DiffractionFileReader):
    """The patterns of a scan, as counts, in any format that `ptychonnx.read_scan` reads."""

    def read(self, file_path: Path) -> DiffractionDataset:
        """Read all patterns. Raises `ptychonnx.InputError` if the file cannot be read as a scan."""
        scan = ptychonnx.read_scan(file_path)
        geometry = _Geometry.of(scan, file_path)
        counts = np.square(np.asarray(scan.diffraction, dtype=np.float32))
        metadata = DiffractionMetadata(
            num_patterns_per_array=[len(scan)],
            pattern_dtype=counts.dtype,
            detector_extent=ImageExtent(width_px=scan.size, height_px=scan.size),
            detector_distance_m=geometry.distance,
            detector_pixel_geometry=PixelGeometry(geometry.detector_pixel, geometry.detector_pixel),
            photon_energy_eV=geometry.energy,
            file_path=file_path,
        )
        tree = DiffractionDatasetLayoutNode.create_root()
        tree.add_child("counts", str(counts.dtype), str(counts.shape))
        array = SimpleDiffractionArray(scan.name, np.arange(len(scan)), counts)
        bad_pixels = None if scan.mask is None else ~scan.mask
        return SimpleDiffractionDataset(metadata, tree, [array], bad_pixels=bad_pixels)


class ScanProduct(ProductFileReader, ProductFileWriter):
    """Positions, probe and object of a scan or of a reconstruction by ptychonnx; and products with plots.

    A product that is written has NXdata groups of amplitude and phase too, which silx and h5web plot on opening.
    """

    def read(self, file_path: Path) -> Product:
        """Read a scan, or the HDF5 file of `ptychonnx reconstruct`, whose forward misfit becomes the loss.

        Raises
        ------
        ptychonnx.InputError
            If the file is neither, or the pixel size is unknown.
        """
        if h5py.is_hdf5(file_path):
            with h5py.File(file_path) as file:
                is_reconstruction = {"object", "origin_px"} <= set(file)
                misfit = file["entry/misfit"].attrs["total"] if "entry/misfit" in file else None
                is_placed = "probe_position_x_m" in file
            if is_reconstruction:
                if not is_placed:
                    raise _unknown(file_path, "pixel size")
                losses = [] if misfit is None else [LossValue(1, float(misfit))]
                return replace(_with_distance(load_product(file_path)), losses=losses)
        scan = ptychonnx.read_scan(file_path)
        return _product(scan, _Geometry.of(scan, file_path))

    def write(self, file_path: Path, product: Product) -> None:
        """Write a product of ptychodus, and plots of the product of its layers."""
        save_product(file_path, product)
        layers = product.object_.get_array()
        whole = np.prod(layers, axis=0) if layers.ndim == 3 else layers
        geometry = product.object_.get_geometry()
        centre = np.array([geometry.center_y_m, geometry.center_x_m])
        rows, columns = whole.shape
        first_row, first_column = centre / geometry.pixel_width_m - (np.array(whole.shape) - 1) / 2
        with h5py.File(file_path, "r+") as file:
            plots = ObjectPlots(
                file.create_group("entry"),
                (rows, columns),
                (first_row, first_column),
                geometry.pixel_width_m,
                product.metadata.name,
                (rows, columns),
            )
            everything = slice(None)
            plots.write(everything, everything, whole, np.abs(whole))


def register_plugins(registry: PluginRegistry) -> None:
    """Register the readers and the writer with ptychodus."""
    products = ScanProduct()
    registry.diffraction_file_readers.register_plugin(
        ScanPatterns(),
        simple_name=FILE_TYPE,
        display_name="Scans Read by ptychonnx (*.npz *.h5 *.hdf5 *.cxi *.nxs *.ptyd *.mat)",
    )
    registry.register_product_file_reader_with_adapters(
        products,
        simple_name=FILE_TYPE,
        display_name="Scans and Objects of ptychonnx (*.h5 *.hdf5 *.npz *.cxi *.nxs *.ptyd *.mat)",
    )
    registry.product_file_writers.register_plugin(
        products, simple_name=FILE_TYPE, display_name="Products with Plots by ptychonnx (*.h5 *.hdf5)"
    )


@dataclass(frozen=True)
class _Geometry:
    """From which ptychodus computes the pixels of the object; in metres and electron volts."""

    pixel_size: float
    energy: float
    distance: float
    detector_pixel: float

    @classmethod
    def of(cls, scan: ptychonnx.Scan, path: Path) -> _Geometry:
        """That of a scan; a nominal detector at the distance that fits, if the distance is unknown."""
        if scan.pixel_size is None:
            raise _unknown(path, "pixel size")
        if scan.wavelength is None:
            raise _unknown(path, "wavelength")
        nominal = _nominal_distance(scan.pixel_size, scan.size, scan.wavelength)
        distance = scan.distance or nominal
        detector_pixel = _NOMINAL_DETECTOR_PIXEL * distance / nominal
        return cls(scan.pixel_size, wavelength_m_to_energy_eV(scan.wavelength), distance, detector_pixel)


def _nominal_distance(pixel_size: float, size: int, wavelength: float) -> float:
    return pixel_size * size * _NOMINAL_DETECTOR_PIXEL / wavelength


def _with_distance(product: Product) -> Product:
    """A product at the nominal distance, if its own is unknown: ptychodus shows no object of one without."""
    known, width = product.metadata, product.probes.width_px
    if known.detector_distance_m or not known.photon_energy_eV or not width:
        return product
    pixel_size = product.object_.get_pixel_geometry().width_m
    distance = _nominal_distance(pixel_size, width, energy_eV_to_wavelength_m(known.photon_energy_eV))
    comments = f"{known.comments} {_NOMINAL}"
    return replace(product, metadata=replace(known, detector_distance_m=distance, comments=comments))


def _product(scan: ptychonnx.Scan, geometry: _Geometry) -> Product:
    """A product with the known object of the scan, or vacuum."""
    pixel_size = geometry.pixel_size
    middles = scan.positions - (0.5 if scan.size % 2 == 0 else 0.0)
    whole, centre = _object(scan, middles)
    square = PixelGeometry(pixel_size, pixel_size)
    probe = np.zeros((1, 1, 0, 0), dtype=np.complex64) if scan.probe is None else scan.probe[None]
    metadata = ProductMetadata(
        name=scan.name,
        comments=_COMMENT if scan.distance else f"{_COMMENT} {_NOMINAL}",
        detector_distance_m=geometry.distance,
        photon_energy_eV=geometry.energy,
        probe_photon_count=float(np.sum(np.abs(probe) ** 2)),
        exposure_time_s=0.0,
        mass_attenuation_m2_per_kg=0.0,
        tomography_angle_deg=0.0,
    )
    positions = [
        ProbePosition(index, column * pixel_size, row * pixel_size)
        for index, (row, column) in enumerate(middles)
    ]
    return Product(
        metadata,
        ProbePositionSequence(positions),
        ProbeSequence(probe, None, square),
        Object(whole, square, ObjectCenter(x_m=centre[1] * pixel_size, y_m=centre[0] * pixel_size), []),
        [],
    )


def _object(
    scan: ptychonnx.Scan, middles: NDArray[np.float64]
) -> tuple[NDArray[np.complex64], NDArray[np.float64]]:
    """The object, and the (row, column) of its middle in pixels."""
    if scan.reference is not None:
        whole = scan.reference.object
        return whole, np.array(scan.reference.origin) + (np.array(whole.shape) - 1) / 2
    # On whole pixels of the scan, so that its own object has the same pixels.
    first, last = np.floor(scan.positions.min(axis=0)), np.ceil(scan.positions.max(axis=0))
    rows, columns = (last - first).astype(int) + scan.size
    return np.ones((rows, columns), dtype=np.complex64), first - scan.size // 2 + np.array(
        [rows - 1, columns - 1]
    ) / 2


def _unknown(path: Path, what: str) -> ptychonnx.InputError:
    return ptychonnx.InputError(
        f"{path}: the {what} is unknown, expected pixel size and wavelength in metres: ptychodus computes one from the "
        "other"
    )
