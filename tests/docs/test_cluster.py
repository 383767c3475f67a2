"""The submit script of docs/cluster.md, with stand-ins for SLURM's commands."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
_SRUN = """#!/bin/bash
shift  # --kill-on-bad-exit=1
for task in 0 1; do SLURM_PROCID=$task SLURM_LOCALID=$task "$@" || code=$?; done
exit "${code:-0}"
"""
_SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then printf 'node-a\\nnode-b\\n'; else echo "$@" >> "$HERE/requeued"; fi
"""
_CONTRALEX = """#!/bin/bash
echo "$MASTER_ADDR:$MASTER_PORT $RANK/$WORLD_SIZE $LOCAL_RANK/$LOCAL_WORLD_SIZE $*" >> "$HERE/tasks"
exit "$ENDS_WITH"
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    commands = {"srun": _SRUN, "scontrol": _SCONTROL, "contralex": _CONTRALEX}
    (tmp_path / "bin").mkdir()
    for name, text in commands.items():
        path = tmp_path / "bin" / name
        path.write_text(text)
        path.chmod(0o755)
    return tmp_path


def submit(cluster: Path, ends_with: int) -> tuple[int, list[str], bool]:
    """The exit code, what each task was called with, and whether the job was queued again."""
    (cluster / "tasks").unlink(missing_ok=True)
    (cluster / "requeued").unlink(missing_ok=True)
    job = {"JOB_ID": 41, "JOB_NODELIST": "node-[a-b]", "NTASKS": 2, "NTASKS_PER_NODE": 1, "CPUS_PER_TASK": 8}
    env = {
        **os.environ,
        **{f"SLURM_{name}": str(value) for name, value in job.items()},
        "PATH": f"{cluster / 'bin'}:{os.environ['PATH']}",
        "HERE": str(cluster),
        "ENDS_WITH": str(ends_with),
    }
    command = ["bash", str(DOCS / "slurm.sh"), "moco-v2", "--data", "/shared/my images"]
    code = subprocess.run(command, check=False, cwd=cluster, env=env).returncode
    return code, (cluster / "tasks").read_text().splitlines(), (cluster / "requeued").exists()


def test_a_job_that_was_stopped_is_queued_again_and_resumed(cluster: Path) -> None:
    code, tasks, requeued = submit(cluster, ends_with=143)
    assert (code, requeued) == (143, True)
    begins = "train moco-v2 --data /shared/my images --out runs/41 --set train.workers=7"
    assert tasks == [f"node-a:20041 0/2 0/1 {begins}", f"node-a:20041 1/2 1/1 {begins}"]
    (cluster / "runs" / "41").mkdir(parents=True)
    code, tasks, requeued = submit(cluster, ends_with=0)
    assert (code, requeued) == (0, False)
    assert [task.split(" ", 3)[3] for task in tasks] == ["train --out runs/41 --resume"] * 2


def test_a_job_that_failed_is_not_queued_again(cluster: Path) -> None:
    code, _, requeued = submit(cluster, ends_with=1)
    assert (code, requeued) == (1, False)


def test_the_commands_of_the_page_have_bash_s_syntax() -> None:
    text = (DOCS / "cluster.md").read_text()
    blocks = [block.split("```")[0] for block in text.split("```bash\n")[1:]]
    assert len(blocks) == 2
    for block in blocks:
        subprocess.run(["bash", "-n"], input=block, text=True, check=True)
