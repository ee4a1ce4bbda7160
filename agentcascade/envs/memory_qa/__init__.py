"""Memory benchmarks, questions on long histories: LoCoMo, LongMemEval and HotpotQA as published."""
