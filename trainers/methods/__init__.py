"""Methods: how labels teach a prompt learner."""
