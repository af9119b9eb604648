"""Watch a PyTorch training run from outside: what its gradients do, recorded into a run file, its numbers unchanged."""
