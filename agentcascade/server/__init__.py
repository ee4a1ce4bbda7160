"""The proxy that `agentcascade serve` runs: OpenAI-compatible routes over one core, and a page that shows it."""
