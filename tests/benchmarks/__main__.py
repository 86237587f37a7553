"""``python -m tests.benchmarks``: all benchmarks, one after the other; each writes its JSON into results/."""

from tests.benchmarks import readme, service

service.main()
readme.main()
