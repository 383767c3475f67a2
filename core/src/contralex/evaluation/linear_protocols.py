"""The linear evaluations of papers, by name: how their official code trains a linear classifier on a frozen encoder.

Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from contralex.errors import ContralexError, did_you_mean, find_similar


@dataclass(frozen=True)
class LinearProtocol:
    """Epochs, batches, crops and the optimiser of one paper's linear evaluation.

    ``rate``: the learning rate, for each 256 samples of a batch where ``scaled``. ``schedule``: ``half-cosine`` to 0,
    or ``steps``: a tenth at each of ``milestones`` (epochs). ``per``: how often the rate changes. ``trust``: the
    coefficient of LARS; None: SGD. ``crop``: the law by which random crops are drawn (see ``Crop.drawn``), of 8 to
    100 % of the area. ``normalize``: a BatchNorm without weights stands before the classifier. ``init_std``: of the
    first weights. Other fields: as :class:`contralex.evaluation.sgd_probe.SweepTrainer` has them.
    """

    name: str
    source: str
    epochs: int
    batch_size: int
    rate: float
    scaled: bool
    schedule: Literal["half-cosine", "steps"] = "half-cosine"
    milestones: tuple[int, ...] = ()
    warmup_epochs: int = 0
    per: Literal["epoch", "step"] = "epoch"
    weight_decay: float = 0.0
    momentum: float = 0.9
    nesterov: bool = False
    trust: float | None = None
    decay_bias: bool = True
    trust_bias: bool = False
    normalize: bool = False
    init_std: float = 0.01
    crop: Literal["area", "height"] = "area"
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    def describe(self) -> dict[str, Any]:
        """For the result: what is not as in plain SGD is named where it is set."""
        optimizer = f"LARS, trust {self.trust:g}" if self.trust is not None else "SGD"
        rest: dict[str, Any] = {
            "optimizer": f"{optimizer}, momentum {self.momentum:g}{', Nesterov' if self.nesterov else ''}",
            "schedule": self.schedule,
            **({"milestones": list(self.milestones)} if self.schedule == "steps" else {}),
            **({"warmup_epochs": self.warmup_epochs} if self.warmup_epochs else {}),
            "rate_changes_each": self.per,
            "rate_per_256_samples" if self.scaled else "rate": self.rate,
            "weight_decay": self.weight_decay,
            "init_std": self.init_std,
        }
        return {"protocol": self.name, "source": self.source, **rest, "batch_norm_before": self.normalize}


_SWAV = LinearProtocol(
    "swav", "SwAV's eval_linear.py (arXiv:2006.09882)", 100, 256, rate=0.3, scaled=False, weight_decay=1e-6
)

PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        LinearProtocol(
            "moco-v2",
            "MoCo's main_lincls.py (arXiv:1911.05722, section 4.1; arXiv:2003.04297)",
            epochs=100,
            batch_size=256,
            rate=30.0,
            scaled=False,
            schedule="steps",
            milestones=(60, 80),
        ),
        LinearProtocol(
            "simclr",
            "SimCLR's README and model.py (arXiv:2002.05709, appendix B.6)",
            epochs=90,
            batch_size=4096,
            rate=0.1,
            scaled=True,
            per="step",
            weight_decay=1e-6,
            nesterov=True,
            decay_bias=False,
            init_std=0.0,
            crop="height",
            interpolation="bicubic",
        ),
        _SWAV,
        replace(_SWAV, name="barlow-twins", source="Barlow Twins' evaluate.py (arXiv:2103.03230)"),
        replace(_SWAV, name="vicreg", source="VICReg's evaluate.py (arXiv:2105.04906)"),
        LinearProtocol(
            "simsiam",
            "SimSiam's main_lincls.py with --lars (arXiv:2011.10566)",
            epochs=100,
            batch_size=4096,
            rate=0.1,
            scaled=True,
            trust=1e-3,
            trust_bias=True,
        ),
        LinearProtocol(
            "byol",
            "BYOL's eval_experiment.py and configs/eval.py (arXiv:2006.07733, appendix C.1)",
            epochs=80,
            batch_size=1024,
            rate=0.2,
            scaled=True,
            per="step",
            nesterov=True,
            crop="height",
            interpolation="bicubic",
        ),
        LinearProtocol(
            "moco-v3",
            "MoCo v3's main_lincls.py (arXiv:2104.02057)",
            epochs=90,
            batch_size=1024,
            rate=0.1,
            scaled=True,
        ),
        LinearProtocol(
            "dino",
            "DINO's eval_linear.py on 8 GPUs (arXiv:2104.14294), on the features that the run keeps",
            epochs=100,
            batch_size=1024,
            rate=1e-3,
            scaled=True,
        ),
        LinearProtocol(
            "mae",
            "MAE's main_linprobe.py (arXiv:2111.06377, appendix A.1, table 10)",
            epochs=90,
            batch_size=16384,
            rate=0.1,
            scaled=True,
            warmup_epochs=10,
            per="step",
            trust=1e-3,
            decay_bias=False,
            normalize=True,
            interpolation="bicubic",
        ),
    )
}


def find_protocol(name: str) -> LinearProtocol:
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    hint = did_you_mean(find_similar(name, PROTOCOLS)) or f"there are {', '.join(PROTOCOLS)}"
    raise ContralexError(f"protocol {name}: there is no such linear evaluation; {hint}")
