"""Deployment of artifacts: folders in the layouts of inference servers, see `docs/how-to/deploy.md`.

`deployable` checks the artifacts, `deploy_options` holds the settings, and `versioned_folder` writes new versions so
that a running server never reads a partial one. `triton`, `openvino`, `mlserver` and `kserve` each know one layout.
"""
