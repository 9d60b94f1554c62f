"""Training of priors and regressors on your own pictures."""
