"""What a `ptychonnx reconstruct` command asks for, and which requests contradict themselves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ptychonnx.harness.campaign.scan_run import RunOptions
from ptychonnx.harness.cli.shared_options import DivisionOptions, check_inference
from ptychonnx.runtime.atomic import check_output
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.writers.patches_file import check_patches_file
from ptychonnx.runtime.formats.writers.reconstruction_file import check_product
from ptychonnx.runtime.inference.inference_options import InferenceOptions
from ptychonnx.runtime.reconstruction.reconstruct_options import PositionOptions
from ptychonnx.runtime.sharding import Shard

__all__ = ["ReconstructRequest", "divided_files"]


def divided_files(files: list[Path], out: Path) -> tuple[Path | None, list[Path]]:
    """The artifact, if the first file is one, and the scans."""
    if files[0].suffix == ".onnx" or (len(files) == 2 and not _is_folder(out)):
        return files[0], files[1:]
    return None, files


def _is_folder(out: Path) -> bool:
    """Whether an output is a folder for the objects of several scans: it is one, or its name has no ending."""
    return out.is_dir() or not out.suffix


@dataclass(frozen=True)
class ReconstructRequest:
    """Inputs, outputs and division of a reconstruction; attributes are the arguments and options of the command."""

    artifact: Path | None
    scans: list[Path]
    out: Path
    picture: Path | None
    patches: Path | None
    server: str | None
    division: DivisionOptions

    @property
    def many(self) -> bool:
        """Whether objects go to a folder, each with the name of its scan."""
        return len(self.scans) > 1 or _is_folder(self.out)

    @property
    def part(self) -> Shard | None:
        """The part of the scan to reconstruct; None for the whole of it."""
        return None if self.division.shard is None else Shard.parse(self.division.shard)

    def check(self, options: RunOptions) -> None:
        """Refuse options that contradict each other, before anything is read.

        Raises InputError with the option, and what is expected with it or instead of it.
        """
        inference, iterations = options.inference, options.iterations
        for option, is_set in (
            ("--positions-out", options.positions.positions_out is not None),
            ("--position-bound", options.positions.position_bound != PositionOptions().position_bound),
        ):
            if is_set and not options.positions.correct_positions:
                raise InputError(
                    f"{option}: positions stay as they are, expected --correct-positions with it"
                )
        divided = self.division.shard or (self.division.executor and not self.many)
        by_default = iterations.refine is None and not (self.artifact or self.server or divided)
        iterations.check_used(run=bool(iterations.refine or iterations.iterations or by_default))
        if iterations.iterations:
            self._check_without_network(options)
        if not self.scans or (self.artifact and self.server):
            count = len(self.scans) + (self.artifact is not None)
            either = "a scan, or an artifact (or --server URL) and a scan"
            expected = "scans alone with --server" if self.server else either
            raise InputError(f"reconstruct: got {count} files, expected {expected}")
        if options.uncertainty and iterations.refine:
            raise InputError(
                "--uncertainty: is that of the object of the network, expected no --refine with it"
            )
        check_inference(inference, [self.server] if self.server else None)
        for reason in self._contradictions(options):
            raise InputError(reason)
        if not self.many:
            check_product(self.out)
        if self.picture is not None:
            check_output(self.picture)
        if self.patches is not None:
            check_patches_file(self.patches)
        if options.positions.positions_out is not None:
            check_output(options.positions.positions_out)

    def _check_without_network(self, options: RunOptions) -> None:
        """Refuse what belongs to a network beside iterations that start from vacuum."""
        stitching, division = options.stitching, self.division
        if self.artifact is not None:
            raise InputError(
                f"{self.artifact}: --iterations start from vacuum, expected no artifact, or --refine instead"
            )
        for option, is_set in (
            ("--server", self.server is not None),
            ("--provider", options.inference.provider != InferenceOptions().provider),
            ("--batch", options.inference.batch != InferenceOptions().batch),
            ("--refine", bool(options.iterations.refine)),
            ("--patches", self.patches is not None),
            ("--correct-positions", options.positions.correct_positions is not None),
            ("--uncertainty", options.uncertainty),
            ("--fit-patterns", options.fit_patterns),
            ("--shard", division.shard is not None),
            ("--executor", division.executor is not None and not self.many),
            ("--weighting", stitching.weighting is not None),
            ("--placement", stitching.placement is not None),
            ("--synchronise", stitching.synchronise is not None),
            ("--skip-invalid", stitching.skip_invalid),
        ):
            if is_set:
                raise InputError(
                    f"{option}: belongs to a network, and --iterations start from vacuum without one: expected one of "
                    "them"
                )

    def _contradictions(self, options: RunOptions) -> Iterator[str]:
        if self.division.shard or (self.division.executor and not self.many):
            # Each process reads the scan itself.
            for option, is_set in (
                ("--estimate-probe", options.estimate_probe),
                ("--fit-patterns", options.fit_patterns),
                ("--correct-positions", options.positions.correct_positions is not None),
                ("--uncertainty", options.uncertainty),
            ):
                if is_set:
                    yield f"{option}: is for a scan that one process reconstructs, expected no parts of it"
        if self.division.shards is not None and (self.division.executor is None or self.many):
            yield "--shards: is for one scan with --executor"
        if self.patches is not None and (self.division.executor or self.division.shard or self.many):
            yield "--patches: is for one scan in this process, expected no --executor, --shard or folder"
        if self.division.executor is not None and (self.server or self.division.shard):
            option = "--server" if self.server else "--shard"
            yield f"{option}: a command with --executor divides the work itself, expected one of them"
        if self.many:
            if not _is_folder(self.out):
                yield f"{self.out}: is a file, expected a folder for the objects of {len(self.scans)} scans"
            for option, value in (
                ("--picture", self.picture),
                ("--shard", self.division.shard),
                ("--positions-out", options.positions.positions_out),
            ):
                if value is not None:
                    yield f"{option}: is for one scan, expected a file for --out and one scan with it"
        folders = [scan for scan in self.scans if scan.is_dir()]
        if folders and not self.division.watch:
            yield f"{folders[0]}: is a folder, expected scans such as {folders[0] / '*.h5'}, or --watch"
        if self.division.watch and not (self.many and self.scans == folders and len(folders) == 1):
            yield f"--watch: {self.scans[0]} and --out, expected a folder of scans and one for their objects"
        if self.division.watch and self.scans[0].resolve() == self.out.resolve():
            yield f"--out {self.out}: is the folder that is watched for scans, expected another one for their objects"
        if self.part is not None:
            if self.out.suffix != ".h5":
                yield f"{self.out}: is a part of an object, expected a name that ends in .h5"
            for option, is_set in (
                ("--picture", self.picture is not None),
                ("--refine", bool(options.iterations.refine)),
            ):
                if is_set:
                    yield f"{option}: takes the whole object, which has to be merged from its parts first"
            if options.inference.batch is None:
                yield "--batch auto: may differ between the parts of a scan, expected a number with --shard"
        if self.patches is not None and options.positions.correct_positions:
            yield "--patches: are those at the recorded positions, expected no --correct-positions with it"
