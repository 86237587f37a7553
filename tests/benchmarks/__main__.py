"""``python -m tests.benchmarks``: all benchmarks, one after the other; each writes its JSON into results/."""

import sys

from tests.benchmarks import figure, growth, peers, readme, report, service

service.main()
readme.main()
report.main([])
growth.main([])
failed = peers.main([])
figure.main()
sys.exit(failed)
