"""Top-k accuracy."""

__all__ = ["compute_accuracy"]


def compute_accuracy(output, target, topk=(1,)):
    """Return the top-k accuracies in percent, one tensor of shape (1,) per k.

    output: logits (B, C), or a tuple or list that begins with them; target: labels (B,).
    Raises RuntimeError for a k above C.
    """
    if isinstance(output, (tuple, list)):
        output = output[0]
    if max(topk) > output.shape[1]:
        raise RuntimeError(f"top-{max(topk)} accuracy needs at least {max(topk)} classes, but got {output.shape[1]}")
    predictions = output.topk(max(topk), dim=1).indices  # (B, K)
    correct = predictions.eq(target.view(-1, 1)).float()
    return [correct[:, :k].sum().view(1) * (100.0 / target.shape[0]) for k in topk]
