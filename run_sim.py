"""Simulate an attacked and defended federated training: ``python run_sim.py --help``."""

from byzflower.cli.main import main

if __name__ == "__main__":
    main()
