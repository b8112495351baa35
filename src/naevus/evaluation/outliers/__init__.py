"""How unlike the training pictures a picture is, from a classifier's embedding and logits."""
