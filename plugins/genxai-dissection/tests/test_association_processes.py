"""Two processes count what one does, bit for bit."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import sys
from pathlib import Path
from quadrants import Quadrants, deep
from genxai_core import Runtime, create

for threshold in ("quantile", "iqr"):
    method = create("explainer/gan-dissection", segmenter=Quadrants(), samples=23, threshold_samples=11, quantile=0.9,
                    examples=3, threshold=threshold)
    runtime = Runtime(device="cpu", quiet=True, batch_size=4, checkpoints=Path(sys.argv[1]) / "kept" / threshold,
                      checkpoint_seconds=0.0)
    found = method.explain(deep(), runtime=runtime)
    found.save(Path(sys.argv[1]) / f"{threshold}-{runtime.processes}-{runtime.rank}")
"""


@pytest.mark.slow
def test_two_processes_find_what_one_does(tmp_path):
    script = tmp_path / "dissect.py"
    script.write_text(SCRIPT)
    support = os.pathsep.join(path for path in sys.path if path.endswith("support"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": support}
    for n in ("1", "2"):
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", n]
        done = subprocess.run(
            [*launch, str(script), str(tmp_path)], env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
    for threshold in ("quantile", "iqr"):
        arrays = [
            (tmp_path / f"{threshold}-{who}" / "arrays.safetensors").read_bytes() for who in ("1-0", "2-0", "2-1")
        ]
        assert arrays[0] == arrays[1]
        assert arrays[0] == arrays[2]
        assert len(list((tmp_path / "kept" / threshold).glob("dissection-*-of-2"))) == 2
