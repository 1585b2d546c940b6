"""A small training run in a process of its own, for tests that kill it or run it twice at a time.

Usage: run_toy.py FOLDER WITH_BATCH_NORM EPOCHS RATED. Weights go to FOLDER/weights.pt.
"""

import os
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from training.toys import create_toy, create_toy_without_batch_norm, rated_data, toy_data

from nodulemc.training.config import parse_config
from nodulemc.training.devices import create_accelerator
from nodulemc.training.trainer import train_seed


def main() -> None:
    folder, epochs = Path(sys.argv[1]), int(sys.argv[3])
    batch_norm, rated = (argument == "True" for argument in (sys.argv[2], sys.argv[4]))
    torch.set_num_threads(1)
    run = {"epochs": epochs, "batch_size": 4, "workers": 0, "precision": "fp32"}
    model = {"kinetics": None, "attributes": ["texture"] if rated else []}
    config = parse_config({"model": model, "run": run, "optimizer": {"learning_rate": 0.01}}, "test")
    accelerator = create_accelerator("fp32")
    # Processes that do not know of each other would give a single one's weights, too.
    assert accelerator.num_processes == int(os.environ.get("WORLD_SIZE", "1"))
    create = create_toy if batch_norm else create_toy_without_batch_norm
    trained = train_seed(
        config, rated_data() if rated else toy_data(), folder, 5, accelerator, resume=True, create=create
    )
    if accelerator.is_main_process:
        torch.save(trained.state_dict, folder / "weights.pt")
    accelerator.end_training()


if __name__ == "__main__":
    main()
