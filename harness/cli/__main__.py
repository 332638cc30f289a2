"""`python -m harness.cli`, the same as `ptychonnx`."""

from harness.cli.app import main

if __name__ == "__main__":
    main()
