"""Results: RESULTS.md and a page a question, from the committed records."""
