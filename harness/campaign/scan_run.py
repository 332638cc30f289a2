"""Reconstruction of one scan: the steps that the command line, the library and worker processes share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from ptychonnx.harness.iterative.iteration_options import IterationOptions
from ptychonnx.harness.iterative.iterations import (
    MOST_EPOCHS,
    Epochs,
    check_iterative,
    obstacle_to_iterations,
)
from ptychonnx.harness.iterative.probe_estimate import with_estimated_probe
from ptychonnx.harness.iterative.refinement import refine
from ptychonnx.harness.uncertainty.calibration import calibration_for, installed
from ptychonnx.harness.uncertainty.estimate import with_uncertainty
from ptychonnx.harness.uncertainty.spread import symmetries_of
from ptychonnx.runtime.errors import InputError, VerificationError
from ptychonnx.runtime.formats import ReadOptions, read_scan
from ptychonnx.runtime.formats.conversion.other_size import with_pattern_size
from ptychonnx.runtime.formats.writers.reconstruction_file import (
    ENDINGS_OF_TILES,
    check_product,
    write_reconstruction,
)
from ptychonnx.runtime.inference import Predictor, Session, tuned
from ptychonnx.runtime.inference.general_artifact import general_artifact
from ptychonnx.runtime.inference.inference_options import InferenceOptions
from ptychonnx.runtime.progress import SILENT, Progress
from ptychonnx.runtime.reconstruction import Reconstruction, reconstruct
from ptychonnx.runtime.reconstruction.position_correction import (
    PositionCorrection,
    reconstruct_with_positions,
)
from ptychonnx.runtime.reconstruction.reconstruct_options import PositionOptions, ReconstructOptions
from ptychonnx.runtime.reconstruction.stitching import check_whole, whole_shape
from ptychonnx.runtime.reconstruction.trust import beam_warnings
from ptychonnx.runtime.scan import Scan

__all__ = ["Networks", "RunOptions", "ScanRun", "check_beam", "reconstruct_scan"]


class RunOptions(BaseModel):
    """How scans are read and reconstructed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    inference: InferenceOptions = InferenceOptions()
    stitching: ReconstructOptions = ReconstructOptions()
    positions: PositionOptions = PositionOptions()
    iterations: IterationOptions = IterationOptions()
    reading: ReadOptions = ReadOptions()
    probe: Path | None = None
    estimate_probe: bool = False
    fit_patterns: bool = False
    uncertainty: bool = False

    def absolute(self) -> RunOptions:
        """The same options with absolute paths, for processes in other folders."""
        companion = self.reading.companion
        reading = self.reading.model_copy(update={"companion": companion and companion.absolute()})
        return self.model_copy(update={"reading": reading, "probe": self.probe and self.probe.absolute()})

    def with_refinement(self, default: Epochs) -> RunOptions:
        """The same options with a number of epochs after the network, if none was chosen."""
        if self.iterations.refine is not None:
            return self
        return self.model_copy(update={"iterations": self.iterations.model_copy(update={"refine": default})})

    def read(self, path: Path) -> Scan:
        """Read a scan; the power of its probe is estimated, if it is unknown."""
        return read_scan(path, probe=self.probe, options=self.reading, estimate_probe=True)

    def prepared(
        self,
        scan: Scan,
        networks: Networks,
        progress: Progress = SILENT,
        say: Callable[[str], None] = lambda line: None,
    ) -> tuple[Predictor, Scan]:
        """The network for a scan, and the scan with an estimated probe and patterns of another size if that is wanted.

        Raises InputError if the zoo has no network for the scan, or its probe is known already. Raises
        VerificationError if no estimate of the probe explains the patterns.

        `say`: receives a line about each change of the scan.
        """
        scan = self.with_probe(scan, progress, say)
        network = networks.for_scan(scan, any_size=self.fit_patterns)
        if self.fit_patterns and scan.size != network.contract.n:
            scan, text = with_pattern_size(scan, network.contract.n)
            say(text)
        return network, scan

    def with_probe(
        self, scan: Scan, progress: Progress = SILENT, say: Callable[[str], None] = lambda line: None
    ) -> Scan:
        """The scan with an estimated probe if that is wanted; see `prepared`."""
        if self.estimate_probe:
            scan, text = with_estimated_probe(scan, progress)
            say(text)
        return scan


class Networks:
    """Networks by which scans are reconstructed; each is loaded once, and closed at the end of a `with` block.

    `model`: the argument of this name.
    """

    def __init__(
        self,
        model: Predictor | Path | None,
        inference: InferenceOptions | None = None,
        threads: int | None = None,
    ) -> None:
        """Open the network.

        Raises InputError if the artifact cannot be used.

        * `model`: a network that is open and stays so; an artifact; or None for the general network of the zoo that
          fits each scan.
        * `inference`: where the networks run, and in which batch.
        * `threads`: threads of each session, see `Session`.
        """
        self._inference = inference or InferenceOptions()
        self._threads = threads
        self._opened: dict[Path, Session] = {}
        self._tuned: dict[str, tuple[Session, int]] = {}
        self.model = model
        self._network = self._open(model) if isinstance(model, Path) else model

    def __enter__(self) -> Networks:
        return self

    def __exit__(self, *_: object) -> None:
        for session in (*self._opened.values(), *(session for session, _ in self._tuned.values())):
            session.close()

    def for_scan(self, scan: Scan, *, any_size: bool = False) -> Predictor:
        """The network for a scan; of another size of pattern too if `any_size`."""
        return self._network or self._open(general_artifact(scan, any_size=any_size))

    def in_batches(self, network: Predictor, scan: Scan) -> tuple[Predictor, int]:
        """The network, with its best number of threads if the batch is to be found by trials, and the batch.

        Raises InputError if the batch is to be found for a network on a server.
        """
        batch = self._inference.batch
        if batch is not None:
            return network, batch
        if not isinstance(network, Session):
            raise InputError(f"{network.name}: batch is 'auto', expected a number for a network on a server")
        if network.source not in self._tuned:
            self._tuned[network.source] = tuned(network, scan)
        return self._tuned[network.source]

    def _open(self, path: Path) -> Session:
        if path not in self._opened:
            self._opened[path] = Session(path, self._inference.provider, self._threads)
        return self._opened[path]


@dataclass(frozen=True)
class ScanRun:
    """A scan that was reconstructed.

    * `scan`: the scan as the network took it, with its positions corrected if that was wanted.
    * `result`: the object, after the iterations if there were any.
    * `network`, `stitched`: the network that ran, and its object before the iterations; None if they started from
      vacuum.
    * `files`: the files that were written.
    * `positions`: what the patches say about the positions, if that was wanted.
    """

    scan: Scan
    result: Reconstruction
    network: Predictor | None = None
    stitched: Reconstruction | None = None
    files: tuple[Path, ...] = ()
    positions: PositionCorrection | None = None


def reconstruct_scan(
    networks: Networks,
    scan: Scan,
    options: RunOptions,
    out: Path | None = None,
    progress: Progress = SILENT,
    *,
    warn: Callable[[str], None] = lambda line: None,
    whole: Sequence[str] = (),
    stitch: Callable[[Predictor, Scan, int, Progress], Reconstruction] | None = None,
    until: Callable[[Sequence[float]], bool] = lambda misfits: False,
) -> ScanRun:
    """Reconstruct a scan, correct its positions and refine its object if that is wanted, and write it.

    Raises InputError if the scan does not fit the network, or with `strict` if the network does not know it. Raises
    VerificationError if the patch of a pattern is not finite, or with `strict` if the object does not explain the
    patterns.

    * `networks`: not used if the options ask for iterations from vacuum.
    * `out`: file for the object; nothing is written if None.
    * `warn`: receives a line about each change of the scan, and about each property that the network does not know,
      before it runs.
    * `whole`: other outputs that take the whole object, by the names under which they are refused if it is kept in
      tiles.
    * `stitch`: reconstructs the scan with a network, in a batch; in this process if None.
    * `until`: called after each epoch of the iterations with the misfits so far; they end if it returns True.
    """
    iterations = options.iterations
    if iterations.iterations:
        scan = options.with_probe(scan, progress, warn)
        _check_canvas(scan, options, out, whole)
        check_iterative(scan)
        run = ScanRun(scan, _iterated(scan, None, iterations.iterations, options, progress, until))
    else:
        network, scan = options.prepared(scan, networks, progress, warn)
        _check_canvas(scan, options, out, whole)
        if iterations.refine:
            check_iterative(scan)
        run = _stitched(networks, network, scan, options, progress, warn, stitch)
        if epochs := _refinement(networks, scan, options):
            try:
                run = replace(run, result=_iterated(run.scan, run.result, epochs, options, progress, until))
            except VerificationError as error:
                if iterations.refine is not None:
                    raise
                # Nobody asked for them, so they must not cost the object.
                warn(f"{error}; the object of the network is kept as it is")
    result = run.result
    if options.stitching.strict:
        is_wrong = result.misfit is not None and result.misfit.verdict == "wrong"
        if reason := str(result.misfit) if is_wrong else result.position_doubt:
            raise VerificationError(f"--strict: {out or scan.name} was not written: {reason}")
    if out is None:
        return run
    contract = None if run.network is None else run.network.contract
    return replace(run, files=tuple(write_reconstruction(out, result, run.scan, contract)))


def _stitched(
    networks: Networks,
    network: Predictor,
    scan: Scan,
    options: RunOptions,
    progress: Progress,
    warn: Callable[[str], None],
    stitch: Callable[[Predictor, Scan, int, Progress], Reconstruction] | None,
) -> ScanRun:
    """Reconstruct a scan with a network, with corrected positions and uncertainty if that is wanted."""
    stitching = options.stitching
    check_beam(network, scan, stitching, warn)
    symmetries = symmetries_of(network, scan) if options.uncertainty else ()
    if symmetries and not calibration_for(network.contract)[1]:
        names = ", ".join(f"zoo:{name}" for name in installed())
        warn(
            f"uncertainty: its intervals are calibrated for {names}, and not for {network.name}: what share of the "
            "errors they hold is unknown"
        )
    network, batch = networks.in_batches(network, scan)
    correction, model = None, options.positions.correct_positions
    if stitch is not None:
        result = stitch(network, scan, batch, progress)
    else:
        progress.stage(f"Reconstructing {scan.name}", len(scan), "patterns")
        if model is None:
            result = reconstruct(network, scan, stitching, batch, progress)
        else:
            bound = options.positions.position_bound
            scan, result, correction = reconstruct_with_positions(
                network, scan, stitching, batch, progress, model=model, bound=bound
            )
    if symmetries:
        result = with_uncertainty(network, scan, result, symmetries, stitching, batch, progress)
    return ScanRun(scan, result, network, result, positions=correction)


def _refinement(networks: Networks, scan: Scan, options: RunOptions) -> Epochs:
    """Epochs that follow the network: as many as were asked for.

    If the user chose neither their number nor the network, the object is wanted and not that of a certain network, and
    the epochs that explain the patterns follow where they can.
    """
    if options.iterations.refine is not None:
        return options.iterations.refine
    if networks.model is not None or options.uncertainty or obstacle_to_iterations(scan):
        return 0
    is_whole = all(whole_shape(scan.positions, scan.size, options.stitching.canvas_bytes))
    return "auto" if is_whole else 0


def _iterated(
    scan: Scan,
    start: Reconstruction | None,
    epochs: Epochs,
    options: RunOptions,
    progress: Progress,
    until: Callable[[Sequence[float]], bool],
) -> Reconstruction:
    """Iterate on a scan, from the object of a network or from vacuum."""
    verb = "Reconstructing" if start is None else "Refining"
    progress.stage(f"{verb} {scan.name}", MOST_EPOCHS if epochs == "auto" else epochs, "epochs")
    return refine(scan, start, epochs, options.iterations.algorithm, progress, until=until)


def _check_canvas(scan: Scan, options: RunOptions, out: Path | None, whole: Sequence[str]) -> None:
    """Refuse outputs and options that take the whole object, if it is kept in tiles."""
    memory = options.stitching.canvas_bytes
    consumers = [
        *whole,
        *(f"--{name}" for name in ("iterations", "refine") if getattr(options.iterations, name)),
    ]
    consumers += ["--correct-positions"] if options.positions.correct_positions else []
    consumers += ["--uncertainty"] if options.uncertainty else []
    if out is not None:
        consumers += [] if out.suffix in ENDINGS_OF_TILES else [str(out)]
        check_product(out, whole_shape(scan.positions, scan.size, memory))
    for consumer in consumers:
        check_whole(scan.positions, scan.size, memory, f"{consumer}: takes the whole object")


def check_beam(
    network: Predictor, scan: Scan, stitching: ReconstructOptions, warn: Callable[[str], None]
) -> None:
    """Say what of the scan is unknown to the network; refuse it if the options are strict."""
    unknown = beam_warnings(scan, network.contract)
    for line in unknown:
        warn(line)
    if unknown and stitching.strict:
        raise InputError(f"--strict: {network.name} does not know this scan: {unknown[0]}")
