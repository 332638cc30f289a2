"""`python -m ptychonnx`, the same as the command `ptychonnx`."""

from ptychonnx.harness.cli import main

if __name__ == "__main__":
    main()
