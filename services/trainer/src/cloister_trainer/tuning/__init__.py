"""What a model may cost: parameters, bits, pruning and pooling, chosen by accuracy and cost."""
