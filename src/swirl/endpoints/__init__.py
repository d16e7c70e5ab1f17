"""Models that answer over HTTP: any server that speaks OpenAI's completions or chat protocol."""
