"""InterCode-SQL: questions about twenty databases, answered by queries that are run and read step by step."""
