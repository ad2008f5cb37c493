"""What a sweep has found: tables, differences, plots, the report."""
