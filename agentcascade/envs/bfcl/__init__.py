"""BFCL's single-turn tool calls: questions, recorded answers of real models, prices of the time, the official check."""
