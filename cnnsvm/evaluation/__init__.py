"""How far a detector can be trusted: grouped cross-validation, intervals, negative controls."""
