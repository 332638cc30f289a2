#!/usr/bin/env bash
# Train a general network at N = 64 and measure it on unseen beams: benchmarks/general_recipe.sh [FOLDER].
# An interrupted call continues where it stopped. EPOCHS and SCANS may be set in the environment.
set -euo pipefail
folder=${1:-general}
scans=${SCANS:-56} epochs=${EPOCHS:-2}
ptychonnx simulate family --scans "$scans" --grid 12 --max-modes 2 --out "$folder/family"
ptychonnx train hybrid --data "$folder/family" --out "$folder/any_64" --epochs "$epochs" --batch 16 --overlap 4 --seed 0 --resume
ptychonnx export "$folder/any_64" --out "$folder/any_64.onnx" --general --modes 4
python -m benchmarks.unseen_beams "$folder/any_64.onnx" --out "$folder/unseen_beams.json"
