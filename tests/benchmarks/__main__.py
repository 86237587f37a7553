"""``python -m tests.benchmarks``: all benchmarks of a CPU, one after the other; each writes its JSON into results/."""

import subprocess
import sys

from tests.benchmarks import checkpoints, figure, growth, peers, plan, readme, report, service, worker_memory

service.main()
readme.main()
report.main([])
growth.main([])
plan.main([])
worker_memory.main()
checkpoints.main([])
# a process of its own: how it takes memory is settled when it starts
subprocess.run([sys.executable, "-m", "tests.benchmarks.lanes"], check=True)
failed = peers.main([])
failed |= peers.main([*("--epochs", "10"), *("--only", "gridsearch"), *("--name", "peers-long")])
figure.main()
sys.exit(failed)
