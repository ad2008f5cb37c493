"""What a run and a sweep leave on disk: run directory, ledger, tables, plots, report."""
