"""Existing agents on the cascade by two or three lines: the OpenAI SDK, litellm, LangChain."""
