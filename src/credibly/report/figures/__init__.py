"""What is computed: every figure of report.json, each in a module of its own."""
