"""A network of ptychonnx behind the interface `TrainableReconstructor` of ptychodus."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ptychodus.api.io import save_training_data
from ptychodus.api.reconstruct import ReconstructInput, ReconstructOutput, TrainableReconstructor, TrainOutput

import ptychonnx
from ptychodus_ptychonnx.products import read_input, with_object, write_input
from ptychodus_ptychonnx.training import train_network
from ptychonnx.runtime.progress import Callback, ProgressUpdate

if TYPE_CHECKING:
    from ptychodus_ptychonnx.library import NetworkSettings

__all__ = ["NetworkReconstructor", "TaskMonitor"]

logger = logging.getLogger("ptychonnx")


class TaskMonitor(Protocol):
    """What is used of the task monitor of ptychodus."""

    @property
    def is_stopping(self) -> bool:
        """Whether the user asked for the end."""

    def update_progress(self, progress: int, progress_goal: int) -> None:
        """Show progress."""


class _Cancelled(Exception):
    """The user asked for the end before there was an object."""


class NetworkReconstructor(TrainableReconstructor):
    """The network that is loaded; until then, the general network of the zoo for patterns of this size.

    There is no object before the last pattern, so that `reconstruct` yields once. Progress goes to the task monitor,
    which is asked for the end between batches of patterns and between epochs.
    """

    def __init__(self, settings: NetworkSettings, monitor: TaskMonitor) -> None:
        self._settings = settings
        self._monitor = monitor
        self._session: ptychonnx.Session | None = None
        self._path: Path | None = None

    @property
    def name(self) -> str:
        """Key of the reconstructor, in the name of the algorithm."""
        return "Network"

    def get_progress_goal(self) -> int:
        """Number of outputs of `reconstruct`."""
        return 1

    def reconstruct(self, parameters: ReconstructInput) -> Iterator[ReconstructOutput]:
        """Yield the product with the object of the network, refined if that is set.

        If the user cancels while the network runs, nothing is yielded. Epochs of mPIE end after the current one.
        """
        with tempfile.TemporaryDirectory(prefix="ptychonnx-") as name:
            folder = Path(name)
            write_input(folder, parameters)
            stitched = folder / "object.h5"
            try:
                result = ptychonnx.reconstruct(
                    self._session,
                    read_input(folder, parameters),
                    out=stitched,
                    provider=self._settings.provider.get_value(),
                    refine=self._settings.epochs.get_value(),
                    progress=Callback(self._report),
                    until=lambda misfits: self._monitor.is_stopping,
                )
            except _Cancelled:
                return
            if self._monitor.is_stopping and result.refinement:
                logger.warning("Cancelled, and the object so far is kept: %s", result.refinement)
            misfit = None if result.misfit is None else result.misfit.value
            product = with_object(parameters.product, stitched, misfit)
        yield ReconstructOutput(product, progress=1)

    def is_model_loaded(self) -> bool:
        """Always: the general network of the zoo needs no file."""
        return True

    def get_model_file_filter(self) -> str:
        """Models are artifacts of ptychonnx."""
        return "ONNX Artifacts (*.onnx)"

    def get_model_file_extension(self) -> str:
        """Ending of an artifact."""
        return ".onnx"

    def load_model_from_file(self, file_path: Path) -> None:
        """Open an artifact. Raises `ptychonnx.InputError` if it cannot be used."""
        session = ptychonnx.Session(file_path, self._settings.provider.get_value())
        if self._session is not None:
            self._session.close()
        self._session, self._path = session, file_path

    def save_model(self, file_path: Path) -> None:
        """Copy the artifact that is loaded."""
        if self._path is None:
            raise RuntimeError("no model was loaded or trained, expected one to save")
        shutil.copyfile(self._path, file_path)

    def get_training_data_file_filter(self) -> str:
        """Training data are the HDF5 files of ptychodus."""
        return "Ptychodus Training Data Files (*.h5)"

    def export_training_data(self, file_path: Path, parameters: ReconstructInput) -> None:
        """Write patterns, positions and probe for `train`."""
        save_training_data(file_path, parameters)

    def train(self, input_path: Path, output_path: Path) -> Iterator[TrainOutput]:
        """Train on the files of a folder, and load the artifact `model.onnx`, which is written next to the run.

        A training that is cancelled continues when it is started again with the same folders.
        """
        artifact = yield from train_network(self._settings, self._monitor, input_path, output_path)
        if artifact is not None:
            self.load_model_from_file(artifact)

    def _report(self, update: ProgressUpdate) -> None:
        # The epochs after the network end by themselves, and leave its object.
        if self._monitor.is_stopping and update.unit != "epochs":
            raise _Cancelled
        if update.total:
            self._monitor.update_progress(update.done, update.total)
