"""Two processes train as one would."""

import json
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from neurodyn.checkpoints import read_tensors, write_tensors
from neurodyn.series import SeriesBatch
from neurodyn.training import FitConfig, Loss, fit


class Shift(nn.Module):
    """Rows of different weight around one mean; starts elsewhere in each process."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.full((2,), start))
        self.unused = nn.Parameter(torch.ones(1))

    def loss(self, batch: SeriesBatch, *, generator: torch.Generator | None = None) -> Loss:
        squares = ((batch.values - self.mean) ** 4 * batch.mask).sum((1, 2))
        zero = torch.zeros_like(squares)
        return Loss(-squares, zero, zero, zero)


def rows() -> SeriesBatch:
    values = torch.randn(5, 4, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return SeriesBatch(torch.arange(4.0).expand(5, 4), values)


def train(start: float, folder: Path | None) -> dict[str, Tensor]:
    """Chunks of 1, 2 and 2 rows: a process gets two, one or none."""
    model = Shift(start)
    config = FitConfig(
        steps=11,
        batch_size=2,
        learning_rate=0.1,
        warmup_steps=0,
        clip_norm=3.0,
        precision="float64",
        device="cpu",
        progress=False,
        validate_every=4,
        ema=0.8,
    )
    result = fit(model, rows(), rows(), config, folder=folder)
    losses = [r["objective"] for r in result.history if "objective" in r]
    norms = [r["gradient_norm"] for r in result.history if "objective" in r]
    numbers = torch.tensor([*losses, *norms, result.best_step, result.best_value], dtype=torch.float64)
    return {"mean": model.mean.detach(), "numbers": numbers}


def worker(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    write_tensors(folder / f"rank{rank}.safetensors", train(0.1 + rank, folder / "run"))
    dist.destroy_process_group()


def test_two_processes_make_the_steps_of_one(tmp_path):
    mp.spawn(worker, (tmp_path,), nprocs=2)
    alone = train(0.1, None)
    for rank in range(2):
        found = read_tensors(tmp_path / f"rank{rank}.safetensors")
        assert torch.allclose(found["mean"], alone["mean"], rtol=1e-12, atol=0)
        assert torch.allclose(found["numbers"], alone["numbers"], rtol=1e-12, atol=0)
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["checkpoint", "metrics.jsonl"]
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [4, 4, 8, 8, 10, 11, 11], "written once, by one process"
