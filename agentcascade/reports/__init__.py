"""Reports: one self-contained HTML file each, with plots, from a tuning, a log, a run or the live database."""
