"""`python -m benchmarks [NAME]`."""

from benchmarks.run import main

main()
