"""Simulate an attacked and defended federated training: ``python run_sim.py --help``."""

from byzflower.server.cli import main

if __name__ == "__main__":
    main()
