"""Step-level and response-level benchmarks: how good the scores themselves are."""
