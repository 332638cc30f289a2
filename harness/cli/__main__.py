"""`python -m ptychonnx.harness.cli`, the same as `ptychonnx`."""

from ptychonnx.harness.cli import main

if __name__ == "__main__":
    main()
