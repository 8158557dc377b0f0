"""Analysis of models: baselines, surprisal, hidden units, gradients, memorization."""
