"""vLLM servers for students: started, registered, measured, balanced."""
