"""What makes a digits preset a run of seconds, on the folder of small images of ``conftest.py``."""

TINY = [
    "method.encoder.backbone={kind: conv, widths: [8], strides: [4]}",
    "train.epochs=2",
    "train.batch_size=8",
    "train.precision=fp32",
    "train.workers=0",
    "train.log_every=2",
    "eval.knn=null",
]
