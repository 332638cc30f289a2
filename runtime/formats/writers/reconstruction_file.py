"""Reconstructions in the formats of other programs: ptychodus product (HDF5), CXI, NPZ, a pair of TIFF images.

HDF5 and CXI are written block by block, whatever the size of the object; the others need it whole.

HDF5
    `object` complex64 [rows, columns], `weight` float32, `origin_px` [2], the (row, column) of pixel [0, 0] in the
    coordinates of the scan; attributes `scan`, `weighting`, `contract` (empty without a network) and, if there were
    iterations, `refinement`. If the pixel size is known, the file is also a ptychodus product: positions in metres,
    x = column, y = row, of the geometric middle of a window; the probe [1, modes, N, N]; unknown parameters of the
    experiment are 0, as in ptychodus. `entry` plots amplitude, phase, misfit and, if it was asked for, uncertainty, see
    `ptychonnx.runtime.formats.writers.nxdata`.
CXI
    `entry_1/image_1` the probe, `entry_1/image_2` the object, `sample_1/geometry_1/translation` in metres, laid out as
    ptychodus expects; `entry_1/ptychonnx` has `origin_px`, `weight`, and the same attributes. `entry_1/amplitude`,
    `entry_1/phase`, `entry_1/misfit` and `entry_1/uncertainty` are plots.
NPZ
    `object`, `weight`, `origin` [2], `positions` [n, 2] (row, column) in pixels, `probe`, `pixel_size`, `wavelength`,
    `contract`, `weighting`, `scan`, `refinement`; if they are known, `misfit` of the patterns `misfit_pattern`, and
    `uncertainty_amplitude`, `uncertainty_phase`, `uncertainty_amplitude_95` and `uncertainty_phase_95`.
TIFF
    `<name>_amplitude.tif` and `<name>_phase.tif`, float32, phase in radians in (-pi, pi], with the resolution in pixels
    per centimetre; `<name>_amplitude_uncertainty.tif` and `<name>_phase_uncertainty.tif` if it was asked for.

`read_reference` reads all but TIFF. Pixels that no patch reached are 0, and NaN in the plots.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.atomic import atomic_path, check_output
from ptychonnx.runtime.contract import Contract
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.quantities import ENERGY_UNITS, energy_of_wavelength
from ptychonnx.runtime.formats.writers.new_hdf5 import new_hdf5
from ptychonnx.runtime.formats.writers.nxdata import ObjectPlots, write_misfit, write_uncertainty
from ptychonnx.runtime.paths import StrPath
from ptychonnx.runtime.reconstruction import Reconstruction
from ptychonnx.runtime.reconstruction.misfit import Misfit
from ptychonnx.runtime.reconstruction.stitching import Stitched, StitchedTiles
from ptychonnx.runtime.reconstruction.stitching.canvas import TILE
from ptychonnx.runtime.reconstruction.uncertainty import Uncertainty
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.forward_model import middle_to_centre

__all__ = [
    "ENDINGS",
    "ENDINGS_OF_TILES",
    "Product",
    "check_ending",
    "check_product",
    "write_product",
    "write_reconstruction",
]

ENDINGS_OF_TILES = (".h5", ".hdf5", ".cxi")
ENDINGS = (*ENDINGS_OF_TILES, ".npz", ".tif", ".tiff")
_CXI_VERSION = 160
# Of the complex object and its weight.
_BYTES_PER_PIXEL = 12


@dataclass(frozen=True)
class Product:
    """A reconstruction and its origin."""

    stitched: Stitched | StitchedTiles  # the object, its weight and its place on the canvas
    scan: Scan  # source of positions, probe, pixel size and wavelength
    # Stitching weights, and the contract of the artifact as JSON; empty without a network.
    weighting: str
    contract: str
    refinement: str = ""  # description of the iterations; empty if there were none
    misfit: Misfit | None = None  # how well the object explains the patterns, if that is known
    # How far the object may be from the true one, if that was asked for.
    uncertainty: Uncertainty | None = None

    def metres(self) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Middles of the windows [n, 2] and of the object [2], (row, column) in metres, if the pixel size is known."""
        pixel = self.scan.pixel_size
        if pixel is None:
            return None
        middle_of_object = np.array(self.stitched.origin) + (np.array(self.stitched.shape) - 1) / 2
        return (self.scan.positions - middle_to_centre(self.scan.size)) * pixel, middle_of_object * pixel


def check_ending(path: StrPath) -> None:
    """Refuse a name whose ending is not one of `ENDINGS`, before any work is done.

    Raises InputError if the ending is unknown.
    """
    if Path(path).suffix not in ENDINGS:
        raise InputError(f"{path}: expected a name that ends in {', '.join(ENDINGS)}")


def check_product(path: StrPath, shape: tuple[int, int] = (0, 0)) -> None:
    """Check before any work that an object of a shape (rows, columns) can be written to `path`.

    Raises InputError if the ending is unknown, or the folder is not writable. Raises EnvironmentFailure if the disk has
    too little space.
    """
    check_ending(path)
    check_output(path, _BYTES_PER_PIXEL * shape[0] * shape[1])


def write_product(path: StrPath, product: Product) -> list[Path]:
    """Write a reconstruction atomically, in the format that the ending names.

    Raises InputError if the ending is unknown, the file cannot be written, or the format needs the whole object and it
    is kept in tiles.

    Returns the files that were written.
    """
    path = Path(path)
    check_ending(path)
    if path.suffix in (".tif", ".tiff"):
        return _write_tiff(path, product)
    write = {".npz": _write_npz, ".cxi": _write_cxi}.get(path.suffix, _write_hdf5)
    with atomic_path(path) as partial:
        write(partial, product)
    return [path]


def write_reconstruction(
    path: StrPath, reconstruction: Reconstruction, scan: Scan, contract: Contract | None
) -> list[Path]:
    """Write the result of `reconstruct` in the format that the ending of `path` names, see `write_product`.

    `contract`: of the network; None if iterations started from vacuum.
    """
    scan = scan.settled()
    if reconstruction.probe is not None:
        scan = replace(scan, probe=reconstruction.probe)
    product = Product(
        reconstruction.stitched,
        scan,
        reconstruction.weighting,
        "" if contract is None else contract.to_json(),
        reconstruction.refinement,
        reconstruction.misfit,
        reconstruction.uncertainty,
    )
    return write_product(Path(path), product)


def is_reconstruction(path: Path) -> bool:
    """Whether a file is an HDF5 file that `write_reconstruction` wrote."""
    try:
        with h5py.File(path) as file:
            return "contract" in file.attrs and "origin_px" in file
    except OSError:
        return False


def _write_hdf5(path: Path, product: Product) -> None:
    scan, metres = product.scan, product.metres()
    with new_hdf5(path) as file:
        stored = _write_object(product, file, "object", file, file.create_group("entry"))
        _write_history(file, product)
        if metres is None or scan.pixel_size is None:
            return
        file["pixel_size_m"] = scan.pixel_size
        file["pixel_size_m"].attrs["units"] = "m"
        positions, centre = metres
        stored.attrs["center_y_m"], stored.attrs["center_x_m"] = centre
        file["probe"] = _probe(scan)
        for dataset in (stored, file["probe"]):
            dataset.attrs["pixel_width_m"] = dataset.attrs["pixel_height_m"] = scan.pixel_size
        file["probe_position_indexes"] = np.arange(len(scan))
        file["probe_position_y_m"], file["probe_position_x_m"] = positions.T
        file["object_layer_spacing_m"] = np.zeros(0)
        file["loss_epochs"], file["loss_values"] = np.zeros(0, dtype=np.int64), np.zeros(0)
        unknown = ("exposure_time_s", "mass_attenuation_m2_per_kg", "tomography_angle_deg")
        numbers = dict.fromkeys((*unknown, "focus_object_distance_m", "tilt_angle_deg"), 0.0)
        # ptychodus shows no object of a product whose pixel size does not follow from the distance.
        numbers["detector_object_distance_m"] = scan.distance or 0.0
        numbers["photon_energy_eV"] = (
            0.0 if scan.wavelength is None else energy_of_wavelength(scan.wavelength) / ENERGY_UNITS["eV"]
        )
        numbers["probe_photon_count"] = scan.flux
        file.attrs.update(numbers)
        file.attrs["far_field"] = True
        file.attrs["name"] = scan.name
        file.attrs["comments"] = "Written by ptychonnx; unknown parameters of the experiment are 0."


def _write_cxi(path: Path, product: Product) -> None:
    scan, metres = product.scan, product.metres()
    with new_hdf5(path) as file:
        file["cxi_version"] = _CXI_VERSION
        entry = file.create_group("entry_1")
        entry["title"] = scan.name
        source = entry.create_group("instrument_1/source_1")
        if scan.wavelength is not None:
            source["energy"] = energy_of_wavelength(scan.wavelength)
        probe = _probe(scan)
        entry.create_group("image_1").create_dataset(
            "data", data=probe, compression="gzip" if probe.size else None
        )
        history = entry.create_group("ptychonnx")
        _write_object(product, entry.create_group("image_2"), "data", history, entry)
        _write_history(history, product)
        for name, title in (("image_1", "probe"), ("image_2", "object")):
            image = entry[name]
            image["title"] = title
            image["data_space"] = "real"
            image["source_1"] = h5py.SoftLink("/entry_1/instrument_1/source_1")
            if scan.pixel_size is not None:
                image["image_size"] = [scan.pixel_size * length for length in image["data"].shape[:-3:-1]] + [
                    0.0
                ]
        if metres is None:
            return
        positions, centre = metres
        entry["sample_1/geometry_1/translation"] = np.column_stack(
            [positions[:, ::-1], np.zeros(len(positions))]
        )
        entry["data_1/translation"] = h5py.SoftLink("/entry_1/sample_1/geometry_1/translation")
        extra = entry.create_group("ptychodus")
        for kind in ("probe", "object"):
            extra[f"{kind}_pixel_width_m"] = extra[f"{kind}_pixel_height_m"] = scan.pixel_size
        extra["object_center_y_m"], extra["object_center_x_m"] = centre
        extra["probe_position_indexes"] = np.arange(len(scan))
        extra["probe_photon_count"] = scan.flux


def _write_npz(path: Path, product: Product) -> None:
    scan, stitched = product.scan, product.stitched
    known: dict[str, Any] = {
        "probe": scan.probe,
        "pixel_size": scan.pixel_size,
        "wavelength": scan.wavelength,
    }
    if product.misfit is not None:
        known |= {"misfit": product.misfit.per_pattern, "misfit_pattern": product.misfit.patterns}
    if product.uncertainty is not None:
        maps = ("amplitude", "phase", "amplitude_95", "phase_95")
        known |= {f"uncertainty_{name}": getattr(product.uncertainty, name) for name in maps}
    np.savez_compressed(
        path,
        allow_pickle=False,
        object=stitched.object.astype(np.complex64),
        weight=stitched.weight.astype(np.float32),
        origin=np.asarray(stitched.origin, dtype=np.float64),
        positions=scan.positions,
        weighting=np.array(product.weighting),
        contract=np.array(product.contract),
        scan=np.array(scan.name),
        refinement=np.array(product.refinement),
        **{key: np.asarray(value) for key, value in known.items() if value is not None},
    )


def _write_tiff(path: Path, product: Product) -> list[Path]:
    # Imported here, since reading and running need no image library.
    import tifffile

    pixel = product.scan.pixel_size
    resolution = None if pixel is None else (1e-2 / pixel, 1e-2 / pixel)
    written = []
    whole = product.stitched.object
    images = {"amplitude": np.abs(whole), "phase": np.angle(whole)}
    if (uncertainty := product.uncertainty) is not None:
        images |= {"amplitude_uncertainty": uncertainty.amplitude, "phase_uncertainty": uncertainty.phase}
    for name, image in images.items():
        one = path.with_name(f"{path.stem}_{name}{path.suffix}")
        with atomic_path(one) as partial:
            tifffile.imwrite(
                partial,
                image.astype(np.float32),
                photometric="minisblack",
                resolution=resolution,
                resolutionunit="NONE" if pixel is None else "CENTIMETER",
                description=", ".join(
                    filter(None, (f"{name} of {product.scan.name}", product.refinement, "ptychonnx"))
                ),
            )
        written.append(one)
    return written


def _write_object(
    product: Product, group: h5py.Group, name: str, weight_group: h5py.Group, entry: h5py.Group
) -> h5py.Dataset:
    """Write the object, its weight and its plots in chunks as large as tiles; empty chunks take no space."""
    stitched, scan = product.stitched, product.scan
    chunks = tuple(min(length, TILE) for length in stitched.shape)
    stored = group.create_dataset(name, stitched.shape, np.complex64, chunks=chunks, compression="gzip")
    weight = weight_group.create_dataset(
        "weight", stitched.shape, np.float32, chunks=chunks, compression="gzip"
    )
    plots = ObjectPlots(entry, stitched.shape, stitched.origin, scan.pixel_size, scan.name, chunks)
    for block in stitched.blocks():
        stored[block.rows, block.columns] = block.object
        weight[block.rows, block.columns] = block.weight
        plots.write(block.rows, block.columns, block.object, block.weight)
    if product.misfit is not None:
        write_misfit(entry, product.misfit, scan.pixel_size, scan.name)
    if product.uncertainty is not None:
        write_uncertainty(entry, product.uncertainty, stitched.origin, scan.pixel_size, scan.name)
    return stored


def _write_history(group: h5py.Group, product: Product) -> None:
    group["origin_px"] = np.asarray(product.stitched.origin, dtype=np.float64)
    group["origin_px"].attrs["description"] = "(row, column) of pixel [0, 0] in the coordinates of the scan"
    group.attrs["scan"] = product.scan.name
    group.attrs["weighting"] = product.weighting
    group.attrs["contract"] = product.contract
    if product.refinement:
        group.attrs["refinement"] = product.refinement


def _probe(scan: Scan) -> NDArray[np.complex64]:
    """[1, modes, N, N]; without pixels if unknown, as in ptychodus."""
    if scan.probe is None:
        return np.zeros((1, 1, 0, 0), dtype=np.complex64)
    return scan.probe[None].astype(np.complex64)
