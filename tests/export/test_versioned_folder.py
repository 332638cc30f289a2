"""Versions appear complete, errors restore the previous state, and old versions are removed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ptychonnx.export.deploy import versioned_folder as folder
from ptychonnx.export.deploy.deploy_options import DeployOptions
from ptychonnx.export.deploy.versioned_folder import ModelPlan, Plan, apply, existing_versions
from ptychonnx.export.deploy.versions import plan_versions
from ptychonnx.runtime.atomic import working_folder
from ptychonnx.runtime.errors import EnvironmentFailure, InputError
from tests.export.deployed import artifact, deployable, files_of, fixed_artifact

BIG = bytes(range(256)) * 4096


def plan_of(root: Path, version: int, *, name: str = "net", remove: tuple[int, ...] = ()) -> Plan:
    """Two large files a version, and a configuration that names it."""
    files = {"README.md": b"x" * version, "config": str(version).encode()}
    model = ModelPlan(name, version, {"model.onnx": BIG, "settings": BIG}, files, remove)
    return Plan(root, (model,), {"list": f"{name} {version}".encode()})


def snapshot(root: Path) -> dict[str, bytes]:
    return {name: (root / name).read_bytes() for name in files_of(root)}


def test_a_new_model_and_its_second_version(tmp_path):
    root = tmp_path / "deep" / "repo"
    apply(plan_of(root, 1))
    apply(plan_of(root, 2))
    versions = {f"net/{version}/{file}" for version in (1, 2) for file in ("model.onnx", "settings")}
    assert files_of(root) == versions | {"net/README.md", "net/config", "list"}
    assert (root / "net" / "config").read_bytes() == b"2"
    assert [path.name for path in root.parent.iterdir()] == ["repo"]


def test_a_polling_reader_never_sees_half_of_a_version(tmp_path):
    root = tmp_path / "repo"
    apply(plan_of(root, 1))
    stop, seen, faults = threading.Event(), set(), []

    def poll() -> None:
        while not stop.is_set():
            for entry in [path.name for path in root.iterdir()]:
                if entry == "list":
                    continue
                if entry != "net":
                    faults.append(f"{entry} in the root")
                    continue
                # The configuration first: what it names must be there already.
                named = int((root / "net" / "config").read_bytes())
                for version in [*existing_versions(root / "net"), named]:
                    seen.add(version)
                    try:
                        sizes = {
                            (root / "net" / str(version) / file).stat().st_size
                            for file in ("model.onnx", "settings")
                        }
                    except FileNotFoundError:
                        # Removed between the listing and the look: then the whole folder is gone.
                        if version == named and (root / "net" / "config").read_bytes() == str(named).encode():
                            faults.append(f"version {version} is named and not there")
                        elif (root / "net" / str(version)).exists():
                            faults.append(f"version {version} is not whole")
                        continue
                    if sizes != {len(BIG)}:
                        faults.append(f"version {version} has {sizes}")

    reader = threading.Thread(target=poll)
    reader.start()
    try:
        for version in range(2, 42):
            apply(plan_of(root, version, remove=(version - 2,) if version > 2 else ()))
    finally:
        stop.set()
        reader.join()
    assert not faults
    assert len(seen) > 5
    assert existing_versions(root / "net") == [40, 41]


def test_a_new_model_appears_whole(tmp_path):
    root = tmp_path / "repo"
    root.mkdir()
    stop, faults, seen = threading.Event(), [], 0

    def poll() -> None:
        nonlocal seen
        while not stop.is_set():
            for entry in [path.name for path in root.iterdir()]:
                seen += 1
                if entry != "list" and len(files_of(root / entry)) != 4:
                    faults.append(entry)

    reader = threading.Thread(target=poll)
    reader.start()
    try:
        for number in range(30):
            apply(plan_of(root, 1, name=f"net{number}"))
    finally:
        stop.set()
        reader.join()
    assert seen
    assert not faults


@pytest.mark.parametrize("fail_at", range(1, 7))
def test_an_error_in_the_middle_restores_the_previous_state(tmp_path, monkeypatch, fail_at):
    root = tmp_path / "repo"
    apply(plan_of(root, 1))
    before = snapshot(root)
    plan = plan_of(root, 2)
    two = Plan(root, (*plan.models, *plan_of(root, 1, name="other").models), plan.files)
    calls = 0

    def failing(original: Callable[[Path, Path], Path]) -> Callable[[Path, Path], Path]:
        def count(self: Path, target: Path) -> Path:
            nonlocal calls
            calls += 1
            if calls == fail_at:
                raise OSError(28, "No space left on device", str(self))
            return original(self, target)

        return count

    monkeypatch.setattr(Path, "rename", failing(Path.rename))
    monkeypatch.setattr(Path, "replace", failing(Path.replace))
    if fail_at == 6:
        apply(two)
        assert calls == 5
        return
    with pytest.raises(EnvironmentFailure, match="No space left on device"):
        apply(two)
    monkeypatch.undo()
    assert snapshot(root) == before
    assert sorted(path.name for path in root.iterdir()) == ["list", "net"]
    assert [path.name for path in tmp_path.iterdir()] == ["repo"]


def test_a_root_that_was_made_for_nothing_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "_place", lambda *_: (_ for _ in ()).throw(OSError(28, "No space", "x")))
    with pytest.raises(EnvironmentFailure):
        apply(plan_of(tmp_path / "repo", 1))
    assert not list(tmp_path.iterdir())


def test_a_version_that_came_meanwhile_is_not_overwritten(tmp_path):
    root = tmp_path / "repo"
    apply(plan_of(root, 1))
    before = snapshot(root)
    with pytest.raises(InputError, match="exists already"):
        apply(plan_of(root, 1))
    assert snapshot(root) == before


def test_a_second_deployment_waits_its_turn(tmp_path):
    root = tmp_path / "repo"
    apply(plan_of(root, 1))
    with working_folder(root), pytest.raises(InputError, match="another process is writing it"):
        apply(plan_of(root, 2))
    apply(plan_of(root, 2))


def test_a_mounted_root_is_refused(tmp_path, monkeypatch):
    root = tmp_path / "repo"
    root.mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda self: self == root)
    with pytest.raises(InputError, match="root of a mounted file system"):
        apply(plan_of(root, 1))


def test_files_that_stay_the_same_keep_their_time(tmp_path):
    root = tmp_path / "repo"
    apply(plan_of(root, 1))
    time = (root / "list").stat().st_mtime_ns
    plan = plan_of(root, 2)
    assert f"keep    {root / 'list'} (5 bytes)" in Plan(root, plan.models, {"list": b"net 1"}).lines()
    apply(Plan(root, plan.models, {"list": b"net 1"}))
    assert (root / "list").stat().st_mtime_ns == time


def test_only_numbers_are_versions(tmp_path):
    for name in ("1", "12", "03", "0", "warmup", "²", "-1"):
        (tmp_path / name).mkdir()
    (tmp_path / "7").write_text("a file")
    assert existing_versions(tmp_path) == [1, 12]
    assert existing_versions(tmp_path / "missing") == []
    with pytest.raises(InputError, match="is a file"):
        existing_versions(tmp_path / "7")


def versions_at(root: Path, *numbers: int) -> None:
    for number in numbers:
        artifact(root / "small" / str(number) / "model.onnx")


def test_versions_are_numbered_kept_and_removed(tmp_path):
    new = deployable(tmp_path / "small.onnx")
    root = tmp_path / "repo"
    assert plan_versions(root, new, DeployOptions()).new == 1
    versions_at(root, 2, 5, 11)
    found = plan_versions(root, new, DeployOptions(append_version=True, prune=2))
    assert (found.new, found.removed, list(found.contracts)) == (12, (2, 5), [11, 12])
    found = plan_versions(root, new, DeployOptions(append_version=True))
    assert (found.removed, list(found.contracts), list(found.served(2))) == ((), [2, 5, 11, 12], [11, 12])


def test_an_existing_model_is_refused_without_the_option(tmp_path):
    versions_at(tmp_path / "repo", 3)
    with pytest.raises(InputError, match=r"its newest version is 3; --append-version adds one"):
        plan_versions(tmp_path / "repo", deployable(tmp_path / "small.onnx"), DeployOptions())


def test_a_version_with_another_interface_is_refused(tmp_path):
    root = tmp_path / "repo"
    fixed_artifact(root / "small" / "1" / "model.onnx", 4)
    new = deployable(tmp_path / "small.onnx")
    with pytest.raises(InputError, match=r"takes .*\[batch, 1, 16, 16\], .* takes .*\[4, 1, 16, 16\]"):
        plan_versions(root, new, DeployOptions(append_version=True))


def test_a_broken_version_is_left_alone_and_not_served(tmp_path):
    root = tmp_path / "repo"
    versions_at(root, 1)
    (root / "small" / "2").mkdir()
    found = plan_versions(
        root, deployable(tmp_path / "small.onnx"), DeployOptions(append_version=True, serve=2)
    )
    assert (found.new, list(found.served(2))) == (3, [1, 3])
