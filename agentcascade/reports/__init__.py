"""HTML reports, one self-contained file each with plots: of a tuning, a log, a benchmark run, or the live database."""
