"""The README's own method runs as it stands there, within its budget, and resumes."""

import re
import subprocess
import sys
from pathlib import Path

README = (Path(__file__).parent.parent / "README.md").read_text()
(EXAMPLE,) = [block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "my_method.py" in block]

# Appended to the example: the same run whole, and stopped after its twentieth step.
CHECK = """
import sys
from cbbt.learning.progress import Progress
config = cbbt.RunConfig("digits", "random_search", max_loss_queries=60)
calm = cbbt.run(config, out=sys.argv[1] + "/calm")
save = Progress.save
def stop(self, tensors, **own):
    save(self, tensors, **own)
    if self.step == 20:
        raise KeyboardInterrupt
Progress.save = stop
try:
    cbbt.run(config, out=sys.argv[1] + "/killed", save_every=-1)
except KeyboardInterrupt:
    Progress.save = save
killed = cbbt.run(config, out=sys.argv[1] + "/killed")
assert calm["queries"]["loss_queries"] == 60 and calm["learned"] == 128
assert calm["scores"] == killed["scores"] and calm["history"] == killed["history"] and calm["queries"] == killed["queries"]
assert killed["repeated_queries"]["loss_queries"] == 0
losses = [row["train_loss"] for row in calm["history"]]
assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]
print("as promised")
"""


def test_a_method_of_ones_own_takes_under_forty_lines():
    assert len(EXAMPLE.splitlines()) < 40


def test_a_method_of_ones_own_runs_and_resumes(tmp_path):
    (tmp_path / "my_method.py").write_text(EXAMPLE + CHECK)
    done = subprocess.run([sys.executable, "my_method.py", "runs"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith("{'test_accuracy'") and "as promised" in done.stdout
