"""Step log: steps that student and teacher both answered, which tuning learns from.

`database.export` reads it from the database; `files.read_log` and `files.write_log` from and to JSONL or Parquet;
`foreign` and `matching` make one of OpenAI's, litellm's and Langfuse's logs.
"""
