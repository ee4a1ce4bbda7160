"""Questions on long histories: LoCoMo, LongMemEval and HotpotQA as they are published."""
